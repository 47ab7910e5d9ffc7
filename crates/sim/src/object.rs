//! Kubernetes objects as JSON: which kinds there are, how they are named, and how their fields are read.
//!
//! Invariant: an object is only ever replaced as a whole; no reader holds a half-changed one.

use serde_json::Value;
use std::collections::BTreeMap;

/// The kinds that the simulated API serves. The order is that of storage alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ObjectKind {
    Namespace,
    Node,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Pod,
    DisruptionBudget,
    Event,
    NewEvent,
    Lease,
    ConfigMap,
    Service,
    Job,
    ResourceSlice,
}

/// One kind's place in the API.
pub(super) struct ApiResource {
    pub kind: ObjectKind,
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub name: &'static str,
    pub namespaced: bool,
}

const fn resource(
    kind: ObjectKind,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    name: &'static str,
) -> ApiResource {
    ApiResource {
        kind,
        group,
        version,
        plural,
        name,
        namespaced: !matches!(kind, ObjectKind::Node | ObjectKind::Namespace | ObjectKind::ResourceSlice),
    }
}

pub(super) const RESOURCES: [ApiResource; 15] = [
    resource(ObjectKind::Namespace, "", "v1", "namespaces", "Namespace"),
    resource(ObjectKind::Node, "", "v1", "nodes", "Node"),
    resource(ObjectKind::Pod, "", "v1", "pods", "Pod"),
    resource(ObjectKind::Event, "", "v1", "events", "Event"),
    resource(ObjectKind::ConfigMap, "", "v1", "configmaps", "ConfigMap"),
    resource(ObjectKind::Service, "", "v1", "services", "Service"),
    resource(ObjectKind::NewEvent, "events.k8s.io", "v1", "events", "Event"),
    resource(ObjectKind::Deployment, "apps", "v1", "deployments", "Deployment"),
    resource(ObjectKind::StatefulSet, "apps", "v1", "statefulsets", "StatefulSet"),
    resource(ObjectKind::DaemonSet, "apps", "v1", "daemonsets", "DaemonSet"),
    resource(ObjectKind::ReplicaSet, "apps", "v1", "replicasets", "ReplicaSet"),
    resource(ObjectKind::DisruptionBudget, "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    resource(ObjectKind::Job, "batch", "v1", "jobs", "Job"),
    resource(ObjectKind::ResourceSlice, "resource.k8s.io", "v1", "resourceslices", "ResourceSlice"),
    resource(ObjectKind::Lease, "coordination.k8s.io", "v1", "leases", "Lease"),
];

impl ObjectKind {
    /// The resource of this kind in the table.
    pub fn resource(self) -> &'static ApiResource {
        RESOURCES.iter().find(|r| r.kind == self).expect("every kind is in the table")
    }

    /// The kind that a controller reference names.
    pub fn named(name: &str) -> Option<ObjectKind> {
        RESOURCES.iter().find(|r| r.name == name).map(|r| r.kind)
    }
}

/// Where an object is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectKey {
    pub kind: ObjectKind,
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    /// The key of an object; `namespace` is empty for cluster-wide kinds.
    pub fn new(kind: ObjectKind, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of a node.
    pub fn node(name: &str) -> ObjectKey {
        ObjectKey::new(ObjectKind::Node, "", name)
    }

    /// The key in the object's metadata.
    pub fn of(kind: ObjectKind, object: &Value) -> ObjectKey {
        ObjectKey::new(kind, text(object, "/metadata/namespace"), text(object, "/metadata/name"))
    }
}

/// The text at a JSON pointer; absent reads as empty.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The texts of an object of texts, as in labels.
pub(super) fn texts(object: &Value, pointer: &str) -> BTreeMap<String, String> {
    let map = object.pointer(pointer).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

pub(super) fn is_terminating(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// Whether the condition of that type is "True".
pub(super) fn condition(object: &Value, kind: &str) -> bool {
    list(object, "/status/conditions").iter().any(|c| text(c, "/type") == kind && text(c, "/status") == "True")
}

/// Sets the condition of that type to a word (`True`, `False`, `Unknown`), keeping its transition time if the word stays.
pub(super) fn set_condition(object: &mut Value, kind: &str, word: &str, reason: &str, now: &str) {
    let mut fresh = serde_json::json!({
        "type": kind, "status": word, "reason": reason, "lastTransitionTime": now,
    });
    if reason.is_empty() {
        fresh.as_object_mut().map(|c| c.remove("reason"));
    }
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = Value::Array(Vec::new());
    }
    let Some(conditions) = object["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|c| text(c, "/type") == kind) {
        Some(old) => {
            if text(old, "/status") == word {
                fresh["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = fresh;
        }
        None => conditions.push(fresh),
    }
}

/// The controlling owner: kind and name.
pub(super) fn controller(object: &Value) -> Option<(ObjectKind, &str)> {
    let owner = list(object, "/metadata/ownerReferences")
        .iter()
        .find(|o| o.get("controller").and_then(Value::as_bool).unwrap_or_default())?;
    Some((ObjectKind::named(text(owner, "/kind"))?, text(owner, "/name")))
}

/// A reference that makes `owner` the controller of another object.
pub(super) fn owner_reference(kind: ObjectKind, owner: &Value) -> Value {
    let resource = kind.resource();
    serde_json::json!([{
        "apiVersion": format!("{}/{}", resource.group, resource.version),
        "kind": resource.name,
        "name": text(owner, "/metadata/name"),
        "uid": text(owner, "/metadata/uid"),
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}

/// GPUs (or MIG devices) that a pod's containers request.
pub(super) fn gpus_wanted(pod: &Value) -> u32 {
    let containers = list(pod, "/spec/containers").iter();
    let limits = containers.filter_map(|c| c.pointer("/resources/limits")?.as_object());
    limits
        .flatten()
        .filter(|(name, _)| *name == "nvidia.com/gpu" || name.starts_with("nvidia.com/mig-"))
        .filter_map(|(_, amount)| amount.as_u64().or_else(|| amount.as_str()?.parse().ok()))
        .map(|n| u32::try_from(n).unwrap_or(u32::MAX))
        .sum()
}

/// A short name for a text: the same text always gives the same ten letters.
pub(super) fn short_hash(text: &str) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash = fnv(text);
    (0..10)
        .map(|_| {
            let letter = LETTERS[(hash % 27) as usize] as char;
            hash = (hash / 27) ^ (hash << 37);
            letter
        })
        .collect()
}

/// FNV-1a: stable over builds, which the standard hasher does not promise.
pub(super) fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
