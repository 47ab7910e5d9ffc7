//! From lines to sights: lines that belong together become one, and floods become a number.
//!
//! Invariant: between two `take`s a condition is one sight, however many lines there were; their number is in it.

use super::line::{self, DriverLine, SxidLine, XidLine};
use super::record::KernelRecord;
use super::{KernelTimes, KmsgError};
use crate::limits;
use crate::model::{EventStatus, Finding, GpuName, Severity, Time};
use crate::node::sight::{FaultObservation, cut, recovery_finding, xid_finding};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The findings of the lines since the last `take`.
#[derive(Default)]
pub(super) struct LineAggregator {
    sights: Vec<FaultObservation>,
    /// (address, code) → its place in `sights`.
    known: HashMap<(String, u32), usize>,
    names: Vec<GpuName>,
    /// The GPU that the driver's last lines are about, and for how many of its lines that still holds.
    about: Option<(String, u32)>,
}

/// Lines of the driver within which a sentence that began with an address ends.
const SENTENCE: u32 = 4;
/// SXids have five digits; this keeps them apart from XIDs in `known`.
const SXID: u32 = 1_000_000;

impl LineAggregator {
    /// Takes in one record; records that are not the GPU driver's are skipped.
    pub fn hear(&mut self, record: &KernelRecord<'_>, times: &KernelTimes) {
        if !record.may_concern_us() {
            return;
        }
        for line in record.text().lines() {
            self.about = self.about.take().and_then(|(pci, left)| Some((pci, left.checked_sub(1)?)));
            let Some(said) = line::read(line) else { continue };
            let at = || times.of(record);
            match said {
                DriverLine::Xid(xid) => self.xid(&xid, line, at()),
                DriverLine::Sxid(sxid) => self.sxid(&sxid, line, at()),
                DriverLine::Name { pci, uuid } => self.name(pci, uuid),
                DriverLine::About { pci } => self.about = Some((pci, SENTENCE)),
                DriverLine::Fallen => match self.about.take() {
                    Some((pci, _)) => {
                        let xid = XidLine { pci, code: 79, pid: None, process: "", rest: "GPU has fallen off the bus" };
                        self.xid(&xid, line, at());
                    }
                    None => self.unread(line, at()),
                },
                DriverLine::Unread => self.unread(line, at()),
            }
        }
    }

    /// Adds a finding that records were lost; `count` where their number is known.
    pub fn lost(&mut self, count: Option<u64>, times: &KernelTimes) {
        let words = match count {
            Some(count) => format!("{count} records of the kernel log were overwritten before they could be read"),
            None => "records of the kernel log were overwritten before they could be read".to_owned(),
        };
        let key = (String::new(), 0);
        if self.again(&key, count.unwrap_or(1)) {
            return;
        }
        let finding = about_the_log("kernel-log-lost", "KernelLogLost", words, times.now);
        self.push(key, FaultObservation { times: count.unwrap_or(1), ..FaultObservation::kernel(finding) });
    }

    /// Returns the findings and the GPU names since the last call.
    pub fn take(&mut self) -> (Vec<FaultObservation>, Vec<GpuName>) {
        self.known.clear();
        (std::mem::take(&mut self.sights), std::mem::take(&mut self.names))
    }

    fn xid(&mut self, xid: &XidLine<'_>, line: &str, at: Time) {
        let key = (xid.pci.clone(), xid.code);
        if xid.code != 154 && self.again(&key, 1) {
            return;
        }
        let gpu = GpuName { pci: xid.pci.clone(), ..GpuName::default() };
        let details = line::detail(xid).into_iter().map(|(name, value)| (name.to_owned(), value));
        let mut details: BTreeMap<String, String> = details.collect();
        let finding = match details.remove("recovery") {
            Some(recovery) => {
                // The driver's request changes from line to line, and each change counts.
                let known = self.known.get(&key).map(|place| &self.sights[*place].finding.labels);
                if known.is_some_and(|labels| labels.get("recovery") == Some(&recovery)) {
                    self.again(&key, 1);
                    return;
                }
                details.insert("xid".to_owned(), xid.code.to_string());
                recovery_finding(&recovery, gpu, details, at)
            }
            None => xid_finding(xid.code, gpu, details, xid.rest, at),
        };
        let detail = cut(line, limits::FINDING_DETAIL).to_owned();
        self.push(key, FaultObservation::kernel(Finding { detail, ..finding }));
    }

