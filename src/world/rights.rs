//! What the engine itself asks of a cluster, whatever its runbooks do: the other half of the generated RBAC.
//!
//! Invariant: a request that no action makes is declared here with its reason, or the API server refuses it.

use crate::model::Permission;

/// One right, and what it is for, in the words that a reviewer of the role reads.
pub type OwnRight = (Permission, &'static str);

const fn right(group: &'static str, resource: &'static str, verb: &'static str, why: &'static str) -> OwnRight {
    (Permission::new(group, resource, verb), why)
}

/// Sorted by right. The kill switch's ConfigMap is granted by its name, in a Role of its own.
pub static OWN_RIGHTS: [OwnRight; 11] = [
    right("", "events", "list", "sources of kind kubernetes hear warnings"),
    right("", "events", "watch", "sources of kind kubernetes hear warnings"),
    right("", "nodes", "list", "guards count nodes that are out of service"),
    right("", "nodes", "watch", "guards count nodes that are out of service"),
    right("", "nodes/status", "patch", "the condition NightshiftRemediation on a node that a run holds"),
    right("", "pods", "get", "agents show the token of their pod, which tells their node"),
    right("", "pods", "list", "sources of kind kubernetes hear of pods that fail"),
    right("", "pods", "watch", "sources of kind kubernetes hear of pods that fail"),
    right(
        "authentication.k8s.io",
        "tokenreviews",
        "create",
        "agents show the token of their pod, which tells their node",
    ),
    right("coordination.k8s.io", "leases", "list", "a kubelet that went silent is known by its lease"),
    right("events.k8s.io", "events", "create", "each step is an Event on what it is about"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_nothing_twice() {
        assert!(OWN_RIGHTS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
