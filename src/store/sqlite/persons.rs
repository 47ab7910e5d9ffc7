//! Who is behind a name in the ledger: whoever made the token that bears it may have kept it.
//!
//! Invariant: asked in the transaction that counts persons, so that two answers at one moment cannot be one person's.

use super::sql::all;
use crate::planted::planted;
use crate::store::StoreError;
use rusqlite::Connection;
use std::collections::BTreeSet;

/// The name itself, and who is behind the tokens that bear it.
fn behind(conn: &Connection, name: &str) -> Result<BTreeSet<String>, StoreError> {
    let sql = "SELECT DISTINCT root FROM api_token WHERE name = ?1 AND root IS NOT NULL";
    let mut all: BTreeSet<String> = all(conn, sql, [name], |row| row.get(0))?.into_iter().collect();
    all.insert(name.to_owned());
    Ok(all)
}

pub(super) fn same(conn: &Connection, one: &str, other: &str) -> Result<bool, StoreError> {
    if one == other {
        return Ok(true);
    }
    if planted("maker-is-somebody-else") {
        return Ok(false);
    }
    Ok(!behind(conn, one)?.is_disjoint(&behind(conn, other)?))
}

/// The first of the names that may be the same person as this one.
pub(super) fn again<'a>(conn: &Connection, names: &'a [String], by: &str) -> Result<Option<&'a String>, StoreError> {
    for name in names {
        if same(conn, name, by)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
