//! The rights that actions declare, spelled once: the generated RBAC is made of these.
//!
//! Invariant: a service account has only the rights that its actions declare here.

use super::CATALOG;
use crate::model::{ActionSpec, KubePermission};
use crate::world::OWN_RIGHTS;
use std::collections::BTreeMap;

const fn core(resource: &'static str, verb: &'static str) -> KubePermission {
    KubePermission::new("", resource, verb)
}

const fn apps(resource: &'static str, verb: &'static str) -> KubePermission {
    KubePermission::new("apps", resource, verb)
}

/// Every right that the engine and these actions need, each with its users and purpose.
pub fn rights(is_on: impl Fn(&ActionSpec) -> bool) -> BTreeMap<KubePermission, Vec<&'static str>> {
    let mut rights: BTreeMap<KubePermission, Vec<&'static str>> = BTreeMap::new();
    for spec in CATALOG.iter().map(|action| action.spec()).filter(|spec| is_on(spec)) {
        for right in spec.permissions {
            rights.entry(*right).or_default().push(spec.name);
        }
    }
    for (right, why) in &OWN_RIGHTS {
        rights.entry(*right).or_default().push(why);
    }
    rights
}

const fn policy(resource: &'static str, verb: &'static str) -> KubePermission {
    KubePermission::new("policy", resource, verb)
}

const fn resource(resource: &'static str, verb: &'static str) -> KubePermission {
    KubePermission { group: "resource.k8s.io", resource, verb }
}

const fn batch(resource: &'static str, verb: &'static str) -> KubePermission {
    KubePermission::new("batch", resource, verb)
}

pub(super) const NONE: &[KubePermission] = &[];
pub(super) const READ_NODE: &[KubePermission] = &[core("nodes", "get")];
pub(super) const READ_PODS: &[KubePermission] = &[core("pods", "list")];
pub(super) const FIND_SPARE: &[KubePermission] = &[core("nodes", "get"), core("nodes", "list"), core("pods", "list")];
pub(super) const PATCH_NODE: &[KubePermission] = &[core("nodes", "get"), core("nodes", "patch")];
pub(super) const DRAIN: &[KubePermission] =
    &[core("nodes", "get"), core("pods", "delete"), core("pods", "list"), core("pods/eviction", "create")];
pub(super) const EVICT: &[KubePermission] = &[core("pods", "get"), core("pods/eviction", "create")];
pub(super) const DELETE_POD: &[KubePermission] = &[core("pods", "delete"), core("pods", "get")];
pub(super) const READ_WORKLOAD: &[KubePermission] = &[apps("deployments", "get"), apps("statefulsets", "get")];
pub(super) const PATCH_WORKLOAD: &[KubePermission] = &[
    apps("deployments", "get"),
    apps("deployments", "patch"),
    apps("statefulsets", "get"),
    apps("statefulsets", "patch"),
];
pub(super) const SCALE: &[KubePermission] = &[
    apps("deployments", "get"),
    apps("deployments/scale", "patch"),
    apps("statefulsets", "get"),
    apps("statefulsets/scale", "patch"),
];
pub(super) const MIG: &[KubePermission] = &[
    core("nodes", "get"),
    core("nodes", "patch"),
    core("pods", "delete"),
    core("pods", "get"),
    core("pods", "list"),
    core("pods/eviction", "create"),
    policy("poddisruptionbudgets", "list"),
    resource("resourceslices", "list"),
];
pub(super) const DRAIN_TRAFFIC: &[KubePermission] = &[
    core("pods", "get"),
    core("pods", "list"),
    core("pods", "patch"),
    core("services", "list"),
    apps("replicasets", "get"),
    apps("statefulsets", "get"),
];
pub(super) const RETURN_TRAFFIC: &[KubePermission] = &[core("pods", "get"), core("pods", "patch")];
pub(super) const LOOK_AT_ENGINES: &[KubePermission] =
    &[core("pods", "list"), apps("deployments", "get"), apps("statefulsets", "get")];
pub(super) const PLAN_MIG: &[KubePermission] =
    &[core("nodes", "get"), core("pods", "list"), policy("poddisruptionbudgets", "list")];
pub(super) const RESTART_POD: &[KubePermission] =
    &[core("pods", "get"), core("pods", "list"), core("pods/eviction", "create")];
/// Its own Job, which it makes, looks at and, once the run is cancelled, takes away; see `KubePermission::home`.
pub(super) const WARM: &[KubePermission] = &[
    core("pods", "list"),
    core("pods/log", "get"),
    batch("jobs", "create"),
    batch("jobs", "delete"),
    batch("jobs", "get"),
];
