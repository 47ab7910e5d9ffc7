//! The loop that owns NVML: begins a session, looks at each GPU in turn, hears events, answers verbs, lets go for a reset,
//! and begins again when the driver went away.
//!
//! Invariant: one call at a time is under way besides those that hang; a GPU whose call hangs is asked nothing more until
//! that call is back.

use super::answer;
use super::door::{Ask, Question, Released, Reply};
use super::judge::{self, Judge, NodeTrouble};
use super::listen::{Heard, Listener};
use super::probe;
use super::raw::{self, Code, Told};
use super::reading::{Looked, Reading};
use super::session::{self, Absent, Device, Session};
use super::worker::Worker;
use crate::limits;
use crate::model::{Finding, GpuName, Severity, Time};
use crate::node::{Machine, Watcher};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

pub(in crate::node) struct NvmlWatch;

#[async_trait::async_trait]
impl Watcher for NvmlWatch {
    fn name(&self) -> &'static str {
        "nvml"
    }

    async fn watch(&self, machine: &Machine, out: mpsc::Sender<Finding>, stop: watch::Receiver<bool>) {
        let worker = match Worker::start() {
            Ok(worker) => worker,
            Err(error) => return tracing::error!(%error, "no thread for NVML: its GPUs are not watched"),
        };
        let (door, asks) = mpsc::channel(limits::NVML_ASKS);
        machine.nvml.set(Some(door));
        let watch = Watch {
            machine: machine.clone(),
            out,
            stop,
            asks,
            worker,
            judge: Judge::default(),
            last: BTreeMap::new(),
            stuck: Vec::new(),
            most: 0,
            nameless: BTreeSet::new(),
            failures: 0,
            absence: None,
        };
        watch.run().await;
        machine.nvml.set(None);
    }
}

struct Watch {
    machine: Machine,
    out: mpsc::Sender<Finding>,
    stop: watch::Receiver<bool>,
    asks: mpsc::Receiver<Ask>,
    worker: Worker,
    judge: Judge,
    /// By UUID: the last values of each GPU, also for those of a look that did not ask them.
    last: BTreeMap<String, Reading>,
    stuck: Vec<Stuck>,
    /// The most GPUs that were counted.
    most: u32,
    /// GPUs that were counted and could not be opened.
    nameless: BTreeSet<u32>,
    /// Sessions in a row that did not begin, or were of no use.
    failures: u32,
    absence: Option<String>,
}

/// A call that does not come back.
struct Stuck {
    gpu: Option<GpuName>,
    back: oneshot::Receiver<Landed>,
}

/// What is asked of the worker.
enum Job {
    Look { at: usize, whole: bool },
    Count,
    Read { question: Question, at: Option<usize>, reply: Reply },
}

/// What comes back.
enum Landed {
    Looked(Looked),
    Counted(Result<(u32, bool), Code>),
    Read(Result<Value, String>),
}

/// A job under way.
struct Flight {
    job: Job,
    lands: oneshot::Receiver<Landed>,
    deadline: Instant,
}

/// How a session ended.
enum After {
    Stop,
    /// The session is of no use any more.
    Again(String),
    Release(oneshot::Sender<Result<Released, String>>),
}

/// What came of waiting for something of the worker.
enum Came<T> {
    Here(T),
    Late,
    Stop,
}

