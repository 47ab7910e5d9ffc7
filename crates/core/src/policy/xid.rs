//! The meaning of an XID and its remedy. The answer is data (`rules/xid.yaml`), which a site may overrule code by code.
//!
//! Invariant: an unknown code, and bits that fit no row, are reported and never acted upon; the driver's own request
//! outranks the table.
//!
//! The engine applies this to every event with a label `xid`, `sxid` or `recovery`, whatever source it came from, so
//! that agents need no policy and a changed table needs no new agents. Repeats (13 and 31 within a day) are counted by
//! the rules' own `repeat`, over the labels `gpc` and `tpc` that stay on the event.

mod bits;
mod table;

pub use table::{XidCause, XidEntry, XidRemedy, XidTable, XidTableError};

use crate::model::{Event, Labels, Severity};

/// The names of our own events and alerts: their severity is the table's. Others keep their source's.
const OURS: [&str; 3] = ["GpuXid", "NvSwitchSxid", "GpuRecoveryAction"];

/// The remedy, and its origin.
#[derive(Debug, Clone, Copy, PartialEq)]
struct XidDiagnosis<'t> {
    entry: &'t XidEntry,
    remedy: XidRemedy,
    severity: Severity,
    by: &'static str,
}

impl XidTable {
    /// Adds the labels `action`, `action_by`, `blames` and `xid_name` to an event that names a code, and sets its severity.
    pub fn judge(&self, event: &mut Event) {
        let Some(judged) = self.decide(&event.labels) else { return };
        let ours = OURS.contains(&event.labels.get("alertname"));
        event.labels.set("action", judged.remedy.name());
        event.labels.set("action_by", judged.by);
        event.labels.set("blames", judged.entry.blames.name());
        event.labels.set("xid_name", judged.entry.name.as_str());
        if ours {
            event.severity = judged.severity;
            event.labels.set("severity", judged.severity.to_string());
        }
    }

    fn decide(&self, labels: &Labels) -> Option<XidDiagnosis<'_>> {
        let by_table = self.by_code(labels);
        // The driver has seen this GPU's history; the table has only the code. "Nothing" is no request.
        let wish = self.wishes.get(labels.get("recovery")).filter(|entry| entry.action != XidRemedy::None);
        if let Some(entry) = wish {
            let named = by_table.map_or(entry, |judged| judged.entry);
            return Some(XidDiagnosis { entry: named, remedy: entry.action, severity: entry.severity, by: "driver" });
        }
        by_table.or_else(|| match labels.get("recovery") {
            "" => None,
            "none" => self.wishes.get("none").map(|entry| XidDiagnosis::of(entry, "driver")),
            // A wish of a driver that is newer than we are.
            _ => Some(XidDiagnosis::of(&self.unknown, "unknown")),
        })
    }

    fn by_code(&self, labels: &Labels) -> Option<XidDiagnosis<'_>> {
        if let Some(code) = number(labels.get("sxid")) {
            let known = self.sxid.get(&code);
            let word = match labels.get("fatal") {
                "yes" => &self.sxid_fatal,
                _ => &self.sxid_other,
            };
            return Some(known.map_or(XidDiagnosis::of(word, "word"), |entry| XidDiagnosis::of(entry, "table")));
        }
        let code = number(labels.get("xid"))?;
        let Some(entry) = self.xid.get(&code) else { return Some(XidDiagnosis::of(&self.unknown, "unknown")) };
        // R590 names the cause: the code itself is then only an echo, whatever it is.
        if !labels.get("caused_by").is_empty() {
            return Some(XidDiagnosis { entry, remedy: XidRemedy::None, severity: Severity::Info, by: "cause" });
        }
        Some(match self.by_bits(code, labels) {
            Some((remedy, severity)) => XidDiagnosis { entry, remedy, severity, by: "bits" },
            None => XidDiagnosis::of(entry, "table"),
        })
    }
}

impl<'t> XidDiagnosis<'t> {
    fn of(entry: &'t XidEntry, by: &'static str) -> XidDiagnosis<'t> {
        XidDiagnosis { entry, remedy: entry.action, severity: entry.severity, by }
    }
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

#[cfg(test)]
mod tests;
