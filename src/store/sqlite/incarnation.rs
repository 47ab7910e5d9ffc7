//! Which life of the database this is: a restored one is another, though its numbers go on from an earlier point.
//!
//! Invariant: after a restore nothing that the earlier life gave out is taken for the new one's.

use crate::limits;
use crate::store::StoreError;
use crate::store::db::{exec, number};
use rusqlite::Connection;

/// Raises the epoch beyond every one that the life before can have had, so that its agents and writes are fenced.
pub(super) fn raise_epoch(conn: &Connection) -> Result<i64, StoreError> {
    exec(conn, "UPDATE setting SET value = value + ?1 WHERE name = 'epoch'", [limits::RESTORE_EPOCHS])?;
    number(conn, "SELECT value FROM setting WHERE name = 'epoch'", [])
}

/// The hook of a restore: everything that distinguishes one life of the database from another is renewed here. Returns
/// the new incarnation, which keys of later steps bear.
pub(super) fn renew_incarnation(conn: &Connection) -> Result<String, StoreError> {
    raise_epoch(conn)?;
    super::schema::renew_incarnation(conn)
}
