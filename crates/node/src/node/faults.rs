//! The faults of a node, shared by its watchers, and their record between two runs of the agent: the open conditions,
//! and the position in the kernel log.
//!
//! Invariant: the file is replaced whole, and only after all findings before the position are safe; a crash repeats,
//! and never skips.

use super::clock::moved_by;
use super::join::{FaultCorrelator, OpenCondition};
use super::sight::{FaultObservation, kin, place, recovery_finding};
use crate::limits;
use crate::model::{EventStatus, Finding, GpuName, Severity, Time};
use nightshift_runtime::file::replace;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

#[derive(Debug, thiserror::Error)]
#[error(
    "the agent's state cannot be written to {path}: {source}; after a restart the agent reads the kernel log again"
)]
/// The record of faults could not be written to this path.
pub struct MemoryError {
    path: String,
    source: std::io::Error,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedFaults {
    /// The boot that the number belongs to.
    boot: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    last: Option<u64>,
    /// By which clock the times were written (`Clock::offset`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    offset: Option<i64>,
    #[serde(default)]
    open: Vec<OpenCondition>,
    /// Conditions from NVML's polls alone.
    #[serde(default)]
    told: Vec<Finding>,
}

/// The join that all watchers of a node share, and the file behind it.
#[derive(Debug, Default)]
pub struct FaultTracker {
    /// Without one (in tests) nothing outlives the process.
    path: Option<PathBuf>,
    boot: String,
    inner: Mutex<FaultState>,
    /// Notified when something is due earlier than before.
    bell: Notify,
}

#[derive(Debug, Default)]
struct FaultState {
    join: FaultCorrelator,
    last: Option<u64>,
    /// Conditions from NVML's polls alone, by key, with when each was last sent.
    told: BTreeMap<String, (Finding, Time)>,
    /// Findings to send at the next tick.
    later: Vec<Finding>,
    unsaved: bool,
    /// By which clock the times are (`Clock::offset`); none: of another boot, or not known.
    offset: Option<i64>,
    /// When a finding was last given out: it needs a moment to reach the disk.
    said: Option<Instant>,
}

impl FaultTracker {
    /// Continues from the last run of the agent. Open conditions are sent again at the first tick, and those that a
    /// reboot has ended are sent as over.
    pub fn open(path: &Path, boot: &str, now: Time) -> FaultTracker {
        let memory = remember(path);
        let rebooted = memory.boot != boot;
        let (join, mut later) = FaultCorrelator::restore(memory.open, rebooted, now);
        let mut told = BTreeMap::new();
        for finding in memory.told {
            // How many GPUs there should be is known from before.
            let lasts = finding.labels.get("alertname").is_some_and(|name| name == "GpuMissing");
            if rebooted && !lasts {
                let summary = format!("{}: over, the node was booted again", finding.summary);
                later.push(Finding { status: EventStatus::Resolved, at: now, summary, ..finding });
            } else {
                later.push(finding.clone());
                told.insert(finding.complaint.clone(), (finding, now));
            }
        }
        let last = memory.last.filter(|_| !rebooted);
        let offset = memory.offset.filter(|_| !rebooted);
        let inner = Mutex::new(FaultState { join, last, later, told, offset, ..FaultState::default() });
        FaultTracker { path: Some(path.to_owned()), boot: boot.to_owned(), inner, bell: Notify::new() }
    }

    /// Call once after `open`, with the clock of now: the clock may have been set since the last run of the agent. Returns by
    /// how many microseconds the waits were moved for that.
    pub(crate) fn reckon(&self, offset: i64) -> i64 {
        let by = self.inner().offset.map_or(0, |kept| offset.saturating_sub(kept));
        let is_step = by.unsigned_abs() > limits::CLOCK_STEP.as_micros() as u64;
        if is_step {
            self.inner().join.shift_seen(by);
        }
        self.keep_offset(offset);
        if is_step { by } else { 0 }
    }

    /// The clock in small corrections; it is written down with the rest.
    pub(super) fn keep_offset(&self, offset: i64) {
        self.inner().offset = Some(offset);
    }

