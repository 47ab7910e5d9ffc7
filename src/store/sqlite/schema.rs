//! Opening: the lock, the settings that durability rests on (set and read back), and the numbered migrations.
//!
//! Invariant: nothing is written through a connection whose settings were not confirmed, nor by a second process.

use super::faults;
use crate::limits;
use crate::model::Time;
use crate::planted::planted;
use crate::store::StoreError;
use crate::store::db::{exec, number, one, params};
use ring::digest;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

/// Every change of the tables, in order. A file that was shipped is never edited: its hash is kept and compared.
const MIGRATIONS: [(&str, &str); 25] = [
    ("0001_first", include_str!("schema/0001_first.sql")),
    ("0002_backs", include_str!("schema/0002_backs.sql")),
    ("0004_agents", include_str!("schema/0004_agents.sql")),
    ("0007_guards", include_str!("schema/0007_guards.sql")),
    ("0008_replicas", include_str!("schema/0008_replicas.sql")),
    ("0009_owner", include_str!("schema/0009_owner.sql")),
    ("0010_agent_clusters", include_str!("schema/0010_agent_clusters.sql")),
    ("0011_tokens", include_str!("schema/0011_tokens.sql")),
    ("0012_ladder", include_str!("schema/0012_ladder.sql")),
    ("0013_token_roots", include_str!("schema/0013_token_roots.sql")),
    ("0014_moves_told", include_str!("schema/0014_moves_told.sql")),
    ("0015_recovery", include_str!("schema/0015_recovery.sql")),
    ("0016_groups", include_str!("schema/0016_groups.sql")),
    ("0017_foretold", include_str!("schema/0017_foretold.sql")),
    ("0018_freeze_ends", include_str!("schema/0018_freeze_ends.sql")),
    ("0019_urgent_notices", include_str!("schema/0019_urgent_notices.sql")),
    ("0021_parked", include_str!("schema/0021_parked.sql")),
    ("0022_thinned", include_str!("schema/0022_thinned.sql")),
    ("0023_incarnation", include_str!("schema/0023_incarnation.sql")),
    ("0024_agent_identities", include_str!("schema/0024_agent_identities.sql")),
    ("0025_posters", include_str!("schema/0025_posters.sql")),
    ("0026_redactions", include_str!("schema/0026_redactions.sql")),
    ("0027_subjects", include_str!("schema/0027_subjects.sql")),
    ("0029_action_facts", include_str!("schema/0029_action_facts.sql")),
    ("0031_applied_rules", include_str!("schema/0031_applied_rules.sql")),
];

/// File systems on which locks and fsync cannot be trusted, by the numbers of `statfs(2)`.
const NETWORK: [(u64, &str); 5] =
    [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB"), (0x517b, "SMB"), (0x0102_1997, "9P")];

/// Takes the lock beside the database; it lasts as long as the file stays open.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let lock_path = path.with_extension("lock");
    let io = |what: &'static str| {
        let path = lock_path.display().to_string();
        move |source: std::io::Error| StoreError::Io { what, path, source }
    };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(io("cannot make the folder of the database"))?;
    }
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(io("cannot open the lock file"))?;
    let kind = rustix::fs::fstatfs(&file).map_err(|error| io("cannot ask for the file system")(error.into()))?;
    if let Some((_, name)) = NETWORK.iter().find(|(magic, _)| *magic == kind.f_type as u64 & 0xffff_ffff) {
        let path = path.display();
        return Err(StoreError::Refused(format!(
            "{path} is on a network file system ({name}), where locks and fsync cannot be trusted: put data_dir on a local disk"
        )));
    }
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut owner = String::new();
        // Only for the message: a lock without a readable owner is a lock all the same.
        let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut owner);
        let owner =
            if owner.trim().is_empty() { "another process".to_owned() } else { format!("process {}", owner.trim()) };
        let path = path.display();
        return Err(StoreError::Locked(format!(
            "{path} is in use by {owner}: stop it first, or give this one its own data_dir"
        )));
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    // The number is for users alone; on a full disk there is none, and the lock holds all the same.
    let _ = write(&mut file);
    Ok(file)
}

pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let version = rusqlite::version_number();
    if version < limits::SQLITE_VERSION_MIN {
        return Err(StoreError::Refused(format!(
            "SQLite {} is too old: {} or later is needed, older ones can corrupt a write-ahead log",
            rusqlite::version(),
            limits::SQLITE_VERSION_MIN
        )));
    }
    let mut conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "secure_delete", "ON")?;
    confine(&conn, limits::WRITER_CACHE_KIB)?;
    confirm(&conn, "journal_mode", "wal")?;
    confirm(&conn, "synchronous", "2")?;
    conn.wal_hook(Some(fold_when_long))?;
    Ok(conn)
}

/// Folds a long log into the database after a commit, as SQLite does by itself. By itself it also passes over a failed
/// fsync of the database, and a later one that succeeds would then cut off the only good copy: here it is an error.
fn fold_when_long(wal: &mut Wal, pages: std::ffi::c_int) -> rusqlite::Result<()> {
    if i64::from(pages) < limits::WAL_PAGES {
        return Ok(());
    }
    match wal.checkpoint() {
        Err(error) if faults::is_lost_sync(&error) => Err(error),
        // Whatever else failed is tried again after the next commit; the log keeps everything until then.
        _ => Ok(()),
    }
}

/// Folds the log into the database as far as nothing reads from it, without keeping the writer waiting.
/// Returns how many pages are left in the log.
pub(super) fn fold(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
}

/// Folds the whole log before the last connection closes. Where that fails the log stays as it is, and the next start reads
/// it: SQLite would try once more at the close, take an fsync that succeeds now for one that has written everything, and
/// remove the log.
pub(super) fn fold_at_the_end(conn: &Connection) {
    let folded = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    if let Err(error) = folded {
        tracing::error!(%error, "the write-ahead log was not folded into the database at the end; it is kept, and read at the next start");
        if !planted("fold-tried-again-at-the-close") {
            let _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    confine(&conn, limits::READER_CACHE_KIB)?;
    // One that closes last would fold and remove the log, and pass over a failed fsync: the writer does that.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "query_only", "ON")?;
    confirm(&conn, "query_only", "1")?;
    Ok(conn)
}

fn confine(conn: &Connection, cache_kib: i64) -> Result<(), StoreError> {
    conn.set_prepared_statement_cache_capacity(limits::STATEMENTS);
    conn.busy_timeout(limits::SQLITE_BUSY)?;
    for (name, value, read) in [
        ("foreign_keys", "ON", "1"),
        ("trusted_schema", "OFF", "0"),
        ("cell_size_check", "ON", "1"),
        ("temp_store", "MEMORY", "2"),
    ] {
        conn.pragma_update(None, name, value)?;
        confirm(conn, name, read)?;
    }
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cache_size", -cache_kib)?;
    Ok(())
}

fn confirm(conn: &Connection, pragma: &str, wanted: &str) -> Result<(), StoreError> {
    let found = conn.pragma_query_value(None, pragma, |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => other.as_str()?.to_owned(),
        })
    })?;
    if found != wanted {
        return Err(StoreError::Refused(format!("SQLite keeps {pragma} at {found} although {wanted} was set")));
    }
    Ok(())
}

/// Refuses a database that a later version of this program has opened.
pub(super) fn refuse_newer(conn: &Connection) -> Result<(), StoreError> {
    let newest = version(conn)?;
    if newest > MIGRATIONS.len() as i64 {
        let known = MIGRATIONS.len();
        return Err(StoreError::Refused(format!(
            "the database has version {newest}, and this program supports up to {known}: it was opened by a newer Nightshift"
        )));
    }
    Ok(())
}

/// The number of the newest migration; 0: the database is new.
fn version(conn: &Connection) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'migration'";
    if number(conn, sql, [])? == 0 {
        return Ok(0);
    }
    number(conn, "SELECT coalesce(max(version), 0) FROM migration", [])
}

/// Whether `migrate` will change a database that is not new.
pub(super) fn is_old(conn: &Connection) -> Result<bool, StoreError> {
    let version = version(conn)?;
    Ok(version > 0 && version < MIGRATIONS.len() as i64)
}

/// Brings the tables up to date, all or nothing.
pub(super) fn migrate(conn: &mut Connection, now: Time) -> Result<(), StoreError> {
    migrate_to(conn, MIGRATIONS.len(), now)
}

