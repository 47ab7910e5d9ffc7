//! An observation that a watcher gives to the fault correlation: a finding, its origin, and its count.
//!
//! Invariant: one fault has one key, whichever watcher saw it: `xid-79 0000:65:00.0`, `sxid-20034 0000:c4:00.0`,
//! `recovery-action 0000:65:00.0`.

use crate::limits;
use crate::model::{EventStatus, Finding, GpuName, Severity, Time};
use std::collections::BTreeMap;

/// Who saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservationSource {
    Kernel,
    Nvml,
}

/// One sight of a fault, or of many alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultObservation {
    pub finding: Finding,
    pub seen: ObservationSource,
    pub times: u64,
}

impl FaultObservation {
    /// One observation by NVML.
    pub fn nvml(finding: Finding) -> FaultObservation {
        FaultObservation { finding, seen: ObservationSource::Nvml, times: 1 }
    }

    pub(super) fn kernel(finding: Finding) -> FaultObservation {
        FaultObservation { finding, seen: ObservationSource::Kernel, times: 1 }
    }
}

/// The finding of an XID. NVML's events and kernel lines are both sent as this, so that they are the same condition.
pub fn xid_finding(code: u32, gpu: GpuName, details: BTreeMap<String, String>, words: &str, at: Time) -> Finding {
    let mut labels = details;
    labels.insert("alertname".to_owned(), "GpuXid".to_owned());
    labels.insert("xid".to_owned(), code.to_string());
    let place = place(&gpu);
    let summary = match words {
        "" => format!("XID {code} on GPU {place}"),
        words => format!("XID {code} on GPU {place}: {}", cut(words, limits::FINDING_WORDS)),
    };
    let severity = if lasts(&labels) { Severity::Critical } else { Severity::Warning };
    let complaint = format!("xid-{code} {place}");
    Finding {
        complaint,
        status: EventStatus::Firing,
        at,
        severity,
        gpu: Some(gpu),
        labels,
        summary,
        detail: String::new(),
    }
}

/// The finding of the driver's own wish (XID 154, NVML field 230): `none` ends the condition.
pub fn recovery_finding(recovery: &str, gpu: GpuName, details: BTreeMap<String, String>, at: Time) -> Finding {
    let mut labels = details;
    labels.insert("alertname".to_owned(), "GpuRecoveryAction".to_owned());
    labels.insert("recovery".to_owned(), recovery.to_owned());
    let place = place(&gpu);
    let status = if recovery == "none" { EventStatus::Resolved } else { EventStatus::Firing };
    let summary = match status {
        EventStatus::Firing => format!("the driver requests `{recovery}` for GPU {place}"),
        EventStatus::Resolved => format!("the driver no longer requests anything for GPU {place}"),
    };
    let complaint = format!("recovery-action {place}");
    Finding {
        complaint,
        status,
        at,
        severity: Severity::Critical,
        gpu: Some(gpu),
        labels,
        summary,
        detail: String::new(),
    }
}

/// Faults that the driver reports as an XID and NVML's polls see as well, under a name of their own.
pub(super) mod kin {
    /// The poll's condition, its alertname, and the XID.
    const KIN: [(&str, &str, u32); 2] = [("gpu-lost", "GpuLost", 79), ("row-remap-pending", "GpuRowRemapPending", 63)];

    /// The first word of the condition that such a finding of a poll has, if it is one.
    pub fn key(alertname: &str) -> Option<&'static str> {
        KIN.iter().find(|(_, name, _)| *name == alertname).map(|(key, ..)| *key)
    }

    /// `gpu-lost 0000:65:00.0` → `xid-79 0000:65:00.0`
    pub fn of_poll(complaint: &str) -> Option<String> {
        let (key, place) = complaint.split_once(' ')?;
        KIN.iter().find(|(poll, ..)| *poll == key).map(|(.., code)| format!("xid-{code} {place}"))
    }

    /// `xid-79 0000:65:00.0` → `gpu-lost 0000:65:00.0`
    pub fn of_xid(complaint: &str) -> Option<String> {
        let (key, place) = complaint.strip_prefix("xid-")?.split_once(' ')?;
        KIN.iter().find(|(.., code)| code.to_string() == key).map(|(poll, ..)| format!("{poll} {place}"))
    }
}

/// The shortest name that lasts: the address, else the UUID, else the index.
pub(super) fn place(gpu: &GpuName) -> String {
    match (gpu.pci.as_str(), gpu.uuid.as_str(), gpu.index) {
        ("", "", Some(index)) => index.to_string(),
        ("", "", None) => "unknown".to_owned(),
        ("", uuid, _) => uuid.to_owned(),
        (pci, _, _) => pci.to_owned(),
    }
}

/// Whether the GPU stays unhealthy after such an observation until it is reset or the node is: then silence proves
/// nothing. These are the codes whose remedy is a reset or a reboot in NVIDIA's catalogue (`rules/xid.yaml`; a test
/// compares the two).
pub(super) fn lasts(labels: &BTreeMap<String, String>) -> bool {
    const LASTING: [u32; 17] = [46, 48, 62, 64, 79, 95, 109, 110, 119, 120, 136, 140, 143, 151, 155, 156, 158];
    let label = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
    match label("xid").parse::<u32>() {
        Ok(74 | 144..=150) => label("fatal") == "yes",
        Ok(code) if label("alertname") == "GpuXid" => LASTING.contains(&code),
        // A switch's fatal error and the driver's request end by the driver's own report, or with the node.
        _ => {
            matches!(label("alertname"), "NvSwitchSxid" if label("fatal") == "yes")
                || label("alertname") == "GpuRecoveryAction"
        }
    }
}

/// Codes whose meaning is in the kernel's text: the engine, the cause, the bits; and a poll's view of a fault that has
/// a code.
pub(super) fn needs_words(labels: &BTreeMap<String, String>) -> bool {
    if labels.get("alertname").is_some_and(|name| kin::key(name).is_some()) {
        return true;
    }
    let code = labels.get("xid").and_then(|code| code.parse::<u32>().ok());
    matches!(code, Some(13 | 45 | 74 | 144..=150 | 154))
}

pub(super) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes.min(text.len()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{XidRemedy, XidTable};

    #[test]
    fn silence_ends_no_complaint_whose_remedy_is_a_reset_or_a_reboot() {
        let table = XidTable::default();
        for code in 1..=172_u32 {
            let mut labels =
                BTreeMap::from([("alertname".to_owned(), "GpuXid".to_owned()), ("xid".to_owned(), code.to_string())]);
            let remedy = table.xid(code).map(|entry| entry.action);
            let ill = matches!(remedy, Some(XidRemedy::Reset | XidRemedy::Reboot));
            if matches!(code, 74 | 144..=150) {
                assert!(!lasts(&labels), "{code}: its words decide");
                labels.insert("fatal".to_owned(), "yes".to_owned());
                assert!(lasts(&labels), "{code}");
            } else {
                assert_eq!(lasts(&labels), ill, "{code} is {remedy:?}");
            }
        }
    }
}