    /// The time was moved: so are the waits.
    pub(crate) fn shift(&self, by: i64) {
        let mut inner = self.inner();
        inner.join.shift(by);
        for (_, last_said) in inner.told.values_mut() {
            *last_said = moved_by(*last_said, by);
        }
        inner.offset = inner.offset.map(|offset| offset.saturating_add(by));
        inner.unsaved = true;
        self.bell.notify_one();
    }

    /// The record behind which the kernel log is to be read.
    pub fn last(&self) -> Option<u64> {
        self.inner().last
    }

    /// Takes an observation of a fault; returns the findings to send now.
    pub fn hear(&self, sight: FaultObservation, now: Time) -> Vec<Finding> {
        let mut inner = self.inner();
        let before = inner.join.due();
        let said = inner.join.hear(sight, now);
        if inner.join.due() < before || before.is_none() {
            self.bell.notify_one();
        }
        inner.unsaved = true;
        inner.given(said)
    }

    /// A finding of NVML's watcher: a fault that the kernel log reports as well is joined, any other goes on as it is
    /// and is remembered.
    pub fn seen_by_nvml(&self, finding: Finding, now: Time) -> Vec<Finding> {
        let alertname = finding.labels.get("alertname").map(String::as_str).unwrap_or_default();
        if matches!(alertname, "GpuXid" | "GpuRecoveryAction") || kin::key(alertname).is_some() {
            self.learn(finding.gpu.clone());
            return self.hear(FaultObservation::nvml(finding), now);
        }
        let mut inner = self.inner();
        if finding.status == EventStatus::Firing && inner.told.len() < limits::COMPLAINTS_PER_NODE {
            inner.told.insert(finding.complaint.clone(), (finding.clone(), now));
        } else {
            inner.told.remove(&finding.complaint);
        }
        inner.unsaved = true;
        inner.given(vec![finding])
    }

    /// Open conditions from NVML's polls in the last run of the agent: the polls continue from them.
    pub(super) fn polled(&self) -> Vec<Finding> {
        let inner = self.inner();
        let joined = inner.join.open().flat_map(|open| {
            let by_poll = kin::key(open.finding.labels.get("alertname").map_or("", String::as_str)).is_some();
            let own = by_poll.then(|| open.finding.clone());
            let also =
                open.also.iter().map(|complaint| Finding { complaint: complaint.clone(), ..open.finding.clone() });
            also.chain(own)
        });
        inner.told.values().map(|(finding, _)| finding.clone()).chain(joined).collect()
    }

    /// A look at a GPU saw that the driver requires nothing. If that ends a request from another source, and that one
    /// is not so new that the look may be older, the end comes back.
    pub(super) fn content(&self, gpu: &GpuName, now: Time) -> Option<Finding> {
        let inner = self.inner();
        let complaint = format!("recovery-action {}", place(gpu));
        let open = inner.join.open().find(|open| open.finding.complaint == complaint)?;
        let settled = open.last_seen.checked_add(limits::WISH_SETTLES).is_ok_and(|settled| settled <= now);
        settled.then(|| recovery_finding("none", gpu.clone(), BTreeMap::new(), now))
    }

    /// Which GPU is where: NVML's inventory, or the driver's own words.
    pub fn learn(&self, names: impl IntoIterator<Item = GpuName>) {
        self.inner().join.names().learn(names);
    }

    /// The same from the driver's files, which are there when NVML is not.
    pub fn learn_from_files(&self, gpus: &Path) {
        self.inner().join.names().learn_from_files(gpus);
    }

    /// Whether the kernel log is being read.
    pub fn words_come(&self, come: bool) {
        self.inner().join.words_come(come);
    }

    /// A GPU (index, UUID or address) was reset: its conditions are over, and their ends are sent at the next tick.
    pub fn healed(&self, gpu: &str, why: &str, now: Time) {
        let mut name = GpuName { index: gpu.parse().ok(), ..GpuName::default() };
        match gpu.contains(':') {
            true => gpu.clone_into(&mut name.pci),
            false if name.index.is_none() => gpu.clone_into(&mut name.uuid),
            false => {}
        }
        let mut inner = self.inner();
        inner.join.names().complete(&mut name);
        let over = inner.join.healed(&place(&name), why, now);
        inner.later.extend(over);
        inner.unsaved = true;
        self.bell.notify_one();
    }

