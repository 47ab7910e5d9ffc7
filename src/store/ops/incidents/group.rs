//! Groups: alerts of one name that fire on many subjects are one incident, which absorbs those that no one has seen yet.
//!
//! Invariant: an incident that a channel has shown, or that a user has acknowledged, is never absorbed; an absorbed one
//! moves with all of its episodes and runs in one transaction.

use crate::model::{IncidentId, Subject, Time};
use crate::policy::group_title;
use crate::store::StoreError;
use crate::store::db::{Db, SqlDialect, all, exec, json, micros, one, params, to_json};
use crate::store::ops::tx::Tx;

/// An incident that would belong to a storm.
pub(crate) struct StormCandidate {
    pub incident: IncidentId,
    pub subject: Subject,
    /// No channel has shown it and no user has taken it up: it can become part of a group.
    pub unseen: bool,
}

/// The open incidents of a storm that opened since then, oldest first.
pub(crate) fn recent(conn: &dyn Db, storm: &str, since: Time) -> Result<Vec<StormCandidate>, StoreError> {
    let sql = "SELECT id, subject, acknowledged_by IS NULL AND owner IS NULL AND NOT EXISTS (SELECT 1 FROM outbox \
               WHERE outbox.incident = incident.id AND (shown IS NOT NULL OR sending = 1 OR attempts > 0)) \
               FROM incident WHERE storm = ?1 AND closed_at IS NULL AND opened_at >= ?2 ORDER BY opened_at, id";
    all(conn, sql, params![storm, micros(since)], |row| {
        Ok(StormCandidate { incident: IncidentId(row.get(0)?), subject: json(row, 1)?, unseen: row.get(2)? })
    })
}

/// The incident is the first of a possible storm.
pub(crate) fn mark(conn: &dyn Db, incident: IncidentId, storm: &str, part: &str) -> Result<(), StoreError> {
    let sql = "UPDATE incident SET storm = ?2, part = ?3 WHERE id = ?1";
    exec(conn, sql, params![incident.0, storm, part]).map(drop)
}

/// An alert of another storm, or of none, has joined it: it is about its subject, and no part of a storm any more.
pub(crate) fn mixed(conn: &dyn Db, incident: IncidentId, storm: Option<&str>) -> Result<(), StoreError> {
    let sql = "UPDATE incident SET storm = NULL WHERE id = ?1 AND storm IS NOT NULL AND storm IS DISTINCT FROM ?2";
    exec(conn, sql, params![incident.0, storm]).map(drop)
}

/// The group has this subject, too. True: it had not before.
pub(crate) fn add(conn: &dyn Db, group: IncidentId, key: &str, part: &str) -> Result<bool, StoreError> {
    let sql = "INSERT INTO grouped (incident, key, part) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    Ok(exec(conn, sql, params![group.0, key, part])? > 0)
}

/// Everything of an incident becomes the group's, and it is closed. Returns the channels that were to show it.
pub(crate) fn absorb(tx: &Tx, from: IncidentId, into: IncidentId, now: Time) -> Result<Vec<String>, StoreError> {
    let conn = &tx.conn;
    let pair = params![from.0, into.0];
    exec(conn, "UPDATE episode SET incident = ?2 WHERE incident = ?1", pair)?;
    exec(conn, "UPDATE run SET incident = ?2 WHERE incident = ?1", pair)?;
    let sql = "INSERT INTO grouped (incident, key, part) \
               SELECT ?2, key, coalesce(part, '') FROM incident WHERE id = ?1 ON CONFLICT DO NOTHING";
    exec(conn, sql, pair)?;
    let SqlDialect { greatest, least, .. } = conn.dialect();
    let sql = format!(
        "UPDATE incident SET firing = incident.firing + old.firing, episodes = incident.episodes + old.episodes, \
         severity = {greatest}(incident.severity, old.severity), opened_at = {least}(incident.opened_at, old.opened_at) \
         FROM (SELECT firing, episodes, severity, opened_at FROM incident WHERE id = ?1) AS old \
         WHERE incident.id = ?2"
    );
    exec(conn, &sql, pair)?;
    let channels = all(conn, "DELETE FROM outbox WHERE incident = ?1 RETURNING channel", [from.0], |row| row.get(0))?;
    let sql = "UPDATE incident SET firing = 0, closed_at = ?2, resolves_at = NULL, storm = NULL WHERE id = ?1";
    exec(conn, sql, params![from.0, micros(now)])?;
    Ok(channels)
}

/// Writes title and subject of a group as its members now make them. Returns the title, if it has changed. `single`: the
/// title while it has one subject.
pub(crate) fn retitle(
    conn: &dyn Db,
    group: IncidentId,
    alert: &str,
    single: &str,
    subject: &Subject,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT count(*), min(part), max(part) FROM grouped WHERE incident = ?1";
    let counted = one(conn, sql, [group.0], |row| {
        Ok((row.get::<u32>(0)?, row.get::<Option<String>>(1)?, row.get::<Option<String>>(2)?))
    })?;
    let (count, first, last) = counted.unwrap_or_default();
    let title = match count {
        0 | 1 => single.to_owned(),
        _ => group_title(alert, count, first.as_deref().filter(|first| Some(*first) == last.as_deref())),
    };
    let before = one(conn, "SELECT title, subject FROM incident WHERE id = ?1", [group.0], |row| {
        Ok((row.get::<String>(0)?, json::<Subject>(row, 1)?))
    })?;
    let Some((before, shared)) = before else { return Ok(None) };
    let shared = if count < 2 { shared } else { shared.common(subject) };
    let sql = "UPDATE incident SET title = ?2, subject = ?3 WHERE id = ?1";
    exec(conn, sql, params![group.0, title, to_json(&shared)?])?;
    Ok((title != before).then_some(title))
}
