//! Upkeep: old rows go, a bounded number at a time; the ledger's hashes stay for ever.
//!
//! Invariant: nothing that is open, owned or still needed is removed, and no number is ever given twice.

use super::tx::Tx;
use crate::limits;
use crate::model::{Actor, EntryKind, EntryLinks, Span, Time};
use crate::planted::planted;
use crate::store::StoreError;
use crate::store::db::{exec, micros, number, one, params};
use std::time::Duration;

/// The rows to remove: a name for the entry, and a statement with `?1` the cutoff, `?2` the most rows and `{row}` the dialect's name
/// of a row. The newest
/// row of a table always stays, because the next number is counted from it.
const EPISODES: [(&str, &str); 14] = [
    (
        "episode",
        "DELETE FROM episode WHERE id IN (SELECT id FROM episode WHERE state <> 0 AND last_seen < ?1 \
         AND id < (SELECT max(id) FROM episode) LIMIT ?2)",
    ),
    (
        "step",
        "DELETE FROM step WHERE {row} IN (SELECT step.{row} FROM run JOIN step ON step.run = run.id \
         WHERE run.ended_at < ?1 AND NOT EXISTS (SELECT 1 FROM hold WHERE hold.run = run.id) LIMIT ?2)",
    ),
    (
        "approval",
        "DELETE FROM approval WHERE id IN (SELECT approval.id FROM run JOIN approval ON approval.run = run.id \
         WHERE run.ended_at < ?1 AND approval.id < (SELECT max(id) FROM approval) LIMIT ?2)",
    ),
    (
        "run",
        "DELETE FROM run WHERE id IN (SELECT id FROM run WHERE ended_at < ?1 AND id < (SELECT max(id) FROM run) \
         AND NOT EXISTS (SELECT 1 FROM step WHERE step.run = run.id) \
         AND NOT EXISTS (SELECT 1 FROM approval WHERE approval.run = run.id) \
         AND NOT EXISTS (SELECT 1 FROM hold WHERE hold.run = run.id) \
         AND NOT EXISTS (SELECT 1 FROM episode WHERE episode.id = run.episode AND episode.state = 0) \
         AND NOT EXISTS (SELECT 1 FROM backs JOIN episode ON episode.id = backs.episode \
                         WHERE backs.run = run.id AND episode.state = 0) LIMIT ?2)",
    ),
    (
        "backs",
        "DELETE FROM backs WHERE (run, episode) IN (SELECT backs.run, backs.episode FROM backs \
         JOIN run ON run.id = backs.run WHERE run.ended_at < ?1 \
         AND NOT EXISTS (SELECT 1 FROM episode WHERE episode.id = backs.episode AND episode.state = 0) LIMIT ?2)",
    ),
    (
        "outbox",
        "DELETE FROM outbox WHERE {row} IN (SELECT outbox.{row} FROM incident JOIN outbox ON outbox.incident = incident.id \
         WHERE incident.closed_at < ?1 LIMIT ?2)",
    ),
    (
        "incident",
        "DELETE FROM incident WHERE id IN (SELECT id FROM incident WHERE closed_at < ?1 \
         AND id < (SELECT max(id) FROM incident) \
         AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.incident = incident.id) \
         AND NOT EXISTS (SELECT 1 FROM episode WHERE episode.incident = incident.id) \
         AND NOT EXISTS (SELECT 1 FROM run WHERE run.incident = incident.id) LIMIT ?2)",
    ),
    // Who is behind a name counts as long as its word does.
    (
        "api_token",
        "DELETE FROM api_token WHERE id IN (SELECT id FROM api_token WHERE coalesce(revoked_at, expires_at) < ?1 \
         AND expires_at < ?1 AND NOT EXISTS (SELECT 1 FROM judgement WHERE who = api_token.name) \
         AND NOT EXISTS (SELECT 1 FROM record WHERE answer_by = api_token.name) LIMIT ?2)",
    ),
    ("attempt", "DELETE FROM attempt WHERE run IN (SELECT run FROM attempt WHERE at < ?1 LIMIT ?2)"),
    ("symptom", "DELETE FROM symptom WHERE {row} IN (SELECT {row} FROM symptom WHERE at < ?1 LIMIT ?2)"),
    ("flap", "DELETE FROM flap WHERE {row} IN (SELECT {row} FROM flap WHERE at < ?1 LIMIT ?2)"),
    (
        "decision",
        "DELETE FROM decision WHERE (approval, who) IN (SELECT decision.approval, decision.who FROM decision \
         WHERE NOT EXISTS (SELECT 1 FROM approval WHERE approval.id = decision.approval) AND decision.at < ?1 LIMIT ?2)",
    ),
    (
        "replica",
        "DELETE FROM replica WHERE (cluster, sets, pod, run) IN (SELECT cluster, sets, pod, replica.run FROM replica \
         LEFT JOIN run ON run.id = replica.run WHERE replica.at < ?1 AND coalesce(run.final, 1) = 1 LIMIT ?2)",
    ),
    ("hit", "DELETE FROM hit WHERE {row} IN (SELECT {row} FROM hit WHERE at < ?1 LIMIT ?2)"),
];
/// Of checkpoints past their retention the last of each hour stays; texts of runbooks stay as long as a run or the catalog has
/// them.
const KEPT: [(&str, &str); 3] = [
    (
        "checkpoint",
        "DELETE FROM checkpoint WHERE size IN (SELECT size FROM checkpoint AS old WHERE at < ?1 \
         AND at / 3600000000 = (SELECT at FROM checkpoint WHERE size > old.size ORDER BY size LIMIT 1) / 3600000000 LIMIT ?2)",
    ),
    (
        "pin",
        "DELETE FROM pin WHERE hash IN (SELECT hash FROM pin WHERE at < ?1 \
         AND NOT EXISTS (SELECT 1 FROM run WHERE run.hash = pin.hash) \
         AND NOT EXISTS (SELECT 1 FROM catalog_file WHERE catalog_file.text = pin.text) LIMIT ?2)",
    ),
    ("agent_join", "DELETE FROM agent_join WHERE hash IN (SELECT hash FROM agent_join WHERE expires_at < ?1 LIMIT ?2)"),
];
const TAKEN: &str = "DELETE FROM taken WHERE {row} IN (SELECT {row} FROM taken WHERE at < ?1 LIMIT ?2)";
/// The record of rules outlives their runs.
const RECORDS: [(&str, &str); 2] = [
    ("record", "DELETE FROM record WHERE run IN (SELECT run FROM record WHERE at < ?1 LIMIT ?2)"),
    (
        "judgement",
        "DELETE FROM judgement WHERE (run, who) IN (SELECT run, who FROM judgement WHERE at < ?1 \
         AND NOT EXISTS (SELECT 1 FROM record WHERE record.run = judgement.run) LIMIT ?2)",
    ),
];
/// The text of an entry that an open episode still shows stays with it.
const BODIES: &str = "UPDATE entry SET body = NULL, salt = NULL WHERE no IN (SELECT no FROM entry WHERE at < ?1 \
     AND body IS NOT NULL AND NOT EXISTS (SELECT 1 FROM episode WHERE episode.heard = entry.no AND state = 0) LIMIT ?2)";

