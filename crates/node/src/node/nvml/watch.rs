//! Who owns NVML: begins a session, attends to it, lets go for a reset, and begins again when the driver went away.
//!
//! Invariant: one call at a time is under way besides those that hang; a GPU whose call hangs gets no further call
//! until that call is back.

mod attend;

use super::door::{NvmlReleaseGuard, NvmlRequest};
use super::judge::{FaultDetector, NodeTrouble};
use super::raw::Code;
use super::reading::{GpuPollResult, GpuReading};
use super::session::{self, NvmlAbsence, NvmlSession};
use super::worker::NvmlWorker;
use crate::limits;
use crate::model::{Finding, GpuName, Severity, Time};
use crate::node::{Machine, NodeWatcher};
use attend::WorkerOutput;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub(in crate::node) struct NvmlWatch;

#[async_trait::async_trait]
impl NodeWatcher for NvmlWatch {
    fn name(&self) -> &'static str {
        "nvml"
    }

    async fn watch(&self, machine: &Machine, out: mpsc::Sender<Finding>, stop: watch::Receiver<bool>) {
        let worker = match NvmlWorker::start() {
            Ok(worker) => worker,
            Err(error) => return tracing::error!(%error, "cannot start the NVML thread; GPUs are not watched"),
        };
        let (door, asks) = mpsc::channel(limits::NVML_ASKS);
        machine.nvml.set(Some(door));
        // Open conditions of the agent's last run go on, and end when a look shows it.
        let polled = machine.faults.polled();
        let expected = |finding: &Finding| finding.labels.get(super::judge::EXPECTED)?.parse().ok();
        let most = polled.iter().filter_map(expected).max().unwrap_or(0);
        let mut judge = FaultDetector::default();
        judge.restore(polled, machine.clock.now());
        let watch = NvmlWatchLoop {
            machine: machine.clone(),
            moved: machine.clock.moved(),
            out,
            stop,
            asks,
            worker,
            judge,
            last: BTreeMap::new(),
            stuck: Vec::new(),
            deaf: None,
            most,
            nameless: BTreeSet::new(),
            failures: 0,
            absence: None,
        };
        watch.run().await;
        machine.nvml.set(None);
    }
}

struct NvmlWatchLoop {
    /// By how much the time was moved when `judge` last learned of it.
    moved: i64,
    machine: Machine,
    out: mpsc::Sender<Finding>,
    stop: watch::Receiver<bool>,
    asks: mpsc::Receiver<NvmlRequest>,
    worker: NvmlWorker,
    judge: FaultDetector,
    /// By UUID: the last values of each GPU, also for those of a look that did not read them.
    last: BTreeMap<String, GpuReading>,
    stuck: Vec<StuckCall>,
    /// An event thread that did not end: until it does, no other is begun.
    deaf: Option<oneshot::Receiver<()>>,
    /// The most GPUs that were counted.
    most: u32,
    /// GPUs that were counted and could not be opened.
    nameless: BTreeSet<u32>,
    /// Sessions in a row that did not begin, or were of no use.
    failures: u32,
    absence: Option<String>,
}

/// A call that does not come back.
struct StuckCall {
    gpu: Option<GpuName>,
    back: oneshot::Receiver<WorkerOutput>,
}

/// How a session ended.
enum NvmlSessionEnd {
    Stop,
    /// The session is of no use any more.
    Again(String),
    Release(oneshot::Sender<Result<NvmlReleaseGuard, String>>),
}

/// The end of a wait for the worker.
enum WorkerWait<T> {
    Here(T),
    Late,
    Stop,
}

impl NvmlWatchLoop {
    async fn run(mut self) {
        loop {
            let session = match self.open().await {
                Some(Ok(session)) => session,
                Some(Err(absent)) => {
                    self.absent(&absent).await;
                    if self.pause(self.patience()).await {
                        return;
                    }
                    continue;
                }
                None => return,
            };
            self.present(&session).await;
            match self.attend(Arc::new(session)).await {
                NvmlSessionEnd::Stop => return,
                NvmlSessionEnd::Again(why) => {
                    tracing::info!(why, "NVML session ended; starting another");
                    if self.failures > 0 && self.pause(self.patience()).await {
                        return;
                    }
                }
                NvmlSessionEnd::Release(reply) => {
                    let (guard, dropped) = NvmlReleaseGuard::new();
                    // A caller that went away has dropped the guard with the reply.
                    let _ = reply.send(Ok(guard));
                    tracing::info!("NVML released");
                    if self.idle(dropped, "NVML released while a GPU is reset").await {
                        return;
                    }
                    tracing::info!("NVML acquired again");
                }
            }
        }
    }

    fn patience(&self) -> Duration {
        limits::NVML_RETRY_FIRST.saturating_mul(1 << self.failures.min(6)).min(limits::NVML_RETRY_MAX)
    }

    /// Begins a session; `None`: we are to stop.
    async fn open(&mut self) -> Option<Result<NvmlSession, NvmlAbsence>> {
        let library = self.machine.settings.nvml.library.clone();
        let mut opens = self.worker.ask(move || session::open(library.as_deref()));
        let opened = loop {
            match self.wait_for(&mut opens).await {
                WorkerWait::Here(Some(opened)) => break opened,
                WorkerWait::Here(None) => break Err(NvmlAbsence::Other("its thread is gone".to_owned())),
                WorkerWait::Late => self.hangs_whole("beginning it").await,
                WorkerWait::Stop => return None,
            }
        };
        let said = self.judge.node("nvml-hangs", None, self.machine.clock.now());
        self.say(said).await;
        if matches!(opened, Err(NvmlAbsence::Other(_))) {
            self.renew();
        }
        Some(opened)
    }

