//! Incidents: opened, joined, reopened, kept open for a while when nothing of them fires any more, and then resolved.
//!
//! Invariant: at most one incident with a key is open (a unique index ensures it too).

pub(crate) mod group;

use super::tx::Tx;
use crate::limits;
use crate::model::{Actor, EntryKind, EntryLinks, IncidentId, Severity, Span, Subject, Time};
use crate::store::StoreError;
use crate::store::db::{Db, all, exec, json, micros, number, one, params, time_opt, to_json};

/// The changes of a batch to one incident.
#[derive(Debug, Clone, Default)]
pub(crate) struct IncidentChanges {
    pub firing: i64,
    pub episodes: i64,
    /// The gravest severity so far.
    pub severity: Option<Severity>,
    /// The alert that began to fire last, and where.
    pub alert: String,
}

/// The gravest that it had so far.
pub(crate) fn severity(conn: &dyn Db, incident: IncidentId) -> Result<Option<Severity>, StoreError> {
    let sql = "SELECT severity FROM incident WHERE id = ?1";
    one(conn, sql, [incident.0], |row| Ok(super::rows::severity(row.get(0)?)))
}

pub(crate) fn open_with(conn: &dyn Db, key: &str) -> Result<Option<IncidentId>, StoreError> {
    one(conn, "SELECT id FROM incident WHERE key = ?1 AND closed_at IS NULL", [key], |row| Ok(IncidentId(row.get(0)?)))
}

/// Inserts an incident; the caller appends the entry that comes back.
pub(crate) fn create(
    tx: &mut Tx,
    key: &str,
    title: &str,
    subject: &Subject,
    severity: Severity,
    now: Time,
) -> Result<(IncidentId, EntryKind), StoreError> {
    let id = IncidentId(tx.sole.next.incident);
    tx.sole.next.incident += 1;
    exec(
        &tx.conn,
        "INSERT INTO incident (id, key, title, subject, severity, opened_at, firing, episodes, incarnation) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, ?7)",
        params![id.0, key, title, to_json(subject)?, severity as i64, micros(now), tx.incarnation],
    )?;
    let (key, title, subject) = (key.to_owned(), title.to_owned(), subject.clone());
    Ok((id, EntryKind::IncidentOpened { key, title, subject, alert: None }))
}

