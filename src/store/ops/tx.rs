//! The writer's state: its connection, the right edge of the ledger, the next numbers. Every operation receives it.
//!
//! Invariant: an entry, its leaf and the tiles it completes are written together; users' channels learn of it with it.

use super::sole_writer::SoleWriter;
use crate::model::{Actor, Entry, EntryKind, EntryLinks, EntryNo, IncidentId, Mode, RunState, Span, Time};
use crate::store::db::{Db, SqlDialect, all, exec, micros, one, params};
use crate::store::ledger::{EntryLeaf, LeafHash, NodeSource, TILE, commitment};
use crate::store::{CommitFollower, CommitRecord, StoreError};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `D` is the database; operations take the default, and a store opens it over its own connection.
pub(crate) struct Tx<D: ?Sized = dyn Db> {
    /// State that is right because this is the one writer.
    pub sole: SoleWriter,
    pub epoch: i64,
    /// The incarnation of the database: steps bear it in their keys.
    pub incarnation: String,
    pub ceiling: Mode,
    /// The cluster that is meant where none is named.
    pub home: String,
    /// Every channel that can be notified.
    pub channels: Vec<String>,
    /// Those that are notified of an event that no rule matches.
    pub unmatched_tell: Vec<String>,
    /// How long an incident is kept open whose alerts have all ended, and a run with it.
    pub resolve_after: Span,
    /// Within this time many alerts of one name are one incident.
    pub group_wait: Span,
    random: SystemRandom,
    pub failpoint: Option<crate::store::Failpoint>,
    pub follower: Option<CommitFollower>,
    /// The room that is given up when the disk is full.
    pub ballast: std::sync::Arc<crate::store::ballast::DiskBallast>,
    /// Ends the process once the store cannot be trusted any more.
    pub on_fatal: Option<crate::store::OnFatal>,
    /// When the operation appended an entry with which the ledger is signed at once, if it did.
    pub to_sign: Option<Time>,
    /// Entries of the transaction so far, where there is a follower.
    pub fresh: Vec<Entry>,
    /// The database, within a transaction. Last, so that a `Tx` of any database is one of `dyn Db`.
    pub conn: D,
}

/// An entry without its number and time: these stand in the leaf itself.
#[derive(Serialize)]
struct EntryBody<'a> {
    actor: &'a Actor,
    about: &'a EntryLinks,
    #[serde(flatten)]
    kind: &'a EntryKind,
}

/// The same, read back.
#[derive(Deserialize)]
pub(crate) struct StoredEntry {
    pub actor: Actor,
    pub about: EntryLinks,
    #[serde(flatten)]
    pub kind: EntryKind,
}

impl<D: Db + 'static> Tx<D> {
    /// The state of the writer over an open database, with numbers and edge read from it.
    ///
    /// # Errors
    ///
    /// Fails when the database cannot be read.
    pub fn open(conn: D, epoch: i64, ceiling: Mode) -> Result<Tx<D>, StoreError> {
        let mut tx = Tx {
            sole: SoleWriter::default(),
            epoch,
            incarnation: String::new(),
            ceiling,
            home: String::new(),
            channels: Vec::new(),
            unmatched_tell: Vec::new(),
            resolve_after: Span::default(),
            group_wait: Span::default(),
            random: SystemRandom::new(),
            failpoint: None,
            follower: None,
            on_fatal: None,
            ballast: std::sync::Arc::default(),
            to_sign: None,
            fresh: Vec::new(),
            conn,
        };
        tx.ops().reload()?;
        Ok(tx)
    }

    /// The same for the operations, which know no database by name.
    pub fn ops(&mut self) -> &mut Tx {
        self
    }
}

impl<D: ?Sized> Tx<D> {
    /// Where a planned death waits, if one does.
    pub fn pass(&self, side: crate::store::failpoint::CommitSide) {
        if let Some(failpoint) = &self.failpoint {
            failpoint.reached(side);
        }
    }

    /// The transaction stands: its entries go to who follows them.
    pub fn follow(&mut self, operations: usize, took: Duration) {
        let entries = std::mem::take(&mut self.fresh);
        if let Some(follower) = &self.follower {
            follower.follow(CommitRecord { operations, took, entries });
        }
    }

    /// The number of the entry that will be appended next.
    pub fn next_no(&self) -> EntryNo {
        self.sole.next_no()
    }

