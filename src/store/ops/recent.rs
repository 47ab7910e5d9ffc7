//! Alerts that were received lately, in memory, until there are enough of them to write their index in order.
//!
//! A key is a hash, so an index that is kept event by event costs a page of the disk for each: with many together,
//! sorted, a page takes many of them.
//! Invariant: of every alert the latest episode is either here or filed in the table `complaint`; entries here are
//! found again at the next start, since episodes after the last filed one are read then.

use crate::limits;
use crate::store::StoreError;
use crate::store::db::{Db, exec, number, params};
use ring::digest;
use std::collections::HashMap;

/// A hash of (source, fingerprint). The whole of it distinguishes alerts in memory; the index on disk has its first
/// half, and texts are compared there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AlertKey {
    pub key: i64,
    rest: u64,
}

impl AlertKey {
    /// The key of an alert: the first 16 bytes of a SHA-256 over source and fingerprint.
    pub fn of(source: &str, fingerprint: &str) -> AlertKey {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(source.as_bytes());
        context.update(&[0]);
        context.update(fingerprint.as_bytes());
        let hash = context.finish();
        let (words, _) = hash.as_ref().as_chunks::<8>();
        AlertKey { key: i64::from_be_bytes(words[0]), rest: u64::from_be_bytes(words[1]) }
    }
}

#[derive(Default)]
pub(crate) struct EpisodeCache {
    latest: HashMap<AlertKey, i64>,
    /// Entries being filed: keys and episodes, the smallest key last.
    filing: Vec<(i64, i64)>,
    /// Episodes up to this one are filed; and those up to `aim` will be once `filing` is empty.
    filed: i64,
    aim: i64,
}

impl EpisodeCache {
    /// Reads episodes that are not filed: at start, and after a transaction was undone.
    ///
    /// # Errors
    ///
    /// Fails when the database cannot be read.
    pub fn load(conn: &dyn Db) -> Result<EpisodeCache, StoreError> {
        let filed = number(conn, "SELECT value FROM setting WHERE name = 'filed'", [])?;
        let mut recent = EpisodeCache { filed, ..EpisodeCache::default() };
        let sql = "SELECT id, source, fingerprint FROM episode WHERE id > ?1 ORDER BY id";
        conn.query(sql, params![filed], &mut |row| {
            let complaint = AlertKey::of(&row.get::<String>(1)?, &row.get::<String>(2)?);
            recent.latest.insert(complaint, row.get(0)?);
            Ok(true)
        })?;
        Ok(recent)
    }

    /// The latest episode, if it is not filed.
    pub fn get(&self, complaint: AlertKey) -> Option<i64> {
        self.latest.get(&complaint).copied()
    }

    /// Whether the table has anything to look for.
    pub fn has_filed(&self) -> bool {
        self.filed > 0
    }

    /// Records the latest episode of an alert.
    pub fn opened(&mut self, complaint: AlertKey, episode: i64) {
        self.latest.insert(complaint, episode);
    }

    /// Files some, once there are many: four for each that was opened, so that the filing overtakes the opening.
    /// `newest`: the last episode there is.
    ///
    /// # Errors
    ///
    /// Fails when the database cannot be written; the next call files the rest.
    pub fn file(&mut self, conn: &dyn Db, opened: usize, newest: i64) -> Result<(), StoreError> {
        if self.filing.is_empty() {
            if self.latest.len() < limits::RECENT_COMPLAINTS {
                return Ok(());
            }
            self.filing = self.latest.iter().map(|(complaint, episode)| (complaint.key, *episode)).collect();
            self.filing.sort_unstable_by(|a, b| b.cmp(a));
            self.aim = newest;
        }
        let left = self.filing.len().saturating_sub(opened.saturating_mul(4));
        // A filing that a crash cut short is begun again.
        let insert = "INSERT INTO complaint (key, episode) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        for (key, episode) in self.filing.drain(left..).rev() {
            exec(conn, insert, params![key, episode])?;
        }
        if self.filing.is_empty() {
            exec(conn, "UPDATE setting SET value = ?1 WHERE name = 'filed'", [self.aim])?;
            self.filed = self.aim;
            let filed = self.filed;
            self.latest.retain(|_, episode| *episode > filed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::in_memory;

    fn insert(conn: &dyn Db, recent: &mut EpisodeCache, id: i64, fingerprint: &str) {
        let sql = "INSERT INTO episode VALUES (?1, ?2, 0, NULL, 0, 0, 0, 1, 0, 0, 0, 0, 's', ?3)";
        let complaint = AlertKey::of("s", fingerprint);
        exec(conn, sql, params![id, complaint.key, fingerprint]).unwrap();
        recent.opened(complaint, id);
        recent.file(conn, 1, id).unwrap();
    }

    fn find(conn: &dyn Db, recent: &EpisodeCache, fingerprint: &str) -> Option<i64> {
        let complaint = AlertKey::of("s", fingerprint);
        let sql = "SELECT coalesce(max(episode), 0) FROM complaint WHERE key = ?1";
        recent.get(complaint).or_else(|| Some(number(conn, sql, [complaint.key]).unwrap()).filter(|id| *id > 0))
    }

    #[test]
    fn the_latest_episode_of_each_complaint_is_found_before_during_and_after_the_filing() {
        let conn = in_memory();
        let mut recent = EpisodeCache::load(&conn).unwrap();
        let many = limits::RECENT_COMPLAINTS as i64 * 3;
        conn.execute_batch("BEGIN").unwrap();
        // Every third alert comes back later as another episode.
        let name = |id: i64| if id % 3 == 0 { format!("f{}", id / 3) } else { format!("f{id}") };
        let mut latest = HashMap::new();
        for id in 1..=many {
            insert(&conn, &mut recent, id, &name(id));
            latest.insert(name(id), id);
        }
        assert!(recent.has_filed() && recent.latest.len() < 2 * limits::RECENT_COMPLAINTS);
        let again = EpisodeCache::load(&conn).unwrap();
        for (fingerprint, id) in &latest {
            assert_eq!(find(&conn, &recent, fingerprint), Some(*id), "{fingerprint}");
            assert_eq!(find(&conn, &again, fingerprint), Some(*id), "{fingerprint} after a start");
        }
        assert_eq!(find(&conn, &recent, "another"), None);
        exec(&conn, "DELETE FROM episode", []).unwrap();
        assert_eq!(number(&conn, "SELECT count(*) FROM complaint", []).unwrap(), 0, "it goes with its episode");
    }
}
