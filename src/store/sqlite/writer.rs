//! The one writer: a thread that takes operations from two bounded queues and lets those that wait share a commit. Events that
//! arrive wait in a queue of their own, so that in a flood of them a step, a decision or a notification waits for one batch and
//! not for all.
//!
//! Invariant: an operation is answered only after its commit; a failing one is undone alone; after a commit that failed
//! nothing is written any more, and the process is ended where the options require it.

use super::faults::SqliteFault;
use crate::limits;
use crate::planted::planted;
use crate::store::failpoint::CommitSide;
use crate::store::ops::tx::Tx;
use crate::store::{OnFatal, StoreError};
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// One operation on its way through the writer.
trait WriterJob: Send {
    /// `false`: it failed, and its writes must be undone.
    fn perform(&mut self, tx: &mut Tx<Connection>) -> bool;
    /// Answers; `failure` is why nothing of the transaction stands.
    fn answer(self: Box<Self>, failure: Option<&str>);
}

struct WriterTask<T, F> {
    op: Option<F>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnOnce(&mut Tx<Connection>) -> Result<T, StoreError> + Send> WriterJob for WriterTask<T, F> {
    fn perform(&mut self, tx: &mut Tx<Connection>) -> bool {
        self.result = self.op.take().map(|op| op(tx));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, failure: Option<&str>) {
        let answer = match (failure, self.result) {
            // A refused operation stays refused, whatever the result of the others.
            (_, Some(Err(error))) => Err(error),
            (None, Some(Ok(value))) => Ok(value),
            (failure, _) => Err(StoreError::Database(failure.unwrap_or("the operation never ran").to_owned())),
        };
        // The caller may have gone away; the write stands all the same.
        let _ = reply(self.reply, answer);
    }
}

fn reply<T>(to: oneshot::Sender<T>, answer: T) -> Result<(), T> {
    to.send(answer)
}

/// The way to the writer.
#[derive(Clone)]
pub(super) struct WriterQueue {
    sender: mpsc::Sender<Box<dyn WriterJob>>,
    events: mpsc::Sender<Box<dyn WriterJob>>,
    broken: Arc<AtomicBool>,
}

/// The behavior when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenFull {
    Wait,
    /// For events, whose senders keep them and try again.
    Refuse,
}

/// What waits for the writer.
struct WaitingJobs {
    first: mpsc::Receiver<Box<dyn WriterJob>>,
    events: mpsc::Receiver<Box<dyn WriterJob>>,
    /// The last transaction began with another operation than events: the next one begins with events, if any wait.
    owed: bool,
}

impl WaitingJobs {
    /// Waits for the operation that begins the next transaction; none: there is no way to the writer any more.
    fn next(&mut self) -> Option<Box<dyn WriterJob>> {
        if std::mem::take(&mut self.owed)
            && let Ok(events) = self.events.try_recv()
        {
            return Some(events);
        }
        futures::executor::block_on(async {
            tokio::select! {
                biased;
                Some(work) = self.first.recv() => {
                    self.owed = true;
                    Some(work)
                }
                Some(events) = self.events.recv() => Some(events),
                else => None,
            }
        })
    }

    /// What waits now.
    fn at_hand(&mut self) -> Option<Box<dyn WriterJob>> {
        self.first.try_recv().or_else(|_| self.events.try_recv()).ok()
    }
}