/// The first `count` migrations alone: the schema of an earlier version.
pub(super) fn migrate_to(conn: &mut Connection, count: usize, now: Time) -> Result<(), StoreError> {
    let change = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    exec(
        &*change,
        "CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, \
         at INTEGER NOT NULL) STRICT",
        [],
    )?;
    refuse_newer(&change)?;
    for (version, (name, text)) in (1_i64..).zip(MIGRATIONS.into_iter().take(count)) {
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let hash = hex::encode(hash);
        let done =
            one(&*change, "SELECT sha256 FROM migration WHERE version = ?1", [version], |row| row.get::<String>(0))?;
        match done {
            Some(kept) if kept == hash => {}
            Some(_) => {
                return Err(StoreError::Damaged(format!("migration {name} is not the one that made this database")));
            }
            None => {
                change.execute_batch(text)?;
                let sql = "INSERT INTO migration (version, name, sha256, at) VALUES (?1, ?2, ?3, ?4)";
                exec(&*change, sql, params![version, name, hash, now.as_microsecond()])?;
            }
        }
    }
    change.commit()?;
    Ok(())
}

/// A new epoch for this process: runs of an earlier one are no longer owned.
pub(super) fn new_epoch(conn: &Connection) -> Result<i64, StoreError> {
    let sql = "UPDATE setting SET value = value + 1 WHERE name = 'epoch' RETURNING value";
    number(conn, sql, [])
}

/// A new incarnation: steps that begin from now on share no key with those of another copy of this database. Each start
/// draws one, because nothing else distinguishes a copy from the original.
pub(super) fn renew_incarnation(conn: &Connection) -> Result<String, StoreError> {
    let sql = "UPDATE incarnation SET id = lower(hex(randomblob(8))) RETURNING id";
    let drawn = one(conn, sql, [], |row| row.get::<String>(0))?;
    drawn.ok_or_else(|| StoreError::Damaged("the table `incarnation` has no row".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::db::all;

    #[test]
    fn steps_and_texts_of_before_keep_their_cordons_and_their_reach() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.pragma_update(None, "foreign_keys", "OFF").unwrap();
        let before = MIGRATIONS.iter().position(|(name, _)| name.starts_with("0029")).unwrap();
        migrate_to(&mut conn, before, Time::UNIX_EPOCH).unwrap();
        let calls = [(1, "k8s::cordon"), (1, "k8s::drain"), (1, "k8s::uncordon"), (2, "k8s::cordon")];
        for (step, (run, name)) in (0_i64..).zip(calls) {
            let sql = "INSERT INTO step (run, no, call, effect, begun_at, deadline, attempt, carry) \
                       VALUES (?1, ?2, json_object('action', ?3), 'converge', 0, 0, 1, 'null')";
            exec(&conn, sql, params![run, step, name]).unwrap();
        }
        // Run 1 goes on; run 2 is over.
        let sql = "INSERT INTO run (id, runbook, hash, input, subject, mode, state, final, epoch, cooldown, attempts, created_at, \
                   ended_at, requested_by) VALUES (?1, 'r', 'h', '{}', '{}', 'auto', '{}', ?2 IS NOT NULL, 1, 0, 0, 0, ?2, 'x')";
        for (run, ended) in [(1, None), (2, Some(5))] {
            exec(&conn, sql, params![run, ended]).unwrap();
        }
        let texts = [
            ("a", "//! Title\n//!\n//! reach: node\nlet x = 1;\n", "node"),
            ("b", "//! Title\nlet x = 1;\n//! reach: cluster\n", "none"),
            ("c", "// reach: node\n", "none"),
            ("d", "", "none"),
            ("e", "//! T\r\n  //!reach:\tpod  \r\n//! reach: node\r\n", "pod"),
            ("f", "//! reach: galaxy", "none"),
            ("g", "//! Title\n//! scope: workload\n", "workload"),
        ];
        for (hash, text, _) in texts {
            exec(&conn, "INSERT INTO pin (hash, name, text, at) VALUES (?1, 'r', ?2, 0)", params![hash, text]).unwrap();
        }
        migrate(&mut conn, Time::UNIX_EPOCH).unwrap();
        let column = |sql: &str| all(&conn, sql, [], |row| row.get::<String>(0)).unwrap();
        let scheduling = column("SELECT scheduling FROM step ORDER BY no");
        assert_eq!(scheduling, ["cordon", "unchanged", "uncordon", "unchanged"]);
        assert_eq!(column("SELECT reach FROM pin ORDER BY hash"), texts.map(|(.., reach)| reach));
    }
}
