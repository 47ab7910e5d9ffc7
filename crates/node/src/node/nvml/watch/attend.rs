//! One session: looks at each GPU in turn, one call at a time, beside the events that come and the verbs' requests.
//!
//! Invariant: a late answer is kept with its GPU's name until it is back; a storm of events delays nothing else.

use super::{NvmlSessionEnd, NvmlWatchLoop, StuckCall, stopped};
use crate::limits;
use crate::model::{Finding, Severity, Time};
use crate::node::nvml::answer;
use crate::node::nvml::door::{GpuQuery, GpuQueryReply, NvmlRequest};
use crate::node::nvml::judge::{self, NodeTrouble};
use crate::node::nvml::listen::{NvmlListener, NvmlListenerEvent};
use crate::node::nvml::probe;
use crate::node::nvml::raw::{self, Code, NvmlEvent};
use crate::node::nvml::reading::GpuPollResult;
use crate::node::nvml::session::{NvmlDevice, NvmlSession};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

/// A request to the worker.
enum WorkerJob {
    Look { at: usize, whole: bool },
    Count,
    Read { question: GpuQuery, at: Option<usize>, reply: GpuQueryReply },
}

/// The worker's answer.
pub(super) enum WorkerOutput {
    Looked(GpuPollResult),
    Counted(Result<(u32, bool), Code>),
    Read(Result<Value, String>),
    /// A session was let go.
    Over,
}

/// A job under way.
struct RunningWorkerJob {
    job: WorkerJob,
    lands: oneshot::Receiver<WorkerOutput>,
    deadline: Instant,
}

