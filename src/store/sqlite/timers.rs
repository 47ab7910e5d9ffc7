//! The wall clock was set for good: what waits is moved with it, so that it fires after the time that it was to wait.
//!
//! Invariant: what people read as history keeps its time; only what is still to come, and the windows that guards count
//! in, are moved, all in one transaction with the entry that says so.

use super::sql::exec;
use super::tx::Tx;
use crate::model::{About, Actor, EntryKind, Time};
use crate::store::StoreError;

/// `?1`: microseconds. The end of a token and of a certificate is a moment that others were given, so it stays.
const MOVED: [&str; 15] = [
    "UPDATE run SET wake_at = wake_at + ?1 WHERE wake_at IS NOT NULL",
    // How long it has waited is counted from its beginning; the ledger keeps when that was.
    "UPDATE step SET begun_at = begun_at + ?1, deadline = deadline + ?1 WHERE ended_at IS NULL",
    "UPDATE approval SET asked_at = asked_at + ?1, expires_at = expires_at + ?1 WHERE state = 'open'",
    // Those that want nothing, too: what comes next is sent no earlier than this.
    "UPDATE outbox SET next_at = next_at + ?1, first_at = first_at + ?1",
    "UPDATE incident SET resolves_at = resolves_at + ?1 WHERE resolves_at IS NOT NULL",
    "UPDATE record SET bake_until = bake_until + ?1 WHERE bake_until IS NOT NULL",
    "UPDATE freeze SET until = until + ?1, release_at = release_at + ?1",
    "UPDATE breaker SET reset_at = reset_at + ?1 WHERE reset_at IS NOT NULL",
    // A source is silent by the time that has passed, whatever the clock says.
    "UPDATE episode SET last_seen = last_seen + ?1 WHERE state = 0",
    "UPDATE taken SET at = at + ?1",
    "UPDATE attempt SET at = at + ?1",
    "UPDATE hit SET at = at + ?1",
    "UPDATE symptom SET at = at + ?1",
    "UPDATE flap SET at = at + ?1",
    "UPDATE replica SET at = at + ?1",
];

pub(super) fn shift(tx: &mut Tx, by: i64, text: String, now: Time) -> Result<u64, StoreError> {
    let mut rows = 0;
    for sql in MOVED {
        rows += exec(&tx.conn, sql, [by])? as u64;
    }
    tx.append(&Actor::engine(), About::default(), &EntryKind::Trouble { text }, now)?;
    Ok(rows)
}
