//! The fields of Kubernetes objects that we read, and no others: a node object is mostly images and managed fields.
//!
//! Invariant: a missing field is its zero, as the API server leaves out empty ones.

mod happened;
mod workloads;

pub(super) use happened::{EventWire, LeaseWire};
pub(super) use workloads::WorkloadWire;

use super::{ConditionSeen, ContainerSeen, Node, NodeSeen, Pod, PodSeen};
use crate::model::Time;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize)]
pub(super) struct ObjectList<T> {
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
pub(super) struct WatchLine<T> {
    pub r#type: String,
    pub object: T,
}

/// The fields of every object of a watch, and of a Status in its place.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct VersionedObject {
    pub metadata: ListMeta,
    pub code: u16,
    pub message: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ObjectMeta {
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
    owner_references: Vec<OwnerReference>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct OwnerReference {
    kind: String,
    name: String,
    controller: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusCondition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
    #[serde(rename = "lastTransitionTime")]
    last_transition_time: Option<String>,
}

impl From<StatusCondition> for ConditionSeen {
    fn from(wire: StatusCondition) -> ConditionSeen {
        ConditionSeen {
            since: time(wire.last_transition_time.as_deref()),
            kind: wire.r#type,
            status: wire.status,
            reason: wire.reason,
            message: wire.message,
        }
    }
}

/// A text that cannot be read as a time is none: no decision depends on another program's clock.
fn time(text: Option<&str>) -> Option<Time> {
    text.and_then(|text| text.parse().ok())
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct NodeWire {
    metadata: ObjectMeta,
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
    conditions: Vec<StatusCondition>,
    node_info: NodeInfo,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeInfo {
    #[serde(rename = "bootID")]
    boot_id: String,
}

/// `"8"` or `8`; a value that is not a whole number (such as memory) counts as none, since only devices are read.
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
    metadata: ObjectMeta,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    node_name: String,
    priority: i32,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<PodContainer>,
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<PodContainer>,
    #[serde(deserialize_with = "or_default")]
    volumes: Vec<PodVolume>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodContainer {
    resources: ContainerResources,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ContainerResources {
    #[serde(deserialize_with = "or_default")]
    limits: BTreeMap<String, Quantity>,
    #[serde(deserialize_with = "or_default")]
    requests: BTreeMap<String, Quantity>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PodVolume {
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
    #[serde(rename = "podIP")]
    ip: String,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<StatusCondition>,
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
    waiting: Option<StateReason>,
    terminated: Option<StateReason>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct StateReason {
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

impl PodContainer {
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
        let running: u32 = wire.spec.containers.iter().map(PodContainer::gpus).sum();
        let starting = wire.spec.init_containers.iter().map(PodContainer::gpus).max().unwrap_or(0);
        Pod {
            namespace: wire.metadata.namespace,
            name: wire.metadata.name,
            uid: wire.metadata.uid,
            resource_version: wire.metadata.resource_version,
            node: wire.spec.node_name,
            ip: wire.status.ip,
            phase: wire.status.phase,
            ready: is_true(&wire.status.conditions, "Ready"),
            terminating: wire.metadata.deletion_timestamp.is_some(),
            labels: wire.metadata.labels,
            owner: owner.map(|owner| (owner.kind, owner.name)),
            mirror: wire.metadata.annotations.contains_key("kubernetes.io/config.mirror"),
            marks: wire
                .metadata
                .annotations
                .into_iter()
                .filter(|(key, _)| key.starts_with("nightshift.dev/"))
                .collect(),
            empty_dir: wire.spec.volumes.iter().any(|v| v.empty_dir.as_ref().is_some_and(|e| e.medium != "Memory")),
            gpus: running.max(starting),
            priority: wire.spec.priority,
        }
    }
}

fn is_true(conditions: &[StatusCondition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.r#type == kind && condition.status == "True")
}

/// Go writes an empty list or map as null in places.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
