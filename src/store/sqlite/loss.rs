//! The missing part of the ledger at a start: fewer entries than were signed, or another history.
//!
//! Invariant: a start that is refused here has written nothing.

use super::log_scan::LogDamage;
use crate::planted::planted;
use crate::store::db::number;
use crate::store::ledger::{LeafHash, TreeFrontier};
use crate::store::ops::tx::StoredTree;
use crate::store::{CheckpointMark, SqliteOptions, StoreError};
use rusqlite::Connection;
use std::path::Path;

/// The present content in place of a ledger that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LedgerLoss {
    text: String,
}

impl LedgerLoss {
    /// The error that refuses the start, with the ways out.
    pub fn refuse(&self) -> StoreError {
        StoreError::Refused(format!(
            "{}; freezes, approvals, holds and actions recorded since then are missing with them. Restore the newest backup \
             (`nightshift restore FILE`); if there is none, start once with `--accept-loss`",
            self.text
        ))
    }

    /// The text of the incident about a loss that was accepted.
    pub fn accepted(&self, by: &str) -> String {
        format!("the loss was accepted by {by}: {}", self.text)
    }
}

/// What the marks show that the ledger must hold.
pub(super) struct Expected<'o> {
    options: &'o SqliteOptions,
    mark: Option<CheckpointMark>,
    /// Why the marks could not be read, where the loss is accepted.
    torn: Option<String>,
}

impl Expected<'_> {
    /// # Errors
    /// A mark cannot be read, and the loss is not accepted.
    pub fn read(options: &SqliteOptions) -> Result<Expected<'_>, StoreError> {
        for mark in &options.marks {
            let folder = mark.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
            if let Some(folder) = folder.filter(|_| options.accept_loss.is_none() && mark != &options.marks[0]) {
                return Err(StoreError::Refused(format!(
                    "`mark_file` is {}, but there is no folder {}: mount its volume, or create the folder",
                    mark.display(),
                    folder.display()
                )));
            }
        }
        match CheckpointMark::newest(&options.marks) {
            Ok(mark) => Ok(Expected { options, mark, torn: None }),
            Err(error) if options.accept_loss.is_some() => {
                Ok(Expected { options, mark: None, torn: Some(error.to_string()) })
            }
            Err(error) => Err(error),
        }
    }

    fn accepted(&self, loss: Option<LedgerLoss>) -> Result<Option<String>, StoreError> {
        match (loss, &self.options.accept_loss) {
            (Some(loss), None) => Err(loss.refuse()),
            (loss, by) => Ok(loss.zip(by.as_ref()).map(|(loss, by)| loss.accepted(by))),
        }
    }

    /// A mark that this ledger had and that is missing now: without it an older copy of everything else would be believed.
    fn gone(&self, conn: &Connection) -> Result<Option<LedgerLoss>, StoreError> {
        for mark in self.options.marks.iter().filter(|mark| !mark.exists()) {
            if has_setting(conn, &marked(mark))? {
                let text = format!(
                    "the mark {} of this ledger is missing, so nothing outside shows whether entries are (is its volume mounted?)",
                    mark.display()
                );
                return Ok(Some(LedgerLoss { text }));
            }
        }
        Ok(None)
    }

    /// Before the database is opened: what is missing, as it was accepted.
    ///
    /// # Errors
    /// The file is missing or empty, and that is not accepted.
    pub fn missing(&self) -> Result<Option<String>, StoreError> {
        self.accepted(missing(&self.options.path, self.mark, self.options.key.as_deref()))
    }

    /// Against the open database, where nothing was `missing` before; `cut`: what its log has lost.
    ///
    /// # Errors
    /// Entries are missing, and that is not accepted; or the database cannot be read.
    pub fn measured(
        self,
        conn: &Connection,
        missing: Option<String>,
        cut: Option<LogDamage>,
    ) -> Result<Option<String>, StoreError> {
        let path = &self.options.path;
        let loss = match missing {
            Some(_) => None,
            None if self.mark.is_none() && !self.options.marks.is_empty() && self.torn.is_none() => {
                unmarked(conn, path, self.options.key.as_deref())?
            }
            None => match measure(conn, path, self.mark)? {
                None => self.gone(conn)?,
                found => found,
            },
        };
        let cut = cut.map(|cut| {
            format!(
                "the write-ahead log is damaged at byte {}: up to {} transactions that were acknowledged are cut off",
                cut.at, cut.transactions
            )
        });
        let found = missing.or(self.accepted(loss)?);
        Ok(found.or(self.torn).or(cut))
    }
}

