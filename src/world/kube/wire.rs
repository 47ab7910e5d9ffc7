//! The fields of Kubernetes objects that we read, and no others: a node object is mostly images and managed fields.
//!
//! Invariant: a missing field is its zero, as the API server leaves out what is empty.

use super::{ConditionSeen, ContainerSeen, EventSeen, LeaseSeen, Node, NodeSeen, Pod, PodSeen, Workload};
use crate::model::Time;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize)]
pub(super) struct List<T> {
    #[serde(default)]
    pub metadata: ListMeta,
    /// Null for an empty list, from some servers.
    pub items: Option<Vec<T>>,
}

#[derive(Deserialize, Default)]
pub(super) struct ListMeta {
    #[serde(rename = "continue", default)]
    pub more: String,
    #[serde(rename = "resourceVersion", default)]
    pub resource_version: String,
}

/// One line of a watch.
#[derive(Deserialize)]
pub(super) struct Line<T> {
    pub r#type: String,
    pub object: T,
}

/// What every object of a watch has, and a Status in its place.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Versioned {
    pub metadata: ListMeta,
    pub code: u16,
    pub message: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    generation: i64,
    deletion_timestamp: Option<String>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<Owner>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
    controller: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
    #[serde(rename = "lastTransitionTime")]
    last_transition_time: Option<String>,
}

impl From<Condition> for ConditionSeen {
    fn from(wire: Condition) -> ConditionSeen {
        ConditionSeen {
            since: time(wire.last_transition_time.as_deref()),
            kind: wire.r#type,
            status: wire.status,
            reason: wire.reason,
            message: wire.message,
        }
    }
}