impl WriterQueue {
    /// Starts the thread; it ends when the last queue is dropped, and then runs `last`.
    ///
    /// # Errors
    ///
    /// Fails when the thread cannot be started.
    pub fn start(
        tx: Tx<Connection>,
        last: impl FnOnce(Tx<Connection>) + Send + 'static,
    ) -> Result<(WriterQueue, std::thread::JoinHandle<()>), StoreError> {
        let (sender, first) = mpsc::channel(limits::INTAKE_QUEUE);
        let (events, batches) = mpsc::channel(limits::INTAKE_QUEUE);
        let waiting = WaitingJobs { first, events: batches, owed: false };
        let broken = Arc::new(AtomicBool::new(false));
        let seen = broken.clone();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || last(serve(tx, waiting, &seen)))
            .map_err(|error| StoreError::Database(format!("cannot start the writer's thread: {error}")))?;
        Ok((WriterQueue { sender, events, broken }, thread))
    }

    /// Runs `op` in a transaction and returns when that is durable.
    ///
    /// # Errors
    ///
    /// Fails when the queue is full (with [`WhenFull::Refuse`]), the writer has ended, `op` fails, or the commit does.
    pub async fn write<T, F>(&self, when_full: WhenFull, op: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<Connection>) -> Result<T, StoreError> + Send + 'static,
    {
        self.sound()?;
        let (reply, answer) = oneshot::channel();
        let work: Box<dyn WriterJob> = Box::new(WriterTask { op: Some(op), result: None, reply });
        let gone = || StoreError::Database("the writer has ended".to_owned());
        match when_full {
            WhenFull::Wait => self.sender.send(work).await.map_err(|_| gone())?,
            WhenFull::Refuse => self.events.try_send(work).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    StoreError::Busy(format!("{} operations wait for the disk already", limits::INTAKE_QUEUE))
                }
                mpsc::error::TrySendError::Closed(_) => gone(),
            })?,
        }
        answer.await.map_err(|_| gone())?
    }

    /// Whether every commit so far succeeded.
    ///
    /// # Errors
    ///
    /// Fails once a commit has failed.
    pub fn sound(&self) -> Result<(), StoreError> {
        if self.broken.load(Ordering::Acquire) {
            let what = "an earlier commit failed, so the store is read-only: check the disk and restart";
            return Err(StoreError::Database(what.to_owned()));
        }
        Ok(())
    }
}

fn serve(mut tx: Tx<Connection>, mut waiting: WaitingJobs, broken: &AtomicBool) -> Tx<Connection> {
    let mut group: Vec<Box<dyn WriterJob>> = Vec::new();
    // An operation that panics takes the thread with it: nothing would be written any more, and everything else go on.
    let _panicked = EndOnPanic(tx.on_fatal.clone());
    while let Some(first) = waiting.next() {
        if broken.load(Ordering::Acquire) {
            first.answer(Some("an earlier commit failed"));
            continue;
        }
        let failure = transact(&mut tx, first, &mut waiting, &mut group);
        let mut end = None;
        if let Some(failure) = &failure {
            tx.fresh.clear();
            if failure.full {
                tx.ballast.let_go();
            }
            if failure.fatal {
                end = Some(failure.text.clone());
            } else if let Err(error) = tx.ops().reload() {
                end = Some(format!("after an operation that was undone the store could not be read: {error}"));
            }
            broken.fetch_or(end.is_some(), Ordering::AcqRel);
        }
        for work in group.drain(..) {
            work.answer(failure.as_ref().map(|failure| failure.text.as_str()));
        }
        if let (Some(why), Some(on_fatal), false) = (end, &tx.on_fatal, planted("fatal-store-lives-on")) {
            on_fatal.call(&why);
        }
    }
    tx
}

/// Ends the process when the writer's thread panics.
struct EndOnPanic(Option<OnFatal>);

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if let (true, Some(on_fatal)) = (std::thread::panicking(), &self.0) {
            on_fatal.call("a bug ended the writer's thread");
        }
    }
}

/// Why nothing of a transaction stands.
struct TransactionFailure {
    text: String,
    /// The state of the disk is not known: this process must not write again.
    fatal: bool,
    /// The disk has no room.
    full: bool,
}

impl TransactionFailure {
    fn new(what: &str, error: &rusqlite::Error, tx: &Tx<Connection>) -> TransactionFailure {
        let fault = SqliteFault::of(error, &tx.conn);
        let passes = fault.is_full() || fault.is_busy();
        TransactionFailure { text: format!("{what}: {error}"), fatal: !passes, full: fault.is_full() }
    }
}

