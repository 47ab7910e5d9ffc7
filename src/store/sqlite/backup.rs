//! One file that holds everything: the database at one moment, and the keys beside it. Taken while the engine runs, verified
//! before it counts, and put back only where no engine runs.
//!
//! Invariant: a backup that is reported was read back and its ledger recomputed up to the signed root; a restore loses nothing
//! of the files it replaces, and a crash in the middle of it leaves a start that is refused, never an empty engine.

use super::{incarnation, loss, schema};
use crate::limits;
use crate::model::{EntryNo, Mode, Severity, Time};
use crate::store::db::{all, exec, micros, number, one, params};
use crate::store::ledger::{EntryLeaf, LeafHash, PublicKey, TreeFrontier, commitment, verify_note};
use crate::store::ops::parked;
use crate::store::ops::tx::Tx;
use crate::store::{CheckpointMark, StoreError};
use nightshift_runtime::file::replace;
use rusqlite::{Connection, OpenFlags};
use std::fs::File;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where an installation keeps its files.
#[derive(Debug, Clone)]
pub struct StoreFiles {
    pub database: PathBuf,
    /// The marks of the newest signature, the one beside the database first.
    pub marks: Vec<PathBuf>,
    /// Keys and the like that stand beside the database; those that exist are part of a backup.
    pub keys: Vec<PathBuf>,
}

/// The content of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupContents {
    pub entries: u64,
    /// Entries that its newest checkpoint covers; none before the first one.
    pub signed: Option<CheckpointMark>,
    /// Names of the files beside the database.
    pub keys: Vec<String>,
}

/// The result of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    pub contents: BackupContents,
    pub epoch: i64,
    /// How many entries had been signed here that the backup does not have.
    pub missing: u64,
    /// Where the files are now that it replaced; none: there were none.
    pub aside: Option<PathBuf>,
}

const FILES: &str =
    "CREATE TABLE backup_file (name TEXT PRIMARY KEY, mode INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT";

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.display().to_string();
    move |source| StoreError::Io { what, path, source }
}

/// Writes a backup of a store that may be in use to a file that must not exist.
///
/// # Errors
///
/// Fails when `to` exists, there is no database, or the written backup does not verify.
pub fn take(place: &StoreFiles, to: &Path) -> Result<BackupContents, StoreError> {
    if to.exists() {
        return Err(StoreError::Refused(format!("{} exists: name a file that does not", to.display())));
    }
    if !place.database.exists() {
        return Err(StoreError::NotFound { what: format!("database at {}", place.database.display()) });
    }
    let part = to.with_extension("part");
    let taken = write(place, &part).and_then(|()| {
        let contents = verify(&part)?;
        std::fs::rename(&part, to).map_err(io("cannot name the backup", to))?;
        sync_folder(to)?;
        Ok(contents)
    });
    if taken.is_err() {
        // Half a backup is worse than none.
        let _ = std::fs::remove_file(&part);
    }
    taken
}

fn write(place: &StoreFiles, part: &Path) -> Result<(), StoreError> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(part).map_err(io("cannot write the backup", part))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&place.database, flags)?;
    conn.busy_timeout(limits::SQLITE_BUSY)?;
    conn.execute("VACUUM INTO ?1", [part.to_string_lossy()])?;
    drop(conn);
    let copy = Connection::open_with_flags(part, flags)?;
    copy.execute_batch(FILES)?;
    for path in &place.keys {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io("cannot read a key", path)(error)),
        };
        let mode = std::fs::metadata(path).map_err(io("cannot read a key", path))?.permissions().mode() & 0o777;
        let sql = "INSERT INTO backup_file (name, mode, bytes) VALUES (?1, ?2, ?3)";
        exec(&copy, sql, params![name, mode, bytes])?;
    }
    drop(copy);
    File::open(part).and_then(|file| file.sync_all()).map_err(io("cannot write the backup", part))
}