/// Opens an incident again; if another one with its key is open, that one is meant.
pub(crate) fn reopen(tx: &mut Tx, incident: IncidentId) -> Result<(IncidentId, Option<EntryKind>), StoreError> {
    let sql = "SELECT closed_at IS NULL, key, title, subject FROM incident WHERE id = ?1";
    let found = one(&tx.conn, sql, [incident.0], |row| {
        let (key, title, subject) = (row.get::<String>(1)?, row.get(2)?, json(row, 3)?);
        let opened = EntryKind::IncidentOpened { key: key.clone(), title, subject, alert: None };
        Ok((row.get::<bool>(0)?, key, opened))
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
    let sql = "UPDATE incident SET closed_at = NULL, acknowledged_by = NULL, resolves_at = NULL WHERE id = ?1";
    exec(&tx.conn, sql, [incident.0])?;
    Ok((incident, Some(opened)))
}

/// Whether it is there and not resolved.
pub(crate) fn is_open(conn: &dyn Db, incident: IncidentId) -> Result<bool, StoreError> {
    let sql = "SELECT count(*) FROM incident WHERE id = ?1 AND closed_at IS NULL";
    Ok(number(conn, sql, [incident.0])? > 0)
}

/// Applies counters. When the last episode has ended the incident is kept open for `hold`, and without one resolved at once;
/// an episode that fires meanwhile keeps it. The caller appends the entry.
pub(crate) fn settle(
    tx: &mut Tx,
    incident: IncidentId,
    touched: &IncidentChanges,
    hold: Span,
    now: Time,
) -> Result<Option<EntryKind>, StoreError> {
    let sql = "UPDATE incident SET firing = firing + ?2, episodes = episodes + ?3, \
               severity = CASE WHEN severity < ?4 THEN ?4 ELSE severity END \
               WHERE id = ?1 RETURNING firing, closed_at IS NULL, resolves_at, recovery_shown";
    let values =
        params![incident.0, touched.firing, touched.episodes, touched.severity.map_or(0, |severity| severity as i64)];
    let after = one(&tx.conn, sql, values, |row| {
        Ok((row.get::<i64>(0)?, row.get::<bool>(1)?, time_opt(row, 2)?, time_opt(row, 3)?))
    })?;
    match after {
        Some((0, true, ..)) if hold == Span::default() => {
            close(tx, incident, now)?;
            Ok(Some(EntryKind::IncidentResolved { why: "all of its alerts have ended".to_owned() }))
        }
        Some((0, true, _, shown)) => {
            let until = now.checked_add(hold.0).unwrap_or(Time::MAX);
            // An end that was not shown long enough ago is in the ledger as received; users see the next one.
            let lately = shown.is_some_and(|shown| shown + limits::RECOVERY_SHOWN_EVERY.0 > until);
            let shown = if lately { shown } else { Some(until) };
            let sql = "UPDATE incident SET resolves_at = ?2, recovery_shown = ?3 WHERE id = ?1";
            exec(&tx.conn, sql, params![incident.0, micros(until), shown.map(micros)])?;
            Ok((!lately).then_some(EntryKind::IncidentRecovering { until }))
        }
        Some((1.., true, Some(until), shown)) => {
            exec(&tx.conn, "UPDATE incident SET resolves_at = NULL WHERE id = ?1", [incident.0])?;
            let alert = touched.alert.clone();
            Ok((shown == Some(until)).then_some(EntryKind::IncidentRecurred { alert }))
        }
        Some((0.., ..)) => Ok(None),
        _ => Err(StoreError::Damaged(format!("{incident} has fewer episodes firing than have ended"))),
    }
}

fn close(tx: &Tx, incident: IncidentId, now: Time) -> Result<(), StoreError> {
    let sql = "UPDATE incident SET closed_at = ?2, resolves_at = NULL WHERE id = ?1";
    exec(&tx.conn, sql, params![incident.0, micros(now)]).map(drop)
}

/// Incidents that were kept open long enough without an alert.
pub(crate) fn due(conn: &dyn Db, now: Time) -> Result<Vec<IncidentId>, StoreError> {
    let sql =
        "SELECT id FROM incident WHERE resolves_at IS NOT NULL AND resolves_at <= ?1 ORDER BY resolves_at LIMIT ?2";
    all(conn, sql, params![micros(now), limits::DUE_BATCH as i64], |row| Ok(IncidentId(row.get(0)?)))
}

/// Resolves one of them.
pub(crate) fn resolve(tx: &mut Tx, incident: IncidentId, now: Time) -> Result<(), StoreError> {
    close(tx, incident, now)?;
    let why = match tx.resolve_after {
        none if none == Span::default() => "all of its alerts have ended".to_owned(),
        hold => format!("all of its alerts have ended, and none fired again within {hold}"),
    };
    let about = EntryLinks { incident: Some(incident), run: None };
    tx.append(&Actor::engine(), about, &EntryKind::IncidentResolved { why }, now).map(drop)
}

/// An incident that no episode holds open ends with its last run.
pub(crate) fn resolve_bare(tx: &mut Tx, incident: IncidentId, now: Time) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM incident WHERE id = ?1 AND episodes = 0 AND closed_at IS NULL \
               AND NOT EXISTS (SELECT 1 FROM run WHERE incident = ?1 AND final = 0)";
    if number(&tx.conn, sql, [incident.0])? == 0 {
        return Ok(());
    }
    close(tx, incident, now)?;
    let entry = EntryKind::IncidentResolved { why: "its run has ended".to_owned() };
    tx.append(&Actor::engine(), EntryLinks { incident: Some(incident), run: None }, &entry, now)?;
    Ok(())
}
