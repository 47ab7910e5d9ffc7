//! Reports of a node's agent. The node is the sender's, proven by its token or certificate, whatever a report names.
//!
//! Invariant: an agent reports on its node and in a closed vocabulary: an alert that is not in it is left out, and so
//! is a label. A finding that breaks a bound costs itself and is a gap; its number counts as received.

use super::draft::{DecodeGaps, EventDraft, quote};
use crate::config::SourceConfig;
use crate::limits;
use crate::model::{
    AGENT_ALERTS, AGENT_LABELS, AgentName, Event, EventStatus, Finding, FindingBatch, Labels, NumberedFinding,
};
use crate::planted::planted;
use std::collections::BTreeMap;

/// The logical source of all agents' events.
pub const SOURCE: &str = "agent";

/// Of the engine's own about an agent: two senders use its identity.
pub const CERTIFICATE_REUSED: &str = "NightshiftAgentCertificateReused";

/// Labels of a report's node or cluster, which are overwritten.
const SET_HERE: [&str; 6] = ["node", "cluster", "Hostname", "hostname", "kubernetes_node", "nodename"];

/// The content of a delivery.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentDelivery {
    pub events: Vec<Event>,
    /// The number of each event's report.
    pub of_events: Vec<u64>,
    pub numbers: Vec<u64>,
    pub gaps: Vec<String>,
}

/// Decodes an agent's delivery. A finding that the agent may not report is a gap, and its number counts as taken.
pub fn decode(reports: FindingBatch, agent: &AgentName) -> AgentDelivery {
    let cfg = source();
    let mut heard = AgentDelivery::default();
    let mut gaps = DecodeGaps::default();
    for NumberedFinding { no, finding } in reports.reports {
        heard.numbers.push(no);
        match spoken(finding, no, agent, &mut gaps).and_then(|finding| event(finding, agent, &cfg, &mut gaps)) {
            Ok(event) => {
                heard.events.push(event);
                heard.of_events.push(no);
            }
            Err(why) => gaps.push(format!("finding {no} of the agent on {agent} was left out: {why}")),
        }
    }
    heard.gaps = gaps.finish();
    heard
}

/// The finding with the fields that an agent may set, or why it has none.
fn spoken(mut finding: Finding, no: u64, agent: &AgentName, gaps: &mut DecodeGaps) -> Result<Finding, String> {
    if planted("agent-speaks-for-other-nodes") {
        return Ok(finding);
    }
    let alert = finding.labels.get("alertname").map(String::as_str).unwrap_or_default();
    if !AGENT_ALERTS.contains(&alert) {
        return Err(format!("an agent reports no alert {}; is it of another version?", quote(alert)));
    }
    let (said, unsaid): (BTreeMap<_, _>, BTreeMap<_, _>) =
        finding.labels.into_iter().partition(|(name, _)| AGENT_LABELS.contains(&name.as_str()));
    finding.labels = said;
    let names: Vec<String> = unsaid.into_keys().filter(|name| !SET_HERE.contains(&name.as_str())).collect();
    if !names.is_empty() {
        let shown: Vec<String> = names.iter().take(limits::NAMES_SHOWN).map(|name| quote(name)).collect();
        gaps.push(format!(
            "finding {no} of the agent on {agent}: {} labels that an agent does not report were left out: {}",
            names.len(),
            shown.join(", ")
        ));
    }
    Ok(finding)
}

/// An event about an agent itself: that it is silent, or connected again.
pub fn about(finding: Finding, agent: &AgentName) -> Option<Event> {
    event(finding, agent, &source(), &mut DecodeGaps::default()).ok()
}

fn event(finding: Finding, agent: &AgentName, cfg: &SourceConfig, gaps: &mut DecodeGaps) -> Result<Event, String> {
    let mut labels: Labels = finding.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // Set last: a report cannot name another node or cluster.
    labels.set("node", agent.node.as_str());
    labels.set("cluster", agent.cluster.as_str());
    for name in SET_HERE.into_iter().skip(2) {
        labels.set(name, "");
    }
    if let Some(gpu) = &finding.gpu {
        labels.set("gpu", gpu.index.map(|index| index.to_string()).unwrap_or_else(|| gpu.pci.clone()));
        labels.set("gpu_uuid", gpu.uuid.as_str());
        labels.set("pci", gpu.pci.as_str());
    }
    let mut annotations = Labels::default();
    annotations.set("summary", finding.summary.as_str());
    annotations.set("detail", finding.detail.as_str());
    let draft = EventDraft {
        key: Some(format!("{} {}", agent.key(), finding.complaint)),
        status: finding.status,
        starts_at: finding.at,
        ends_at: (finding.status == EventStatus::Resolved).then_some(finding.at),
        labels,
        annotations,
        severity: Some(finding.severity),
        summary: Some(finding.summary),
        url: String::new(),
    };
    draft.finish(SOURCE, cfg, gaps)
}

