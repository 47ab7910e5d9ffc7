//! Rows that cannot be read back: set aside with a reason, reported to users once, and read again by maintenance.
//!
//! Invariant: one unreadable row costs that row alone; a parked row is never acted on and never forgotten silently.

use super::tx::Tx;
use super::{incidents, rows, runs};
use crate::limits;
use crate::model::{Actor, DeliveryReceipt, EntryKind, EntryLinks, IncidentId, Severity, Subject, Time};
use crate::store::StoreError;
use crate::store::db::{Db, DbRow, Params, all, exec, json_opt, micros, one, params};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The key of the incident about parked rows.
const KEY: &str = "store/unreadable-rows";

/// The key of a row: its table, and its own key as text.
pub(crate) type RowKey = (&'static str, String);

/// Unreadable rows that readers came across, until the next tick parks them. Bounded: more are met again.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnreadableRows(Arc<Mutex<BTreeMap<RowKey, String>>>);

impl UnreadableRows {
    /// Remembers a row that could not be read, up to `UNREADABLE_ROWS`.
    pub fn add(&self, place: RowKey, reason: String) {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if met.len() < limits::UNREADABLE_ROWS {
            met.entry(place).or_insert(reason);
        }
    }

    /// Returns the remembered rows and forgets them.
    pub fn take(&self) -> BTreeMap<RowKey, String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The name of a row, from its columns.
type RowNamer<'k> = &'k dyn Fn(&DbRow<'_>) -> Result<String, StoreError>;

/// The rows that can be read; each of the others is left out and noted.
pub(crate) fn readable<T>(
    conn: &dyn Db,
    sql: &str,
    params: impl Params,
    (table, key): (&'static str, RowNamer<'_>),
    mut map: impl FnMut(&DbRow<'_>) -> Result<T, StoreError>,
    unreadable: &UnreadableRows,
) -> Result<Vec<T>, StoreError> {
    let mut good = Vec::new();
    let mut each = |row: &DbRow<'_>| {
        match map(row) {
            Ok(value) => good.push(value),
            Err(StoreError::Damaged(reason)) if !crate::planted::planted("one-bad-row-stops-all") => {
                unreadable.add((table, key(row)?), reason);
            }
            Err(error) => return Err(error),
        }
        Ok::<bool, StoreError>(true)
    };
    params.bind(|values| conn.query(sql, values, &mut each))?;
    Ok(good)
}

/// The key of a table whose first column is its number.
pub(crate) fn number(row: &DbRow<'_>) -> Result<String, StoreError> {
    row.get::<i64>(0).map(|number| number.to_string())
}

/// Sets a row aside. Users are notified with the first one; `false`: it was parked already.
pub(crate) fn park(tx: &mut Tx, table: &str, row: &str, reason: &str, now: Time) -> Result<bool, StoreError> {
    let sql = "SELECT count(*) FROM parked WHERE tab = ?1";
    if crate::store::db::number(&tx.conn, sql, [table])? >= limits::UNREADABLE_ROWS as i64 {
        // So many are one fault of the whole table; the named ones already show which.
        return Ok(false);
    }
    let sql = "INSERT INTO parked (tab, row, reason, at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    if exec(&tx.conn, sql, params![table, row, reason, micros(now)])? == 0 {
        return Ok(false);
    }
    let mut what = "it is set aside and everything else continues; restore it from a backup, or request its removal";
    if table == "outbox" && lose_receipt(tx, row)? {
        what = "its receipt is dropped: the message is sent again, perhaps a second time";
    }
    let text = format!("row {row} of table `{table}` cannot be read ({reason}); {what}");
    let title = "The store holds rows that cannot be read";
    alarm(tx, KEY, title, Severity::Critical, &text, now)?;
    Ok(true)
}

/// A message whose receipt is gone is sent anew, marked as a possible repeat: better twice than never.
fn lose_receipt(tx: &Tx, row: &str) -> Result<bool, StoreError> {
    let Some((incident, channel)) = row.split_once('/') else { return Ok(false) };
    let sql = "SELECT receipt FROM outbox WHERE incident = ?1 AND channel = ?2";
    let read = one(&tx.conn, sql, params![incident, channel], |row| json_opt::<DeliveryReceipt>(row, 0));
    if !matches!(read, Err(StoreError::Damaged(_))) {
        return Ok(false);
    }
    let sql = "UPDATE outbox SET receipt = NULL, sending = 1 WHERE incident = ?1 AND channel = ?2";
    exec(&tx.conn, sql, params![incident, channel])?;
    exec(&tx.conn, "DELETE FROM parked WHERE tab = 'outbox' AND row = ?1", [row])?;
    Ok(true)
}

/// An entry about the store itself, and an incident by which the channels of unmatched alerts are notified of it.
pub(crate) fn alarm(
    tx: &mut Tx,
    key: &str,
    title: &str,
    severity: Severity,
    text: &str,
    now: Time,
) -> Result<IncidentId, StoreError> {
    let incident = match incidents::open_with(&tx.conn, key)? {
        Some(open) => open,
        None => {
            let (new, opened) = incidents::create(tx, key, title, &Subject::default(), severity, now)?;
            tx.append(&Actor::engine(), EntryLinks { incident: Some(new), run: None }, &opened, now)?;
            new
        }
    };
    let about = EntryLinks { incident: Some(incident), run: None };
    let no = tx.append(&Actor::engine(), about, &EntryKind::Trouble { text: text.to_owned() }, now)?;
    for channel in tx.unmatched_tell.clone() {
        tx.want(incident, &channel, no, now)?;
    }
    Ok(incident)
}

/// Ends such an incident, if it is open.
pub(crate) fn all_clear(tx: &mut Tx, key: &str, why: &str, now: Time) -> Result<(), StoreError> {
    let Some(incident) = incidents::open_with(&tx.conn, key)? else { return Ok(()) };
    exec(&tx.conn, "UPDATE incident SET closed_at = ?2 WHERE id = ?1", params![incident.0, micros(now)])?;
    let about = EntryLinks { incident: Some(incident), run: None };
    tx.append(&Actor::engine(), about, &EntryKind::IncidentResolved { why: why.to_owned() }, now).map(drop)
}

/// Reads parked rows again: those that were restored or are gone are parked no longer.
pub(crate) fn recheck(tx: &mut Tx, now: Time) -> Result<(), StoreError> {
    let parked =
        all(&tx.conn, "SELECT tab, row FROM parked ORDER BY random() LIMIT ?1", [limits::SWEEP_ROWS as i64], |row| {
            Ok((row.get::<String>(0)?, row.get::<String>(1)?))
        })?;
    if parked.is_empty() {
        return Ok(());
    }
    for (table, row) in parked {
        if let Err(StoreError::Damaged(_)) = read(&tx.conn, &table, &row) {
            continue;
        }
        exec(&tx.conn, "DELETE FROM parked WHERE tab = ?1 AND row = ?2", params![table, row])?;
        let text = format!("row {row} of table `{table}` can be read again, or is gone");
        tx.append(&Actor::engine(), EntryLinks::default(), &EntryKind::Trouble { text }, now)?;
    }
    if crate::store::db::number(&tx.conn, "SELECT count(*) FROM parked", [])? == 0 {
        all_clear(tx, KEY, "every row can be read again", now)?;
    }
    Ok(())
}

fn read(conn: &dyn Db, table: &str, row: &str) -> Result<(), StoreError> {
    let dialect = conn.dialect();
    let by_id = |columns: &str, from: &str, id: &str| format!("SELECT {columns} FROM {from} WHERE {id} = ?1");
    match table {
        "run" => {
            one(conn, &by_id(rows::RUN, "run", "id"), [row], rows::run)?;
            let id = row.parse().map_err(|_| StoreError::Damaged(format!("`{row}` is no number of a run")))?;
            runs::journal(conn, crate::model::RunId(id)).map(drop)
        }
        "approval" => {
            one(conn, &by_id(&rows::approval_columns(dialect), "approval", "id"), [row], rows::approval).map(drop)
        }
        "incident" => one(conn, &by_id(rows::INCIDENT, "incident", "id"), [row], rows::incident).map(drop),
        "episode" => {
            one(conn, &by_id(&rows::episode_columns(dialect), rows::EPISODE_FROM, "e.id"), [row], rows::episode)
                .map(drop)
        }
        "entry" => match one(conn, &by_id(rows::RAW, "entry", "no"), [row], rows::raw)? {
            Some(raw) if raw.body.is_some() => super::read::entry(raw).map(drop),
            _ => Ok(()),
        },
        // A row of another table has no reader of its own: it stays set aside until a user has looked.
        other => Err(StoreError::Damaged(format!("a row of `{other}`"))),
    }
}
