//! Signing the ledger: a checkpoint over the present tree.
//!
//! Invariant: a checkpoint covers only entries of the transaction that keeps it and of earlier ones; the database is known to
//! have a mark only once that was seen.

use crate::model::Time;
use crate::store::StoreError;
use crate::store::db::{DbRow, exec, micros, one, params};
use crate::store::ledger::{Checkpoint, SigningKey, verify_note};
use crate::store::ops::tx::Tx;
use rusqlite::Connection;

/// Signs what is new; returns the newest checkpoint, none on an empty ledger.
pub(super) fn sign(
    tx: &mut Tx<Connection>,
    key: &SigningKey,
    marked: &[String],
    now: Time,
) -> Result<Option<Checkpoint>, StoreError> {
    let (size, root) = tx.root();
    let sql = "SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1";
    let map = |row: &DbRow<'_>| Ok(Checkpoint { size: row.get::<i64>(0)?.unsigned_abs(), note: row.get(1)? });
    let last = one(&tx.conn, sql, [], map)?;
    if size == 0 || last.as_ref().is_some_and(|last| last.size == size) {
        return Ok(last);
    }
    for name in marked {
        // From now on a start without this mark is one with a copy of the database alone, or without the volume of the mark.
        exec(&tx.conn, "INSERT INTO setting (name, value) VALUES (?1, 1) ON CONFLICT (name) DO NOTHING", [name])?;
    }
    let new = key.sign(size, root);
    let sql = "INSERT INTO checkpoint (size, at, note) VALUES (?1, ?2, ?3)";
    exec(&tx.conn, sql, params![new.size as i64, micros(now), new.note])?;
    // Under a key that was replaced the new signature covers all that the old one did, and only it can be verified.
    if last.is_some_and(|last| verify_note(&last.note, key.public()).is_err()) {
        exec(&tx.conn, "DELETE FROM checkpoint WHERE size < ?1", [new.size as i64])?;
    }
    Ok(Some(new))
}
