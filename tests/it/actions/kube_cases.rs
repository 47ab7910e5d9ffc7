//! One case for each action on Kubernetes; the same ones for the simulated fleet and for a real cluster.
//!
//! Invariant: a case names nodes and workloads as its stage does, so that many stages fit into one cluster.

use super::Stage;
use nightshift::model::ActionCall;
use nightshift::world::CacheJob;
use serde_json::{Value, json};

/// A call that makes sense on the stage, and what it should do there.
pub(super) struct Case {
    /// Calls that make the world such that the call has something to do.
    pub before: Vec<ActionCall>,
    pub call: ActionCall,
    /// What the target should count, as `Stage::since` prints it.
    pub changes: Vec<&'static str>,
    /// The method of the first request that changes something, and its path.
    pub write: Option<(&'static str, &'static str)>,
}

pub(super) fn call(action: &str, args: &[(&'static str, Value)]) -> ActionCall {
    ActionCall::new(action, args.iter().cloned())
}

pub(super) fn cordon(node: &str) -> ActionCall {
    call("k8s::cordon", &[("node", json!(node)), ("why", json!("XID 79 on gpu 3"))])
}

/// A call that changes nothing.
pub(super) fn reads(name: &str, args: &[(&'static str, Value)]) -> Case {
    Case { before: vec![], call: call(name, args), changes: vec![], write: None }
}

/// How stages warm models by a Job.
pub(super) fn cache_job(namespace: &str) -> CacheJob {
    CacheJob {
        namespace: namespace.to_owned(),
        image: "registry.example/nightshift:test".to_owned(),
        host_path: Some("/models".into()),
        ..CacheJob::default()
    }
}

pub(super) const PATCH_NODE: Option<(&str, &str)> = Some(("PATCH", "/nodes/"));

/// The case of an action, or nothing for one that is not known here.
pub(super) fn kube_case(stage: &Stage, name: &str) -> Option<Case> {
    let node = ("node", json!(stage.node(1)));
    let key = ("key", json!("nightshift.dev/quarantine"));
    let workload = ("workload", json!(stage.workload("mistral-7b")));
    let taint = || {
        let args = [node.clone(), key.clone(), ("value", json!("xid")), ("effect", json!("NoSchedule"))];
        call("k8s::taint", &args)
    };
    let patches = |before: Vec<ActionCall>, call: ActionCall| Case {
        before,
        call,
        changes: vec!["patch nodes"],
        write: PATCH_NODE,
    };
    let pod = || ("pod", json!(stage.pod_of("mistral-7b")));
    let value = ("value", json!("yes"));
    Some(match name {
        "cache::warm" => Case {
            before: vec![],
            call: call(name, &[("models", json!(["/models/llama"])), node, ("via", json!("job"))]),
            changes: vec!["create jobs"],
            write: Some(("POST", "/jobs")),
        },
        "k8s::annotate" => patches(vec![], call(name, &[node.clone(), key.clone(), value])),
        "k8s::cordon" => patches(vec![], cordon(&stage.node(1))),
        "k8s::delete_pod" => Case {
            before: vec![],
            call: call(name, &[pod()]),
            changes: vec!["delete pods"],
            write: Some(("DELETE", "/pods/")),
        },
        "k8s::drain" => {
            let node = [1, 2].map(|n| stage.node(n)).into_iter().max_by_key(|node| stage.served_on(node)).unwrap();
            let count = stage.served_on(&node);
            assert!(count > 0, "a drain of no pod shows nothing");
            Case {
                before: vec![cordon(&node)],
                call: call(name, &[("node", json!(node))]),
                changes: vec!["evict pods"; count],
                write: Some(("POST", "/eviction")),
            }
        }
        "k8s::evict" => Case {
            before: vec![],
            call: call(name, &[pod()]),
            changes: vec!["evict pods"],
            write: Some(("POST", "/eviction")),
        },
        "k8s::label" => patches(vec![], call(name, &[node.clone(), key.clone(), value])),
        "k8s::node" | "k8s::pods_on" | "k8s::spare_node" => reads(name, std::slice::from_ref(&node)),
        "k8s::ready_replicas" => reads(name, &[workload]),
        "k8s::rollout_restart" => Case {
            before: vec![],
            call: call(name, &[workload]),
            changes: vec!["patch deployments"],
            write: Some(("PATCH", "/deployments/mistral-7b")),
        },
        "k8s::scale" => Case {
            before: vec![],
            call: call(name, &[workload, ("replicas", json!(3))]),
            changes: vec!["scale deployments"],
            write: Some(("PATCH", "/scale")),
        },
        "k8s::taint" => patches(vec![], taint()),
        "k8s::uncordon" => patches(vec![cordon(&stage.node(1))], call(name, std::slice::from_ref(&node))),
        "k8s::untaint" => patches(vec![taint()], call(name, &[node.clone(), key.clone()])),
        _ => return None,
    })
}