impl Watch {
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
                After::Stop => return,
                After::Again(why) => {
                    tracing::info!(why, "the session with NVML is over; beginning another");
                    if self.failures > 0 && self.pause(self.patience()).await {
                        return;
                    }
                }
                After::Release(reply) => {
                    let (guard, dropped) = Released::new();
                    // Who asked and went away has dropped the guard with the reply.
                    let _ = reply.send(Ok(guard));
                    tracing::info!("NVML is released");
                    if self.idle(dropped, "NVML is released while a GPU is reset").await {
                        return;
                    }
                    tracing::info!("NVML is taken back");
                }
            }
        }
    }

    fn patience(&self) -> Duration {
        limits::NVML_RETRY_FIRST.saturating_mul(1 << self.failures.min(6)).min(limits::NVML_RETRY_MAX)
    }

    /// Begins a session; `None`: we are to stop.
    async fn open(&mut self) -> Option<Result<Session, Absent>> {
        let library = self.machine.settings.nvml.library.clone();
        let mut opens = self.worker.ask(move || session::open(library.as_deref()));
        let opened = loop {
            match self.wait_for(&mut opens).await {
                Came::Here(Some(opened)) => break opened,
                Came::Here(None) => break Err(Absent::Other("its thread is gone".to_owned())),
                Came::Late => self.hangs_whole("beginning it").await,
                Came::Stop => return None,
            }
        };
        let said = self.judge.node("nvml-hangs", None, Time::now());
        self.say(said).await;
        if matches!(opened, Err(Absent::Other(_))) {
            self.renew();
        }
        Some(opened)
    }

    async fn wait_for<T>(&mut self, comes: &mut oneshot::Receiver<T>) -> Came<Option<T>> {
        let deadline = Instant::now() + self.machine.settings.nvml.hang.0;
        loop {
            tokio::select! {
                came = &mut *comes => return Came::Here(came.ok()),
                () = tokio::time::sleep_until(deadline) => return Came::Late,
                ask = self.asks.recv() => refuse(ask, "NVML has not begun"),
                () = stopped(&mut self.stop) => return Came::Stop,
            }
        }
    }

    /// Another thread for the next calls.
    fn renew(&mut self) {
        match Worker::start() {
            Ok(worker) => self.worker = worker,
            Err(error) => tracing::error!(%error, "no further thread for NVML"),
        }
    }

    /// Waits; true: we are to stop.
    async fn pause(&mut self, time: Duration) -> bool {
        let why = self.absence.clone().unwrap_or_else(|| "NVML begins again".to_owned());
        self.idle(tokio::time::sleep(time), &why).await
    }

    /// Until `over`; who asks meanwhile is told why not. True: we are to stop.
    async fn idle<T>(&mut self, over: impl Future<Output = T>, why: &str) -> bool {
        tokio::pin!(over);
        loop {
            tokio::select! {
                _ = &mut over => return false,
                ask = self.asks.recv() => match ask {
                    // Nobody holds anything: whoever wants to reset may.
                    Some(Ask::Release(reply)) => drop(reply.send(Ok(Released::new().0))),
                    ask => refuse(ask, why),
                },
                () = stopped(&mut self.stop) => return true,
            }
        }
    }

    async fn absent(&mut self, absent: &Absent) {
        let why = absent.to_string();
        self.failures = self.failures.saturating_add(1);
        if self.absence.as_ref() != Some(&why) {
            tracing::warn!("{why}; trying again, the kernel log is heard meanwhile");
        }
        let expected = self.machine.settings.nvml.expected;
        // A machine without GPUs has no library, and a driver that is being loaded anew is back in a moment.
        let told = match absent {
            Absent::Library(_) => expected.is_some_and(|count| count > 0) || self.most > 0,
            Absent::Code(Code::MISMATCH) => true,
            _ => self.failures >= 3,
        };
        self.absence = Some(why.clone());
        if told {
            let trouble =
                NodeTrouble { alertname: "NvmlUnavailable", severity: Severity::Warning, action: "tell", words: why };
            let said = self.judge.node("nvml-unavailable", Some(trouble), Time::now());
            self.say(said).await;
        }
    }

    /// A session has begun.
    async fn present(&mut self, session: &Session) {
        self.absence = None;
        let now = Time::now();
        tracing::info!(driver = session.driver, gpus = session.count, "NVML has begun");
        let mut said = self.judge.node("nvml-unavailable", None, now);
        said.extend(self.count(session.count, now));
        for index in &session.unopened {
            self.nameless.insert(*index);
            said.extend(self.judge.look(&nameless(*index), &Looked::Lost, false, now));
        }
        let opened = |index: &u32| session.gpus.iter().any(|gpu| gpu.name.index == Some(*index));
        let back: Vec<u32> = self.nameless.iter().copied().filter(|index| opened(index)).collect();
        for index in back {
            self.nameless.remove(&index);
            // Twice: a lost GPU is well again after two good looks.
            for _ in 0..2 {
                said.extend(self.judge.look(&nameless(index), &Looked::Well(Box::default()), false, now));
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
            words: format!("NVML counts {count} GPUs, {expected} are expected"),
        });
        self.judge.node("gpus-missing", trouble, now)
    }

    /// Looks and listens until the session is over.
    async fn attend(&mut self, session: Arc<Session>) -> After {
        let mut listener = match Listener::start(Arc::clone(&session)) {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::error!(%error, "no thread for NVML's events: polls go on");
                None
            }
        };
        let mut tick = tokio::time::interval(self.machine.settings.nvml.poll.0.max(limits::NVML_POLL_MIN));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.machine.faults.learn(session.gpus.iter().map(|gpu| gpu.name.clone()));
        let mut turn =
            Turn { session: Arc::clone(&session), jobs: VecDeque::new(), flight: None, number: 0, bad: 0, deaf: 0 };
        let mut leaving = None;
        let after = loop {
            if turn.flight.is_none() {
                match leaving.take() {
                    Some(after) => break after,
                    None => turn.flight = turn.jobs.pop_front().map(|job| self.fly(job, &session)),
                }
            }
            let mut stop = self.stop.clone();
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break After::Stop,
                landed = land(&mut turn.flight), if turn.flight.is_some() => {
                    if let Some(why) = self.landed(&mut turn, landed, listener.as_ref()).await {
                        leaving.get_or_insert(After::Again(why));
                    }
                }
                heard = hear(&mut listener) => self.heard(&mut turn, heard).await,
                ask = self.asks.recv() => match ask {
                    Some(Ask::Release(reply)) if self.stuck.is_empty() => leaving = Some(After::Release(reply)),
                    Some(Ask::Release(reply)) => drop(reply.send(Err(self.who_hangs()))),
                    Some(Ask::Read { question, gpu, reply }) => self.asked(&mut turn, question, gpu, reply),
                    None => break After::Stop,
                },
                _ = tick.tick(), if leaving.is_none() => self.tick(&mut turn, listener.as_ref()).await,
            }
        };
        drop(turn);
        self.close(session, listener, after).await
    }

    /// Lets go of a session. One that hangs cannot be let go: it stays until its call is back.
    async fn close(&mut self, session: Arc<Session>, listener: Option<Listener>, after: After) -> After {
        if matches!(after, After::Stop) {
            // The process ends; the threads end with it.
            return after;
        }
        let within = self.machine.settings.nvml.hang.0 + limits::NVML_EVENT_WAIT;
        let mut why = None;
        if let Some(listener) = listener
            && listener.stop(within).await.is_err()
        {
            why = Some("waiting for events hangs in NVML".to_owned());
        }
        match Arc::into_inner(session) {
            Some(session) => {
                let ends = self.worker.ask(move || drop(session));
                if tokio::time::timeout(within, ends).await.is_err() {
                    why = Some("ending the session hangs in NVML".to_owned());
                    self.renew();
                }
            }
            None => why = why.or_else(|| Some(self.who_hangs())),
        }
        match (after, why) {
            (After::Release(reply), Some(why)) => {
                // Who asked and went away needs no answer.
                let _ = reply.send(Err(why.clone()));
                After::Again(why)
            }
            (after, _) => after,
        }
    }

    fn who_hangs(&self) -> String {
        let names: Vec<String> =
            self.stuck.iter().map(|stuck| stuck.gpu.as_ref().map_or("the node".to_owned(), judge::place)).collect();
        format!("a call of NVML does not come back ({}): it cannot be released", names.join(", "))
    }

    fn fly(&mut self, job: Job, session: &Arc<Session>) -> Flight {
        let session = Arc::clone(session);
        let lands = match &job {
            Job::Look { at, whole } => {
                let (at, whole) = (*at, *whole);
                self.worker.ask(move || {
                    let looked = session.gpus.get(at).map(|gpu| probe::look(&session.nvml, gpu.handle, whole));
                    Landed::Looked(looked.unwrap_or(Looked::Lost))
                })
            }
            Job::Count => self.worker.ask(move || {
                let back = || session.unopened.iter().any(|index| raw::by_index(&session.nvml, *index).is_ok());
                Landed::Counted(raw::count(&session.nvml).map(|count| (count, back())))
            }),
            Job::Read { question, at, .. } => {
                let (question, at) = (*question, *at);
                self.worker.ask(move || {
                    Landed::Read(match (question, at) {
                        (Question::Recovery, Some(at)) => answer::recovery(&session, at),
                        (Question::Recovery, None) => Err("say which GPU".to_owned()),
                        (_, at) => answer::processes(&session, at),
                    })
                })
            }
        };
        Flight { job, lands, deadline: Instant::now() + self.machine.settings.nvml.hang.0 }
    }

    /// A job has come back, or not in time. Words: why the session is over.
    async fn landed(&mut self, turn: &mut Turn, landed: Lands, listener: Option<&Listener>) -> Option<String> {
        let Flight { job, lands, .. } = turn.flight.take()?;
        let now = Time::now();
        match (job, landed) {
            (job, Lands::Late) => {
                let gpu = match &job {
                    Job::Look { at, .. } | Job::Read { at: Some(at), .. } => turn.gpu(*at).map(|gpu| gpu.name.clone()),
                    _ => None,
                };
                if let Job::Read { reply, .. } = job {
                    // Who asked and went away needs no answer.
                    let _ = reply.send(Err("NVML does not come back from this call".to_owned()));
                }
                match &gpu {
                    Some(gpu) => {
                        let said = self.judge.look(gpu, &Looked::Hangs, false, now);
                        self.say(said).await;
                    }
                    None => self.hangs_whole("counting GPUs").await,
                }
                self.stuck.push(Stuck { gpu, back: lands });
                self.renew();
                None
            }
            (_, Lands::Dead) => {
                self.renew();
                None
            }
            (Job::Look { at, whole }, Lands::Here(Landed::Looked(looked))) => {
                let gpu = turn.gpu(at)?.clone();
                self.looked(turn, &gpu, looked, whole, listener).await
            }
            (Job::Count, Lands::Here(Landed::Counted(counted))) => self.counted(turn, counted).await,
            (Job::Read { reply, .. }, Lands::Here(Landed::Read(answer))) => {
                // Who asked and went away needs no answer.
                let _ = reply.send(answer);
                None
            }
            _ => None,
        }
    }

    async fn looked(
        &mut self,
        turn: &mut Turn,
        gpu: &Device,
        looked: Looked,
        whole: bool,
        listener: Option<&Listener>,
    ) -> Option<String> {
        let said = self.judge.look(&gpu.name, &looked, whole, Time::now());
        self.say(said).await;
        match looked {
            Looked::Well(reading) => {
                (self.failures, turn.bad) = (0, 0);
                self.last.entry(gpu.name.uuid.clone()).or_default().learn(*reading);
                if let Some(listener) = listener {
                    listener.want(gpu.handle);
                }
                None
            }
            Looked::Failed(_, code) if code.ends_session() => Some(code.to_string()),
            Looked::Failed(call, code) => {
                turn.bad += 1;
                // Every GPU, several times in a row: then it is not the GPUs.
                let all = limits::NVML_BAD_TURNS.saturating_mul(turn.session.gpus.len());
                if turn.bad < all {
                    return None;
                }
                self.failures = self.failures.saturating_add(1);
                Some(format!("NVML answers {call} with {code} for every GPU"))
            }
            _ => None,
        }
    }

    async fn counted(&mut self, turn: &Turn, counted: Result<(u32, bool), Code>) -> Option<String> {
        match counted {
            Ok((count, back)) => {
                let said = self.count(count, Time::now());
                self.say(said).await;
                if count > turn.session.count {
                    return Some(format!("there are {count} GPUs now"));
                }
                back.then(|| "a GPU that could not be opened can be".to_owned())
            }
            Err(code) if code.ends_session() => Some(code.to_string()),
            Err(code) => {
                tracing::debug!(%code, "NVML does not count its GPUs");
                None
            }
        }
    }

    async fn hangs_whole(&mut self, doing: &str) {
        let trouble = NodeTrouble {
            alertname: "NvmlHangs",
            severity: Severity::Critical,
            action: "reboot",
            words: format!("NVML does not come back from {doing}"),
        };
        let said = self.judge.node("nvml-hangs", Some(trouble), Time::now());
        self.say(said).await;
    }

    /// The next round of looks, unless the last one is still under way.
    async fn tick(&mut self, turn: &mut Turn, listener: Option<&Listener>) {
        let now = Time::now();
        let mut said = self.judge.tick(now);
        let mut still = Vec::new();
        for mut stuck in std::mem::take(&mut self.stuck) {
            match (stuck.back.try_recv(), &stuck.gpu) {
                (Err(oneshot::error::TryRecvError::Empty), _) => still.push(stuck),
                (Ok(Landed::Looked(looked)), Some(gpu)) => said.extend(self.judge.look(gpu, &looked, false, now)),
                // It is back; the next look says how it fares.
                (_, Some(_)) => {}
                (_, None) => said.extend(self.judge.node("nvml-hangs", None, now)),
            }
        }
        self.stuck = still;
        let deaf = listener.is_some_and(|listener| {
            listener.silent_for() > self.machine.settings.nvml.hang.0 + limits::NVML_EVENT_WAIT
        });
        if deaf {
            said.extend(self.judge.node("nvml-events", Some(deafness("waiting for events hangs in NVML")), now));
        }
        self.say(said).await;
        if !turn.jobs.is_empty() || turn.flight.is_some() {
            return;
        }
        let whole = turn.number.is_multiple_of(limits::NVML_WHOLE_EVERY);
        turn.number += 1;
        for (at, gpu) in turn.session.gpus.iter().enumerate() {
            if !self.stuck.iter().any(|stuck| stuck.gpu.as_ref() == Some(&gpu.name)) {
                turn.jobs.push_back(Job::Look { at, whole });
            }
        }
        if whole && !self.stuck.iter().any(|stuck| stuck.gpu.is_none()) {
            turn.jobs.push_back(Job::Count);
        }
    }

    async fn heard(&mut self, turn: &mut Turn, heard: Heard) {
        let now = Time::now();
        let said = match heard {
            Heard::Told(told) => self.told(turn, &told, now),
            Heard::Broken(code) => {
                turn.deaf += 1;
                tracing::debug!(%code, "waiting for NVML's events failed");
                let words = format!("waiting for NVML's events fails: {code}");
                let again = turn.deaf >= limits::NVML_DEAF_TURNS;
                if again { self.judge.node("nvml-events", Some(deafness(&words)), now) } else { Vec::new() }
            }
            Heard::Works => {
                turn.deaf = 0;
                self.judge.node("nvml-events", None, now)
            }
        };
        self.say(said).await;
    }

    fn told(&mut self, turn: &mut Turn, told: &Told, now: Time) -> Vec<Finding> {
        let Some(at) = turn.session.by_handle(told.handle) else {
            tracing::warn!(kind = told.kind, data = told.data, "NVML tells an event of a GPU that it does not name");
            return Vec::new();
        };
        let gpu = turn.session.gpus[at].name.clone();
        // What the event means for the counters is read at once, not at the next turn.
        turn.jobs.push_front(Job::Look { at, whole: told.kind & 0x100 != 0 });
        if told.kind & 0x8 != 0 {
            return vec![judge::xid(&gpu, told, now)];
        }
        self.judge.alarm(&gpu, told, now)
    }

    fn asked(&mut self, turn: &mut Turn, question: Question, gpu: Option<String>, reply: Reply) {
        let session = &turn.session;
        if question == Question::Health {
            // Who asked and went away needs no answer.
            let _ = reply.send(answer::health(session, &self.judge, &self.last, gpu.as_deref()));
            return;
        }
        let at = match &gpu {
            None => None,
            Some(wanted) => match session.find(wanted) {
                Some(at) => Some(at),
                None => return drop(reply.send(Err(answer::unknown(wanted, session)))),
            },
        };
        let hangs = |stuck: &Stuck| {
            stuck.gpu.is_none() || at.is_none_or(|at| stuck.gpu.as_ref() == Some(&session.gpus[at].name))
        };
        if self.stuck.iter().any(hangs) {
            return drop(reply.send(Err(self.who_hangs())));
        }
        turn.jobs.push_front(Job::Read { question, at, reply });
    }

    async fn say(&self, findings: Vec<Finding>) {
        let now = Time::now();
        // What the kernel log tells as well is said once.
        let findings = findings.into_iter().flat_map(|finding| self.machine.faults.seen_by_nvml(finding, now));
        for finding in findings {
            tracing::info!(complaint = finding.complaint, status = ?finding.status, "{}", finding.summary);
            if self.out.send(finding).await.is_err() {
                return;
            }
        }
    }
}