impl NvmlWatchLoop {
    /// Looks and listens until the session is over.
    pub(super) async fn attend(&mut self, session: Arc<NvmlSession>) -> NvmlSessionEnd {
        let mut listener = self.listen(&session);
        let mut tick = tokio::time::interval(self.machine.settings.nvml.poll.0.max(limits::NVML_POLL_MIN));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.machine.faults.learn(session.gpus.iter().map(|gpu| gpu.name.clone()));
        let mut turn = NvmlSessionWork::new(&session);
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
                () = stopped(&mut stop) => break NvmlSessionEnd::Stop,
                landed = land(&mut turn.flight), if turn.flight.is_some() => {
                    if let Some(why) = self.landed(&mut turn, landed, listener.as_ref()).await {
                        leaving.get_or_insert(NvmlSessionEnd::Again(why));
                    }
                }
                ask = self.asks.recv() => match ask {
                    Some(NvmlRequest::Release(reply)) if matches!(leaving, Some(NvmlSessionEnd::Release(_))) => {
                        drop(reply.send(Err("NVML is being released already".to_owned())));
                    }
                    Some(NvmlRequest::Release(reply)) if self.stuck.is_empty() => leaving = Some(NvmlSessionEnd::Release(reply)),
                    Some(NvmlRequest::Release(reply)) => drop(reply.send(Err(self.who_hangs()))),
                    Some(NvmlRequest::Read { question, gpu, reply }) => self.asked(&mut turn, question, gpu, reply),
                    None => break NvmlSessionEnd::Stop,
                },
                _ = tick.tick(), if leaving.is_none() => self.tick(&mut turn, listener.as_ref()).await,
                // Last, so that a storm of events keeps nothing else away.
                heard = hear(&mut listener) => self.heard(&mut turn, heard).await,
            }
        };
        drop(turn);
        self.close(session, listener, after).await
    }

    /// The thread that receives events, unless an earlier one still hangs.
    fn listen(&mut self, session: &Arc<NvmlSession>) -> Option<NvmlListener> {
        if let Some(ended) = &mut self.deaf {
            if matches!(ended.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return None;
            }
            self.deaf = None;
        }
        NvmlListener::start(Arc::clone(session))
            .inspect_err(|error| tracing::error!(%error, "cannot start the NVML event thread; polling continues"))
            .ok()
    }

    /// Lets go of a session. One that hangs cannot be let go: it stays until its call is back.
    async fn close(
        &mut self,
        session: Arc<NvmlSession>,
        listener: Option<NvmlListener>,
        after: NvmlSessionEnd,
    ) -> NvmlSessionEnd {
        let within = match after {
            // The process ends, and a hanging call ends with it.
            NvmlSessionEnd::Stop => limits::NVML_EVENT_WAIT.saturating_mul(2),
            _ => self.machine.settings.nvml.hang.0 + limits::NVML_EVENT_WAIT,
        };
        let mut why = None;
        if let Some(listener) = listener
            && let Err(ended) = listener.stop(within).await
        {
            self.deaf = Some(ended);
            why = Some("waiting for events hangs in NVML".to_owned());
        }
        match Arc::into_inner(session) {
            Some(session) => {
                let mut back = self.worker.ask(move || {
                    drop(session);
                    WorkerOutput::Over
                });
                if tokio::time::timeout(within, &mut back).await.is_err() {
                    why = Some("ending the session hangs in NVML".to_owned());
                    self.stuck.push(StuckCall { gpu: None, back });
                    self.renew();
                }
            }
            None => why = why.or_else(|| Some(self.who_hangs())),
        }
        match (after, why) {
            (NvmlSessionEnd::Release(reply), Some(why)) => {
                // A caller that went away needs no answer.
                let _ = reply.send(Err(why.clone()));
                NvmlSessionEnd::Again(why)
            }
            (after, _) => after,
        }
    }

    fn who_hangs(&self) -> String {
        let names: Vec<String> =
            self.stuck.iter().map(|stuck| stuck.gpu.as_ref().map_or("the node".to_owned(), judge::place)).collect();
        format!("a call of NVML does not come back ({}): it cannot be released", names.join(", "))
    }

    fn fly(&mut self, job: WorkerJob, session: &Arc<NvmlSession>) -> RunningWorkerJob {
        let session = Arc::clone(session);
        let lands = match &job {
            WorkerJob::Look { at, whole } => {
                let (at, whole) = (*at, *whole);
                self.worker.ask(move || {
                    let looked = session.gpus.get(at).map(|gpu| probe::look(&session.nvml, gpu.handle, whole));
                    WorkerOutput::Looked(looked.unwrap_or(GpuPollResult::Lost))
                })
            }
            WorkerJob::Count => self.worker.ask(move || {
                let back = || session.unopened.iter().any(|index| raw::by_index(&session.nvml, *index).is_ok());
                WorkerOutput::Counted(raw::count(&session.nvml).map(|count| (count, back())))
            }),
            WorkerJob::Read { question, at, .. } => {
                let (question, at) = (*question, *at);
                self.worker.ask(move || {
                    WorkerOutput::Read(match (question, at) {
                        (GpuQuery::Recovery, Some(at)) => answer::recovery(&session, at),
                        (GpuQuery::Recovery, None) => Err("say which GPU".to_owned()),
                        (_, at) => answer::processes(&session, at),
                    })
                })
            }
        };
        RunningWorkerJob { job, lands, deadline: Instant::now() + self.machine.settings.nvml.hang.0 }
    }

    /// A job has come back, or not in time. Words: why the session is over.
    async fn landed(
        &mut self,
        turn: &mut NvmlSessionWork,
        landed: WorkerJobEnd,
        listener: Option<&NvmlListener>,
    ) -> Option<String> {
        let RunningWorkerJob { job, lands, .. } = turn.flight.take()?;
        let now = self.machine.clock.now();
        match (job, landed) {
            (job, WorkerJobEnd::Late) => {
                let gpu = match &job {
                    WorkerJob::Look { at, .. } | WorkerJob::Read { at: Some(at), .. } => {
                        turn.gpu(*at).map(|gpu| gpu.name.clone())
                    }
                    _ => None,
                };
                if let WorkerJob::Read { reply, .. } = job {
                    // A caller that went away needs no answer.
                    let _ = reply.send(Err("NVML does not come back from this call".to_owned()));
                }
                match &gpu {
                    Some(gpu) => {
                        let said = self.judge.look(gpu, &GpuPollResult::Hangs, false, now);
                        self.say(said).await;
                    }
                    None => self.hangs_whole("counting GPUs").await,
                }
                self.stuck.push(StuckCall { gpu, back: lands });
                self.renew();
                None
            }
            (_, WorkerJobEnd::Dead) => {
                self.renew();
                None
            }
            (WorkerJob::Look { at, whole }, WorkerJobEnd::Here(WorkerOutput::Looked(looked))) => {
                let gpu = turn.gpu(at)?.clone();
                self.looked(turn, &gpu, looked, whole, listener).await
            }
            (WorkerJob::Count, WorkerJobEnd::Here(WorkerOutput::Counted(counted))) => self.counted(turn, counted).await,
            (WorkerJob::Read { reply, .. }, WorkerJobEnd::Here(WorkerOutput::Read(answer))) => {
                // A caller that went away needs no answer.
                let _ = reply.send(answer);
                None
            }
            _ => None,
        }
    }

    async fn looked(
        &mut self,
        turn: &mut NvmlSessionWork,
        gpu: &NvmlDevice,
        looked: GpuPollResult,
        whole: bool,
        listener: Option<&NvmlListener>,
    ) -> Option<String> {
        let said = self.judge.look(&gpu.name, &looked, whole, self.machine.clock.now());
        self.say(said).await;
        match looked {
            GpuPollResult::Read(reading) => {
                (self.failures, turn.bad) = (0, 0);
                if reading.recovery == Some(0) {
                    let over = self.machine.faults.content(&gpu.name, self.machine.clock.now());
                    self.say(over.into_iter().collect()).await;
                }
                self.last.entry(gpu.name.uuid.clone()).or_default().learn(*reading);
                if let Some(listener) = listener {
                    listener.want(gpu.handle);
                }
                None
            }
            GpuPollResult::Failed(_, code) if code.ends_session() => Some(code.to_string()),
            GpuPollResult::Failed(call, code) => {
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

    async fn counted(&mut self, turn: &NvmlSessionWork, counted: Result<(u32, bool), Code>) -> Option<String> {
        match counted {
            Ok((count, back)) => {
                let said = self.count(count, self.machine.clock.now());
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

    pub(super) async fn hangs_whole(&mut self, doing: &str) {
        let trouble = NodeTrouble {
            alertname: "NvmlHangs",
            severity: Severity::Critical,
            action: "reboot",
            words: format!("NVML does not come back from {doing}"),
            expected: None,
        };
        let said = self.judge.node("nvml-hangs", Some(trouble), self.machine.clock.now());
        self.say(said).await;
    }

    /// The next round of looks, unless the last one is still under way.
    async fn tick(&mut self, turn: &mut NvmlSessionWork, listener: Option<&NvmlListener>) {
        let moved = self.machine.clock.moved();
        if moved != self.moved {
            self.judge.shift(moved - self.moved);
            self.moved = moved;
        }
        let now = self.machine.clock.now();
        let mut said = self.judge.tick(now);
        let mut still = Vec::new();
        for mut stuck in std::mem::take(&mut self.stuck) {
            match (stuck.back.try_recv(), &stuck.gpu) {
                (Err(oneshot::error::TryRecvError::Empty), _) => still.push(stuck),
                (Ok(WorkerOutput::Looked(looked)), Some(gpu)) => said.extend(self.judge.look(gpu, &looked, false, now)),
                // It is back; the next look shows its state.
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
        } else if turn.hung_ear {
            said.extend(self.judge.node("nvml-events", None, now));
        }
        turn.hung_ear = deaf;
        self.say(said).await;
        if !turn.jobs.is_empty() || turn.flight.is_some() {
            return;
        }
        let whole = turn.number.is_multiple_of(limits::NVML_WHOLE_EVERY);
        turn.number += 1;
        for (at, gpu) in turn.session.gpus.iter().enumerate() {
            if !self.stuck.iter().any(|stuck| stuck.gpu.as_ref() == Some(&gpu.name)) {
                turn.jobs.push_back(WorkerJob::Look { at, whole });
            }
        }
        if whole && !self.stuck.iter().any(|stuck| stuck.gpu.is_none()) {
            turn.jobs.push_back(WorkerJob::Count);
        }
    }

    async fn heard(&mut self, turn: &mut NvmlSessionWork, heard: NvmlListenerEvent) {
        let now = self.machine.clock.now();
        let said = match heard {
            NvmlListenerEvent::Told(told) => self.told(turn, &told, now),
            NvmlListenerEvent::Broken(code) => {
                turn.deaf += 1;
                tracing::debug!(%code, "waiting for NVML's events failed");
                let words = format!("waiting for NVML's events fails: {code}");
                let again = turn.deaf >= limits::NVML_DEAF_TURNS;
                if again { self.judge.node("nvml-events", Some(deafness(&words)), now) } else { Vec::new() }
            }
            NvmlListenerEvent::Works => {
                turn.deaf = 0;
                self.judge.node("nvml-events", None, now)
            }
        };
        self.say(said).await;
    }

    fn told(&mut self, turn: &mut NvmlSessionWork, told: &NvmlEvent, now: Time) -> Vec<Finding> {
        let Some(at) = turn.session.by_handle(told.handle) else {
            tracing::warn!(kind = told.kind, data = told.data, "NVML reported an event without its GPU");
            return Vec::new();
        };
        let gpu = turn.session.gpus[at].name.clone();
        // The counters behind the event are read at once, not at the next turn.
        // A storm of events needs one look.
        if !matches!(turn.jobs.front(), Some(WorkerJob::Look { at: first, .. }) if *first == at) {
            let whole = told.kind & 0x100 != 0;
            turn.jobs.retain(|job| !matches!(job, WorkerJob::Look { at: queued, whole: false } if *queued == at));
            turn.jobs.push_front(WorkerJob::Look { at, whole });
        }
        if told.kind & 0x8 != 0 {
            return vec![judge::xid(&gpu, told, now)];
        }
        self.judge.alarm(&gpu, told, now)
    }

    fn asked(&mut self, turn: &mut NvmlSessionWork, question: GpuQuery, gpu: Option<String>, reply: GpuQueryReply) {
        let session = &turn.session;
        if question == GpuQuery::Health {
            // A caller that went away needs no answer.
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
        let hangs = |stuck: &StuckCall| {
            stuck.gpu.is_none() || at.is_none_or(|at| stuck.gpu.as_ref() == Some(&session.gpus[at].name))
        };
        if self.stuck.iter().any(hangs) {
            return drop(reply.send(Err(self.who_hangs())));
        }
        turn.jobs.push_front(WorkerJob::Read { question, at, reply });
    }
}

/// The work of one session.
struct NvmlSessionWork {
    session: Arc<NvmlSession>,
    jobs: VecDeque<WorkerJob>,
    flight: Option<RunningWorkerJob>,
    number: u64,
    /// Looks in a row that failed.
    bad: usize,
    /// Waits for events in a row that failed, and whether the one under way hangs.
    deaf: u32,
    hung_ear: bool,
}

impl NvmlSessionWork {
    fn new(session: &Arc<NvmlSession>) -> NvmlSessionWork {
        NvmlSessionWork {
            session: Arc::clone(session),
            jobs: VecDeque::new(),
            flight: None,
            number: 0,
            bad: 0,
            deaf: 0,
            // An earlier run of the agent may have complained of it.
            hung_ear: true,
        }
    }

    fn gpu(&self, at: usize) -> Option<&NvmlDevice> {
        self.session.gpus.get(at)
    }
}

fn deafness(words: &str) -> NodeTrouble {
    let words = words.to_owned();
    NodeTrouble { alertname: "NvmlEvents", severity: Severity::Warning, action: "tell", words, expected: None }
}

/// How a flight ended.
enum WorkerJobEnd {
    Here(WorkerOutput),
    Late,
    Dead,
}

async fn land(flight: &mut Option<RunningWorkerJob>) -> WorkerJobEnd {
    let Some(flight) = flight else { return std::future::pending().await };
    match tokio::time::timeout_at(flight.deadline, &mut flight.lands).await {
        Ok(Ok(landed)) => WorkerJobEnd::Here(landed),
        Ok(Err(_)) => WorkerJobEnd::Dead,
        Err(_) => WorkerJobEnd::Late,
    }
}

/// The next event; never, without a listener.
async fn hear(listener: &mut Option<NvmlListener>) -> NvmlListenerEvent {
    match listener {
        Some(listener) => match listener.heard.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