/// One transaction: the first operation, and those that came meanwhile. A lone one never waits for company.
fn transact(
    tx: &mut Tx<Connection>,
    first: Box<dyn WriterJob>,
    waiting: &mut WaitingJobs,
    group: &mut Vec<Box<dyn WriterJob>>,
) -> Option<TransactionFailure> {
    let begun = Instant::now();
    let mut next = Some(first);
    if let Err(error) = run(tx, "BEGIN IMMEDIATE") {
        group.extend(next);
        return Some(TransactionFailure::new("cannot begin a transaction", &error, tx));
    }
    while let Some(mut work) = next.take() {
        let done = guarded(tx, work.as_mut());
        group.push(work);
        if let Err(broken) = done {
            return Some(broken);
        }
        if group.len() < limits::GROUP_COMMIT_OPS && begun.elapsed() < limits::GROUP_COMMIT_TIME {
            next = waiting.at_hand();
        }
    }
    tx.pass(CommitSide::Before);
    let committing = Instant::now();
    let Err(error) = run(tx, "COMMIT") else {
        tx.pass(CommitSide::After);
        tx.follow(group.len(), committing.elapsed());
        return None;
    };
    let broken = TransactionFailure::new("the commit failed", &error, tx);
    if !tx.conn.is_autocommit() {
        // Whether this works or not, every caller gets the same answer.
        let _ = run(tx, "ROLLBACK");
    }
    Some(broken)
}

/// Runs one operation so that its failure undoes it alone. `Err`: the whole transaction is gone.
fn guarded(tx: &mut Tx<Connection>, work: &mut dyn WriterJob) -> Result<(), TransactionFailure> {
    run(tx, "SAVEPOINT op").map_err(|error| TransactionFailure::new("cannot begin an operation", &error, tx))?;
    let (numbers, edge, fresh) = (tx.sole.next, tx.next_no(), tx.fresh.len());
    let kept = work.perform(tx);
    if tx.conn.is_autocommit() {
        let fault = SqliteFault::last(&tx.conn);
        let text = "the disk refused a write and undid the transaction".to_owned();
        return Err(TransactionFailure { text, fatal: fault.is_fatal_io(), full: fault.is_full() });
    }
    if !kept && SqliteFault::last(&tx.conn).is_full() {
        tx.ballast.let_go();
    }
    if kept {
        return run(tx, "RELEASE op").map_err(|error| TransactionFailure::new("cannot end an operation", &error, tx));
    }
    let undone = run(tx, "ROLLBACK TO op").and_then(|()| run(tx, "RELEASE op"));
    undone.map_err(|error| TransactionFailure::new("cannot undo an operation", &error, tx))?;
    tx.fresh.truncate(fresh);
    if (numbers != tx.sole.next || edge != tx.next_no()) && !planted("undone-numbers-stay") {
        tx.ops().reload().map_err(|error| TransactionFailure { text: error.to_string(), fatal: true, full: false })?;
    }
    Ok(())
}

