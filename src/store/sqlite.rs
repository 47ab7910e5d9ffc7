//! SQLite behind `Store`: one writer thread, group commit, readers beside it.
//!
//! Invariant: one process, one writer; `synchronous=FULL` is read back before anything is written.

mod agents;
mod backup;
mod begin;
mod breakers;
mod catalog;
mod faults;
mod freezes;
mod incarnation;
mod incidents;
mod intake;
mod ladder;
mod log_scan;
mod loss;
mod notices;
mod parked;
mod people;
mod persons;
mod read;
mod recent;
mod record;
mod redact;
mod replicas;
mod rows;
mod runs;
mod schema;
mod sql;
mod subjects;
mod sweep;
mod timers;
mod tokens;
mod tx;
mod writer;

use super::ballast::Ballast;
use super::ledger::{Checkpoint, LeafHash, SigningKey, verify_note};
use super::mark::Mark;
use super::{
    AgentIdentity, AgentRow, Batch, Begun, Claimed, ClockMark, Control, Counts, Decided, Due, Failpoint, Filter,
    Follower, Heard, Hold, JoinToken, Linked, NewAgent, NewApproval, NewRun, NewToken, Numbered, OnFatal, Pressure,
    Prospect, RawEntry, Receipted, Store, StoreError, SubjectLink,
};
use crate::limits;
use crate::model::{
    About, Actor, AgentName, ApiToken, Approval, ApprovalId, Breaker, Card, CatalogFile, Entry, EntryKind, EntryNo,
    Episode, EpisodeId, Freeze, Incident, IncidentId, Level, Mode, Outcome, Pin, Plan, Reach, Run, RunId, RunState,
    Severity, Span, Standing, Step, Time, TokenId, Verdict,
};
use crate::policy::{GuardLimits, Proposal, TakenReplica};
use read::Readers;
use rusqlite::params;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tx::Tx;
use writer::{Queue, WhenFull};

pub use backup::{
    Contents as BackupContents, Place as StorePlace, Restored, restore, signed_entries, take as backup,
    verify as verify_backup,
};

/// Where and how.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The database file; a lock file and SQLite's log stand beside it.
    pub path: PathBuf,
    /// No rule's mode goes beyond this, whatever its file has.
    pub ceiling: Mode,
    /// The cluster that is meant where none is named; empty where it has no name.
    pub home: String,
    /// Every channel of the configuration.
    pub channels: Vec<String>,
    /// Those that are notified of an event that no rule matches.
    pub unmatched_tell: Vec<String>,
    /// An incident whose alerts have all ended is kept open so long. Zero: it is resolved at once.
    pub resolve_after: Span,
    /// Alerts of one name that fire within this time on many subjects are one incident. Zero: never.
    pub group_wait: Span,
    /// Where this process shall die, in tests of that.
    pub failpoint: Option<Failpoint>,
    /// Who is called after each commit.
    pub follower: Option<Follower>,
    /// Ends the process once the store cannot be trusted any more; none: everything is refused from then on.
    pub on_fatal: Option<OnFatal>,
    /// The file that keeps the newest signed checkpoint; a ledger that is smaller than that is refused. None: not looked at.
    pub mark: Option<PathBuf>,
    /// The user who accepts a ledger that is smaller than the signed one.
    pub accept_loss: Option<String>,
    /// The file that is given up when the disk is full. None: there is none.
    pub ballast: Option<PathBuf>,
}

impl SqliteOptions {
    /// A database with the mode of every rule's file, no resolve delay and no grouping.
    pub fn new(path: impl Into<PathBuf>) -> SqliteOptions {
        SqliteOptions {
            path: path.into(),
            ceiling: Mode::Auto,
            home: String::new(),
            channels: Vec::new(),
            unmatched_tell: vec!["oncall".to_owned()],
            resolve_after: Span::default(),
            group_wait: Span::default(),
            failpoint: None,
            follower: None,
            on_fatal: None,
            mark: None,
            accept_loss: None,
            ballast: None,
        }
    }
}

/// The store in one SQLite database: one writer, a few readers.
pub struct SqliteStore {
    epoch: i64,
    readers: Readers,
    on_fatal: Option<OnFatal>,
    mark: Option<PathBuf>,
    ballast: Arc<Ballast>,
    /// Whether the log could not be folded the last time, as users were notified of it; none: not yet in this life.
    fold_failed: Mutex<Option<bool>>,
    /// None once closed.
    writer: Mutex<Option<Writer>>,
}

