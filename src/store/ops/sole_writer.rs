//! State in memory that is right only because one writer changes the database.
//!
//! Every member names what it saves, why one writer makes it right, and what a store with several writers must do instead.
//! Whatever else the store keeps in memory is right with any number of writers: the epoch and the incarnation (of this process
//! and of the database), settings, and the entries of the transaction at hand (`Tx::fresh`).
//!
//! Invariant: all of it is read back from the database at the start, and again after an operation that was undone, so none of it
//! says anything that the database does not; `Quotas` alone counts in memory only.

use super::intake::IncidentQuotas;
use super::recent::EpisodeCache;
use super::tx::StoredTree;
use crate::model::EntryNo;
use crate::store::StoreError;
use crate::store::db::{Db, next_id, number};
use crate::store::ledger::TreeFrontier;

/// What one writer may keep in memory.
#[derive(Default)]
pub(crate) struct SoleWriter {
    /// The next numbers. They save a query for each row, and leave no gap where an operation is undone.
    ///
    /// One writer: no other gives out numbers. Several: a counter row for each table that is locked in the transaction, not a
    /// sequence of the database, since a sequence leaves gaps and the order of numbers is the order of commits for readers that
    /// page by number.
    pub next: NextNumbers,
    /// Which alert was seen last, not yet written to the index by alert.
    ///
    /// One writer: each new episode passes here. Several: the index is written with the episode, in the same transaction, under a
    /// unique key, so that two writers cannot open two episodes for one alert.
    pub recent: EpisodeCache,
    /// The right edge of the ledger's tree: the number of the next entry and the hashes that its leaf is joined with.
    ///
    /// One writer: no other appends. Several: one lock for appending, held until the commit, under which the edge is read back if
    /// another writer has appended since (its size tells).
    pub frontier: TreeFrontier,
    /// New incidents of each sender within the last minute.
    ///
    /// One writer: it sees every alert. Several: each admits its own share, so a sender has the quota once for each writer; or the
    /// counts are rows.
    pub quotas: IncidentQuotas,
}

/// The numbers that come next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NextNumbers {
    pub episode: i64,
    pub incident: i64,
    pub run: i64,
    pub approval: i64,
}

impl SoleWriter {
    /// Reads everything from the database: at start, and after something was undone.
    pub fn reload(&mut self, conn: &dyn Db) -> Result<(), StoreError> {
        self.next = NextNumbers {
            episode: next_id(conn, "episode")?,
            incident: next_id(conn, "incident")?,
            run: next_id(conn, "run")?,
            approval: next_id(conn, "approval")?,
        };
        self.recent = EpisodeCache::load(conn)?;
        let size = number(conn, "SELECT coalesce(max(no), -1) + 1 FROM entry", [])?;
        self.frontier = TreeFrontier::load(&mut StoredTree { conn }, size as u64)?;
        Ok(())
    }

    /// The number of the entry that will be appended next.
    pub fn next_no(&self) -> EntryNo {
        EntryNo(self.frontier.size() as i64)
    }
}
