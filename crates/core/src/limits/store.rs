//! The store: their bounds.
//!
//! Invariant: each number has its reason beside it, where its name does not give it.

use crate::model::Span;
use std::time::Duration;

// ── store ──
/// Operations that share one commit at most; the time is how long the first one waits for company at most.
pub const GROUP_COMMIT_OPS: usize = 512;
/// SQLite before this version can corrupt a WAL file that two connections write.
pub const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// Rows of one read.
pub const READ_LIMIT: usize = 1_000;
/// Rows of a further read for one page, after rows that could not be read.
pub const READ_AT_LEAST: usize = 100;
/// Default retention of ended episodes.
pub const RETENTION_EPISODES: Span = Span::seconds(30 * 86_400);
/// Default retention of the bodies of ledger entries.
pub const RETENTION_BODIES: Span = Span::seconds(400 * 86_400);
/// Rows removed in one transaction by the janitor, so that intake never waits for it.
pub const SWEEP_ROWS: usize = 1_000;
/// Time between two signed checkpoints of the ledger.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// A transaction takes in no more operations after this, so that the first one is not kept waiting by those behind it.
pub const GROUP_COMMIT_TIME: Duration = Duration::from_millis(20);
/// Pages in the write-ahead log before the writer folds them back: 16 MiB, so that pages written often are copied once.
pub const WAL_PAGES: i64 = 4_096;
/// Pages that may be left in the log after it was folded; more, and something keeps it from being folded: 64 MiB.
pub const WAL_PAGES_LEFT: i64 = 4 * WAL_PAGES;
/// Page caches: the writer's holds the inner pages of its indexes, a reader's one page of a screen.
pub const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// Page cache of one reader, in KiB.
pub const READER_CACHE_KIB: i64 = 2 * 1024;
/// Rows of one table that are named as unreadable, and that readers remember until the next tick: beyond that the fault
/// is the table's, and more names add nothing.
pub const UNREADABLE_ROWS: usize = 100;
/// The room that is given up on a full disk: a freeze, the ends of runs and a last notice take a few KiB each.
pub const BALLAST_BYTES: u64 = 16 * 1024 * 1024;
/// Room that must be left beside the ballast before alerts are taken again.
pub const BALLAST_MARGIN_BYTES: u64 = 4 * 1024 * 1024;
/// Epochs that a restore passes over: more starts than the life before can have had after the backup.
pub const RESTORE_EPOCHS: i64 = 1_000_000;
/// How long an incident about the store itself stays open: a restore, a loss that was accepted.
pub const STORE_NEWS_OPEN: Span = Span::minutes(60);
/// Alerts in the writer's memory before their index is written: 2 MiB, and an index of a million of them is then
/// written ten to a page.
pub const RECENT_COMPLAINTS: usize = 32_768;
/// Read connections.
pub const READERS: usize = 4;
/// Prepared statements kept for each connection; there are fewer.
pub const STATEMENTS: usize = 256;
/// No other process writes, so this only covers another program's look into the file.
pub const SQLITE_BUSY: Duration = Duration::from_secs(5);

/// Entries of its own ledger that the engine verifies in a minute.
pub const LEDGER_CHECK_ENTRIES: usize = 2_000;
/// Bytes of its own ledger that the engine verifies in a minute.
pub const LEDGER_CHECK_BYTES: usize = 16 * 1024 * 1024;
/// Entries in one read of that check: one body may be a whole request.
pub const LEDGER_CHECK_PAGE: usize = 16;
