//! SQLite's write-ahead log, read before SQLite does: it silently cuts the log at the first frame whose checksum is
//! wrong. A torn end is the trace of a crash; a wrong frame with whole transactions behind it is damage.
//!
//! Invariant: nothing is written, and a log that a crash of any moment can leave is no damage.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// The part that SQLite will cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogDamage {
    /// Where the wrong frame begins in the file.
    pub at: u64,
    /// Transactions from there on; all but the last were on the disk when they were acknowledged.
    pub transactions: u64,
}

/// The damage of the log beside this database; none: there is no log, or it is whole up to a torn end.
pub(super) fn damage(database: &Path) -> std::io::Result<Option<LogDamage>> {
    let path = PathBuf::from(format!("{}-wal", database.display()));
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    scan(BufReader::new(file))
}

fn scan(mut log: impl Read) -> std::io::Result<Option<LogDamage>> {
    let mut header = [0; HEADER];
    if !filled(&mut log, &mut header)? {
        return Ok(None);
    }
    let big_endian = match word(&header, 0) {
        0x377f_0682 => false,
        0x377f_0683 => true,
        // Not a log of SQLite: it is passed over whole, as one of another database is.
        _ => return Ok(None),
    };
    let page = word(&header, 8) as usize;
    let mut sum = LogChecksum { big_endian, words: (0, 0) };
    sum.add(&header[..24]);
    if sum.words != (word(&header, 24), word(&header, 28)) || !(512..=65_536).contains(&page) {
        return Ok(None);
    }
    let salts = &header[16..24];
    let mut frame = vec![0; FRAME_HEADER + page];
    let (mut at, mut wrong, mut commits) = (HEADER as u64, None, 0);
    // A frame with other salts is of the round before: the log ends there.
    while filled(&mut log, &mut frame)? && frame[8..16] == *salts {
        if wrong.is_none() {
            sum.add(&frame[..8]);
            sum.add(&frame[FRAME_HEADER..]);
            if sum.words != (word(&frame, 16), word(&frame, 20)) {
                wrong = Some(at);
            }
        }
        commits += u64::from(wrong.is_some() && word(&frame, 4) != 0);
        at += frame.len() as u64;
    }
    // One transaction may be torn by a crash, or have been given up; behind it none was begun before it was on the disk.
    Ok(wrong.filter(|_| commits > 1).map(|at| LogDamage { at, transactions: commits }))
}

/// False: the end came before the buffer was full.
fn filled(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The running checksum of the log, as SQLite's file format defines it.
struct LogChecksum {
    big_endian: bool,
    words: (u32, u32),
}

impl LogChecksum {
    fn add(&mut self, bytes: &[u8]) {
        let (pairs, _) = bytes.as_chunks::<8>();
        for pair in pairs {
            let (one, two) = (word(pair, 0), word(pair, 4));
            let (one, two) = if self.big_endian { (one, two) } else { (one.swap_bytes(), two.swap_bytes()) };
            self.words.0 = self.words.0.wrapping_add(one).wrapping_add(self.words.1);
            self.words.1 = self.words.1.wrapping_add(two).wrapping_add(self.words.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Actor, EntryKind, EntryLinks, Time};
    use crate::store::{Filter, Ledger, SqliteOptions, SqliteStore, Views};

    /// A database as `kill -9` leaves it: the log is not folded.
    async fn killed(dir: &Path) -> PathBuf {
        let path = dir.join("store.db");
        let store = SqliteStore::open(SqliteOptions::new(&path), Time::UNIX_EPOCH).unwrap();
        for _ in 0..20 {
            let kind = EntryKind::Trouble { text: "x".repeat(500) };
            store.note(Actor::engine(), EntryLinks::default(), kind, Time::UNIX_EPOCH).await.unwrap();
        }
        let copy = dir.join("killed.db");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(dir.join("store.db-wal"), dir.join("killed.db-wal")).unwrap();
        copy
    }

    fn flip(log: &Path, at: usize) {
        let mut bytes = std::fs::read(log).unwrap();
        bytes[at] ^= 0x20;
        std::fs::write(log, bytes).unwrap();
    }

    #[tokio::test]
    async fn a_flipped_byte_in_the_middle_is_damage_and_an_entry_and_a_torn_end_is_neither() {
        let dir = tempfile::tempdir().unwrap();
        let path = killed(dir.path()).await;
        let log = dir.path().join("killed.db-wal");
        assert_eq!(damage(&path).unwrap(), None, "a whole log");
        let size = std::fs::metadata(&log).unwrap().len() as usize;
        let whole = std::fs::read(&log).unwrap();
        for torn in [size - 1, size - 5_000, size - 100] {
            std::fs::write(&log, &whole[..torn]).unwrap();
            assert_eq!(damage(&path).unwrap(), None, "cut at {torn} of {size}");
        }
        std::fs::write(&log, &whole).unwrap();
        flip(&log, size / 2);
        let found = damage(&path).unwrap().unwrap();
        assert!(found.transactions > 2 && found.at < size as u64 / 2, "{found:?}");
        let store = SqliteStore::open(SqliteOptions::new(&path), Time::UNIX_EPOCH).unwrap();
        let filter = Filter { kinds: vec!["trouble"], limit: 1, ..Filter::default() };
        let entry = store.entries(filter).await.unwrap().remove(0);
        assert!(format!("{:?}", entry.kind).contains("write-ahead log"), "{entry:?}");
        assert!(store.health().await.unwrap() > 1_000_000, "what was lost was done: its numbers are fenced");
    }

    #[tokio::test]
    async fn a_log_that_another_reader_keeps_from_being_folded_is_told_once_and_when_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let store = SqliteStore::open(SqliteOptions::new(&path), Time::UNIX_EPOCH).unwrap();
        store.fold(Time::UNIX_EPOCH).await.unwrap();
        let mut other = rusqlite::Connection::open(&path).unwrap();
        let reading = other.transaction().unwrap();
        let _: i64 = reading.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)).unwrap();
        for _ in 0..80 {
            let kind = EntryKind::Trouble { text: "x".repeat(1024 * 1024) };
            store.note(Actor::engine(), EntryLinks::default(), kind, Time::UNIX_EPOCH).await.unwrap();
        }
        let told = async || {
            let incidents = store.incidents(Filter { limit: 10, ..Filter::default() }).await.unwrap();
            incidents.into_iter().map(|one| (one.key, one.closed_at.is_some())).collect::<Vec<_>>()
        };
        for _ in 0..2 {
            let refused = store.fold(Time::UNIX_EPOCH).await.unwrap_err().to_string();
            assert!(refused.contains("does another program read the database?"), "{refused}");
        }
        assert_eq!(told().await, [("store/fold".to_owned(), false)]);
        let filter = Filter { kinds: vec!["trouble"], limit: 1_000, ..Filter::default() };
        let entries = store.entries(filter).await.unwrap();
        assert_eq!(entries.iter().filter(|one| format!("{:?}", one.kind).contains("folded")).count(), 1, "once");
        drop(reading);
        store.fold(Time::UNIX_EPOCH).await.unwrap();
        assert_eq!(told().await, [("store/fold".to_owned(), true)]);
    }
}