fn source() -> SourceConfig {
    SourceConfig {
        kind: SOURCE.to_owned(),
        api: None,
        api_token: None,
        stale_after: crate::limits::STALE_AFTER_MIN,
        labels: crate::model::LabelMap::default(),
        add_labels: std::collections::BTreeMap::new(),
        clusters: Vec::new(),
        cluster: None,
        namespaces: Vec::new(),
        pod_labels: std::collections::BTreeMap::new(),
        probe: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AgentStatus, GpuName, Severity, Time};

    fn finding(labels: &[(&str, &str)]) -> Finding {
        Finding {
            complaint: "xid-79 0000:65:00.0".to_owned(),
            status: EventStatus::Firing,
            at: Time::UNIX_EPOCH,
            severity: Severity::Critical,
            gpu: Some(GpuName { index: Some(3), uuid: "GPU-1".to_owned(), pci: "0000:65:00.0".to_owned() }),
            labels: [("alertname", "GpuXid")]
                .iter()
                .chain(labels)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            summary: "GPU 3 has fallen off the bus".to_owned(),
            detail: "NVRM: Xid (PCI:0000:65:00): 79".to_owned(),
        }
    }

    fn hear(findings: Vec<Finding>) -> AgentDelivery {
        let reports = (7..).zip(findings).map(|(no, finding)| NumberedFinding { no, finding }).collect();
        decode(FindingBatch { standing: AgentStatus::default(), reports }, &AgentName::new("eu-1", "gpu-1"))
    }

    #[test]
    fn a_report_is_about_the_node_that_speaks_whatever_it_says() {
        let forged = [("node", "gpu-2"), ("Hostname", "gpu-3"), ("cluster", "us-1"), ("xid", "79")];
        let heard = hear(vec![finding(&forged)]);
        let event = &heard.events[0];
        assert_eq!(event.subject.to_string(), "cluster eu-1 node gpu-1 gpu 3");
        assert_eq!(event.labels.get("xid"), "79");
        assert_eq!((event.name(), event.labels.get("pci")), ("GpuXid", "0000:65:00.0"));
        assert_eq!(event.fingerprint, "eu-1/gpu-1 xid-79 0000:65:00.0");
        assert_eq!(heard.numbers, [7]);
    }

    #[test]
    fn an_agent_names_no_workload_and_no_alert_of_another_source() {
        // As a stolen certificate of gpu-1 would post it: `cases/security/agent-other-workload.json`.
        let forged = [
            ("namespace", "inference"),
            ("exported_namespace", "inference"),
            ("pod", "llama-70b-x"),
            ("exported_pod", "llama-70b-x"),
            ("deployment", "llama-70b"),
            ("statefulset", "llama-70b"),
            ("workload", "llama-70b"),
            ("docker_container", "vllm"),
            ("model", "llama-70b"),
            ("model_name", "llama-70b"),
            ("engine", "vllm"),
            ("also", "vector(1)"),
            ("config", "all-1g.10gb"),
            ("xid", "79"),
        ];
        let heard = hear(vec![finding(&forged)]);
        let [event] = &heard.events[..] else { panic!("{heard:?}") };
        assert_eq!(event.subject.to_string(), "cluster eu-1 node gpu-1 gpu 3");
        let labels: Vec<&str> = event.labels.iter().map(|(name, _)| name).collect();
        assert_eq!(labels, ["alertname", "cluster", "gpu", "gpu_uuid", "node", "pci", "xid"]);
        assert!(heard.gaps[0].contains("13 labels that an agent does not report"), "{:?}", heard.gaps);
        let others = ["InferenceNoProgress", "KubeNodeNotReady", "NightshiftAgentSilent", CERTIFICATE_REUSED, ""];
        let others = others.map(|name| finding(&[("alertname", name)])).to_vec();
        let heard = hear(others);
        assert_eq!((heard.events.len(), heard.numbers.len(), heard.gaps.len()), (0, 5, 5));
        assert!(heard.gaps[0].contains("reports no alert \"InferenceNoProgress\""), "{:?}", heard.gaps);
    }

    #[test]
    fn a_finding_that_breaks_a_bound_is_a_gap_and_the_others_stand() {
        let long = "x".repeat(limits::LABEL_VALUE_BYTES + 1);
        let heard = hear(vec![finding(&[("process", &long)]), finding(&[])]);
        assert_eq!((heard.numbers.as_slice(), heard.of_events.as_slice()), (&[7, 8][..], &[8][..]));
        assert!(heard.gaps[0].contains("finding 7 of the agent on gpu-1 of cluster eu-1"), "{:?}", heard.gaps);
    }
}