/// What cannot be read as a time is none: nothing that matters hangs on another program's clock.
fn time(text: Option<&str>) -> Option<Time> {
    text.and_then(|text| text.parse().ok())
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct NodeWire {
    metadata: Meta,
    spec: NodeSpec,
    status: NodeStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeSpec {
    unschedulable: bool,
    #[serde(deserialize_with = "or_default")]
    taints: Vec<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct NodeStatus {
    #[serde(deserialize_with = "or_default")]
    capacity: BTreeMap<String, Quantity>,
    #[serde(deserialize_with = "or_default")]
    allocatable: BTreeMap<String, Quantity>,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<Condition>,
    node_info: NodeInfo,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeInfo {
    #[serde(rename = "bootID")]
    boot_id: String,
}

/// `"8"` or `8`; what is not a whole number (memory, say) counts as none, since we only ask for devices.
#[derive(Deserialize)]
#[serde(untagged)]
enum Quantity {
    Text(String),
    Number(u32),
    Other(serde::de::IgnoredAny),
}

impl Quantity {
    fn count(&self) -> u32 {
        match self {
            Quantity::Text(text) => text.parse().unwrap_or(0),
            Quantity::Number(number) => *number,
            Quantity::Other(_) => 0,
        }
    }
}

/// Devices of NVIDIA: `nvidia.com/gpu` and `nvidia.com/mig-…`.
fn is_device(name: &str) -> bool {
    name == "nvidia.com/gpu" || name.starts_with("nvidia.com/mig-")
}

impl From<NodeWire> for NodeSeen {
    fn from(mut wire: NodeWire) -> NodeSeen {
        let conditions = std::mem::take(&mut wire.status.conditions);
        let allocatable = &wire.status.allocatable;
        let devices = wire.status.capacity.iter().filter(|(name, _)| is_device(name));
        let devices = devices
            .map(|(name, all)| (name.clone(), all.count(), allocatable.get(name).map_or(0, Quantity::count)))
            .collect();
        let ready = is_true(&conditions, "Ready");
        let mut node = Node::from(wire);
        node.ready = ready;
        NodeSeen { node, devices, conditions: conditions.into_iter().map(Into::into).collect() }
    }
}

impl From<NodeWire> for Node {
    fn from(wire: NodeWire) -> Node {
        let text = |taint: &Value, key: &str| taint[key].as_str().unwrap_or_default().to_owned();
        let count =
            |quantities: &BTreeMap<String, Quantity>| quantities.get("nvidia.com/gpu").map_or(0, Quantity::count);
        Node {
            taints: wire.spec.taints.iter().map(|t| (text(t, "key"), text(t, "value"), text(t, "effect"))).collect(),
            taints_sent: wire.spec.taints,
            unschedulable: wire.spec.unschedulable,
            ready: is_true(&wire.status.conditions, "Ready"),
            boot_id: wire.status.node_info.boot_id,
            gpus: count(&wire.status.capacity),
            gpus_allocatable: count(&wire.status.allocatable),
            name: wire.metadata.name,
            uid: wire.metadata.uid,
            resource_version: wire.metadata.resource_version,
            labels: wire.metadata.labels,
            annotations: wire.metadata.annotations,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct PodWire {
    metadata: Meta,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    node_name: String,
    priority: i32,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    volumes: Vec<Volume>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Container {
    resources: Resources,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Resources {
    #[serde(deserialize_with = "or_default")]
    limits: BTreeMap<String, Quantity>,
    #[serde(deserialize_with = "or_default")]
    requests: BTreeMap<String, Quantity>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Volume {
    empty_dir: Option<EmptyDir>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EmptyDir {
    medium: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodStatus {
    phase: String,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<Condition>,
    #[serde(rename = "containerStatuses", deserialize_with = "or_default")]
    containers: Vec<ContainerStatus>,
    #[serde(rename = "initContainerStatuses", deserialize_with = "or_default")]
    init_containers: Vec<ContainerStatus>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    restart_count: u32,
    state: ContainerState,
    last_state: ContainerState,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ContainerState {
    waiting: Option<Reasoned>,
    terminated: Option<Reasoned>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Reasoned {
    reason: String,
    message: String,
    finished_at: Option<String>,
}

impl From<ContainerStatus> for ContainerSeen {
    fn from(wire: ContainerStatus) -> ContainerSeen {
        let ended = wire.state.terminated.or(wire.last_state.terminated);
        ContainerSeen {
            name: wire.name,
            restarts: wire.restart_count,
            message: wire.state.waiting.as_ref().map(|w| w.message.clone()).unwrap_or_default(),
            waiting: wire.state.waiting.map(|waiting| waiting.reason).unwrap_or_default(),
            ended_at: ended.as_ref().and_then(|ended| time(ended.finished_at.as_deref())),
            ended: ended.map(|ended| ended.reason).unwrap_or_default(),
        }
    }
}

impl From<PodWire> for PodSeen {
    fn from(mut wire: PodWire) -> PodSeen {
        let all = std::mem::take(&mut wire.status.containers);
        let all = all.into_iter().chain(std::mem::take(&mut wire.status.init_containers));
        PodSeen { containers: all.map(Into::into).collect(), pod: wire.into() }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EventWire {
    metadata: Meta,
    involved_object: Involved,
    reason: String,
    message: String,
    count: Option<u32>,
    series: Option<Series>,
    last_timestamp: Option<String>,
    event_time: Option<String>,
    #[serde(rename = "reportingComponent")]
    reporter: String,
    source: Reporter,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Involved {
    kind: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Series {
    count: u32,
    last_observed_time: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reporter {
    component: String,
}

impl From<EventWire> for EventSeen {
    fn from(wire: EventWire) -> EventSeen {
        let series = wire.series.unwrap_or_default();
        let times = [&series.last_observed_time, &wire.last_timestamp, &wire.event_time];
        EventSeen {
            name: wire.metadata.name,
            namespace: wire.metadata.namespace,
            kind: wire.involved_object.kind,
            object_namespace: wire.involved_object.namespace,
            object: wire.involved_object.name,
            at: times.into_iter().find_map(|text| time(text.as_deref())),
            count: wire.count.unwrap_or(1).max(series.count),
            reporter: if wire.reporter.is_empty() { wire.source.component } else { wire.reporter },
            reason: wire.reason,
            message: wire.message,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct LeaseWire {
    metadata: Meta,
    spec: LeaseSpec,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct LeaseSpec {
    renew_time: Option<String>,
}

impl From<LeaseWire> for LeaseSeen {
    fn from(wire: LeaseWire) -> LeaseSeen {
        LeaseSeen { name: wire.metadata.name, renewed: wire.spec.renew_time.unwrap_or_default() }
    }
}

impl Container {
    /// GPUs and MIG devices, as `nvidia.com/gpu` or `nvidia.com/mig-1g.10gb`; limits equal requests for devices.
    fn gpus(&self) -> u32 {
        let devices = |list: &BTreeMap<String, Quantity>| -> u32 {
            list.iter().filter(|(name, _)| is_device(name)).map(|(_, quantity)| quantity.count()).sum()
        };
        devices(&self.resources.limits).max(devices(&self.resources.requests))
    }
}

impl From<PodWire> for Pod {
    fn from(wire: PodWire) -> Pod {
        let owner = wire.metadata.owner_references.into_iter().find(|owner| owner.controller);
        let running: u32 = wire.spec.containers.iter().map(Container::gpus).sum();
        let starting = wire.spec.init_containers.iter().map(Container::gpus).max().unwrap_or(0);
        Pod {
            namespace: wire.metadata.namespace,
            name: wire.metadata.name,
            uid: wire.metadata.uid,
            node: wire.spec.node_name,
            phase: wire.status.phase,
            ready: is_true(&wire.status.conditions, "Ready"),
            terminating: wire.metadata.deletion_timestamp.is_some(),
            labels: wire.metadata.labels,
            owner: owner.map(|owner| (owner.kind, owner.name)),
            mirror: wire.metadata.annotations.contains_key("kubernetes.io/config.mirror"),
            empty_dir: wire.spec.volumes.iter().any(|v| v.empty_dir.as_ref().is_some_and(|e| e.medium != "Memory")),
            gpus: running.max(starting),
            priority: wire.spec.priority,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct WorkloadWire {
    kind: String,
    metadata: Meta,
    spec: WorkloadSpec,
    status: WorkloadStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WorkloadSpec {
    replicas: Option<u32>,
    selector: Selector,
    /// Of a Deployment; a StatefulSet has `updateStrategy`.
    strategy: Strategy,
    #[serde(rename = "updateStrategy")]
    update_strategy: Strategy,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Strategy {
    r#type: String,
    rolling_update: Option<Rolling>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Rolling {
    max_surge: Option<Value>,
    max_unavailable: Option<Value>,
}

impl WorkloadWire {
    /// As the controllers resolve it: a Deployment's share is rounded down, its surge and a StatefulSet's share up.
    fn may_lack(&self, replicas: u32) -> u32 {
        let amount = |value: Option<&Value>, default: &str, up: bool| -> u32 {
            let text = value.and_then(Value::as_str).unwrap_or(default);
            if let Some(count) = value.and_then(Value::as_u64) {
                return u32::try_from(count).unwrap_or(u32::MAX);
            }
            let Some(percent) = text.strip_suffix('%').and_then(|text| text.parse::<u64>().ok()) else {
                return text.parse().unwrap_or(replicas);
            };
            let whole = percent * u64::from(replicas);
            u32::try_from(if up { whole.div_ceil(100) } else { whole / 100 }).unwrap_or(u32::MAX)
        };
        let most = if self.kind == "StatefulSet" {
            let rolling = self.spec.update_strategy.rolling_update.as_ref();
            match self.spec.update_strategy.r#type.as_str() {
                "OnDelete" => 0,
                _ => amount(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), "1", true).max(1),
            }
        } else if self.spec.strategy.r#type == "Recreate" {
            replicas
        } else {
            let rolling = self.spec.strategy.rolling_update.as_ref();
            let surge = amount(rolling.and_then(|rolling| rolling.max_surge.as_ref()), "25%", true);
            let lack = amount(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), "25%", false);
            if surge == 0 { lack.max(1) } else { lack }
        };
        most.min(replicas)
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Selector {
    #[serde(deserialize_with = "or_default")]
    match_labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct WorkloadStatus {
    replicas: u32,
    ready_replicas: u32,
    available_replicas: u32,
    updated_replicas: u32,
    observed_generation: i64,
}

impl WorkloadWire {
    pub fn named(mut self, kind: &str) -> WorkloadWire {
        kind.clone_into(&mut self.kind);
        self
    }
}

impl From<WorkloadWire> for Workload {
    fn from(wire: WorkloadWire) -> Workload {
        Workload {
            may_lack: wire.may_lack(wire.spec.replicas.unwrap_or(1)),
            kind: wire.kind,
            namespace: wire.metadata.namespace,
            name: wire.metadata.name,
            resource_version: wire.metadata.resource_version,
            annotations: wire.metadata.annotations,
            // Absent means one, says the API.
            replicas: wire.spec.replicas.unwrap_or(1),
            total: wire.status.replicas,
            ready: wire.status.ready_replicas,
            available: wire.status.available_replicas,
            updated: wire.status.updated_replicas,
            generation: wire.metadata.generation,
            observed_generation: wire.status.observed_generation,
            selector: wire.spec.selector.match_labels,
        }
    }
}

fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.r#type == kind && condition.status == "True")
}

/// Go writes an empty list or map as null in places.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_that_holds_a_gpu_or_a_slice_is_known_as_one() {
        let pod = |resources: Value, volumes: Value| -> Pod {
            let wire: PodWire = serde_json::from_value(json!({
                "metadata": { "name": "llm-0", "namespace": "prod", "uid": "u", "ownerReferences": null,
                    "deletionTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "nodeName": "gpu-1", "containers": [{ "resources": resources }], "volumes": volumes },
                "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "False" }] },
            }))
            .unwrap();
            wire.into()
        };
        let slice = pod(json!({ "limits": { "nvidia.com/mig-1g.10gb": "2", "memory": "4Gi" } }), Value::Null);
        assert_eq!((slice.gpus, slice.terminating, slice.ready, slice.owner), (2, true, false, None));
        assert_eq!(pod(json!({ "requests": { "nvidia.com/gpu": 4 } }), Value::Null).gpus, 4);
        assert!(!pod(json!({}), json!([{ "emptyDir": { "medium": "Memory" } }])).empty_dir, "/dev/shm is no data");
        assert!(pod(json!({}), json!([{ "emptyDir": {} }])).empty_dir);
    }

    #[test]
    fn a_rollout_lacks_as_many_as_the_controller_would_let_go() {
        let lacks = |kind: &str, spec: Value| {
            let wire: WorkloadWire = serde_json::from_value(json!({ "spec": spec })).unwrap();
            Workload::from(wire.named(kind)).may_lack
        };
        assert_eq!(lacks("Deployment", json!({ "replicas": 2 })), 0, "25 % of two, rounded down");
        assert_eq!(lacks("Deployment", json!({ "replicas": 8 })), 2);
        let none = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": "10%" } });
        assert_eq!(lacks("Deployment", json!({ "replicas": 2, "strategy": none })), 1, "one, where nothing surges");
        assert_eq!(lacks("Deployment", json!({ "replicas": 4, "strategy": { "type": "Recreate" } })), 4);
        assert_eq!(lacks("StatefulSet", json!({ "replicas": 3 })), 1);
        assert_eq!(lacks("StatefulSet", json!({ "replicas": 3, "updateStrategy": { "type": "OnDelete" } })), 0);
    }

    #[test]
    fn a_taint_keeps_the_fields_that_we_do_not_know() {
        let taint = json!({ "key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z" });
        let wire: NodeWire = serde_json::from_value(json!({
            "metadata": { "name": "n" },
            "spec": { "taints": [taint] },
            "status": { "capacity": { "nvidia.com/gpu": "8", "memory": "2Ti" }, "allocatable": { "nvidia.com/gpu": "7" } },
        }))
        .unwrap();
        let node: Node = wire.into();
        assert_eq!(node.taints, [("k".to_owned(), String::new(), "NoExecute".to_owned())]);
        assert_eq!(node.taints_sent, [taint]);
        assert_eq!((node.gpus, node.gpus_allocatable, node.ready), (8, 7, false));
    }
}
