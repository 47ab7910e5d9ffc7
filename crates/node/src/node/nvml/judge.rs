//! From looks to findings: begun when enough looks in a row agree, over when enough agree again, sent once each.
//!
//! Invariant: pure; for each GPU and check, a firing finding is followed by its resolved one before it fires again, but
//! where its labels change.

use super::checks::{self, ALARMS, CheckInput, CheckResult, GpuCheck, NvmlAlarm};
use super::raw::NvmlEvent;
use super::reading::{GpuPollResult, GpuReading, TemperatureLimits};
use crate::limits;
use crate::model::{EventStatus, Finding, GpuName, Severity, Time};
use crate::node::moved_by;
use std::collections::BTreeMap;

/// The state kept for one GPU.
#[derive(Debug, Default)]
struct GpuCheckState {
    before: Option<GpuReading>,
    margin_works: bool,
    limits: TemperatureLimits,
    /// By check: how many looks in a row agreed, and on which result.
    runs: BTreeMap<&'static str, CheckStreak>,
}

#[derive(Debug, Default, Clone, Copy)]
struct CheckStreak {
    unhealthy: u32,
    healthy: u32,
}

/// All GPUs of the node, and the node's own faults.
#[derive(Debug, Default)]
pub(super) struct FaultDetector {
    patients: BTreeMap<String, GpuCheckState>,
    usual_links: u32,
    /// Conditions that were sent and are not over, by key.
    open: BTreeMap<String, OpenFinding>,
}

#[derive(Debug)]
struct OpenFinding {
    finding: Finding,
    /// An alarm is over when it was quiet until then.
    quiet_until: Option<Time>,
}

/// The name that a condition ends with: the most lasting one.
pub(super) fn place(gpu: &GpuName) -> String {
    match (gpu.pci.as_str(), gpu.uuid.as_str(), gpu.index) {
        ("", "", index) => index.map_or_else(|| "unknown".to_owned(), |index| index.to_string()),
        ("", uuid, _) => uuid.to_owned(),
        (pci, ..) => pci.to_owned(),
    }
}

impl FaultDetector {
    /// One look at one GPU.
    pub fn look(&mut self, gpu: &GpuName, looked: &GpuPollResult, whole: bool, now: Time) -> Vec<Finding> {
        let place = place(gpu);
        let patient = self.patients.entry(place.clone()).or_default();
        if let GpuPollResult::Read(reading) = looked {
            self.usual_links = self.usual_links.max(reading.links_up.unwrap_or(0));
            patient.limits.learn(&reading.limits);
            patient.margin_works |= reading.margin.is_some_and(|margin| margin > 0);
        }
        let mut said = Vec::new();
        for check in checks::all().filter(|check| whole || !check.whole) {
            let view = CheckInput {
                looked,
                before: patient.before.as_ref(),
                limits: patient.limits,
                usual_links: self.usual_links,
                margin_works: patient.margin_works,
            };
            let run = patient.runs.entry(check.key).or_default();
            let complaint = format!("{} {place}", check.key);
            match (check.judge)(&view) {
                CheckResult::Same => {}
                CheckResult::Unhealthy(words) => {
                    *run = CheckStreak { unhealthy: run.unhealthy.saturating_add(1), healthy: 0 };
                    if run.unhealthy >= check.begins {
                        let finding = finding_of(check, complaint, gpu, looked, &words, now);
                        said.extend(begin(&mut self.open, finding, None));
                    }
                }
                CheckResult::Healthy => {
                    *run = CheckStreak { unhealthy: 0, healthy: run.healthy.saturating_add(1) };
                    if run.healthy >= check.ends {
                        said.extend(end(&mut self.open, &complaint, now, "it is over"));
                    }
                }
            }
        }
        match looked {
            // Counters that only some looks read are compared with the last look that read them.
            GpuPollResult::Read(reading) => patient.before.get_or_insert_default().learn(GpuReading::clone(reading)),
            // Counts from before a fault are no base for a comparison.
            _ => patient.before = None,
        }
        said
    }

    /// Continues with the conditions of the agent's last run: they end when the looks show it.
    pub fn restore(&mut self, polled: Vec<Finding>, now: Time) {
        let is_alarm = |complaint: &str| ALARMS.iter().any(|alarm| complaint.split(' ').next() == Some(alarm.key));
        for finding in polled {
            let quiet_until =
                is_alarm(&finding.complaint).then(|| now.checked_add(limits::GPU_ALARM_QUIET).unwrap_or(now));
            self.open.insert(finding.complaint.clone(), OpenFinding { finding, quiet_until });
        }
    }