/// Before the database is opened: a file that is missing or empty although a ledger was signed here, or `key` was made to sign
/// one.
fn missing(path: &Path, mark: Option<CheckpointMark>, key: Option<&Path>) -> Option<LedgerLoss> {
    let mark = mark.filter(|mark| mark.size > 0);
    let key = key.filter(|key| key.exists());
    if (mark.is_none() && key.is_none()) || planted("smaller-ledger-is-good") {
        return None;
    }
    let found = std::fs::metadata(path).map_or(None, |meta| Some(meta.len()));
    let what = match found {
        None => "does not exist",
        Some(0) => "is empty",
        Some(_) => return None,
    };
    let why = match (mark, key) {
        (Some(mark), _) => format!("{} entries were signed at the last checkpoint", mark.size),
        (None, key) => made_after(key),
    };
    Some(LedgerLoss { text: format!("{} {what}, although {why}", path.display()) })
}

fn made_after(key: Option<&Path>) -> String {
    let key = key.map(|key| key.display().to_string()).unwrap_or_default();
    format!("{key} exists, and a key is made only after the first entry")
}

/// The name of the setting that says that this mark was there.
pub(super) fn marked(mark: &Path) -> String {
    match mark.file_name().is_some_and(|name| name == "signing.mark") {
        true => "marked".to_owned(),
        false => format!("marked {}", mark.display()),
    }
}

/// A database from before its first migration has none.
fn has_setting(conn: &Connection, name: &str) -> Result<bool, StoreError> {
    let tables = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'setting'";
    Ok(number(conn, tables, [])? > 0 && number(conn, "SELECT count(*) FROM setting WHERE name = ?1", [name])? > 0)
}

/// No mark is there: then nothing was signed yet, or the database was copied without its mark, and nothing shows how old the
/// copy is.
fn unmarked(conn: &Connection, path: &Path, key: Option<&Path>) -> Result<Option<LedgerLoss>, StoreError> {
    if planted("smaller-ledger-is-good") {
        return Ok(None);
    }
    let (size, shown) = (entries(conn)?, path.display());
    if size == 0 {
        let key = key.filter(|key| key.exists());
        return Ok(key.map(|_| LedgerLoss {
            text: format!("the ledger in {shown} has no entries, although {}", made_after(key)),
        }));
    }
    if !has_setting(conn, "marked")? {
        return Ok(None);
    }
    let text = format!(
        "signing.mark, which shows how many entries were signed, is missing beside {shown}: a copy of the database without it may \
         lack the newest entries"
    );
    Ok(Some(LedgerLoss { text }))
}

/// Against the open database: it holds fewer entries than were signed, or the signed ones have another root.
fn measure(conn: &Connection, path: &Path, mark: Option<CheckpointMark>) -> Result<Option<LedgerLoss>, StoreError> {
    let Some(mark) = mark.filter(|_| !planted("smaller-ledger-is-good")) else { return Ok(None) };
    let (size, shown) = (entries(conn)?, path.display());
    if size < mark.size {
        let text = format!(
            "the ledger in {shown} has {size} entries, but {} were signed at the last checkpoint: {} are missing",
            mark.size,
            mark.size - size
        );
        return Ok(Some(LedgerLoss { text }));
    }
    if root(conn, mark.size)? == mark.root {
        return Ok(None);
    }
    let text = format!(
        "the first {} entries of the ledger in {shown} are not those that were signed at the last checkpoint: it is the ledger of \
         another installation, or was altered",
        mark.size
    );
    Ok(Some(LedgerLoss { text }))
}

/// How many entries the ledger has; a database without tables has none.
pub(super) fn entries(conn: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'entry'";
    if number(conn, sql, [])? == 0 {
        return Ok(0);
    }
    Ok(number(conn, "SELECT coalesce(max(no), -1) + 1 FROM entry", [])? as u64)
}

/// The root of the first `size` entries.
pub(super) fn root(conn: &Connection, size: u64) -> Result<LeafHash, StoreError> {
    Ok(TreeFrontier::load(&mut StoredTree { conn }, size)?.root())
}
