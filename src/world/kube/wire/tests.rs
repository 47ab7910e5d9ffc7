//! Objects as API servers send them, and what we read in them.
//!
//! Invariant: each is as small as what it shows.

use super::*;
use crate::world::kube::Workload;
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