    /// The time was moved by so many microseconds.
    pub fn shift(&mut self, by: i64) {
        for open in self.open.values_mut() {
            open.quiet_until = open.quiet_until.map(|until| moved_by(until, by));
        }
    }

    /// A fault that the driver reported at once, other than an XID.
    pub fn alarm(&mut self, gpu: &GpuName, told: &NvmlEvent, now: Time) -> Vec<Finding> {
        let mut said = Vec::new();
        for alarm in ALARMS.iter().filter(|alarm| told.kind & alarm.bit != 0) {
            let finding = alarm_finding(alarm, gpu, told, now);
            let quiet = now.checked_add(limits::GPU_ALARM_QUIET).unwrap_or(now);
            said.extend(begin(&mut self.open, finding, Some(quiet)));
        }
        said
    }

    /// Something about the node itself, not about one GPU: begun or over.
    pub fn node(&mut self, key: &str, wrong: Option<NodeTrouble>, now: Time) -> Vec<Finding> {
        let Some(NodeTrouble { alertname, severity, action, words, expected }) = wrong else {
            return end(&mut self.open, key, now, "it is over").into_iter().collect();
        };
        let mut labels = labels(alertname, action, [("source", "nvml".to_owned())]);
        labels.extend(expected.map(|count| (EXPECTED.to_owned(), count.to_string())));
        let finding = Finding {
            complaint: key.to_owned(),
            status: EventStatus::Firing,
            at: now,
            severity,
            gpu: None,
            labels,
            summary: words,
            detail: String::new(),
        };
        begin(&mut self.open, finding, None).into_iter().collect()
    }

    /// Returns the conditions that time alone ends.
    pub fn tick(&mut self, now: Time) -> Vec<Finding> {
        let over = |open: &OpenFinding| open.quiet_until.is_some_and(|until| until <= now);
        let keys: Vec<String> =
            self.open.iter().filter(|(_, open)| over(open)).map(|(complaint, _)| complaint.clone()).collect();
        keys.iter().filter_map(|complaint| end(&mut self.open, complaint, now, "it was not reported again")).collect()
    }

    /// The conditions of a GPU that are not over.
    pub fn complaints(&self, gpu: &GpuName) -> Vec<String> {
        let of = |open: &&OpenFinding| open.finding.gpu.as_ref().is_some_and(|named| place(named) == place(gpu));
        self.open.values().filter(of).map(|open| open.finding.summary.clone()).collect()
    }

    /// The conditions that are about no single GPU.
    pub fn of_node(&self) -> Vec<String> {
        self.open.values().filter(|open| open.finding.gpu.is_none()).map(|open| open.finding.summary.clone()).collect()
    }
}

/// A fault of the node itself.
pub(super) struct NodeTrouble {
    pub alertname: &'static str,
    pub severity: Severity,
    pub action: &'static str,
    pub words: String,
    /// The expected number of GPUs, where their number is the fault.
    pub expected: Option<u32>,
}

/// The label of a condition about missing GPUs: how many there should be, also for the next run of the agent.
pub(super) const EXPECTED: &str = "expected";

fn labels<const N: usize>(alertname: &str, action: &str, more: [(&str, String); N]) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([("alertname".to_owned(), alertname.to_owned())]);
    if !action.is_empty() {
        labels.insert("action".to_owned(), action.to_owned());
    }
    labels.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    labels
}

fn finding_of(
    check: &GpuCheck,
    complaint: String,
    gpu: &GpuName,
    looked: &GpuPollResult,
    words: &str,
    now: Time,
) -> Finding {
    let mut labels = labels(check.alertname, check.action, [("source", "nvml".to_owned())]);
    if let ("recovery-action", GpuPollResult::Read(reading)) = (check.key, looked) {
        let word = checks::recovery_word(reading.recovery.unwrap_or(0));
        labels.insert("recovery".to_owned(), word.to_owned());
    }
    Finding {
        complaint,
        status: EventStatus::Firing,
        at: now,
        severity: check.severity,
        gpu: Some(gpu.clone()),
        labels,
        summary: format!("GPU {}: {words}", place(gpu)),
        detail: String::new(),
    }
}

fn alarm_finding(alarm: &NvmlAlarm, gpu: &GpuName, told: &NvmlEvent, now: Time) -> Finding {
    Finding {
        complaint: format!("{} {}", alarm.key, place(gpu)),
        status: EventStatus::Firing,
        at: now,
        severity: alarm.severity,
        gpu: Some(gpu.clone()),
        labels: with_instances(labels(alarm.alertname, alarm.action, [("source", "nvml".to_owned())]), told),
        summary: format!("GPU {}: {}", place(gpu), alarm.when),
        detail: String::new(),
    }
}