struct Writer {
    queue: Queue,
    thread: std::thread::JoinHandle<()>,
}

impl SqliteStore {
    /// Opens or creates the database, takes its lock, begins a new epoch. Blocks: call it before the loops start.
    ///
    /// # Errors
    /// `Locked` while another process has it; `Refused` for a newer schema, a network file system, and a ledger that is
    /// smaller than the one that was signed last.
    pub fn open(options: SqliteOptions, now: Time) -> Result<SqliteStore, StoreError> {
        let ballast = Arc::new(Ballast::new(options.ballast.clone()));
        match SqliteStore::open_with(options.clone(), ballast.clone(), now) {
            Err(StoreError::Database(text)) if text.contains("is full") && options.ballast.is_some() => {
                ballast.let_go();
                SqliteStore::open_with(options, ballast, now)
            }
            opened => opened,
        }
    }

    fn open_with(options: SqliteOptions, ballast: Arc<Ballast>, now: Time) -> Result<SqliteStore, StoreError> {
        let lock = schema::lock(&options.path)?;
        let mark = options.mark.as_deref().map(Mark::read).transpose()?.flatten();
        let accepted = |loss: loss::Loss| match &options.accept_loss {
            Some(by) => Ok(loss.accepted(by)),
            None => Err(loss.refuse()),
        };
        let missing = loss::missing(&options.path, mark).map(accepted).transpose()?;
        // Before it is opened, for that cuts off damaged frames. A log that cannot be read is refused by the next
        // steps.
        let cut = log_scan::damage(&options.path).unwrap_or_default();
        let mut conn = schema::open_writer(&options.path)?;
        let loss = match missing {
            Some(text) => Some(text),
            None => loss::measure(&conn, &options.path, mark)?.map(accepted).transpose()?,
        };
        let loss = loss.or(cut.map(|cut| {
            format!(
                "the write-ahead log is damaged at byte {}: up to {} transactions that were acknowledged are cut off",
                cut.at, cut.transactions
            )
        }));
        schema::refuse_newer(&conn)?;
        if schema::is_old(&conn)? {
            backup::before_upgrade(&conn, &options.path)?;
        }
        schema::migrate(&mut conn, now)?;
        conn.execute_batch("BEGIN IMMEDIATE")?;
        if loss.is_some() {
            // Steps that the ledger has lost were done all the same, under numbers that are given again.
            incarnation::renew_incarnation(&conn)?;
        }
        let epoch = schema::new_epoch(&conn)?;
        let incarnation = schema::renew_incarnation(&conn)?;
        let mut tx = Tx::open(conn, epoch, options.ceiling)?;
        tx.incarnation = incarnation;
        tx.follower = options.follower;
        let started = EntryKind::Started { version: env!("CARGO_PKG_VERSION").to_owned(), epoch };
        tx.append(&Actor::engine(), About::default(), &started, now)?;
        if let Some(text) = &loss {
            tracing::error!(%text, "ledger entries are missing");
            tx.unmatched_tell.clone_from(&options.unmatched_tell);
            let title = "Entries of the ledger are lost";
            let incident = parked::alarm(&mut tx, "store/loss", title, Severity::Critical, text, now)?;
            let sql = "UPDATE incident SET resolves_at = ?2 WHERE id = ?1";
            sql::exec(&tx.conn, sql, params![incident.0, sql::micros(now + limits::STORE_NEWS_OPEN.0)])?;
        }
        tx.conn.execute_batch("COMMIT")?;
        tx.follow(1, std::time::Duration::ZERO);
        ballast.make();
        tx.ballast = ballast.clone();
        tx.on_fatal = options.on_fatal.clone();
        tx.failpoint = options.failpoint;
        tx.home = options.home;
        tx.channels = options.channels;
        tx.unmatched_tell = options.unmatched_tell;
        tx.resolve_after = options.resolve_after;
        tx.group_wait = options.group_wait;
        let last = move |tx: Tx| {
            schema::fold_at_the_end(&tx.conn);
            drop(tx);
            drop(lock);
        };
        let (queue, thread) = Queue::start(tx, last)?;
        let readers = Readers::new(options.path);
        Ok(SqliteStore {
            epoch,
            readers,
            on_fatal: options.on_fatal,
            mark: options.mark,
            ballast,
            fold_failed: Mutex::default(),
            writer: Mutex::new(Some(Writer { queue, thread })),
        })
    }