/// Reads a whole backup: the file, each entry against its hash, and the tree against the root that was signed.
///
/// # Errors
///
/// Fails when the file cannot be read, was not written by `nightshift backup`, is newer than this program, or does not
/// verify.
pub fn verify(path: &Path) -> Result<BackupContents, StoreError> {
    let shown = path.display();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let damaged = |what: &str| StoreError::Refused(format!("{shown} is not a valid backup: {what}"));
    let conn = Connection::open_with_flags(path, flags).map_err(|error| damaged(&error.to_string()))?;
    let sql = "SELECT count(*) FROM sqlite_master WHERE name IN ('backup_file', 'entry', 'migration')";
    let tables = conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|error| damaged(&error.to_string()))?;
    if tables != 3 {
        return Err(damaged("it was not written by `nightshift backup`"));
    }
    schema::refuse_newer(&conn)?;
    let whole: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).unwrap_or_default();
    if whole != "ok" {
        return Err(damaged(if whole.is_empty() { "it cannot be read" } else { &whole }));
    }
    let note = newest_note(&conn)?;
    let signed = note.as_deref().and_then(CheckpointMark::of);
    let keys = all(&conn, "SELECT name FROM backup_file ORDER BY name", [], |row| row.get::<String>(0))?;
    if let (Some(note), Some(public)) = (&note, public_key(&conn)?) {
        verify_note(note, &public).map_err(|error| damaged(&format!("its newest checkpoint: {error}")))?;
    }
    let entries = recompute(&conn, signed).map_err(|what| damaged(&what))?;
    Ok(BackupContents { entries, signed, keys })
}

fn newest_note(conn: &Connection) -> Result<Option<String>, StoreError> {
    one(conn, "SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1", [], |row| row.get(0))
}

fn public_key(conn: &Connection) -> Result<Option<PublicKey>, StoreError> {
    let sql = "SELECT CAST(bytes AS TEXT) FROM backup_file WHERE name = 'signing.pub'";
    let text = one(conn, sql, [], |row| row.get::<String>(0))?;
    Ok(text.and_then(|text| text.trim().parse().ok()))
}

/// Every entry against its commitment, and the tree of them against the signed root. Returns their number.
fn recompute(conn: &Connection, signed: Option<CheckpointMark>) -> Result<u64, String> {
    let words = |error: rusqlite::Error| error.to_string();
    let mut select = conn.prepare("SELECT no, at, commitment, salt, body FROM entry ORDER BY no").map_err(words)?;
    let mut rows = select.query([]).map_err(words)?;
    let mut frontier = TreeFrontier::default();
    while let Some(row) = rows.next().map_err(words)? {
        let no: i64 = row.get(0).map_err(words)?;
        if u64::try_from(no) != Ok(frontier.size()) {
            return Err(format!("entry #{} is missing", frontier.size()));
        }
        let commit = LeafHash(row.get(2).map_err(words)?);
        let salt: Option<Vec<u8>> = row.get(3).map_err(words)?;
        let body: Option<Vec<u8>> = row.get(4).map_err(words)?;
        if let (Some(salt), Some(body)) = (salt, body)
            && commitment(&salt, &body) != commit
        {
            return Err(format!("entry #{no} differs from the entry that was written"));
        }
        frontier.push(EntryLeaf { no: EntryNo(no), at: row.get(1).map_err(words)?, commit }.hash());
        if let Some(mark) = signed.filter(|mark| mark.size == frontier.size())
            && mark.root != frontier.root()
        {
            return Err(format!("the first {} entries do not give the root that was signed", mark.size));
        }
    }
    match signed {
        Some(mark) if mark.size > frontier.size() => {
            Err(format!("{} entries were signed, and it holds {}", mark.size, frontier.size()))
        }
        _ => Ok(frontier.size()),
    }
}

