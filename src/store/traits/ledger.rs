//! The ledger, signed and proven; and the upkeep of the store beneath it.
//!
//! Invariant: an entry is appended and never changed; retention removes its text and keeps its hash.

use crate::model::{Actor, EntryKind, EntryLinks, EntryNo, Span, Time};
use crate::store::ledger::{Checkpoint, LeafHash, SigningKey};
use crate::store::{ClockMark, RawEntry, StoreError};
use std::sync::Arc;
use std::time::Duration;

#[async_trait::async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Appends a bare entry, for what happens outside runs; returns its number.
    async fn note(&self, actor: Actor, about: EntryLinks, kind: EntryKind, now: Time) -> Result<EntryNo, StoreError>;

    /// Entries as they are stored, behind `after`, in order, at most `limit` and `limits::READ_LIMIT`.
    async fn raw_entries(&self, after: Option<EntryNo>, limit: usize) -> Result<Vec<RawEntry>, StoreError>;

    /// Signs the present tree and keeps the checkpoint. Returns it, or the last one if nothing is new; none for an empty
    /// ledger.
    async fn checkpoint(&self, key: Arc<SigningKey>, now: Time) -> Result<Option<Checkpoint>, StoreError>;

    /// Checkpoints over more than `after` entries, the smallest first, at most `limit` and `limits::READ_LIMIT`.
    async fn checkpoints(&self, after: u64, limit: usize) -> Result<Vec<Checkpoint>, StoreError>;

    /// The leaf's hash and the audit path of `no` in the tree of the first `size` entries.
    ///
    /// # Errors
    /// `Refused` where the ledger has fewer entries, or `no` is not among them.
    async fn inclusion(&self, no: EntryNo, size: u64) -> Result<(LeafHash, Vec<LeafHash>), StoreError>;

    /// The proof that the tree of the first `new` entries extends that of the first `old`.
    ///
    /// # Errors
    /// `Refused` where the ledger has fewer entries, or `old` is zero or more than `new`.
    async fn consistency(&self, old: u64, new: u64) -> Result<Vec<LeafHash>, StoreError>;

    /// Moves the mark up to which retention counts on by that much, and never beyond the newest entry or `now`; `sweep` goes by
    /// it. A store without a mark begins with the last entry before this start. Returns the mark.
    async fn retain_until(&self, further: Duration, now: Time) -> Result<Time, StoreError>;

    /// Removes at most `limits::SWEEP_ROWS` rows that are older than their retention. Returns how many.
    async fn sweep(&self, episodes: Span, bodies: Span, now: Time) -> Result<u64, StoreError>;

    /// The wall clock was set by so many microseconds: in one transaction everything that waits is moved with it (waking,
    /// deadlines, expiry, messages, windows that guards count in), and `text` becomes an entry. Returns how many rows.
    async fn shift_timers(&self, by: i64, text: String, now: Time) -> Result<u64, StoreError>;

    /// The mark that `keep_clock_mark` has kept, moved by every `shift_timers` since; none before the first.
    async fn clock_mark(&self) -> Result<Option<ClockMark>, StoreError>;

    /// Keeps by which clock the times in the store were written, for the next start.
    async fn keep_clock_mark(&self, mark: ClockMark) -> Result<(), StoreError>;

    /// Folds a log that the database writes ahead of its file into it as far as possible, so that a copy of the file alone is
    /// near complete. While it fails nothing is lost, the log keeps everything; channels are notified once, and again when it
    /// works.
    ///
    /// # Errors
    /// `Busy` where another program reads an older state.
    async fn fold(&self, now: Time) -> Result<(), StoreError>;

    /// The epoch of this process.
    ///
    /// # Errors
    /// Where a row cannot be written now; `Busy` where the disk is full.
    async fn health(&self) -> Result<i64, StoreError>;

    /// Commits what is queued, folds the log, releases the lock. Everything is refused from then on; a second time changes
    /// nothing.
    async fn close(&self) -> Result<(), StoreError>;
}