    /// The number of entries, and the root of the tree over them.
    pub fn root(&self) -> (u64, LeafHash) {
        (self.sole.frontier.size(), self.sole.frontier.root())
    }
}

impl Tx {
    /// Reads the numbers and the ledger's edge from the database: at start, and after a transaction was undone.
    ///
    /// # Errors
    ///
    /// Fails when the database cannot be read.
    pub fn reload(&mut self) -> Result<(), StoreError> {
        self.sole.reload(&self.conn)
    }

    /// Appends an entry; channels that show its incident come to want it.
    ///
    /// # Errors
    ///
    /// Fails when the database cannot be written; the transaction must be undone then.
    pub fn append(
        &mut self,
        actor: &Actor,
        about: EntryLinks,
        kind: &EntryKind,
        now: Time,
    ) -> Result<EntryNo, StoreError> {
        let no = self.append_quietly(actor, about, kind, now)?;
        if let (Some(incident), true) = (about.incident, people_hear_of(kind)) {
            self.bump(incident, no, now)?;
            if people_wait_for(kind) {
                self.urge(Some(incident), no, now)?;
            }
        }
        Ok(no)
    }

    /// Marks an entry for which users wait: it waits for no turn among edits; a channel that failed waits all the same.
    /// While a delivery is under way its end looks at the mark.
    ///
    /// # Errors
    ///
    /// Fails when the database cannot be written; the transaction must be undone then.
    pub fn urge(&self, incident: Option<IncidentId>, no: EntryNo, now: Time) -> Result<(), StoreError> {
        let Some(incident) = incident else { return Ok(()) };
        let SqlDialect { greatest, least, .. } = self.conn.dialect();
        let sql = format!(
            "UPDATE outbox SET urgent = ?3, next_at = CASE WHEN want > done AND attempts = 0 AND sending = 0 \
             THEN {least}(next_at, {greatest}(?2, first_at)) ELSE next_at END WHERE incident = ?1"
        );
        exec(&self.conn, &sql, params![incident.0, micros(now), no.0]).map(drop)
    }

    /// Appends an entry, for a caller that bumps the channels once for many.
    ///
    /// # Errors
    ///
    /// Fails when the entry cannot be written as JSON or the database cannot be written; the transaction must be undone
    /// then.
    pub fn append_quietly(
        &mut self,
        actor: &Actor,
        about: EntryLinks,
        kind: &EntryKind,
        now: Time,
    ) -> Result<EntryNo, StoreError> {
        let body = serde_json::to_vec(&EntryBody { actor, about: &about, kind })
            .map_err(|error| StoreError::Refused(format!("an entry that is not JSON: {error}")))?;
        let no = self.append_body(kind.name(), about, &body, now)?;
        if kind.is_signed_at_once() {
            self.to_sign = Some(now);
        }
        if self.follower.is_some() {
            self.fresh.push(Entry { no, at: now, actor: actor.clone(), about, kind: kind.clone() });
        }
        Ok(no)
    }