    /// The open faults of a GPU, in words. An application's own fault is no fault of the GPU.
    pub fn open_on(&self, gpu: &GpuName) -> Option<String> {
        let mut inner = self.inner();
        let mut gpu = gpu.clone();
        inner.join.names().complete(&mut gpu);
        let is_its = |open: &&OpenCondition| {
            let named = open.finding.gpu.as_ref();
            named.is_some_and(|name| place(name) == place(&gpu) || (!name.uuid.is_empty() && name.uuid == gpu.uuid))
        };
        let ill = |open: &&OpenCondition| open.finding.severity == Severity::Critical && is_its(open);
        let found = inner.join.open().find(ill)?;
        Some(format!("{} (since {})", found.finding.summary, found.finding.at.strftime("%Y-%m-%d %H:%M UTC")))
    }

    /// Returns the findings to send because time has passed.
    pub fn tick(&self, now: Time) -> Vec<Finding> {
        let mut inner = self.inner();
        let mut said = std::mem::take(&mut inner.later);
        said.extend(inner.join.tick(now));
        for (finding, last_said) in inner.told.values_mut() {
            if last_said.checked_add(limits::JOIN_REMIND_EVERY.0).is_ok_and(|due| due <= now) {
                *last_said = now;
                said.push(finding.clone());
            }
        }
        inner.unsaved |= !said.is_empty();
        inner.given(said)
    }

    /// Returns when `tick` has something to do, after `most` at the latest.
    pub async fn due(&self, now: Time, most: Duration) {
        let until = {
            let inner = self.inner();
            if inner.later.is_empty() { inner.join.due() } else { Some(now) }
        };
        let left = until.map(|until| Duration::try_from(until.duration_since(now)).unwrap_or_default());
        tokio::select! {
            () = tokio::time::sleep(left.unwrap_or(most).min(most)) => {}
            () = self.bell.notified() => {}
        }
    }

    /// Whether there is something to store, and the findings given out have had the time to reach the disk.
    pub(super) fn may_commit(&self, last: Option<u64>) -> bool {
        let inner = self.inner();
        let settled = inner.said.is_none_or(|said| said.elapsed() >= limits::FAULTS_SETTLE);
        settled && (inner.unsaved || last > inner.last)
    }

    /// Stores the record. Call when every finding is safe: in the spool, on the disk.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written; the next call tries again.
    pub fn commit(&self, last: Option<u64>) -> Result<(), MemoryError> {
        let memory = {
            let mut inner = self.inner();
            inner.last = last.max(inner.last);
            inner.unsaved = false;
            let told = inner.told.values().map(|(finding, _)| finding.clone()).collect();
            let (boot, last, offset) = (self.boot.clone(), inner.last, inner.offset);
            SavedFaults { boot, last, offset, open: inner.join.open().cloned().collect(), told }
        };
        let Some(path) = &self.path else { return Ok(()) };
        write(path, &memory).map_err(|source| MemoryError { path: path.display().to_string(), source })
    }

    fn inner(&self) -> MutexGuard<'_, FaultState> {
        // Nothing panics while it holds the lock; if it did, a condition half changed is better than none.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultState {
    fn given(&mut self, said: Vec<Finding>) -> Vec<Finding> {
        if !said.is_empty() {
            self.said = Some(Instant::now());
        }
        said
    }
}

fn write(path: &Path, memory: &SavedFaults) -> std::io::Result<()> {
    replace(path, &serde_json::to_vec(memory)?, 0o666)
}

/// A missing or damaged file is no record: the log is read from its beginning, and the engine recognises repeats.
fn remember(path: &Path) -> SavedFaults {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(limits::MEMORY_BYTES).read_to_string(&mut text));
    match read.map_err(|error| error.to_string()).and_then(|_| serde_json::from_str(&text).map_err(|e| e.to_string())) {
        Ok(memory) => memory,
        Err(why) => {
            if path.exists() {
                tracing::warn!(path = %path.display(), why, "the agent's saved state is damaged; starting with an empty one");
            }
            SavedFaults::default()
        }
    }
}
