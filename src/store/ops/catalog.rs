//! The files of the last good catalog, whole.
//!
//! Invariant: kept files were in force together, and are replaced together.

use super::tx::Tx;
use crate::model::CatalogFile;
use crate::store::StoreError;
use crate::store::db::{Db, all, exec, params, to_word, word};

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
