//! One fault, one condition: NVML and the kernel log see the same fault, milliseconds apart, and often many times.
//!
//! Invariant: the first observation of a fault is sent at once, unless its meaning is in words that the other one has,
//! and then after `JOIN_WORDS` at the latest; every later one is counted, and the count is sent.
//!
//! A fault that the driver reports as an XID and NVML's polls by another name (`sight::kin`) is one condition as well,
//! the XID's.
//!
//! Its end: a fault of an application, or one that the driver has dealt with, is over after `JOIN_QUIET` without
//! another observation. One that leaves the GPU unhealthy (`sight::lasts`) is not: it ends when the driver's recovery
//! action goes back to none, when we reset the GPU (`healed`), or with the boot.

mod names;

pub use names::GpuNames;

use super::clock::moved_by;
use super::sight::{FaultObservation, ObservationSource, kin, lasts, needs_words, place};
use crate::limits;
use crate::model::{EventStatus, Finding, Severity, Span, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A condition that is not over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenCondition {
    /// The finding as it was sent, with later details.
    pub finding: Finding,
    pub last_seen: Time,
    pub last_said: Time,
    /// Observations since it was sent, and in all.
    pub unsaid: u64,
    pub total: u64,
    /// It waits until then for the words of the other witness.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_until: Option<Time>,
    /// Conditions by which NVML's polls report the same; it is over when they end.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub also: BTreeSet<String>,
}

/// All conditions of a node that are not over, by condition.
#[derive(Debug, Default)]
pub struct FaultCorrelator {
    open: BTreeMap<String, OpenCondition>,
    names: GpuNames,
    /// Whether the kernel's words can be hoped for.
    words_come: bool,
}

impl FaultCorrelator {
    /// Continues with the open conditions of before a restart of the agent, and returns each again, since the engine
    /// may not have received it. After a reboot all are over: the end of each is returned.
    pub fn restore(open: Vec<OpenCondition>, rebooted: bool, now: Time) -> (FaultCorrelator, Vec<Finding>) {
        let mut join = FaultCorrelator::default();
        if rebooted {
            let ended = open.into_iter().filter(|open| open.held_until.is_none());
            return (join, ended.map(|open| over(open, now, "the node was booted again")).collect());
        }
        join.open = open.into_iter().map(|open| (open.finding.complaint.clone(), open)).collect();
        let told = join.open.iter().filter(|(_, open)| open.held_until.is_none());
        let told: Vec<String> = told.map(|(complaint, _)| complaint.clone()).collect();
        let said = told.iter().flat_map(|complaint| join.say(complaint, now)).collect();
        (join, said)
    }

    /// The time was moved by so many microseconds: each wait ends when it would have.
    pub(super) fn shift(&mut self, by: i64) {
        for open in self.open.values_mut() {
            open.last_seen = moved_by(open.last_seen, by);
            open.last_said = moved_by(open.last_said, by);
            open.held_until = open.held_until.map(|until| moved_by(until, by));
        }
    }

    /// The same after `restore`, which has said everything anew by the clock of now.
    pub(super) fn shift_seen(&mut self, by: i64) {
        for open in self.open.values_mut() {
            open.last_seen = moved_by(open.last_seen, by);
            open.held_until = open.held_until.map(|until| moved_by(until, by));
        }
    }

    /// The open faults, each with its finding.
    pub fn open(&self) -> impl Iterator<Item = &OpenCondition> {
        self.open.values()
    }

    /// The names of the node's GPUs, as far as they are known.
    pub fn names(&mut self) -> &mut GpuNames {
        &mut self.names
    }

    /// Whether the kernel log is being read; if not, nothing waits for its words.
    pub fn words_come(&mut self, come: bool) {
        self.words_come = come;
    }

    /// Takes an observation; returns the findings to send now.
    pub fn hear(&mut self, mut sight: FaultObservation, now: Time) -> Vec<Finding> {
        let unnamed = sight.finding.complaint.clone();
        self.name(&mut sight.finding);
        // It began before its GPU had a name.
        let nameless = |open: &OpenCondition| open.finding.gpu.as_ref().is_some_and(|gpu| gpu.pci.is_empty());
        if !self.open.contains_key(&sight.finding.complaint) && self.open.get(&unnamed).is_some_and(nameless) {
            sight.finding.complaint = unnamed;
        }
        if sight.finding.status == EventStatus::Resolved {
            return self.ended(&sight.finding, now);
        }
        let mut complaint = sight.finding.complaint.clone();
        if let Some(of) = self.joined(&complaint) {
            complaint = of;
        }
        let Some(known) = self.open.get_mut(&complaint) else { return self.begun(complaint, sight, now) };
        known.last_seen = now;
        known.total += sight.times;
        let was_told = known.finding.labels.clone();
        learn(&mut known.finding, &sight);
        if known.held_until.is_some() {
            // The words that it waited for, or the same again without them.
            known.unsaid += sight.times;
            let whole = self.is_whole(&sight);
            return if whole { self.say(&complaint, now) } else { Vec::new() };
        }
        known.unsaid += sight.times;
        // The driver may require more than at first; everything else can wait for the next count.
        let wants = |labels: &BTreeMap<String, String>| labels.get("recovery").cloned();
        if wants(&was_told) == wants(&known.finding.labels) { Vec::new() } else { self.say(&complaint, now) }
    }

    /// Returns the findings that time alone brings: conditions that waited long enough, counts, ends. Call it when
    /// `due` has come.
    pub fn tick(&mut self, now: Time) -> Vec<Finding> {
        let mut said = Vec::new();
        let all: Vec<String> = self.open.keys().cloned().collect();
        for complaint in all {
            let Some(open) = self.open.get(&complaint) else { continue };
            match next(open) {
                (at, _) if at > now => {}
                (_, NextReport::End) => {
                    let words = format!("not seen again for {}", limits::JOIN_QUIET);
                    said.extend(self.open.remove(&complaint).map(|open| over(open, now, &words)));
                }
                (_, NextReport::Say) => said.extend(self.say(&complaint, now)),
            }
        }
        said
    }

    /// When `tick` has something to do next.
    pub fn due(&self) -> Option<Time> {
        self.open.values().map(|open| next(open).0).min()
    }

    /// The GPU was reset (by us, or the driver requires nothing any more): its open faults are over.
    pub fn healed(&mut self, gpu: &str, why: &str, now: Time) -> Vec<Finding> {
        let is_its =
            |open: &OpenCondition| open.finding.gpu.as_ref().is_some_and(|name| place(name) == gpu || name.uuid == gpu);
        let (healed, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.open).into_iter().partition(|(_, open)| is_its(open));
        self.open = rest;
        // A condition that was never sent needs no end.
        healed.into_values().filter(|open| open.held_until.is_none()).map(|open| over(open, now, why)).collect()
    }

    /// The XID's open condition that NVML's polls report by this key; it is noted there.
    fn joined(&mut self, complaint: &str) -> Option<String> {
        if self.open.contains_key(complaint) {
            return None;
        }
        let of = kin::of_poll(complaint)?;
        self.open.get_mut(&of)?.also.insert(complaint.to_owned());
        Some(of)
    }

    fn begun(&mut self, complaint: String, mut sight: FaultObservation, now: Time) -> Vec<Finding> {
        // A poll's condition that was not sent yet is the same fault: it is sent as the XID.
        let poll = kin::of_xid(&complaint);
        let waited = poll.filter(|poll| self.open.get(poll).is_some_and(|open| open.held_until.is_some()));
        let mut also = BTreeSet::new();
        if let Some(open) = waited.and_then(|poll| self.open.remove(&poll)) {
            sight.times += open.total;
            also.insert(open.finding.complaint);
        }
        let waits = self.words_come && !self.is_whole(&sight);
        let until = now.checked_add(limits::JOIN_WORDS.0).unwrap_or(now);
        let mut said = if self.open.len() >= limits::COMPLAINTS_PER_NODE { self.forget_one(now) } else { Vec::new() };
        let open = OpenCondition {
            finding: sight.finding,
            last_seen: now,
            last_said: now,
            unsaid: sight.times,
            total: sight.times,
            held_until: waits.then_some(until),
            also,
        };
        self.open.insert(complaint.clone(), open);
        if !waits {
            said.extend(self.say(&complaint, now));
        }
        said
    }

    /// Sends a condition, with the number of observations where there was more than one.
    fn say(&mut self, complaint: &str, now: Time) -> Vec<Finding> {
        let Some(open) = self.open.get_mut(complaint) else { return Vec::new() };
        (open.last_said, open.unsaid, open.held_until) = (now, 0, None);
        let finding = counted(open);
        vec![self.doubted(finding)]
    }

    /// A watcher itself reports that a condition is over.
    fn ended(&mut self, finding: &Finding, now: Time) -> Vec<Finding> {
        let complaint = &finding.complaint;
        let joined = || self.open.values().find(|open| open.also.contains(complaint));
        let named = joined().map_or_else(|| complaint.clone(), |open| open.finding.complaint.clone());
        let known = self.open.remove(&named);
        let mut said: Vec<Finding> = known
            .filter(|open| open.held_until.is_none())
            .map(|open| over(open, now, &finding.summary))
            .into_iter()
            .collect();
        let driver_is_content = finding.labels.get("alertname").is_some_and(|name| name == "GpuRecoveryAction");
        if let Some(gpu) = finding.gpu.as_ref().filter(|_| driver_is_content) {
            said.extend(self.healed(&place(gpu), &finding.summary, now));
        }
        said
    }

    /// There are too many conditions for a node: the one that was quiet for longest is given up, visibly.
    fn forget_one(&mut self, now: Time) -> Vec<Finding> {
        let oldest = self.open.iter().min_by_key(|(_, open)| open.last_seen).map(|(complaint, _)| complaint.clone());
        let forgotten = oldest.and_then(|complaint| self.open.remove(&complaint));
        let words = format!("dropped: more than {} alerts at once", limits::COMPLAINTS_PER_NODE);
        forgotten.filter(|open| open.held_until.is_none()).map(|open| over(open, now, &words)).into_iter().collect()
    }

    fn is_whole(&self, sight: &FaultObservation) -> bool {
        let labels = &sight.finding.labels;
        match sight.seen {
            ObservationSource::Nvml => !needs_words(labels),
            ObservationSource::Kernel => !labels.contains_key("sxid") || labels.contains_key("fatal"),
        }
    }

    /// An address at which NVML has no GPU is as likely a GPU that was lost before we looked as a forged line: it is
    /// sent, with the doubt. NVML's list may come later than the fault, and gives a name or the doubt then.
    fn doubted(&self, mut finding: Finding) -> Finding {
        let Some(gpu) = &mut finding.gpu else { return finding };
        self.names.complete(gpu);
        if self.names.is_stranger(gpu) {
            finding.labels.insert(GPU_KNOWN.to_owned(), "no".to_owned());
            finding.summary = format!("{} (NVML lists no GPU there)", finding.summary);
        }
        finding
    }

    /// All names of its GPU, and the one key of such a fault, whichever watcher saw it.
    fn name(&self, finding: &mut Finding) {
        let Some(gpu) = &mut finding.gpu else { return };
        self.names.complete(gpu);
        let label = |name: &str| finding.labels.get(name).map(String::as_str).unwrap_or_default();
        match (label("alertname"), label("xid")) {
            ("GpuXid", code) if !code.is_empty() => finding.complaint = format!("xid-{code} {}", place(gpu)),
            ("GpuRecoveryAction", _) => finding.complaint = format!("recovery-action {}", place(gpu)),
            (alertname, _) => {
                if let Some(key) = kin::key(alertname) {
                    finding.complaint = format!("{key} {}", place(gpu));
                }
            }
        }
    }
}

/// The label of a finding whose address is not in NVML's list: `no`.
const GPU_KNOWN: &str = "gpu_known";

enum NextReport {
    Say,
    End,
}

/// The next event of a condition, and its time.
fn next(open: &OpenCondition) -> (Time, NextReport) {
    let after = |time: Time, span: Span| time.checked_add(span.0).unwrap_or(Time::MAX);
    if let Some(until) = open.held_until {
        return (until, NextReport::Say);
    }
    let every = if open.unsaid > 0 { limits::JOIN_COUNT_EVERY } else { limits::JOIN_REMIND_EVERY };
    let say = after(open.last_said, every);
    if lasts(&open.finding.labels) || !open.also.is_empty() {
        return (say, NextReport::Say);
    }
    let end = after(open.last_seen, limits::JOIN_QUIET);
    if end <= say { (end, NextReport::End) } else { (say, NextReport::Say) }
}

/// Takes over the fields that the first observation lacked.
fn learn(finding: &mut Finding, sight: &FaultObservation) {
    // A poll's name and remedy add nothing to an XID.
    let same = finding.labels.get("alertname") == sight.finding.labels.get("alertname");
    let adds = |name: &str| same || !matches!(name, "alertname" | "action" | "xid");
    for (name, value) in sight.finding.labels.iter().filter(|(name, _)| adds(name)) {
        let known = finding.labels.entry(name.clone()).or_insert_with(|| value.clone());
        // The driver's wish is the one thing that may change.
        if name == "recovery" {
            known.clone_from(value);
        }
    }
    if let (Some(known), Some(new)) = (&mut finding.gpu, &sight.finding.gpu) {
        known.index = known.index.or(new.index);
        if known.uuid.is_empty() {
            known.uuid.clone_from(&new.uuid);
        }
    }
    let kernel = sight.seen == ObservationSource::Kernel;
    if kernel && finding.detail.is_empty() {
        finding.detail.clone_from(&sight.finding.detail);
        finding.summary.clone_from(&sight.finding.summary);
    }
    finding.severity = finding.severity.max(sight.finding.severity);
}

fn counted(open: &OpenCondition) -> Finding {
    let mut finding = open.finding.clone();
    if open.total > 1 {
        finding.summary = format!("{} (seen {} times)", finding.summary, open.total);
        finding.labels.insert("seen".to_owned(), open.total.to_string());
    }
    finding
}

fn over(open: OpenCondition, now: Time, why: &str) -> Finding {
    let finding = counted(&open);
    let summary = format!("{}: over, {why}", finding.summary);
    // Never before its beginning, whatever was done to the clock: the engine takes that for the end of an earlier fault.
    let at = now.max(finding.at);
    Finding { status: EventStatus::Resolved, at, severity: Severity::Info.max(finding.severity), summary, ..finding }
}

#[cfg(test)]
mod tests;
