//! SQLite behind `Store`: one writer thread, group commit, readers beside it.
//!
//! Invariant: one process, one writer; `synchronous=FULL` is read back before anything is written.

mod backup;
mod checkpoints;
mod connection;
mod faults;
mod incarnation;
mod log_scan;
mod loss;
mod readers;
mod schema;
mod seam;
mod writer;

use super::ballast::DiskBallast;
use super::db::{exec, micros, params};
use super::ledger::{Checkpoint, SigningKey};
use super::mark::CheckpointMark;
use super::ops::parked;
use super::ops::tx::Tx;
use super::{CommitFollower, Failpoint, OnFatal, StoreError};
use crate::limits;
use crate::model::{Actor, EntryKind, EntryLinks, Mode, Severity, Span, Time};
use crate::planted::planted;
use readers::ReaderPool;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use writer::{WhenFull, WriterQueue};

pub use backup::{
    BackupContents, RestoreReport, StoreFiles, restore, signed_entries, take as backup, verify as verify_backup,
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
    pub follower: Option<CommitFollower>,
    /// Ends the process once the store cannot be trusted any more; none: everything is refused from then on.
    pub on_fatal: Option<OnFatal>,
    /// The files that each keep the newest signed checkpoint, the one beside the database first; a ledger that is smaller than
    /// that is refused. None: not looked at.
    pub marks: Vec<PathBuf>,
    /// The signing key, which is made once there are entries: with it an empty ledger is refused.
    pub key: Option<PathBuf>,
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
            marks: Vec::new(),
            key: None,
            accept_loss: None,
            ballast: None,
        }
    }
}

/// The store in one SQLite database: one writer, a few readers.
pub struct SqliteStore {
    epoch: i64,
    readers: ReaderPool,
    on_fatal: Option<OnFatal>,
    marks: Vec<PathBuf>,
    /// Signs the ledger at once where an entry requires it; none: only when that is asked for.
    key: OnceLock<Arc<SigningKey>>,
    ballast: Arc<DiskBallast>,
    /// Whether the log could not be folded the last time, as users were notified of it; none: not yet in this life.
    fold_failed: Mutex<Option<bool>>,
    /// None once closed.
    writer: Mutex<Option<WriterHandle>>,
}

struct WriterHandle {
    queue: WriterQueue,
    thread: std::thread::JoinHandle<()>,
}

impl SqliteStore {
    /// Opens or creates the database, takes its lock, begins a new epoch. Blocks: call it before the loops start.
    ///
    /// # Errors
    /// `Locked` while another process has it; `Refused` for a newer schema, a network file system, and a ledger that is
    /// smaller than the one that was signed last.
    pub fn open(options: SqliteOptions, now: Time) -> Result<SqliteStore, StoreError> {
        let ballast = Arc::new(DiskBallast::new(options.ballast.clone()));
        match SqliteStore::open_with(options.clone(), ballast.clone(), now) {
            Err(StoreError::Database(text)) if text.contains("is full") && options.ballast.is_some() => {
                ballast.let_go();
                SqliteStore::open_with(options, ballast, now)
            }
            opened => opened,
        }
    }

    fn open_with(options: SqliteOptions, ballast: Arc<DiskBallast>, now: Time) -> Result<SqliteStore, StoreError> {
        let lock = schema::lock(&options.path)?;
        let expected = loss::Expected::read(&options)?;
        let missing = expected.missing()?;
        // Before it is opened, for that cuts off damaged frames. A log that cannot be read is refused by the next
        // steps.
        let cut = log_scan::damage(&options.path).unwrap_or_default();
        let mut conn = schema::open_writer(&options.path)?;
        let loss = expected.measured(&conn, missing, cut)?;
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
        tx.ops().append(&Actor::engine(), EntryLinks::default(), &started, now)?;
        if let Some(text) = &loss {
            tracing::error!(%text, "ledger entries are missing");
            tx.unmatched_tell.clone_from(&options.unmatched_tell);
            let title = "Entries of the ledger are lost";
            let incident = parked::alarm(tx.ops(), "store/loss", title, Severity::Critical, text, now)?;
            let sql = "UPDATE incident SET resolves_at = ?2 WHERE id = ?1";
            exec(&tx.conn, sql, params![incident.0, micros(now + limits::STORE_NEWS_OPEN.0)])?;
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
        let last = move |tx: Tx<Connection>| {
            schema::fold_at_the_end(&tx.conn);
            drop(tx);
            drop(lock);
        };
        let (queue, thread) = WriterQueue::start(tx, last)?;
        let readers = ReaderPool::new(options.path);
        Ok(SqliteStore {
            epoch,
            readers,
            on_fatal: options.on_fatal,
            marks: options.marks,
            key: OnceLock::new(),
            ballast,
            fold_failed: Mutex::default(),
            writer: Mutex::new(Some(WriterHandle { queue, thread })),
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

    fn queue(&self) -> Result<WriterQueue, StoreError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = || StoreError::Database("the store is closed".to_owned());
        writer.as_ref().map(|writer| writer.queue.clone()).ok_or_else(closed)
    }

    async fn write<T, F>(&self, op: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<Connection>) -> Result<T, StoreError> + Send + 'static,
    {
        self.write_as(WhenFull::Wait, op).await
    }

    /// One operation, and the signature over it where it is of a kind that is signed at once.
    async fn write_as<T, F>(&self, when_full: WhenFull, op: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<Connection>) -> Result<T, StoreError> + Send + 'static,
    {
        let noting = move |tx: &mut Tx<Connection>| {
            tx.to_sign = None;
            let done = op(tx)?;
            Ok((done, tx.to_sign.take()))
        };
        let (done, to_sign) = self.queue()?.write(when_full, noting).await?;
        if let (Some(now), Some(key), false) = (to_sign, self.key.get(), planted("freeze-signed-later")) {
            // The entry stands, whatever comes of its signature: the next one within a minute covers it.
            if let Err(error) = self.sign(key.clone(), now).await {
                tracing::warn!(%error, "the ledger was not signed at once; retrying in 1 min");
            }
        }
        Ok(done)
    }

    /// From now on the ledger is signed with this key before an operation is answered that stops automation, lets it go on, or
    /// changes who may do what.
    pub fn sign_at_once_with(&self, key: Arc<SigningKey>) {
        // A second key would be another process's.
        let _ = self.key.set(key);
    }

    async fn sign(&self, key: Arc<SigningKey>, now: Time) -> Result<Option<Checkpoint>, StoreError> {
        let marked: Vec<String> =
            self.marks.iter().filter(|mark| mark.exists()).map(|mark| loss::marked(mark)).collect();
        let signed = self.queue()?.write(WhenFull::Wait, move |tx| checkpoints::sign(tx, &key, &marked, now)).await?;
        for path in &self.marks {
            if let Some(newest) = &signed
                && let Err(error) = CheckpointMark::write(path, newest)
            {
                let file = path.display();
                tracing::warn!(%file, %error, "the mark of the newest checkpoint was not written; retrying in 1 min");
            }
        }
        Ok(signed)
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
            let alarm = move |tx: &mut Tx<Connection>| {
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
        let tell = move |tx: &mut Tx<Connection>| match failed {
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

/// A database in memory with every table, for tests of the operations.
#[cfg(test)]
pub(super) fn in_memory() -> Connection {
    let mut conn = Connection::open_in_memory().expect("a database in memory");
    schema::migrate(&mut conn, Time::UNIX_EPOCH).expect("its tables");
    conn
}
