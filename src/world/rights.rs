//! The engine's own rights on a cluster, whatever its runbooks do: the other half of the generated RBAC.
//!
//! Invariant: a request that no action makes is declared here with its reason, or the API server refuses it.

use crate::model::KubePermission;

/// One right, and its purpose, in the words that a reviewer of the role reads.
pub type OwnRight = (KubePermission, &'static str);

/// Keep it sorted.
pub static OWN_RIGHTS: [OwnRight; 12] = [
    (KubePermission::new("", "events", "list"), "a source of kind kubernetes receives Warning events"),
    (KubePermission::new("", "events", "watch"), "a source of kind kubernetes receives Warning events"),
    (KubePermission::new("", "nodes", "list"), "the guards count nodes that are out of service"),
    (KubePermission::new("", "nodes", "watch"), "the guards follow nodes without listing them for each step"),
    (KubePermission::new("", "nodes/status", "patch"), "the condition NightshiftRemediation while a run holds a node"),
    (
        KubePermission::new("", "pods", "list"),
        "a source of kind kubernetes reports pods that do not run; one of kind inference finds engines",
    ),
    (KubePermission::new("", "pods", "watch"), "a source of kind kubernetes reports pods that do not run"),
    (
        KubePermission::new("apps", "deployments", "get"),
        "the serving floor reads a workload's replicas and its own floor",
    ),
    (
        KubePermission::new("apps", "statefulsets", "get"),
        "the serving floor reads a workload's replicas and its own floor",
    ),
    (KubePermission::new("authentication.k8s.io", "tokenreviews", "create"), "an agent's token names its node"),
    (
        KubePermission::new("coordination.k8s.io", "leases", "list"),
        "a source of kind kubernetes reports silent kubelets",
    ),
    (KubePermission::new("events.k8s.io", "events", "create"), "Events record each step"),
];