/// Puts a backup in the place of the present database. Users are notified when the engine starts.
///
/// # Errors
///
/// Fails when the backup does not verify, an engine runs, or a file cannot be written; the present database is kept
/// aside.
pub fn restore(
    place: &StoreFiles,
    from: &Path,
    by: &str,
    tell: Vec<String>,
    now: Time,
) -> Result<RestoreReport, StoreError> {
    let contents = verify(from)?;
    let _lock = schema::lock(&place.database)?;
    // A mark that cannot be read is replaced like everything else.
    let before =
        place.marks.iter().filter_map(|path| CheckpointMark::read(path).ok().flatten()).map(|mark| mark.size).max();
    let before = before.unwrap_or_default();
    let missing = before.saturating_sub(contents.signed.map_or(0, |mark| mark.size));
    let part = place.database.with_extension("restored");
    remove_all(&part)?;
    std::fs::copy(from, &part).map_err(io("cannot copy the backup", &part))?;
    std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600)).map_err(io("cannot copy", &part))?;
    let (epoch, keys, note) = prepare(&part, from, (by, tell, missing), now)?;
    let aside = set_aside(place)?;
    std::fs::rename(&part, &place.database).map_err(io("cannot put the database in place", &place.database))?;
    let folder = place.database.parent().unwrap_or(Path::new("."));
    for (name, mode, bytes) in keys {
        // Only names that this program gives, whatever the file holds.
        let known = place.keys.iter().find(|path| path.file_name().is_some_and(|known| *known == *name));
        let Some(path) = known else { continue };
        replace(path, &bytes, mode & 0o777).map_err(io("cannot write a key", path))?;
    }
    for mark in &place.marks {
        match &note {
            Some(note) => replace(mark, note.as_bytes(), 0o644).map_err(io("cannot write the mark", mark))?,
            None => match std::fs::remove_file(mark) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io("cannot remove the mark", mark)(error));
                }
                _ => {}
            },
        }
    }
    sync_folder(&place.database)?;
    tracing::info!(folder = %folder.display(), epoch, "backup restored");
    Ok(RestoreReport { contents, epoch, missing, aside })
}

type KeyFiles = Vec<(String, u32, Vec<u8>)>;

