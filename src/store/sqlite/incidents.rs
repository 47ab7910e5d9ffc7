//! Incidents: opened, joined, reopened, settled when nothing of them fires any more.
//!
//! Invariant: at most one incident with a key is open (a unique index says so too).

use super::sql::{exec, json, micros, number, one, to_json};
use super::tx::Tx;
use crate::model::{About, Actor, EntryKind, IncidentId, Severity, Subject, Time};
use crate::store::StoreError;
use rusqlite::{Connection, params};

/// What a batch changes of one incident.
#[derive(Debug, Clone, Default)]
pub(super) struct Touched {
    pub firing: i64,
    pub episodes: i64,
    /// The gravest that was heard.
    pub severity: Option<Severity>,
}

pub(super) fn open_with(conn: &Connection, key: &str) -> Result<Option<IncidentId>, StoreError> {
    one(conn, "SELECT id FROM incident WHERE key = ?1 AND closed_at IS NULL", [key], |row| Ok(IncidentId(row.get(0)?)))
}

/// Inserts an incident; the caller appends the entry that comes back.
pub(super) fn create(
    tx: &mut Tx,
    key: &str,
    title: &str,
    subject: &Subject,
    severity: Severity,
    now: Time,
) -> Result<(IncidentId, EntryKind), StoreError> {
    let id = IncidentId(tx.next.incident);
    tx.next.incident += 1;
    exec(
        &tx.conn,
        "INSERT INTO incident (id, key, title, subject, severity, opened_at, firing, episodes) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0)",
        params![id.0, key, title, to_json(subject)?, severity as i64, micros(now)],
    )?;
    Ok((id, EntryKind::IncidentOpened { key: key.to_owned(), title: title.to_owned(), subject: subject.clone() }))
}

/// Opens an incident again; if another one with its key is open, that one is meant.
pub(super) fn reopen(tx: &mut Tx, incident: IncidentId) -> Result<(IncidentId, Option<EntryKind>), StoreError> {
    let sql = "SELECT closed_at IS NULL, key, title, subject FROM incident WHERE id = ?1";
    let found = one(&tx.conn, sql, [incident.0], |row| {
        let opened = EntryKind::IncidentOpened { key: row.get(1)?, title: row.get(2)?, subject: json(row, 3)? };
        Ok((row.get::<_, bool>(0)?, row.get::<_, String>(1)?, opened))
    })?;
    let Some((open, key, opened)) = found else {
        return Err(StoreError::Damaged(format!("an episode names {incident}, which is not there")));
    };
    if open {
        return Ok((incident, None));
    }
    if let Some(other) = open_with(&tx.conn, &key)? {
        return Ok((other, None));
    }
    exec(&tx.conn, "UPDATE incident SET closed_at = NULL, acknowledged_by = NULL WHERE id = ?1", [incident.0])?;
    Ok((incident, Some(opened)))
}

/// Applies counters; resolves the incident when its last episode has ended. The caller appends the entry.
pub(super) fn settle(
    tx: &mut Tx,
    incident: IncidentId,
    touched: &Touched,
    now: Time,
) -> Result<Option<EntryKind>, StoreError> {
    let sql = "UPDATE incident SET firing = firing + ?2, episodes = episodes + ?3, severity = max(severity, ?4) \
               WHERE id = ?1 RETURNING firing, closed_at IS NULL";
    let values =
        params![incident.0, touched.firing, touched.episodes, touched.severity.map_or(0, |severity| severity as i64)];
    let after = one(&tx.conn, sql, values, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)))?;
    match after {
        Some((0, true)) => {
            exec(&tx.conn, "UPDATE incident SET closed_at = ?2 WHERE id = ?1", params![incident.0, micros(now)])?;
            Ok(Some(EntryKind::IncidentResolved { why: "all of its alerts have ended".to_owned() }))
        }
        Some((firing, _)) if firing >= 0 => Ok(None),
        _ => Err(StoreError::Damaged(format!("{incident} has fewer episodes firing than have ended"))),
    }
}

/// An incident that no episode holds open ends with its last run.
pub(super) fn resolve_bare(tx: &mut Tx, incident: IncidentId, now: Time) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM incident WHERE id = ?1 AND episodes = 0 AND closed_at IS NULL \
               AND NOT EXISTS (SELECT 1 FROM run WHERE incident = ?1 AND final = 0)";
    if number(&tx.conn, sql, [incident.0])? == 0 {
        return Ok(());
    }
    exec(&tx.conn, "UPDATE incident SET closed_at = ?2 WHERE id = ?1", params![incident.0, micros(now)])?;
    let entry = EntryKind::IncidentResolved { why: "its run has ended".to_owned() };
    tx.append(&Actor::engine(), About { incident: Some(incident), run: None }, &entry, now)?;
    Ok(())
}