    /// The epoch of this process.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Gives the database at `path`, which no process has open, a new incarnation: for a copy that is put in the place of
    /// another. Each start does so as well.
    ///
    /// # Errors
    ///
    /// The database is in use, or cannot be opened or written.
    pub fn renew_incarnation(path: &std::path::Path, now: Time) -> Result<String, StoreError> {
        let lock = schema::lock(path)?;
        let mut conn = schema::open_writer(path)?;
        schema::migrate(&mut conn, now)?;
        let drawn = schema::renew_incarnation(&conn);
        drop(conn);
        drop(lock);
        drawn
    }

    fn queue(&self) -> Result<Queue, StoreError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = || StoreError::Database("the store is closed".to_owned());
        writer.as_ref().map(|writer| writer.queue.clone()).ok_or_else(closed)
    }

    async fn write<T, F>(&self, op: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx) -> Result<T, StoreError> + Send + 'static,
    {
        self.queue()?.write(WhenFull::Wait, op).await
    }

    /// Alerts are refused while the disk has no room but that of the ballast: their sender keeps them and comes again.
    fn has_room(&self) -> Result<(), StoreError> {
        match self.ballast.is_let_go() {
            true => Err(StoreError::Busy("the disk is full; alerts are refused until there is room".to_owned())),
            false => Ok(()),
        }
    }

    /// Notifies users once of a full disk, and takes alerts again once there is room.
    async fn look_after_room(&self, now: Time) -> Result<u64, StoreError> {
        const KEY: &str = "store/disk-full";
        if !self.ballast.is_let_go() {
            return Ok(0);
        }
        let mut changed = 0;
        if self.ballast.is_news() {
            let alarm = move |tx: &mut Tx| {
                let text = "the disk of the store is full: alerts are refused, and their senders keep them, until there is room; \
                            free space on it";
                parked::alarm(tx, KEY, "The disk of the store is full", Severity::Critical, text, now).map(drop)
            };
            self.write(alarm).await?;
            self.ballast.was_told();
            changed += 1;
        }
        let ballast = self.ballast.clone();
        if tokio::task::spawn_blocking(move || ballast.make()).await.unwrap_or(false) {
            tracing::info!("the store's disk has free space again; alerts are accepted");
            self.write(move |tx| parked::all_clear(tx, KEY, "the disk has room again", now)).await?;
            changed += 1;
        }
        Ok(changed)
    }

    /// Notifies users once of a log that cannot be folded, and once when it is folded again.
    async fn notify_of_fold(&self, failed: Option<String>, now: Time) -> Result<(), StoreError> {
        const KEY: &str = "store/fold";
        let has_failed = failed.is_some();
        if *self.fold_failed.lock().unwrap_or_else(PoisonError::into_inner) == Some(has_failed) {
            return Ok(());
        }
        let tell = move |tx: &mut Tx| match failed {
            Some(error) => {
                let text = format!(
                    "the write-ahead log cannot be folded into the database ({error}): nothing is lost, the log keeps \
                     everything and grows, and a copy of the database file alone lacks what is in the log; look at the disk \
                     (`dmesg`)"
                );
                let title = "The log of the store cannot be folded into its database";
                parked::alarm(tx, KEY, title, Severity::Critical, &text, now).map(drop)
            }
            None => parked::all_clear(tx, KEY, "the log is folded into the database again", now),
        };
        self.write(tell).await?;
        *self.fold_failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(has_failed);
        Ok(())
    }

    /// Lets the writer end; operations that it took are committed before.
    fn stop(&self) -> Option<std::thread::JoinHandle<()>> {
        self.readers.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        writer.map(|writer| writer.thread)
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        if let Some(thread) = self.stop() {
            // A writer that panicked has logged it already.
            let _ = thread.join();
        }
    }
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    async fn intake(&self, batch: Batch) -> Result<Heard, StoreError> {
        let prepared = intake::Prepared::new(batch)?;
        self.has_room()?;
        self.queue()?.write(WhenFull::Refuse, move |tx| intake::intake(tx, &prepared)).await
    }

    async fn start(&self, run: NewRun) -> Result<Option<RunId>, StoreError> {
        self.write(move |tx| runs::start(tx, &run)).await
    }

    async fn intake_reports(&self, numbered: Numbered) -> Result<(u64, Heard), StoreError> {
        self.has_room()?;
        self.queue()?.write(WhenFull::Refuse, move |tx| agents::reports(tx, numbered)).await
    }

    async fn due(&self, now: Time, limit: usize) -> Result<Due, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::due(conn, now, limit, &unreadable)).await
    }

    async fn tick(&self, now: Time) -> Result<u64, StoreError> {
        let room = self.look_after_room(now).await;
        let unreadable = self.readers.unreadable.take();
        let chores = self.write(move |tx| people::chores(tx, unreadable, now)).await?;
        let each = chores.into_iter().map(async |chore| {
            let same = chore.clone();
            match self.write(move |tx| people::perform(tx, &chore, now)).await {
                Err(StoreError::Damaged(why)) => {
                    self.write(move |tx| people::give_up(tx, &same, &why, now)).await.map(|()| 0)
                }
                done => done,
            }
        });
        // Together, so that they share a commit; all are tried before the first failure is returned.
        futures::future::join_all(each).await.into_iter().chain([room]).sum()
    }

    async fn claim(&self, run: RunId, now: Time) -> Result<Option<Claimed>, StoreError> {
        self.write(move |tx| runs::claim(tx, run, now)).await
    }

    async fn begin(&self, proposal: Proposal, limits: Arc<GuardLimits>, now: Time) -> Result<Begun, StoreError> {
        self.write(move |tx| begin::begin(tx, proposal, &limits, now)).await
    }

    async fn foretell(
        &self,
        prospect: Prospect,
        limits: Arc<GuardLimits>,
        now: Time,
    ) -> Result<Vec<Verdict>, StoreError> {
        // Where the levels are read for a step: operations under way are in them.
        self.write(move |tx| begin::foretell(tx, prospect, &limits, now)).await
    }

    async fn again(
        &self,
        proposal: Proposal,
        step: u32,
        limits: Arc<GuardLimits>,
        now: Time,
    ) -> Result<Begun, StoreError> {
        self.write(move |tx| begin::again(tx, proposal, step, &limits, now)).await
    }

    async fn attempt(&self, run: RunId, epoch: i64, step: u32, deadline: Time) -> Result<Step, StoreError> {
        self.write(move |tx| runs::attempt(tx, run, epoch, step, deadline)).await
    }

    async fn park(
        &self,
        run: RunId,
        epoch: i64,
        carry: Option<(u32, Value)>,
        state: RunState,
        wake_at: Time,
        now: Time,
    ) -> Result<(), StoreError> {
        self.write(move |tx| runs::park(tx, run, epoch, carry, &state, wake_at, now)).await
    }

    async fn end(
        &self,
        run: RunId,
        epoch: i64,
        step: u32,
        outcome: Outcome,
        tell: Vec<(String, String)>,
        now: Time,
    ) -> Result<(), StoreError> {
        self.write(move |tx| runs::end(tx, run, epoch, step, outcome, tell, now)).await
    }

    async fn planned(&self, run: RunId, epoch: i64, plan: Plan, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| runs::planned(tx, run, epoch, plan, now)).await
    }

    async fn ask(&self, run: RunId, epoch: i64, question: NewApproval, now: Time) -> Result<ApprovalId, StoreError> {
        self.write(move |tx| runs::ask(tx, run, epoch, question, now)).await
    }

    async fn unwind(&self, run: RunId, epoch: i64, why: String, _now: Time) -> Result<(), StoreError> {
        self.write(move |tx| runs::unwind(tx, run, epoch, why)).await
    }

    async fn abandoned(&self, run: RunId, _now: Time) -> Result<Option<(Run, Step)>, StoreError> {
        self.write(move |tx| runs::abandoned(tx, run)).await
    }

    async fn look_again(&self, run: RunId, epoch: i64, at: Option<Time>) -> Result<(), StoreError> {
        self.write(move |tx| runs::look_again(tx, run, epoch, at)).await
    }

    async fn set_aside(&self, run: RunId, why: String, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| parked::park(tx, "run", &run.0.to_string(), &why, now).map(drop)).await
    }

    async fn finish(&self, run: RunId, epoch: i64, state: RunState, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| runs::finish(tx, run, epoch, state, now)).await
    }

    async fn decide(
        &self,
        approval: ApprovalId,
        approved: bool,
        by: &str,
        why: &str,
        now: Time,
    ) -> Result<Decided, StoreError> {
        let answer = people::Answer { approval, approved, by: by.to_owned(), why: why.to_owned() };
        self.write(move |tx| people::decide(tx, &answer, now)).await
    }

    async fn control(&self, control: Control, now: Time) -> Result<(), StoreError> {
        let again = control.clone();
        match self.write(move |tx| people::control(tx, control, now)).await {
            // The disk was full, and there is room now that is kept for this.
            Err(StoreError::Database(_)) if self.ballast.is_let_go() && matches!(again, Control::Freeze(..)) => {
                self.write(move |tx| people::control(tx, again, now)).await
            }
            done => done,
        }
    }

    async fn note(&self, actor: Actor, about: About, kind: EntryKind, now: Time) -> Result<EntryNo, StoreError> {
        self.write(move |tx| tx.append(&actor, about, &kind, now)).await
    }

    async fn receipted(
        &self,
        channel: &str,
        incident: IncidentId,
        what: Receipted,
        now: Time,
    ) -> Result<(), StoreError> {
        let channel = channel.to_owned();
        self.write(move |tx| notices::receipted(tx, &channel, incident, what, now)).await
    }

    async fn pin(&self, pin: &Pin, text: &str, reach: Reach, now: Time) -> Result<(), StoreError> {
        let (pin, text) = (pin.clone(), text.to_owned());
        self.write(move |tx| {
            // A text that comes back is kept from then on.
            let sql = "INSERT INTO pin (hash, name, text, at, reach) VALUES (?1, ?2, ?3, ?4, ?5) \
                       ON CONFLICT (hash) DO UPDATE SET at = max(at, excluded.at), reach = excluded.reach";
            let reach = sql::to_word(&reach)?;
            sql::exec(&tx.conn, sql, params![pin.hash, pin.name, text, sql::micros(now), reach]).map(drop)
        })
        .await
    }

    async fn pinned(&self, hash: &str) -> Result<Option<String>, StoreError> {
        let hash = hash.to_owned();
        self.readers.read(move |conn| read::pinned(conn, &hash)).await
    }

    async fn keep_catalog(&self, files: Vec<CatalogFile>) -> Result<(), StoreError> {
        self.write(move |tx| catalog::keep(tx, &files)).await
    }

    async fn kept_catalog(&self) -> Result<Vec<CatalogFile>, StoreError> {
        self.readers.read(catalog::kept).await
    }

    async fn incidents(&self, filter: Filter) -> Result<Vec<Incident>, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::incidents(conn, &filter, &unreadable)).await
    }

    async fn episodes(&self, filter: Filter) -> Result<Vec<Episode>, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::episodes(conn, &filter, &unreadable)).await
    }

    async fn runs(&self, filter: Filter) -> Result<Vec<Run>, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::runs(conn, &filter, &unreadable)).await
    }

    async fn steps(&self, run: RunId) -> Result<Vec<Step>, StoreError> {
        self.readers.read(move |conn| read::steps(conn, run)).await
    }

    async fn approvals(&self, filter: Filter) -> Result<Vec<Approval>, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::approvals(conn, &filter, &unreadable)).await
    }

    async fn entries(&self, filter: Filter) -> Result<Vec<Entry>, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::entries(conn, &filter, &unreadable)).await
    }

    async fn freezes(&self) -> Result<Vec<Freeze>, StoreError> {
        self.readers.read(read::freezes).await
    }

    async fn holds(&self) -> Result<Vec<Hold>, StoreError> {
        self.readers.read(read::holds).await
    }

    async fn pressure(&self, now: Time) -> Result<Pressure, StoreError> {
        self.readers.read(move |conn| read::pressure(conn, now)).await
    }

    async fn replicas_taken(&self) -> Result<Vec<TakenReplica>, StoreError> {
        self.readers.read(replicas::open).await
    }

    async fn breakers(&self) -> Result<Vec<Breaker>, StoreError> {
        self.readers.read(breakers::tripped).await
    }

    async fn levels(&self) -> Result<Vec<Level>, StoreError> {
        self.readers.read(ladder::levels).await
    }

    async fn card(&self, rule: &str, content: &str) -> Result<Card, StoreError> {
        let (rule, content) = (rule.to_owned(), content.to_owned());
        self.readers.read(move |conn| ladder::card(conn, &rule, &content)).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.readers.read(read::counts).await
    }

    async fn unseen(
        &self,
        source: &str,
        before: Time,
        after: Option<(Time, EpisodeId)>,
        limit: usize,
    ) -> Result<Vec<Episode>, StoreError> {
        let (source, unreadable) = (source.to_owned(), self.readers.unreadable.clone());
        self.readers.read(move |conn| read::unseen(conn, &source, before, after, limit, &unreadable)).await
    }

    async fn raw_entries(&self, after: Option<EntryNo>, limit: usize) -> Result<Vec<RawEntry>, StoreError> {
        self.readers.read(move |conn| read::raw_entries(conn, after, limit)).await
    }

    async fn checkpoint(&self, key: Arc<SigningKey>, now: Time) -> Result<Option<Checkpoint>, StoreError> {
        let signed = self.write(move |tx| {
            let (size, root) = tx.root();
            let sql = "SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1";
            let map = |row: &rusqlite::Row<'_>| {
                Ok(Checkpoint { size: row.get::<_, i64>(0)?.unsigned_abs(), note: row.get(1)? })
            };
            let last = sql::one(&tx.conn, sql, [], map)?;
            if size == 0 || last.as_ref().is_some_and(|last| last.size == size) {
                return Ok(last);
            }
            let new = key.sign(size, root);
            let sql = "INSERT INTO checkpoint (size, at, note) VALUES (?1, ?2, ?3)";
            sql::exec(&tx.conn, sql, params![new.size as i64, sql::micros(now), new.note])?;
            // Under a key that was replaced the new signature covers all that the old one did, and only it can be verified.
            if last.is_some_and(|last| verify_note(&last.note, key.public()).is_err()) {
                sql::exec(&tx.conn, "DELETE FROM checkpoint WHERE size < ?1", [new.size as i64])?;
            }
            Ok(Some(new))
        });
        let signed = signed.await?;
        if let (Some(path), Some(newest)) = (&self.mark, &signed)
            && let Err(error) = Mark::write(path, newest)
        {
            tracing::warn!(file = %path.display(), %error, "the mark of the newest checkpoint was not written; retrying in 1 min");
        }
        Ok(signed)
    }

    async fn checkpoints(&self, after: u64, limit: usize) -> Result<Vec<Checkpoint>, StoreError> {
        self.readers.read(move |conn| read::checkpoints(conn, after, limit)).await
    }

    async fn inclusion(&self, no: EntryNo, size: u64) -> Result<(LeafHash, Vec<LeafHash>), StoreError> {
        self.readers.read(move |conn| read::inclusion(conn, no, size)).await
    }

    async fn consistency(&self, old: u64, new: u64) -> Result<Vec<LeafHash>, StoreError> {
        self.readers.read(move |conn| read::consistency(conn, old, new)).await
    }

    async fn agent_seen(&self, agent: NewAgent, standing: Standing, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| agents::seen(tx, &agent, &standing, now)).await
    }

    async fn agents(&self) -> Result<Vec<AgentRow>, StoreError> {
        self.readers.read(agents::rows).await
    }

    async fn agent_identity(&self, agent: &AgentName) -> Result<Option<AgentIdentity>, StoreError> {
        let agent = agent.clone();
        self.readers.read(move |conn| agents::identity(conn, &agent)).await
    }

    async fn agent_used(&self, agent: NewAgent, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| agents::used(tx, &agent, now)).await
    }

    async fn agent_renewed(&self, agent: NewAgent, now: Time) -> Result<u64, StoreError> {
        self.write(move |tx| agents::renewed(tx, &agent, now)).await
    }

    async fn agent_remove(&self, agent: &AgentName, by: &str, why: &str, now: Time) -> Result<(), StoreError> {
        let (agent, by, why) = (agent.clone(), by.to_owned(), why.to_owned());
        self.write(move |tx| agents::remove(tx, &agent, &by, &why, now)).await
    }

    async fn join_token(&self, token: JoinToken, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| agents::join_token(tx, &token, now)).await
    }

    async fn join_check(&self, hash: &str, agent: &AgentName, now: Time) -> Result<bool, StoreError> {
        let (hash, agent) = (hash.to_owned(), agent.clone());
        self.readers.read(move |conn| agents::join_check(conn, &hash, &agent, now).map(|made| made.is_bound)).await
    }

    async fn join(&self, hash: &str, agent: NewAgent, now: Time) -> Result<(), StoreError> {
        let hash = hash.to_owned();
        self.write(move |tx| agents::join(tx, &hash, &agent, now)).await
    }

    async fn token_make(&self, token: NewToken, now: Time) -> Result<ApiToken, StoreError> {
        self.write(move |tx| tokens::make(tx, &token, now)).await
    }

    async fn token(&self, hash: &str) -> Result<Option<ApiToken>, StoreError> {
        let hash = hash.to_owned();
        self.readers.read(move |conn| tokens::by_hash(conn, &hash)).await
    }

    async fn token_by_id(&self, token: TokenId) -> Result<Option<ApiToken>, StoreError> {
        self.readers.read(move |conn| tokens::find(conn, token)).await
    }

    async fn tokens(&self, now: Time) -> Result<Vec<ApiToken>, StoreError> {
        self.readers.read(move |conn| tokens::list(conn, now)).await
    }

    async fn same_person(&self, one: &str, other: &str) -> Result<bool, StoreError> {
        let (one, other) = (one.to_owned(), other.to_owned());
        self.readers.read(move |conn| persons::same(conn, &one, &other)).await
    }

    async fn token_revoke(&self, token: TokenId, by: &str, why: &str, now: Time) -> Result<Vec<ApiToken>, StoreError> {
        let (by, why) = (by.to_owned(), why.to_owned());
        self.write(move |tx| tokens::revoke(tx, token, &by, &why, now)).await
    }

    async fn subject_links(&self, issuer: &str, subject: &str) -> Result<Vec<SubjectLink>, StoreError> {
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        self.readers.read(move |conn| subjects::links(conn, &issuer, &subject)).await
    }

    async fn subject_link(&self, link: SubjectLink, now: Time) -> Result<Linked, StoreError> {
        self.write(move |tx| subjects::link(tx, &link, now)).await
    }

    async fn token_used(&self, token: TokenId, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| tokens::used(tx, token, now)).await
    }

    async fn break_glass(
        &self,
        token: NewToken,
        why: String,
        channels: Vec<String>,
        now: Time,
    ) -> Result<ApiToken, StoreError> {
        self.write(move |tx| tokens::break_glass(tx, &token, &why, &channels, now)).await
    }

    async fn sweep(&self, episodes: Span, bodies: Span, now: Time) -> Result<u64, StoreError> {
        self.write(move |tx| sweep::sweep(tx, episodes, bodies, now)).await
    }

    async fn retain_until(&self, further: Duration, now: Time) -> Result<Time, StoreError> {
        self.write(move |tx| sweep::retain_until(tx, further, now)).await
    }

    async fn shift_timers(&self, by: i64, text: String, now: Time) -> Result<u64, StoreError> {
        self.write(move |tx| timers::shift(tx, by, text, now)).await
    }

    async fn clock_mark(&self) -> Result<Option<ClockMark>, StoreError> {
        self.readers.read(timers::clock_mark).await
    }

    async fn keep_clock_mark(&self, mark: ClockMark) -> Result<(), StoreError> {
        self.write(move |tx| timers::keep_clock_mark(tx, mark)).await
    }

    async fn fold(&self, now: Time) -> Result<(), StoreError> {
        let on_fatal = self.on_fatal.clone();
        let fold = move |conn: &rusqlite::Connection| {
            let folded = schema::fold(conn);
            if let (Err(error), Some(on_fatal)) = (&folded, &on_fatal)
                && faults::is_lost_sync(error)
            {
                on_fatal.call(&format!("folding the write-ahead log into the database failed: {error}"));
            }
            match folded? {
                left if left > limits::WAL_PAGES_LEFT => Err(StoreError::Busy(format!(
                    "{left} pages of the log wait for a reader of an older state: does another program read the database?"
                ))),
                _ => Ok(()),
            }
        };
        let folded = self.readers.read(fold).await;
        self.notify_of_fold(folded.as_ref().err().map(ToString::to_string), now).await?;
        folded
    }

    async fn health(&self) -> Result<i64, StoreError> {
        self.queue()?.sound()?;
        self.has_room()?;
        // A row, so that an answer means that the disk takes writes.
        let sql = "INSERT INTO setting (name, value) VALUES ('health', 1) \
                   ON CONFLICT (name) DO UPDATE SET value = value + 1";
        self.write(move |tx| sql::exec(&tx.conn, sql, []).map(drop)).await?;
        Ok(self.epoch)
    }

    async fn close(&self) -> Result<(), StoreError> {
        let Some(thread) = self.stop() else { return Ok(()) };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        match joined {
            Ok(Ok(())) => Ok(()),
            _ => Err(StoreError::Database("the writer did not end in order".to_owned())),
        }
    }
}