fn with_instances(mut labels: BTreeMap<String, String>, told: &NvmlEvent) -> BTreeMap<String, String> {
    for (name, id) in [("GPU_I_ID", told.instance), ("GPU_CI_ID", told.part)] {
        if let Some(id) = id {
            labels.insert(name.to_owned(), id.to_string());
        }
    }
    labels
}

/// An XID from NVML. It has no end here: silence proves nothing, and NVML never takes one back.
pub(super) fn xid(gpu: &GpuName, told: &NvmlEvent, now: Time) -> Finding {
    let code = told.data;
    let labels = labels("GpuXid", "", [("source", "nvml".to_owned()), ("xid", code.to_string())]);
    Finding {
        complaint: format!("xid-{code} {}", place(gpu)),
        status: EventStatus::Firing,
        at: now,
        severity: Severity::Warning,
        gpu: Some(gpu.clone()),
        labels: with_instances(labels, told),
        summary: format!("XID {code} on GPU {}", place(gpu)),
        detail: String::new(),
    }
}

/// Sends it, unless the same one is open.
fn begin(open: &mut BTreeMap<String, OpenFinding>, finding: Finding, quiet_until: Option<Time>) -> Option<Finding> {
    if let Some(known) = open.get_mut(&finding.complaint) {
        known.quiet_until = quiet_until;
        if known.finding.labels == finding.labels {
            return None;
        }
    }
    open.insert(finding.complaint.clone(), OpenFinding { finding: finding.clone(), quiet_until });
    Some(finding)
}

fn end(open: &mut BTreeMap<String, OpenFinding>, complaint: &str, now: Time, why: &str) -> Option<Finding> {
    let OpenFinding { finding, .. } = open.remove(complaint)?;
    let summary = format!("{} ({why})", finding.summary);
    // Never before its beginning, whatever was done to the clock.
    Some(Finding { status: EventStatus::Resolved, at: now.max(finding.at), summary, ..finding })
}

/// The page of all findings of NVML's watch, for users who write rules.
pub fn findings_page() -> String {
    let mut page = String::from(
        "# GPU alerts of the agent\n\nGenerated from `crates/node/src/node/nvml/checks.rs`. Each line is one alert about one GPU; rules match its labels \
         (`alertname`, `action`, and those in the line), and the engine adds the node and the GPU's names. *begins* and *ends*: polls \
         in a row that must agree (every `nvml.poll`, one second by default; lines marked × only every tenth poll). A value that \
         NVML cannot read leaves an alert as it is. If the kernel log reports `gpu-lost` as XID 79, or `row-remap-pending` as XID 63, \
         there is one event, the XID's.\n\n\
         | alert | alertname | severity | action | begins | ends | when |\n|---|---|---|---|---|---|---|\n",
    );
    for check in checks::all() {
        let action = if check.action.is_empty() { "as `recovery`" } else { check.action };
        page += &format!(
            "| `{}` | `{}` | {} | {action} | {}{} | {} | {} |\n",
            check.key,
            check.alertname,
            word(check.severity),
            check.begins,
            if check.whole { "×" } else { "" },
            check.ends,
            check.when
        );
    }
    page += &format!(
        "\nTold at once by the driver (event types beyond the safe wrapper's 0x100), over after {} minutes without another:\n\n\
         | alert | alertname | severity | action | event | when |\n|---|---|---|---|---|---|\n\
         | `xid-N` | `GpuXid` | warning | by the table of XIDs | 0x8 | labels `xid`, and `GPU_I_ID`, `GPU_CI_ID` of the MIG instance; NVML never clears one |\n",
        limits::GPU_ALARM_QUIET.as_secs() / 60
    );
    for alarm in &ALARMS {
        page += &format!(
            "| `{}` | `{}` | {} | {} | {:#x} | {} |\n",
            alarm.key,
            alarm.alertname,
            word(alarm.severity),
            alarm.action,
            alarm.bit,
            alarm.when
        );
    }
    page += "\nAbout the node:\n\n| alert | alertname | severity | action | when |\n|---|---|---|---|---|\n\
         | `gpus-missing` | `GpuMissing` | critical | reboot | NVML counts fewer GPUs than `nvml.expected`, or fewer than earlier since the agent's start |\n\
         | `nvml-unavailable` | `NvmlUnavailable` | warning | tell | NVML cannot be loaded or initialized (no driver, 18 = library and driver do not match, …); a missing library on a node without `nvml.expected` is only logged |\n\
         | `nvml-hangs` | `NvmlHangs` | critical | reboot | a call not about a single GPU does not return |\n\
         | `nvml-events` | `NvmlEvents` | warning | tell | waiting for events fails repeatedly; polling continues |\n";
    page
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
        Severity::Critical => "critical",
    }
}

#[cfg(test)]
mod tests;
