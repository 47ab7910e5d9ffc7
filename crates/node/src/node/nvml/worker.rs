//! The thread that calls NVML. A call that hangs keeps its thread; the caller goes on with another one.
//!
//! Invariant: a thread does one job at a time, and ends when it is back and its `Worker` was dropped.

use crate::limits;
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::sync::oneshot;

type WorkerCall = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
pub(super) struct NvmlWorker(SyncSender<WorkerCall>);

impl NvmlWorker {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// Fails when the thread cannot be started.
    pub fn start() -> std::io::Result<NvmlWorker> {
        let (jobs, work) = sync_channel::<WorkerCall>(1);
        let work = move || {
            while let Ok(job) = work.recv() {
                job();
            }
        };
        std::thread::Builder::new().name("nvml".to_owned()).stack_size(limits::NVML_STACK).spawn(work)?;
        Ok(NvmlWorker(jobs))
    }

    /// Runs the job. The answer does not come if the thread is dead or hangs; the job's captures are dropped before it
    /// comes.
    pub fn ask<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (answer, comes) = oneshot::channel();
        let whole = move || {
            let value = job();
            // The caller may have gone away.
            let _ = answer.send(value);
        };
        // Full or dead: the sender inside is dropped, which the receiver sees.
        let _ = self.0.try_send(Box::new(whole));
        comes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_hangs_holds_up_only_its_own_thread_which_ends_when_it_is_back() {
        let worker = NvmlWorker::start().unwrap();
        let (wake, sleeps) = std::sync::mpsc::channel::<()>();
        let mut hangs = worker.ask(move || sleeps.recv().is_ok());
        let second = NvmlWorker::start().unwrap();
        assert_eq!(second.ask(|| 7).await, Ok(7));
        assert!(hangs.try_recv().is_err());
        drop(worker);
        wake.send(()).unwrap();
        assert_eq!(hangs.await, Ok(true));
    }

    #[tokio::test]
    async fn what_a_job_held_is_gone_when_its_answer_comes() {
        let worker = NvmlWorker::start().unwrap();
        let held = std::sync::Arc::new(());
        let share = std::sync::Arc::clone(&held);
        worker.ask(move || drop(share)).await.unwrap();
        assert!(std::sync::Arc::into_inner(held).is_some());
    }
}
