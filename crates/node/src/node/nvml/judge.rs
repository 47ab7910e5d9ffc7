//! From looks to findings: begun when enough looks in a row agree, over when enough agree again, told once each.
//!
//! Invariant: pure; for each GPU and check, a firing finding is followed by its resolved one before it fires again, but
//! where its labels change.

use super::checks::{self, ALARMS, Alarm, Check, Verdict, View};
use super::raw::Told;
use super::reading::{Limits, Looked, Reading};
use crate::limits;
use crate::model::{Finding, GpuName, Severity, Status, Time};
use crate::node::moved_by;
use std::collections::BTreeMap;

/// What is remembered of one GPU.
#[derive(Debug, Default)]
struct Patient {
    before: Option<Reading>,
    margin_works: bool,
    limits: Limits,
    /// By check: how many looks in a row said the same, and which.
    runs: BTreeMap<&'static str, Run>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Run {
    ill: u32,
    well: u32,
}

/// All GPUs of the node, and what is wrong with the node itself.
#[derive(Debug, Default)]
pub(super) struct Judge {
    patients: BTreeMap<String, Patient>,
    usual_links: u32,
    /// What was said and is not over, by complaint.
    open: BTreeMap<String, Open>,
}

#[derive(Debug)]
struct Open {
    finding: Finding,
    /// An alarm is over when it was quiet until then.
    quiet_until: Option<Time>,
}

/// The name that a complaint ends with: what lasts longest.
pub(super) fn place(gpu: &GpuName) -> String {
    match (gpu.pci.as_str(), gpu.uuid.as_str(), gpu.index) {
        ("", "", index) => index.map_or_else(|| "unknown".to_owned(), |index| index.to_string()),
        ("", uuid, _) => uuid.to_owned(),
        (pci, ..) => pci.to_owned(),
    }
}

impl Judge {
    /// One look at one GPU.
    pub fn look(&mut self, gpu: &GpuName, looked: &Looked, whole: bool, now: Time) -> Vec<Finding> {
        let place = place(gpu);
        let patient = self.patients.entry(place.clone()).or_default();
        if let Looked::Well(reading) = looked {
            self.usual_links = self.usual_links.max(reading.links_up.unwrap_or(0));
            patient.limits.learn(&reading.limits);
            patient.margin_works |= reading.margin.is_some_and(|margin| margin > 0);
        }
        let mut said = Vec::new();
        for check in checks::all().filter(|check| whole || !check.whole) {
            let view = View {
                looked,
                before: patient.before.as_ref(),
                limits: patient.limits,
                usual_links: self.usual_links,
                margin_works: patient.margin_works,
            };
            let run = patient.runs.entry(check.key).or_default();
            let complaint = format!("{} {place}", check.key);
            match (check.judge)(&view) {
                Verdict::Same => {}
                Verdict::Ill(words) => {
                    *run = Run { ill: run.ill.saturating_add(1), well: 0 };
                    if run.ill >= check.begins {
                        let finding = finding_of(check, complaint, gpu, looked, &words, now);
                        said.extend(begin(&mut self.open, finding, None));
                    }
                }
                Verdict::Well => {
                    *run = Run { ill: 0, well: run.well.saturating_add(1) };
                    if run.well >= check.ends {
                        said.extend(end(&mut self.open, &complaint, now, "it is over"));
                    }
                }
            }
        }
        match looked {
            // Counters that only some looks ask are compared with the look that asked them last.
            Looked::Well(reading) => patient.before.get_or_insert_default().learn(Reading::clone(reading)),
            // What was counted before a fault is nothing to compare with.
            _ => patient.before = None,
        }
        said
    }

    /// Goes on with what the last run of the agent complained of: it ends when the looks say so.
    pub fn restore(&mut self, polled: Vec<Finding>, now: Time) {
        let is_alarm = |complaint: &str| ALARMS.iter().any(|alarm| complaint.split(' ').next() == Some(alarm.key));
        for finding in polled {
            let quiet_until =
                is_alarm(&finding.complaint).then(|| now.checked_add(limits::GPU_ALARM_QUIET).unwrap_or(now));
            self.open.insert(finding.complaint.clone(), Open { finding, quiet_until });
        }
    }

    /// The time was moved by so many microseconds.
    pub fn shift(&mut self, by: i64) {
        for open in self.open.values_mut() {
            open.quiet_until = open.quiet_until.map(|until| moved_by(until, by));
        }
    }

    /// What the driver told at once, other than an XID.
    pub fn alarm(&mut self, gpu: &GpuName, told: &Told, now: Time) -> Vec<Finding> {
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
            status: Status::Firing,
            at: now,
            severity,
            gpu: None,
            labels,
            summary: words,
            detail: String::new(),
        };
        begin(&mut self.open, finding, None).into_iter().collect()
    }

    /// What time alone ends.
    pub fn tick(&mut self, now: Time) -> Vec<Finding> {
        let over = |open: &Open| open.quiet_until.is_some_and(|until| until <= now);
        let keys: Vec<String> =
            self.open.iter().filter(|(_, open)| over(open)).map(|(complaint, _)| complaint.clone()).collect();
        keys.iter().filter_map(|complaint| end(&mut self.open, complaint, now, "it was not told again")).collect()
    }

    /// The complaints of a GPU that are not over.
    pub fn complaints(&self, gpu: &GpuName) -> Vec<String> {
        let of = |open: &&Open| open.finding.gpu.as_ref().is_some_and(|named| place(named) == place(gpu));
        self.open.values().filter(of).map(|open| open.finding.summary.clone()).collect()
    }

    /// The complaints that are about no single GPU.
    pub fn of_node(&self) -> Vec<String> {
        self.open.values().filter(|open| open.finding.gpu.is_none()).map(|open| open.finding.summary.clone()).collect()
    }
}