    async fn wait_for<T>(&mut self, comes: &mut oneshot::Receiver<T>) -> WorkerWait<Option<T>> {
        let deadline = Instant::now() + self.machine.settings.nvml.hang.0;
        loop {
            tokio::select! {
                came = &mut *comes => return WorkerWait::Here(came.ok()),
                () = tokio::time::sleep_until(deadline) => return WorkerWait::Late,
                ask = self.asks.recv() => refuse(ask, "NVML is not initialized"),
                () = stopped(&mut self.stop) => return WorkerWait::Stop,
            }
        }
    }

    /// Another thread for the next calls.
    fn renew(&mut self) {
        match NvmlWorker::start() {
            Ok(worker) => self.worker = worker,
            Err(error) => tracing::error!(%error, "cannot start another NVML thread"),
        }
    }

    /// Waits; true: we are to stop.
    async fn pause(&mut self, time: Duration) -> bool {
        let why = self.absence.clone().unwrap_or_else(|| "NVML is restarting".to_owned());
        self.idle(tokio::time::sleep(time), &why).await
    }

    /// Until `over`; requests meanwhile are answered with `why`. True: we are to stop.
    async fn idle<T>(&mut self, over: impl Future<Output = T>, why: &str) -> bool {
        tokio::pin!(over);
        loop {
            tokio::select! {
                _ = &mut over => return false,
                ask = self.asks.recv() => match ask {
                    // NVML is not held: a reset may begin.
                    Some(NvmlRequest::Release(reply)) => drop(reply.send(Ok(NvmlReleaseGuard::new().0))),
                    ask => refuse(ask, why),
                },
                () = stopped(&mut self.stop) => return true,
            }
        }
    }

    async fn absent(&mut self, absent: &NvmlAbsence) {
        let why = absent.to_string();
        self.failures = self.failures.saturating_add(1);
        if self.absence.as_ref() != Some(&why) {
            tracing::warn!("{why}; retrying; the kernel log is still watched");
        }
        let expected = self.machine.settings.nvml.expected;
        // A machine without GPUs has no library, and a driver that is being loaded anew is back in a moment.
        let told = match absent {
            NvmlAbsence::Library(_) => expected.is_some_and(|count| count > 0) || self.most > 0,
            NvmlAbsence::Code(Code::MISMATCH) => true,
            _ => self.failures >= 3,
        };
        self.absence = Some(why.clone());
        if told {
            let (alertname, severity) = ("NvmlUnavailable", Severity::Warning);
            let trouble = NodeTrouble { alertname, severity, action: "tell", words: why, expected: None };
            let said = self.judge.node("nvml-unavailable", Some(trouble), self.machine.clock.now());
            self.say(said).await;
        }
    }

    /// A session has begun.
    async fn present(&mut self, session: &NvmlSession) {
        self.absence = None;
        let now = self.machine.clock.now();
        tracing::info!(driver = session.driver, gpus = session.count, "NVML session started");
        let mut said = self.judge.node("nvml-unavailable", None, now);
        said.extend(self.count(session.count, now));
        for index in &session.unopened {
            self.nameless.insert(*index);
            said.extend(self.judge.look(&nameless(*index), &GpuPollResult::Lost, false, now));
        }
        let opened = |index: &u32| session.gpus.iter().any(|gpu| gpu.name.index == Some(*index));
        let back: Vec<u32> = self.nameless.iter().copied().filter(|index| opened(index)).collect();
        for index in back {
            self.nameless.remove(&index);
            // Twice: a lost GPU is well again after two good looks.
            for _ in 0..2 {
                said.extend(self.judge.look(&nameless(index), &GpuPollResult::Read(Box::default()), false, now));
            }
        }
        self.say(said).await;
    }

    fn count(&mut self, count: u32, now: Time) -> Vec<Finding> {
        self.most = self.most.max(count);
        let expected = self.machine.settings.nvml.expected.unwrap_or(self.most);
        let trouble = (count < expected).then(|| NodeTrouble {
            alertname: "GpuMissing",
            severity: Severity::Critical,
            action: "reboot",
            words: match self.machine.settings.nvml.expected {
                Some(_) => format!("NVML counts {count} GPUs, {expected} are expected"),
                None => format!(
                    "NVML counts {count} GPUs, {expected} are expected, since so many were counted before (`nvml.expected` \
                     sets another number)"
                ),
            },
            expected: Some(expected),
        });
        self.judge.node("gpus-missing", trouble, now)
    }

    async fn say(&self, findings: Vec<Finding>) {
        let now = self.machine.clock.now();
        // A fault that the kernel log reports as well is sent once.
        let findings = findings.into_iter().flat_map(|finding| self.machine.faults.seen_by_nvml(finding, now));
        for finding in findings {
            tracing::info!(complaint = finding.complaint, status = ?finding.status, "{}", finding.summary);
            if self.out.send(finding).await.is_err() {
                return;
            }
        }
    }
}

/// A sender that is gone means the same.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn nameless(index: u32) -> GpuName {
    GpuName { index: Some(index), ..GpuName::default() }
}

fn refuse(ask: Option<NvmlRequest>, why: &str) {
    match ask {
        // A caller that went away needs no answer.
        Some(NvmlRequest::Read { reply, .. }) => drop(reply.send(Err(why.to_owned()))),
        Some(NvmlRequest::Release(reply)) => drop(reply.send(Err(why.to_owned()))),
        None => {}
    }
}