const MARK: &str = "SELECT value FROM setting WHERE name = 'retained'";

/// The cutoff of retention; a store without a mark begins with the last time before this start, not with the clock's.
pub(crate) fn retain_until(tx: &mut Tx, further: Duration, now: Time) -> Result<Time, StoreError> {
    let before =
        "SELECT at FROM entry WHERE no < (SELECT max(no) FROM entry WHERE kind = 'started') ORDER BY no DESC LIMIT 1";
    let mark = match one(&tx.conn, MARK, [], |row| row.get::<i64>(0))? {
        Some(mark) => mark,
        None => one(&tx.conn, before, [], |row| row.get::<i64>(0))?.unwrap_or_else(|| micros(now)),
    };
    let newest = number(&tx.conn, "SELECT coalesce(max(at), 0) FROM entry WHERE no = (SELECT max(no) FROM entry)", [])?;
    let further = i64::try_from(further.as_micros()).unwrap_or(i64::MAX);
    let mut mark = mark.saturating_add(further).min(newest).min(micros(now));
    if planted("sweep-trusts-the-clock") {
        mark = micros(now);
    }
    let sql = "INSERT INTO setting VALUES ('retained', ?1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    exec(&tx.conn, sql, [mark])?;
    Time::from_microsecond(mark).map_err(|error| StoreError::Damaged(format!("the mark of retention: {error}")))
}

pub(crate) fn sweep(tx: &mut Tx, episodes: Span, bodies: Span, now: Time) -> Result<u64, StoreError> {
    super::parked::recheck(tx, now)?;
    let mark = one(&tx.conn, MARK, [], |row| row.get::<i64>(0))?.unwrap_or(i64::MAX).min(micros(now));
    let cutoff = |span: Span| mark.saturating_sub(i64::try_from(span.0.as_micros()).unwrap_or(i64::MAX));
    let mut left = limits::SWEEP_ROWS as u64;
    let old = cutoff(episodes);
    // Guards look back a day, whatever the retention is.
    let guarded = old.min(cutoff(Span::seconds(86_400)));
    let jobs = EPISODES
        .iter()
        .map(|(table, sql)| {
            (
                *table,
                *sql,
                if matches!(*table, "attempt" | "hit" | "symptom" | "flap" | "replica") { guarded } else { old },
            )
        })
        .chain(KEPT.iter().map(|(table, sql)| (*table, *sql, old)))
        .chain([("taken", TAKEN, guarded), ("entry", BODIES, cutoff(bodies))])
        .chain(RECORDS.iter().map(|(table, sql)| (*table, *sql, cutoff(limits::RECORD_KEPT))));
    for (table, sql, cutoff) in jobs {
        if left == 0 {
            break;
        }
        let sql = sql.replace("{row}", tx.conn.dialect().row_id);
        let rows = exec(&tx.conn, &sql, params![cutoff, left as i64])? as u64;
        left -= rows.min(left);
        if rows > 0 {
            let swept = EntryKind::Swept { table: table.to_owned(), rows };
            tx.append(&Actor::engine(), EntryLinks::default(), &swept, now)?;
        }
    }
    Ok(limits::SWEEP_ROWS as u64 - left)
}
