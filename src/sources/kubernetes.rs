//! A cluster's own symptoms, as alerts: node conditions and taints, lost devices, silent kubelets, pods that do not
//! run, and Kubernetes' own warnings. The table of labels is in `integrations/kubernetes/README.md`.
//!
//! Invariant: pure; a state that is not known to be a fault is none, and our own condition and our own Events are
//! skipped.

mod board;

pub use board::{ConditionTracker, WatchedKind};

use crate::config::SourceConfig;
use crate::limits;
use crate::model::{Severity, Time};
use crate::world::{EventSeen, NIGHTSHIFT_CONDITION, NodeSeen, PodSeen};
use std::time::Duration;

/// One thing that is wrong with one object now.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectCondition {
    /// The `alertname`.
    pub name: &'static str,
    /// Labels that identify this alert, beside the name.
    pub labels: Vec<(&'static str, String)>,
    pub severity: Severity,
    pub summary: String,
    /// In the words of who found it.
    pub message: String,
    pub since: Option<Time>,
    /// How long it may be out of sight before it counts as over.
    pub linger: Duration,
    /// For events rather than states: which occurrence this is. It is over when none came for `limits::WARNING_QUIET`.
    pub occurrence: Option<String>,
}

/// Conditions of NVIDIA's NVSentinel: True means fault.
const NVSENTINEL: [&str; 24] = [
    "CSPMaintenance",
    "EthernetDegradationCheck",
    "EthernetErrorCheck",
    "EthernetStateCheck",
    "GpuCpusetWatch",
    "GpuDcgmConnectivityFailure",
    "GpuDcgmUnresponsive",
    "GpuDriverWatch",
    "GpuInforomWatch",
    "GpuMcuWatch",
    "GpuMemWatch",
    "GpuNvlinkWatch",
    "GpuNvswitchFatalWatch",
    "GpuNvswitchNonfatalWatch",
    "GpuPcieWatch",
    "GpuPmuWatch",
    "GpuPowerWatch",
    "GpuSmWatch",
    "GpuThermalMarginWatch",
    "GpuThermalWatch",
    "SysLogsGPUFallenOff",
    "SysLogsNICDriverError",
    "SysLogsSXIDError",
    "SysLogsXIDError",
];
/// And those that begin so.
const NVSENTINEL_PREFIX: &str = "InfiniBand";

/// Conditions of node-problem-detector's own monitors: True means fault.
const PROBLEM_DETECTOR: [&str; 13] = [
    "ContainerRuntimeUnhealthy",
    "CorruptDockerOverlay2",
    "CperHardwareErrorFatal",
    "DockerHung",
    "FrequentContainerdRestart",
    "FrequentDockerRestart",
    "FrequentKubeletRestart",
    "FrequentUnregisterNetDevice",
    "KernelDeadlock",
    "KubeletUnhealthy",
    "NTPProblem",
    "ReadonlyFilesystem",
    "XfsShutdown",
];

/// The kubelet's own: True means fault.
const KUBELET: [&str; 4] = ["DiskPressure", "MemoryPressure", "NetworkUnavailable", "PIDPressure"];

/// Taints that mark a fault: how the key begins, and its owner.
const TAINTS: [(&str, &str); 8] = [
    ("nvidia.com/gpu-xid-error", "NVSentinel"),
    ("nvidia.com/gpu-nvlink-error", "NVSentinel"),
    ("nvidia.com/syslog-xid-error", "NVSentinel"),
    ("nvidia.com/gpu-error", "NVSentinel"),
    ("nvsentinel.dgxc.nvidia.com/external-remediation", "NVSentinel"),
    ("node-problem-detector/", "node-problem-detector"),
    ("node.kubernetes.io/out-of-service", "a person"),
    ("node.cloudprovider.kubernetes.io/shutdown", "the cloud provider"),
];

/// Everything that is wrong with a node.
pub fn node(seen: &NodeSeen) -> Vec<ObjectCondition> {
    let name = &seen.node.name;
    let mut found = Vec::new();
    for condition in seen.conditions.iter().filter(|condition| condition.kind != NIGHTSHIFT_CONDITION) {
        let kind = condition.kind.as_str();
        let told = |name_of: &'static str, by: &str, severity: Severity| ObjectCondition {
            labels: vec![("node", name.clone()), ("condition", kind.to_owned()), ("reported_by", by.to_owned())],
            summary: format!("node {name}: {kind} is {} ({})", condition.status, condition.reason),
            message: condition.message.clone(),
            since: condition.since,
            ..complaint(name_of, severity)
        };
        if kind == "Ready" && condition.status != "True" {
            found.push(told("KubeNodeNotReady", "kubelet", Severity::Critical));
        }
        if condition.status != "True" {
            continue;
        }
        if NVSENTINEL.contains(&kind) || kind.starts_with(NVSENTINEL_PREFIX) {
            found.push(told("NodeConditionFault", "nvsentinel", Severity::Critical));
        } else if PROBLEM_DETECTOR.contains(&kind) {
            found.push(told("NodeConditionFault", "node-problem-detector", Severity::Error));
        } else if KUBELET.contains(&kind) {
            found.push(told("NodeConditionFault", "kubelet", Severity::Warning));
        }
    }
    for (key, value, effect) in &seen.node.taints {
        let Some((_, by)) = TAINTS.iter().find(|(begin, _)| key.starts_with(begin)) else { continue };
        found.push(ObjectCondition {
            labels: vec![("node", name.clone()), ("taint", key.clone()), ("reported_by", (*by).to_owned())],
            summary: format!("node {name} bears the taint {key} of {by}"),
            message: format!("{key}={value}:{effect}"),
            ..complaint("NodeTaintFault", Severity::Error)
        });
    }
    found.extend(lost_devices(seen));
    found
}