/// What is wrong with the node itself.
pub(super) struct NodeTrouble {
    pub alertname: &'static str,
    pub severity: Severity,
    pub action: &'static str,
    pub words: String,
    /// So many GPUs, where that is what is wrong.
    pub expected: Option<u32>,
}

/// The label of a complaint about missing GPUs: how many there should be, also for the next run of the agent.
pub(super) const EXPECTED: &str = "expected";

fn labels<const N: usize>(alertname: &str, action: &str, more: [(&str, String); N]) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([("alertname".to_owned(), alertname.to_owned())]);
    if !action.is_empty() {
        labels.insert("action".to_owned(), action.to_owned());
    }
    labels.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    labels
}

fn finding_of(check: &Check, complaint: String, gpu: &GpuName, looked: &Looked, words: &str, now: Time) -> Finding {
    let mut labels = labels(check.alertname, check.action, [("source", "nvml".to_owned())]);
    if let ("recovery-action", Looked::Well(reading)) = (check.key, looked) {
        let word = checks::recovery_word(reading.recovery.unwrap_or(0));
        labels.insert("recovery".to_owned(), word.to_owned());
    }
    Finding {
        complaint,
        status: Status::Firing,
        at: now,
        severity: check.severity,
        gpu: Some(gpu.clone()),
        labels,
        summary: format!("GPU {}: {words}", place(gpu)),
        detail: String::new(),
    }
}

fn alarm_finding(alarm: &Alarm, gpu: &GpuName, told: &Told, now: Time) -> Finding {
    Finding {
        complaint: format!("{} {}", alarm.key, place(gpu)),
        status: Status::Firing,
        at: now,
        severity: alarm.severity,
        gpu: Some(gpu.clone()),
        labels: with_instances(labels(alarm.alertname, alarm.action, [("source", "nvml".to_owned())]), told),
        summary: format!("GPU {}: {}", place(gpu), alarm.when),
        detail: String::new(),
    }
}

fn with_instances(mut labels: BTreeMap<String, String>, told: &Told) -> BTreeMap<String, String> {
    for (name, id) in [("GPU_I_ID", told.instance), ("GPU_CI_ID", told.part)] {
        if let Some(id) = id {
            labels.insert(name.to_owned(), id.to_string());
        }
    }
    labels
}

/// An XID as NVML tells it. It has no end here: silence proves nothing, and NVML never takes one back.
pub(super) fn xid(gpu: &GpuName, told: &Told, now: Time) -> Finding {
    let code = told.data;
    let labels = labels("GpuXid", "", [("source", "nvml".to_owned()), ("xid", code.to_string())]);
    Finding {
        complaint: format!("xid-{code} {}", place(gpu)),
        status: Status::Firing,
        at: now,
        severity: Severity::Warning,
        gpu: Some(gpu.clone()),
        labels: with_instances(labels, told),
        summary: format!("XID {code} on GPU {}", place(gpu)),
        detail: String::new(),
    }
}

/// Says it, unless the same was said and is not over.
fn begin(open: &mut BTreeMap<String, Open>, finding: Finding, quiet_until: Option<Time>) -> Option<Finding> {
    if let Some(known) = open.get_mut(&finding.complaint) {
        known.quiet_until = quiet_until;
        if known.finding.labels == finding.labels {
            return None;
        }
    }
    open.insert(finding.complaint.clone(), Open { finding: finding.clone(), quiet_until });
    Some(finding)
}

fn end(open: &mut BTreeMap<String, Open>, complaint: &str, now: Time, why: &str) -> Option<Finding> {
    let Open { finding, .. } = open.remove(complaint)?;
    let summary = format!("{} ({why})", finding.summary);
    // Never before its beginning, whatever was done to the clock.
    Some(Finding { status: Status::Resolved, at: now.max(finding.at), summary, ..finding })
}

/// The page of all findings of NVML's watch, for people who write rules.
pub fn findings_page() -> String {
    let mut page = String::from(
        "# What the agent says of GPUs\n\nGenerated from `crates/node/src/node/nvml/checks.rs`. Each line is one complaint for one GPU; rules match its labels \
         (`alertname`, `action`, and what the line says), and the engine adds the node and the GPU's names. *begins* and *ends*: looks \
         in a row that must agree (`nvml.poll` apart, one second unless set; lines marked × are looked at only every tenth time). \
         What NVML cannot see leaves a complaint as it is. Where the kernel log tells `gpu-lost` as XID 79, or `row-remap-pending` as \
         XID 63, there is one event, the XID's.\n\n\
         | complaint | alertname | severity | action | begins | ends | when |\n|---|---|---|---|---|---|---|\n",
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
         | complaint | alertname | severity | action | event | when |\n|---|---|---|---|---|---|\n\
         | `xid-N` | `GpuXid` | warning | by the table of XIDs | 0x8 | labels `xid`, and `GPU_I_ID`, `GPU_CI_ID` of the MIG instance; NVML never takes one back |\n",
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
    page += "\nAbout the node:\n\n| complaint | alertname | severity | action | when |\n|---|---|---|---|---|\n\
         | `gpus-missing` | `GpuMissing` | critical | reboot | NVML counts fewer GPUs than `nvml.expected`, or than it has counted since the agent began |\n\
         | `nvml-unavailable` | `NvmlUnavailable` | warning | tell | NVML cannot be loaded or begun (no driver, 18 = library and driver do not match, …); a missing library on a node without `nvml.expected` is only logged |\n\
         | `nvml-hangs` | `NvmlHangs` | critical | reboot | a call that is about no single GPU does not come back |\n\
         | `nvml-events` | `NvmlEvents` | warning | tell | waiting for events fails again and again; polls go on |\n";
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