/// Makes a database of the copy: without the tables of a backup, up to date, in another life, and with an entry about
/// it.
fn prepare(
    part: &Path,
    from: &Path,
    (by, tell, missing): (&str, Vec<String>, u64),
    now: Time,
) -> Result<(i64, KeyFiles, Option<String>), StoreError> {
    let mut conn = schema::open_writer(part)?;
    let keys =
        all(&conn, "SELECT name, mode, bytes FROM backup_file", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    exec(&conn, "DROP TABLE backup_file", [])?;
    schema::migrate(&mut conn, now)?;
    let note = newest_note(&conn)?;
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let drawn = incarnation::renew_incarnation(&conn)?;
    let epoch = number(&conn, "SELECT value FROM setting WHERE name = 'epoch'", [])?;
    let mut tx = Tx::open(conn, epoch, Mode::Auto)?;
    tx.incarnation = drawn;
    tx.unmatched_tell = tell;
    let lost = match missing {
        0 => String::new(),
        some => format!("; {some} entries that were signed after it are missing, with what they recorded"),
    };
    let name = from.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = format!(
        "restored from backup {name} by {by}, with {} entries{lost}. Actions after the backup are not recorded here: check the \
         cluster before you release a freeze",
        tx.next_no().0
    );
    let incident = parked::alarm(
        tx.ops(),
        "store/restored",
        "The store was restored from a backup",
        Severity::Critical,
        &text,
        now,
    )?;
    // It is reported once, and there is nothing to wait for.
    exec(
        &tx.conn,
        "UPDATE incident SET resolves_at = ?2 WHERE id = ?1",
        params![incident.0, micros(now + limits::STORE_NEWS_OPEN.0)],
    )?;
    tx.conn.execute_batch("COMMIT")?;
    tx.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let conn = tx.conn;
    conn.close().map_err(|(_, error)| error)?;
    Ok((epoch, keys, note))
}

/// Moves the present files into a folder of their own; the mark stays until the end, so that a crash here is noticed.
fn set_aside(place: &StoreFiles) -> Result<Option<PathBuf>, StoreError> {
    let folder = place.database.parent().unwrap_or(Path::new("."));
    let log = |ending: &str| PathBuf::from(format!("{}{ending}", place.database.display()));
    let mut files = vec![place.database.clone(), log("-wal"), log("-shm")];
    files.retain(|path| path.exists());
    if files.is_empty() {
        return Ok(None);
    }
    let free = (1..).map(|number| folder.join(format!("before-restore-{number}"))).find(|path| !path.exists());
    let Some(aside) = free else { return Ok(None) };
    std::fs::create_dir(&aside).map_err(io("cannot make a folder", &aside))?;
    let named = |path: &Path| aside.join(path.file_name().unwrap_or_default());
    for path in place.keys.iter().chain(place.marks.first()).filter(|path| path.exists()) {
        std::fs::copy(path, named(path)).map_err(io("cannot copy", path))?;
    }
    for path in &files {
        std::fs::rename(path, named(path)).map_err(io("cannot move", path))?;
    }
    Ok(Some(aside))
}

fn remove_all(part: &Path) -> Result<(), StoreError> {
    for ending in ["", "-wal", "-shm", "-journal"] {
        let path = PathBuf::from(format!("{}{ending}", part.display()));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("cannot remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("cannot sync the folder", folder))
}

/// Keeps one copy of a database that is about to be migrated, in place of the copy before.
pub(super) fn before_upgrade(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let to = PathBuf::from(format!("{}.before-upgrade", path.display()));
    let part = PathBuf::from(format!("{}.before-upgrade.part", path.display()));
    remove_all(&part)?;
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600).open(&part).map_err(io("cannot keep a copy", &part))?;
    let kept = conn.execute("VACUUM INTO ?1", [part.to_string_lossy()]);
    if let Err(error) = kept {
        remove_all(&part)?;
        let shown = to.display();
        return Err(StoreError::Refused(format!(
            "the copy {shown} that is kept before an upgrade cannot be written: {error}"
        )));
    }
    File::open(&part).and_then(|file| file.sync_all()).map_err(io("cannot keep a copy", &part))?;
    std::fs::rename(&part, &to).map_err(io("cannot keep a copy", &to))
}

/// How many entries were signed of a database that is not open, for the question whether a lost key may be replaced.
///
/// # Errors
///
/// Fails when the database cannot be opened or read.
pub fn signed_entries(path: &Path) -> Result<u64, StoreError> {
    if std::fs::metadata(path).map_or(0, |meta| meta.len()) == 0 {
        return Ok(0);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(limits::SQLITE_BUSY)?;
    if loss::entries(&conn)? == 0 {
        return Ok(0);
    }
    Ok(number(&conn, "SELECT coalesce(max(size), 0) FROM checkpoint", [])?.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{SqliteOptions, SqliteStore};

    #[test]
    fn one_copy_is_kept_before_an_upgrade_and_none_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let copy = dir.path().join("store.db.before-upgrade");
        let mut conn = schema::open_writer(&path).unwrap();
        schema::migrate_to(&mut conn, 3, Time::UNIX_EPOCH).unwrap();
        drop(conn);
        std::fs::write(&copy, "the copy before the last upgrade").unwrap();
        let open = || SqliteStore::open(SqliteOptions::new(&path), Time::UNIX_EPOCH);
        drop(open().unwrap());
        let kept = schema::open_reader(&copy).unwrap();
        assert_eq!(number(&kept, "SELECT max(version) FROM migration", []).unwrap(), 3);
        let at = std::fs::metadata(&copy).unwrap().modified().unwrap();
        drop(open().unwrap());
        assert_eq!(
            std::fs::metadata(&copy).unwrap().modified().unwrap(),
            at,
            "nothing was upgraded, nothing was copied"
        );
    }
}