    /// Appends an entry whose body is already text.
    ///
    /// # Errors
    ///
    /// Fails when the system gives no random numbers or the database cannot be written; the transaction must be undone
    /// then.
    pub fn append_body(
        &mut self,
        kind: &str,
        about: EntryLinks,
        body: &[u8],
        now: Time,
    ) -> Result<EntryNo, StoreError> {
        let mut salt = [0; 16];
        let dry = |_| StoreError::Database("the system gives no random numbers".to_owned());
        self.random.fill(&mut salt).map_err(dry)?;
        let leaf = EntryLeaf { no: self.next_no(), at: micros(now), commit: commitment(&salt, body) };
        exec(
            &self.conn,
            "INSERT INTO entry (no, at, kind, incident, run, commitment, salt, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                leaf.no.0,
                leaf.at,
                kind,
                about.incident.map(|id| id.0),
                about.run.map(|id| id.0),
                leaf.commit.0,
                salt,
                body
            ],
        )?;
        for tile in self.sole.frontier.push(leaf.hash()) {
            let bytes: Vec<u8> = tile.nodes.iter().flat_map(|node| node.0).collect();
            exec(
                &self.conn,
                "INSERT INTO tile (level, no, nodes) VALUES (?1, ?2, ?3)",
                params![tile.level, tile.no as i64, bytes],
            )?;
        }
        Ok(leaf.no)
    }

    /// Marks that the channels of an incident should show it up to `no`. Returns whether there are any.
    ///
    /// # Errors
    ///
    /// Fails when the database cannot be written; the transaction must be undone then.
    pub fn bump(&self, incident: IncidentId, no: EntryNo, now: Time) -> Result<bool, StoreError> {
        let SqlDialect { greatest, least, .. } = self.conn.dialect();
        // One that was never shown, and did not fail, waits for nothing but news.
        let sql = format!(
            "UPDATE outbox SET want = {greatest}(want, ?2), next_at = CASE WHEN want <= done THEN {greatest}(next_at, ?3) \
             WHEN shown IS NULL AND attempts = 0 AND sending = 0 THEN {least}(next_at, {greatest}(?3, first_at)) \
             ELSE next_at END, attempts = CASE WHEN want > done THEN attempts ELSE 0 END WHERE incident = ?1"
        );
        let rows = exec(&self.conn, &sql, params![incident.0, no.0, micros(now)])?;
        Ok(rows > 0)
    }

    /// This channel, too, should show the incident, from `first` on.
    ///
    /// # Errors
    ///
    /// Fails when the database cannot be written; the transaction must be undone then.
    pub fn want(&self, incident: IncidentId, channel: &str, no: EntryNo, first: Time) -> Result<(), StoreError> {
        exec(
            &self.conn,
            "INSERT INTO outbox (incident, channel, want, done, attempts, next_at, sending, first_at) \
             VALUES (?1, ?2, ?3, -1, 0, ?4, 0, ?4) ON CONFLICT (incident, channel) DO NOTHING",
            params![incident.0, channel, no.0, micros(first)],
        )?;
        Ok(())
    }
}

/// Deliveries about deliveries would never end; received alerts show in the entries that follow from them.
fn people_hear_of(kind: &EntryKind) -> bool {
    // A refusal must not become a way to edit messages.
    use EntryKind::{Delivered, DeliveryFailed, Heard, PageJudged, Refused};
    !matches!(kind, Heard { .. } | Delivered { .. } | DeliveryFailed { .. } | PageJudged { .. } | Refused { .. })
}

/// Entries that need a user: a question, or a run that ended and left the rest to users.
fn people_wait_for(kind: &EntryKind) -> bool {
    match kind {
        EntryKind::ApprovalAsked { .. } | EntryKind::AlertsJoined { raised: Some(_), .. } => true,
        EntryKind::RunEnded { state } => {
            matches!(state, RunState::Stopped { .. } | RunState::Failed { .. } | RunState::Stuck { .. })
        }
        _ => false,
    }
}

/// The stored tree: complete tiles, and the leaves of entries that do not yet fill one.
pub(crate) struct StoredTree<'a> {
    pub conn: &'a dyn Db,
}

impl NodeSource for StoredTree<'_> {
    type Error = StoreError;

    fn nodes(&mut self, level: u32, from: u64, to: u64) -> Result<Vec<LeafHash>, StoreError> {
        if from == to {
            return Ok(Vec::new());
        }
        let tile = from / TILE;
        let stored: Option<Vec<u8>> = one(
            self.conn,
            "SELECT nodes FROM tile WHERE level = ?1 AND no = ?2",
            params![level, tile as i64],
            |row| row.get(0),
        )?;
        if let Some(bytes) = stored {
            let (nodes, rest) = bytes.as_chunks::<32>();
            if nodes.len() as u64 != TILE || !rest.is_empty() {
                return Err(StoreError::Damaged(format!("tile {tile} of level {level} has {} bytes", bytes.len())));
            }
            let (first, last) = ((from - tile * TILE) as usize, (to - tile * TILE) as usize);
            return Ok(nodes[first..last].iter().map(|node| LeafHash(*node)).collect());
        }
        if level > 0 {
            return (from..to)
                .map(|node| {
                    Ok(crate::store::ledger::tree_hash(&self.nodes(level - 1, node * TILE, (node + 1) * TILE)?))
                })
                .collect();
        }
        let leaves = all(
            self.conn,
            "SELECT no, at, commitment FROM entry WHERE no >= ?1 AND no < ?2 ORDER BY no",
            params![from as i64, to as i64],
            |row| Ok(EntryLeaf { no: EntryNo(row.get(0)?), at: row.get(1)?, commit: LeafHash(row.get(2)?) }.hash()),
        )?;
        if leaves.len() as u64 != to - from {
            return Err(StoreError::Damaged(format!("entries are missing between #{from} and #{to}")));
        }
        Ok(leaves)
    }
}
