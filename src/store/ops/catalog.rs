//! The files of the last good catalog, whole, and the rules that open alerts were evaluated against.
//!
//! Invariant: kept files were in force together, and are replaced together.

use super::tx::Tx;
use crate::model::CatalogFile;
use crate::store::StoreError;
use crate::store::db::{Db, all, exec, params, to_word, word};
use std::collections::BTreeMap;

pub(crate) fn kept(conn: &dyn Db) -> Result<Vec<CatalogFile>, StoreError> {
    all(conn, "SELECT kind, path, name, text FROM catalog_file ORDER BY path", [], |row| {
        Ok(CatalogFile { kind: word(row, 0)?, path: row.get(1)?, name: row.get(2)?, text: row.get(3)? })
    })
}

pub(crate) fn keep(tx: &mut Tx, files: &[CatalogFile]) -> Result<(), StoreError> {
    // A version that cannot be read back is replaced as well.
    if kept(&tx.conn).is_ok_and(|kept| kept == files) {
        return Ok(());
    }
    exec(&tx.conn, "DELETE FROM catalog_file", [])?;
    for file in files {
        let sql = "INSERT INTO catalog_file (kind, path, name, text) VALUES (?1, ?2, ?3, ?4)";
        exec(&tx.conn, sql, params![to_word(&file.kind)?, file.path, file.name, file.text])?;
    }
    Ok(())
}

/// By name, with a hash of each; none where they were never written.
pub(crate) fn applied_rules(conn: &dyn Db) -> Result<Option<BTreeMap<String, String>>, StoreError> {
    let rows = all(conn, "SELECT name, hash FROM applied_rule", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut rules: BTreeMap<String, String> = rows.into_iter().collect();
    Ok(rules.remove("").map(|_| rules))
}

pub(crate) fn apply_rules(tx: &mut Tx, rules: &BTreeMap<String, String>) -> Result<(), StoreError> {
    exec(&tx.conn, "DELETE FROM applied_rule", [])?;
    let written = (String::new(), String::new());
    for (name, hash) in rules.iter().chain([(&written.0, &written.1)]) {
        exec(&tx.conn, "INSERT INTO applied_rule (name, hash) VALUES (?1, ?2)", params![name, hash])?;
    }
    Ok(())
}
