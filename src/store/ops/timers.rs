//! The wall clock was set for good: timers are moved with it, so that each fires after its full wait.
//!
//! Invariant: history keeps its time; only future times, and the windows that guards count in, are moved, all in one
//! transaction with the entry about it.

use super::tx::Tx;
use crate::model::{Actor, EntryKind, EntryLinks, Time};
use crate::store::db::{Db, exec, one, params};
use crate::store::{ClockMark, StoreError};

/// `?1`: microseconds. The end of a token and of a certificate is a moment that others were given, so it stays.
const MOVED: [&str; 17] = [
    "UPDATE run SET wake_at = wake_at + ?1 WHERE wake_at IS NOT NULL",
    // How long it has waited is counted from its beginning; the ledger keeps when that was.
    "UPDATE step SET begun_at = begun_at + ?1, deadline = deadline + ?1 WHERE ended_at IS NULL",
    "UPDATE approval SET asked_at = asked_at + ?1, expires_at = expires_at + ?1 WHERE state = 'open'",
    // Channels without news, too: their next message is sent no earlier than this.
    "UPDATE outbox SET next_at = next_at + ?1, first_at = first_at + ?1",
    "UPDATE incident SET resolves_at = resolves_at + ?1 WHERE resolves_at IS NOT NULL",
    "UPDATE record SET bake_until = bake_until + ?1 WHERE bake_until IS NOT NULL",
    "UPDATE freeze SET until = until + ?1, release_at = release_at + ?1",
    "UPDATE breaker SET reset_at = reset_at + ?1 WHERE reset_at IS NOT NULL",
    // A source is silent by the time that has passed, whatever the clock shows.
    "UPDATE episode SET last_seen = last_seen + ?1 WHERE state = 0",
    "UPDATE taken SET at = at + ?1",
    "UPDATE attempt SET at = at + ?1",
    "UPDATE hit SET at = at + ?1",
    "UPDATE symptom SET at = at + ?1",
    "UPDATE flap SET at = at + ?1",
    "UPDATE replica SET at = at + ?1",
    // The first of two users is waited for.
    "UPDATE redaction SET at = at + ?1",
    // With the times that it marks: a process that ends here does not move them once more at its next start.
    "UPDATE setting SET value = value + ?1 WHERE name = 'clock_offset'",
];

/// Names in the table `setting`.
const MARK: [&str; 3] = ["clock_boot", "clock_offset", "clock_running"];

pub(crate) fn clock_mark(conn: &dyn Db) -> Result<Option<ClockMark>, StoreError> {
    let value = |name: &str| one(conn, "SELECT value FROM setting WHERE name = ?1", [name], |row| row.get::<i64>(0));
    let [boot, offset, running] = MARK;
    let (Some(boot), Some(offset), Some(running)) = (value(boot)?, value(offset)?, value(running)?) else {
        return Ok(None);
    };
    Ok(Some(ClockMark { boot, offset, running }))
}

pub(crate) fn keep_clock_mark(tx: &mut Tx, mark: ClockMark) -> Result<(), StoreError> {
    let sql = "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
    for (name, value) in MARK.into_iter().zip([mark.boot, mark.offset, mark.running]) {
        exec(&tx.conn, sql, params![name, value])?;
    }
    Ok(())
}

pub(crate) fn shift(tx: &mut Tx, by: i64, text: String, now: Time) -> Result<u64, StoreError> {
    let mut rows = 0;
    for sql in MOVED {
        rows += exec(&tx.conn, sql, [by])? as u64;
    }
    tx.append(&Actor::engine(), EntryLinks::default(), &EntryKind::Trouble { text }, now)?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::db::all;
    use crate::store::sqlite::in_memory;

    /// History, which keeps its time, and ends that others were given.
    const STAYS: [&str; 33] = [
        "agent.issued_at",
        "agent.seen_at",
        "agent.since",
        "agent.used_since",
        "agent_join.expires_at",
        "agent_join.used_at",
        "agent_mark.at",
        "agent_removed.at",
        "api_token.expires_at",
        "api_token.made_at",
        "api_token.revoked_at",
        "api_token.used_at",
        "approval.decided_at",
        "breaker.since",
        "checkpoint.at",
        "decision.at",
        "entry.at",
        "episode.opened_at",
        "episode.starts_at",
        "freeze.since",
        "incident.closed_at",
        "incident.opened_at",
        "judgement.at",
        "level.at",
        "migration.at",
        "parked.at",
        "pin.at",
        "record.at",
        "record.ended_at",
        "run.created_at",
        "run.ended_at",
        "step.ended_at",
        "subject_link.since",
    ];

    #[test]
    fn every_column_with_a_time_is_moved_or_named_as_one_that_stays() {
        let conn = in_memory();
        let sql = "SELECT tab.name, col.name FROM sqlite_master AS tab, pragma_table_info(tab.name) AS col \
                   WHERE tab.type = 'table' AND col.type = 'INTEGER'";
        let columns: Vec<(String, String)> = all(&conn, sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let is_time = |name: &str| {
            ["at", "since", "until", "deadline", "last_seen"].contains(&name)
                || ["_at", "_since", "_until"].iter().any(|end| name.ends_with(end))
        };
        let mut moved = 0;
        for (table, column) in columns.iter().filter(|(_, column)| is_time(column)) {
            let moves = |sql: &&str| {
                sql.starts_with(&format!("UPDATE {table} SET ")) && sql.contains(&format!("{column} = {column} + ?1"))
            };
            let full = format!("{table}.{column}");
            let stays = STAYS.contains(&full.as_str());
            let is_moved = MOVED.iter().any(moves);
            assert!(is_moved != stays, "{full}: is it still to come, or history? See MOVED and STAYS");
            moved += usize::from(is_moved);
        }
        assert!(moved >= 17, "{moved}");
        for sql in MOVED {
            exec(&conn, sql, [1]).unwrap();
        }
    }
}
