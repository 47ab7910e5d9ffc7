//! The engine's own rights on a cluster, whatever its runbooks do: the other half of the generated RBAC.
//!
//! Invariant: a request that no action makes is declared here with its reason, or the API server refuses it.

use crate::model::Permission;

/// One right, and its purpose, in the words that a reviewer of the role reads.
pub type OwnRight = (Permission, &'static str);

/// Keep it sorted.
pub static OWN_RIGHTS: [OwnRight; 12] = [
    (Permission::new("", "events", "list"), "a source of kind kubernetes receives Warning events"),
    (Permission::new("", "events", "watch"), "a source of kind kubernetes receives Warning events"),
    (Permission::new("", "nodes", "list"), "the guards count nodes that are out of service"),
    (Permission::new("", "nodes", "watch"), "the guards follow nodes without listing them for each step"),
    (Permission::new("", "nodes/status", "patch"), "the condition NightshiftRemediation while a run holds a node"),
    (
        Permission::new("", "pods", "list"),
        "a source of kind kubernetes reports pods that do not run; one of kind inference finds engines",
    ),
    (Permission::new("", "pods", "watch"), "a source of kind kubernetes reports pods that do not run"),
    (Permission::new("apps", "deployments", "get"), "the serving floor reads a workload's replicas and its own floor"),
    (Permission::new("apps", "statefulsets", "get"), "the serving floor reads a workload's replicas and its own floor"),
    (Permission::new("authentication.k8s.io", "tokenreviews", "create"), "an agent's token names its node"),
    (Permission::new("coordination.k8s.io", "leases", "list"), "a source of kind kubernetes reports silent kubelets"),
    (Permission::new("events.k8s.io", "events", "create"), "Events record each step"),
];
