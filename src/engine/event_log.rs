//! The engine's log of what happened: one reading of the ledger, fed by every commit.
//!
//! Invariant: the log is written from committed entries alone, in their order, so no call site can forget a line; it never
//! makes a commit wait, and lines that a storm leaves out are counted in the log itself.

mod words;

use crate::limits::{FLAPS_IN_LOG, LOG_CACHE, LOG_LINES_PER_SECOND, LOG_QUEUE};
use crate::model::{Entry, EntryKind, Incident, IncidentId, Run, RunId};
use crate::store::{CommitFollower, CommitRecord};
use crate::telemetry::Metrics;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
pub use words::{LogLevel, LogLine};

const SECOND: Duration = Duration::from_secs(1);

enum EventLogMessage {
    Entries(Vec<Entry>),
    /// Work that was unfinished at the start, so that its lines name node and rule.
    Known(Vec<Run>, Vec<Incident>),
}

/// The thread that writes it.
pub struct EventLog {
    sender: Mutex<Option<SyncSender<EventLogMessage>>>,
    /// Entries that found the queue full.
    lost: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EventLog {
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> std::io::Result<EventLog> {
        let (sender, receiver) = sync_channel(LOG_QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let seen = lost.clone();
        let thread = std::thread::Builder::new().name("event-log".to_owned()).spawn(move || write(&receiver, &seen))?;
        Ok(EventLog { sender: Mutex::new(Some(sender)), lost, thread: Mutex::new(Some(thread)) })
    }

    /// The callback of the store after each commit: counts facts that only the ledger has, and hands the entries to the
    /// log.
    pub fn follower(&self, metrics: Arc<Metrics>) -> CommitFollower {
        let (sender, lost) = (self.sender(), self.lost.clone());
        CommitFollower::new(move |commit: CommitRecord| {
            measure(&metrics, &commit);
            let entries = commit.entries;
            let count = entries.len() as u64;
            if let Some(sender) = sender.as_ref().filter(|_| count > 0)
                && sender.try_send(EventLogMessage::Entries(entries)).is_err()
            {
                lost.fetch_add(count, Ordering::Relaxed);
            }
        })
    }

    /// Takes the unfinished runs and incidents of the start, whose names later lines repeat.
    pub fn know(&self, runs: Vec<Run>, incidents: Vec<Incident>) {
        if let Some(sender) = self.sender() {
            // Without it the lines of older runs name less; nothing else depends on it.
            let _ = sender.try_send(EventLogMessage::Known(runs, incidents));
        }
    }

    /// Writes the queued lines and ends. The store must be closed before: it holds the other end of the queue.
    pub fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }

    fn sender(&self) -> Option<SyncSender<EventLogMessage>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Measures a commit: its size and time, and every run that ended, by the engine or by a user.
pub fn measure(metrics: &Metrics, commit: &CommitRecord) {
    metrics.committed(commit.operations, commit.took);
    for entry in &commit.entries {
        if let EntryKind::RunEnded { state } = &entry.kind {
            metrics.run_ended(state.name());
        }
    }
}

fn write(receiver: &Receiver<EventLogMessage>, lost: &AtomicU64) {
    let mut lines = EventLines::default();
    let begun = Instant::now();
    loop {
        let message = receiver.recv_timeout(SECOND);
        let now = begun.elapsed();
        let over = matches!(message, Err(RecvTimeoutError::Disconnected));
        let written = match message {
            Ok(EventLogMessage::Entries(entries)) => lines.of(&entries, now),
            Ok(EventLogMessage::Known(runs, incidents)) => {
                lines.know(&runs, &incidents);
                lines.resumed(&runs)
            }
            Err(_) => lines.left_out(now, over),
        };
        for line in &written {
            line.emit();
        }
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            tracing::warn!(
                entries = missing,
                "the event log fell behind; these ledger entries have no line; see `nightshift audit log`"
            );
        }
        if over {
            return;
        }
    }
}

/// From entries to lines; remembers the fields that later entries refer to. Pure but for these.
#[derive(Default)]
pub struct EventLines {
    known: LineFields,
    /// The second that is being filled, and how many lines it has: of decisions and failures, and of all else.
    second: Duration,
    used: [usize; 2],
    /// Lines that found their second full, by kind.
    full: BTreeMap<&'static str, u64>,
}

/// Fields of a line that are not in its own entry; dropped as a whole at its bound, which costs fields and no line.
#[derive(Default)]
struct LineFields {
    runs: HashMap<RunId, RunFields>,
    incidents: HashMap<IncidentId, Option<String>>,
    /// Steps that have a line for their beginning, and their words.
    steps: HashMap<(RunId, u32), String>,
    /// Channels that were notified of an incident.
    notified: HashMap<IncidentId, HashSet<String>>,
    /// How often an incident opened again after its alerts had ended.
    flaps: HashMap<IncidentId, u32>,
    /// Channels whose last delivery failed.
    failing: HashSet<String>,
}

struct RunFields {
    node: Option<String>,
    rule: Option<String>,
    runbook: String,
}

impl EventLines {
    /// Takes the unfinished runs and incidents of the start, up to `LOG_CACHE` of each.
    pub fn know(&mut self, runs: &[Run], incidents: &[Incident]) {
        for run in runs.iter().take(LOG_CACHE) {
            let about =
                RunFields { node: run.subject.node.clone(), rule: run.rule.clone(), runbook: run.runbook.name.clone() };
            self.known.runs.insert(run.id, about);
        }
        for incident in incidents.iter().take(LOG_CACHE) {
            self.known.incidents.insert(incident.id, incident.subject.node.clone());
        }
    }