    fn sxid(&mut self, sxid: &SxidLine<'_>, line: &str, at: Time) {
        let key = (sxid.pci.clone(), SXID + sxid.code);
        let known = self.known.get(&key).copied();
        // The line with the verdict may come behind one that only has data.
        let adds =
            sxid.fatal.is_some() && known.is_some_and(|place| !self.sights[place].finding.labels.contains_key("fatal"));
        if !adds && self.again(&key, 1) {
            return;
        }
        let mut labels = BTreeMap::from([
            ("alertname".to_owned(), "NvSwitchSxid".to_owned()),
            ("sxid".to_owned(), sxid.code.to_string()),
            ("switch".to_owned(), sxid.switch.to_owned()),
            ("switch_pci".to_owned(), sxid.pci.clone()),
        ]);
        labels.extend(sxid.fatal.map(|fatal| ("fatal".to_owned(), if fatal { "yes" } else { "no" }.to_owned())));
        labels.extend(sxid.link.map(|link| ("link".to_owned(), link.to_string())));
        let words = cut(sxid.rest, limits::FINDING_WORDS);
        let finding = Finding {
            complaint: format!("sxid-{} {}", sxid.code, sxid.pci),
            status: EventStatus::Firing,
            at,
            severity: if sxid.fatal == Some(true) { Severity::Critical } else { Severity::Warning },
            gpu: None,
            labels,
            summary: format!("SXid {} on NVSwitch {} ({}): {words}", sxid.code, sxid.switch, sxid.pci),
            detail: cut(line, limits::FINDING_DETAIL).to_owned(),
        };
        match known {
            Some(place) => {
                let times = self.sights[place].times + 1;
                self.sights[place] = FaultObservation { times, ..FaultObservation::kernel(finding) };
            }
            None => self.push(key, FaultObservation::kernel(finding)),
        }
    }

    fn name(&mut self, pci: String, uuid: &str) {
        if self.names.len() < limits::GPUS_PER_NODE && !self.names.iter().any(|name| name.pci == pci) {
            self.names.push(GpuName { index: None, uuid: uuid.to_owned(), pci });
        }
    }

    fn unread(&mut self, line: &str, at: Time) {
        let key = (String::new(), 1);
        if self.again(&key, 1) {
            return;
        }
        let words = "a kernel log line of the GPU driver looks like a fault and cannot be parsed".to_owned();
        let finding = about_the_log("kernel-line-unread", "KernelLineUnread", words, at);
        let detail = cut(line, limits::FINDING_DETAIL).to_owned();
        self.push(key, FaultObservation::kernel(Finding { detail, ..finding }));
    }

    /// Whether this was seen since the last `take`; then it is counted.
    fn again(&mut self, key: &(String, u32), times: u64) -> bool {
        let Some(place) = self.known.get(key) else { return false };
        self.sights[*place].times += times;
        true
    }

    fn push(&mut self, key: (String, u32), sight: FaultObservation) {
        self.known.insert(key, self.sights.len());
        self.sights.push(sight);
    }
}

pub(super) fn unreadable(path: &Path, why: &KmsgError, at: Time) -> FaultObservation {
    let finding = about_the_log("kernel-log-unreadable", "KernelLogUnreadable", why.to_string(), at);
    FaultObservation::kernel(Finding { detail: path.display().to_string(), ..finding })
}

pub(super) fn readable(path: &Path, at: Time) -> FaultObservation {
    let words = format!("{} can be read again", path.display());
    let finding = about_the_log("kernel-log-unreadable", "KernelLogUnreadable", words, at);
    FaultObservation::kernel(Finding { status: EventStatus::Resolved, ..finding })
}

/// A condition about the log itself: the agent is partly blind, the GPU may be well.
fn about_the_log(complaint: &str, alertname: &str, summary: String, at: Time) -> Finding {
    Finding {
        complaint: complaint.to_owned(),
        status: EventStatus::Firing,
        at,
        severity: Severity::Warning,
        gpu: None,
        labels: BTreeMap::from([("alertname".to_owned(), alertname.to_owned())]),
        summary,
        detail: String::new(),
    }
}