fn lost_devices(seen: &NodeSeen) -> Vec<ObjectCondition> {
    let name = &seen.node.name;
    let lost = |resource: &str, all: u32, left: u32| ObjectCondition {
        labels: vec![("node", name.clone()), ("resource", resource.to_owned())],
        summary: format!("node {name} offers {left} of its {all} {resource}"),
        // A device plugin that restarts offers nothing for some seconds.
        linger: Duration::ZERO,
        ..complaint("GpuCapacityLost", Severity::Error)
    };
    let mut found: Vec<ObjectCondition> = seen
        .devices
        .iter()
        .filter(|(_, all, left)| left < all)
        .map(|(resource, all, left)| lost(resource, *all, *left))
        .collect();
    // A plugin that never registered leaves no capacity; only GPU feature discovery has the expected number.
    let counted = seen.node.labels.get("nvidia.com/gpu.count").and_then(|count| count.parse().ok()).unwrap_or(0_u32);
    if counted > 0 && seen.devices.iter().all(|(_, all, _)| *all == 0) {
        found.push(lost("nvidia.com/gpu", counted, 0));
    }
    found
}

/// A kubelet whose Lease has not changed for so long, by our own clock.
pub fn silent_kubelet(node: &str, silent: Duration) -> ObjectCondition {
    ObjectCondition {
        labels: vec![("node", node.to_owned())],
        summary: format!("the kubelet of node {node} has not renewed its Lease for {} s", silent.as_secs()),
        ..complaint("NodeLeaseStale", Severity::Error)
    }
}

/// Whether this pod's troubles are ours: it holds GPUs, or the configuration names it.
pub fn is_ours(seen: &PodSeen, source: &SourceConfig) -> bool {
    let pod = &seen.pod;
    let labelled = !source.pod_labels.is_empty()
        && source.pod_labels.iter().all(|(name, value)| pod.labels.get(name) == Some(value));
    pod.gpus > 0 || source.namespaces.contains(&pod.namespace) || labelled
}

/// Everything that is wrong with a pod. `now`: by the cluster's clock.
pub fn pod(seen: &PodSeen, now: Time) -> Vec<ObjectCondition> {
    let pod = &seen.pod;
    let mut found = Vec::new();
    for container in &seen.containers {
        let mut labels = vec![
            ("namespace", pod.namespace.clone()),
            ("pod", pod.name.clone()),
            ("container", container.name.clone()),
        ];
        if !pod.node.is_empty() {
            labels.push(("node", pod.node.clone()));
        }
        if let Some(workload) = workload(seen) {
            labels.push(("workload", workload));
        }
        let what = format!("{}/{} container {}", pod.namespace, pod.name, container.name);
        let told = |name: &'static str, summary: String| ObjectCondition {
            labels: labels.clone(),
            summary,
            message: container.message.clone(),
            // Between two crashes it runs for a while, and between two pulls it tries again.
            linger: limits::POD_CALM,
            ..complaint(name, Severity::Error)
        };
        match container.waiting.as_str() {
            "CrashLoopBackOff" => {
                found.push(told("PodCrashLooping", format!("{what} crashes repeatedly ({})", container.ended)));
            }
            "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" => {
                found.push(told("PodImagePullFailed", format!("{what}: its image cannot be pulled")));
            }
            _ => {}
        }
        if container.ended == "OOMKilled" && is_recent(container.ended_at, now) {
            let mut killed = told("PodOomKilled", format!("{what} was killed: out of memory"));
            killed.occurrence = Some(format!("{} {:?}", container.restarts, container.ended_at));
            found.push(killed);
        }
    }
    found
}

fn workload(seen: &PodSeen) -> Option<String> {
    Some(seen.pod.workload()).filter(|workload| !workload.is_empty())
}

/// A Warning of Kubernetes about a node, or about a pod that `is_ours`. None for one that is old, ours, or about
/// others.
/// `now`: by the cluster's clock.
pub fn warning(seen: &EventSeen, is_our_pod: impl Fn(&str, &str) -> bool, now: Time) -> Option<ObjectCondition> {
    if !is_recent(seen.at, now) || seen.reporter.contains("nightshift") {
        return None;
    }
    let mut labels = match seen.kind.as_str() {
        "Node" => vec![("node", seen.object.clone())],
        "Pod" if is_our_pod(&seen.object_namespace, &seen.object) => {
            vec![("namespace", seen.object_namespace.clone()), ("pod", seen.object.clone())]
        }
        _ => return None,
    };
    labels.push(("reason", seen.reason.clone()));
    let severity = if seen.kind == "Node" { Severity::Warning } else { Severity::Info };
    Some(ObjectCondition {
        labels,
        summary: format!("{} {}: {}", seen.kind, seen.object, seen.reason),
        message: seen.message.clone(),
        since: seen.at,
        occurrence: Some(format!("{} {} {:?}", seen.name, seen.count, seen.at)),
        ..complaint("KubernetesWarning", severity)
    })
}

/// Other machines' clocks may be ahead; an event in the future has just happened.
fn is_recent(at: Option<Time>, now: Time) -> bool {
    at.is_none_or(|at| at + limits::WARNING_QUIET >= now)
}

fn complaint(name: &'static str, severity: Severity) -> ObjectCondition {
    ObjectCondition {
        name,
        labels: Vec::new(),
        severity,
        summary: String::new(),
        message: String::new(),
        since: None,
        linger: Duration::ZERO,
        occurrence: None,
    }
}

#[cfg(test)]
mod tests;