    /// The lines of work that goes on after a start, so that a reader sees the effects of an unclean end.
    fn resumed(&self, runs: &[Run]) -> Vec<LogLine> {
        let shown = runs.iter().take(LOG_LINES_PER_SECOND);
        let line = |run: &Run| LogLine {
            incident: run.incident,
            run: Some(run.id),
            node: run.subject.node.clone(),
            rule: run.rule.clone(),
            ..LogLine::new(
                LogLevel::Info,
                format!("run continues after the restart: {} ({})", run.runbook.name, run.state.name()),
            )
        };
        let mut lines: Vec<LogLine> = shown.map(line).collect();
        if runs.len() > lines.len() {
            let more = runs.len() - lines.len();
            lines.push(LogLine::new(
                LogLevel::Info,
                format!("{more} more runs go on after the start; see `nightshift runs`"),
            ));
        }
        lines
    }

    /// The lines of committed entries. `now`: since any fixed moment.
    pub fn of(&mut self, entries: &[Entry], now: Duration) -> Vec<LogLine> {
        let mut lines = self.left_out(now, false);
        for entry in entries {
            self.known.learn(entry);
            let budget = usize::from(!words::is_important(&entry.kind));
            if self.used[budget] >= LOG_LINES_PER_SECOND {
                if words::has_line(&entry.kind) {
                    *self.full.entry(entry.kind.name()).or_default() += 1;
                }
                continue;
            }
            if let Some(line) = words::line(entry, &mut self.known) {
                self.used[budget] += 1;
                lines.push(line);
            }
        }
        lines
    }

    /// Begins a new second where one is over, with one line for the number left out of the last one.
    pub fn left_out(&mut self, now: Duration, over: bool) -> Vec<LogLine> {
        if now < self.second + SECOND && !over {
            return Vec::new();
        }
        (self.second, self.used) = (now, [0, 0]);
        let full = std::mem::take(&mut self.full);
        if full.is_empty() {
            return Vec::new();
        }
        let total: u64 = full.values().sum();
        let list: Vec<String> = full.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let text =
            format!("{total} more events in one second have no line ({}); see `nightshift audit log`", list.join(", "));
        vec![LogLine::new(LogLevel::Warn, text)]
    }
}

impl LineFields {
    fn learn(&mut self, entry: &Entry) {
        if self.runs.len() >= LOG_CACHE {
            self.runs.clear();
        }
        if self.incidents.len() >= LOG_CACHE {
            self.incidents.clear();
        }
        if self.steps.len() >= LOG_CACHE {
            self.steps.clear();
        }
        if self.notified.len() >= LOG_CACHE {
            self.notified.clear();
        }
        if self.flaps.len() >= LOG_CACHE {
            self.flaps.clear();
        }
        match (&entry.kind, entry.about.run, entry.about.incident) {
            (EntryKind::RunCreated { runbook, rule, subject, .. }, Some(run), _) => {
                let about = RunFields { node: subject.node.clone(), rule: rule.clone(), runbook: runbook.name.clone() };
                self.runs.insert(run, about);
            }
            (EntryKind::IncidentOpened { subject, .. }, _, Some(incident)) => {
                self.incidents.insert(incident, subject.node.clone());
            }
            (EntryKind::IncidentResolved { .. }, _, Some(incident)) => {
                self.notified.remove(&incident);
                self.flaps.remove(&incident);
            }
            (EntryKind::IncidentRecurred { .. }, _, Some(incident)) => *self.flaps.entry(incident).or_default() += 1,
            _ => {}
        }
    }

    fn flaps_of(&self, incident: Option<IncidentId>) -> u32 {
        incident.and_then(|incident| self.flaps.get(&incident)).copied().unwrap_or_default()
    }

    /// The first few turns of a flap have lines, then each tenth: fifty lines of one node hide the rest of the night.
    fn says_flap(&self, incident: Option<IncidentId>) -> bool {
        let times = self.flaps_of(incident);
        times <= FLAPS_IN_LOG || times.is_multiple_of(10)
    }
}

#[cfg(test)]
mod tests;