fn run(tx: &Tx<Connection>, sql: &str) -> rusqlite::Result<()> {
    tx.conn.prepare_cached(sql)?.execute([]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Actor, EntryKind, EntryLinks, EntryNo, Mode, Time};
    use crate::store::sqlite::schema;

    fn queue(dir: &std::path::Path) -> WriterQueue {
        let mut conn = schema::open_writer(&dir.join("store.db")).unwrap();
        schema::migrate(&mut conn, Time::UNIX_EPOCH).unwrap();
        WriterQueue::start(Tx::open(conn, 1, Mode::Auto).unwrap(), drop).unwrap().0
    }

    fn note(tx: &mut Tx, bytes: usize) -> Result<EntryNo, StoreError> {
        let kind = EntryKind::Trouble { text: "x".repeat(bytes) };
        tx.append(&Actor::engine(), EntryLinks::default(), &kind, Time::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_full_disk_fails_the_write_and_not_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(dir.path());
        let limit = |pages: &'static str| {
            queue.write(WhenFull::Wait, move |tx| Ok(tx.conn.pragma_update(None, "max_page_count", pages)?))
        };
        limit("1").await.unwrap();
        let full = queue.write(WhenFull::Wait, |tx| note(tx, 1_000_000)).await;
        assert!(matches!(&full, Err(StoreError::Database(text)) if text.contains("full")), "{full:?}");
        limit("1000000").await.unwrap();
        queue.sound().unwrap();
        assert_eq!(
            queue.write(WhenFull::Wait, |tx| note(tx, 1_000_000)).await.unwrap(),
            EntryNo(0),
            "no number is lost"
        );
    }

    /// Runs what waits while the writer is busy with one batch, and returns the names in the order in which they were performed.
    async fn order_of(names: impl Iterator<Item = (WhenFull, String)>) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(dir.path());
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (begun, free) = (Arc::new(std::sync::Barrier::new(2)), Arc::new(std::sync::Barrier::new(2)));
        let (begins, waits) = (begun.clone(), free.clone());
        let busy = queue.write(WhenFull::Refuse, move |_| {
            begins.wait();
            waits.wait();
            Ok(())
        });
        let mut busy = std::pin::pin!(busy);
        queued(busy.as_mut()).await;
        begun.wait();
        let waiting = names.map(|(when_full, name)| {
            let order = order.clone();
            queue.write(when_full, move |_| {
                order.lock().unwrap().push(name);
                Ok(())
            })
        });
        let mut all = std::pin::pin!(futures::future::join_all(waiting));
        queued(all.as_mut()).await;
        free.wait();
        busy.await.unwrap();
        assert!(all.await.iter().all(Result::is_ok));
        std::mem::take(&mut *order.lock().unwrap())
    }

    /// Polls once, which puts operations into their queues.
    async fn queued<F: Future>(mut operations: std::pin::Pin<&mut F>) {
        std::future::poll_fn(|cx| {
            assert!(operations.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_step_waits_for_the_batch_of_events_under_way_and_not_for_those_behind_it() {
        let events = (0..20).map(|no| (WhenFull::Refuse, format!("events {no}")));
        let order = order_of(events.chain([(WhenFull::Wait, "step".to_owned())])).await;
        assert_eq!((order.len(), order[0].as_str(), order[1].as_str()), (21, "step", "events 0"));
    }

    #[tokio::test]
    async fn events_wait_for_one_transaction_of_other_operations_however_many_there_are() {
        let steps = (0..1_000).map(|no| (WhenFull::Wait, format!("step {no}")));
        let order = order_of(steps.chain([(WhenFull::Refuse, "events".to_owned())])).await;
        let place = order.iter().position(|name| name == "events").unwrap();
        // The transaction under way takes some along, the next begins with others, and the one after it with events.
        assert!(place <= 2 * limits::GROUP_COMMIT_OPS, "{place}");
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_undid_is_answered_so_and_the_store_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(dir.path());
        let lost = queue
            .write(WhenFull::Wait, |tx| {
                note(tx, 1)?;
                Ok(tx.conn.execute_batch("ROLLBACK")?)
            })
            .await;
        assert!(matches!(&lost, Err(StoreError::Database(_))), "{lost:?}");
        assert_eq!(queue.write(WhenFull::Wait, |tx| note(tx, 1)).await.unwrap(), EntryNo(0));
    }

    #[tokio::test]
    async fn after_a_commit_that_failed_nothing_is_written_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(dir.path());
        let lost = queue
            .write(WhenFull::Wait, |tx| {
                // A constraint that is only looked at by COMMIT stands for whatever makes a commit fail.
                tx.conn.execute_batch("PRAGMA defer_foreign_keys = ON")?;
                Ok(tx.conn.execute_batch("INSERT INTO hold (cluster, node, run) VALUES ('', 'a', 77)")?)
            })
            .await;
        assert!(matches!(&lost, Err(StoreError::Database(text)) if text.contains("commit failed")), "{lost:?}");
        assert!(queue.sound().is_err());
        let after = queue.write(WhenFull::Wait, |tx| note(tx, 1)).await;
        assert!(matches!(&after, Err(StoreError::Database(text)) if text.contains("disk")), "{after:?}");
    }
}