/// The work of one session.
struct Turn {
    session: Arc<Session>,
    jobs: VecDeque<Job>,
    flight: Option<Flight>,
    number: u64,
    /// Looks in a row that failed.
    bad: usize,
    /// Waits for events in a row that failed.
    deaf: u32,
}

impl Turn {
    fn gpu(&self, at: usize) -> Option<&Device> {
        self.session.gpus.get(at)
    }
}

/// A sender that is gone means the same.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn nameless(index: u32) -> GpuName {
    GpuName { index: Some(index), ..GpuName::default() }
}

fn deafness(words: &str) -> NodeTrouble {
    NodeTrouble { alertname: "NvmlEvents", severity: Severity::Warning, action: "tell", words: words.to_owned() }
}

fn refuse(ask: Option<Ask>, why: &str) {
    match ask {
        // Who asked and went away needs no answer.
        Some(Ask::Read { reply, .. }) => drop(reply.send(Err(why.to_owned()))),
        Some(Ask::Release(reply)) => drop(reply.send(Err(why.to_owned()))),
        None => {}
    }
}

/// How a flight ended.
enum Lands {
    Here(Landed),
    Late,
    Dead,
}

async fn land(flight: &mut Option<Flight>) -> Lands {
    let Some(flight) = flight else { return std::future::pending().await };
    match tokio::time::timeout_at(flight.deadline, &mut flight.lands).await {
        Ok(Ok(landed)) => Lands::Here(landed),
        Ok(Err(_)) => Lands::Dead,
        Err(_) => Lands::Late,
    }
}

/// The next thing heard; never, if nobody listens.
async fn hear(listener: &mut Option<Listener>) -> Heard {
    match listener {
        Some(listener) => match listener.heard.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
