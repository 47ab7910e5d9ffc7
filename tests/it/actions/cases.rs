//! One case for each action of the catalog.
//!
//! Invariant: an action without a case fails the battery.

use super::Stage;
use nightshift::model::{Call, Outcome};
use nightshift::world::sim::{Fault, MigBehaviour, SimSample};
use serde_json::{Value, json};

/// A call that makes sense on the stage, and what it should do there.
pub(super) struct Case {
    /// Calls that make the world such that the call has something to do.
    pub before: Vec<Call>,
    pub call: Call,
    /// What the fleet should count, as `Stage::changes` prints it.
    pub changes: Vec<&'static str>,
    /// The method of the first request that changes something, and its path.
    pub write: Option<(&'static str, &'static str)>,
}

pub(super) fn call(action: &str, args: &[(&'static str, Value)]) -> Call {
    Call::new(action, args.iter().cloned())
}

pub(super) fn cordon(node: &str) -> Call {
    call("k8s::cordon", &[("node", json!(node)), ("why", json!("XID 79 on gpu 3"))])
}

const PATCH_NODE: Option<(&str, &str)> = Some(("PATCH", "/nodes/"));

/// The case of an action, or nothing for one that is not known here.
pub(super) fn case(stage: &Stage, name: &str) -> Option<Case> {
    let node = ("node", json!("gpu-1"));
    let key = ("key", json!("nightshift.dev/quarantine"));
    let workload = ("workload", json!("inference/mistral-7b"));
    let taint = || {
        let args = [node.clone(), key.clone(), ("value", json!("xid")), ("effect", json!("NoSchedule"))];
        call("k8s::taint", &args)
    };
    let reads =
        |args: &[(&'static str, Value)]| Case { before: vec![], call: call(name, args), changes: vec![], write: None };
    let patches =
        |before: Vec<Call>, call: Call| Case { before, call, changes: vec!["patch nodes"], write: PATCH_NODE };
    let pod = || ("pod", json!(stage.pod_of("mistral-7b")));
    let value = ("value", json!("yes"));
    Some(match name {
        "approve" => reads(&[("question", json!("Reset GPU 3?"))]),
        "cache::status" | "cache::verify" => {
            stage.agent("gpu-1", |_| Outcome::Ok(json!({ "sound": true })));
            reads(&[node, ("path", json!("/models/llama"))])
        }
        "cache::warm" => {
            stage.agent("gpu-1", |_| Outcome::Ok(json!({ "changed": true })));
            reads(&[("models", json!("/models/llama")), node])
        }
        // Against a real engine in tests/it/docker.rs; here there is none, and that is an answer, too.
        "docker::containers" => reads(&[]),
        "docker::restart" => reads(&[("container", json!("vllm"))]),
        "gpu::health" | "gpu::processes" => {
            stage.agent("gpu-1", |_| Outcome::Ok(json!([])));
            reads(&[node, ("gpu", json!(3))])
        }
        "gpu::recovery_action" => {
            stage.agent("gpu-1", |_| Outcome::Ok(json!("none")));
            reads(&[node, ("gpu", json!("3"))])
        }
        "gpu::reset" => {
            stage.agent("gpu-1", |_| Outcome::Ok(json!({ "changed": true })));
            reads(&[node, ("gpu", json!("3"))])
        }
        "gpu::sharing" => patches(vec![], call(name, &[node.clone(), ("profile", json!("slices-4"))])),
        "http::get" => reads(&[("url", json!(format!("{}/api/v1/nodes/gpu-1", stage.fleet.url())))]),
        "http::post" => reads(&[("url", json!(format!("{}/hook", stage.fleet.url()))), ("body", json!({ "a": 1 }))]),
        "inference::models_on" => reads(std::slice::from_ref(&node)),
        "inference::restart" => Case {
            before: vec![],
            call: call(name, &[pod()]),
            changes: vec!["evict pods"],
            write: Some(("POST", "/eviction")),
        },
        "k8s::annotate" => patches(vec![], call(name, &[node.clone(), key.clone(), value])),
        "k8s::cordon" => patches(vec![], cordon("gpu-1")),
        "k8s::delete_pod" => Case {
            before: vec![],
            call: call(name, &[pod()]),
            changes: vec!["delete pods"],
            write: Some(("DELETE", "/pods/")),
        },
        "k8s::drain" => {
            let count = |node: &str| stage.fleet.pods_on(node).iter().filter(|(space, _)| space == "inference").count();
            let node = ["gpu-1", "gpu-2", "gpu-3"].into_iter().max_by_key(|node| count(node)).unwrap();
            assert!(count(node) > 0, "a drain of no pod shows nothing");
            Case {
                before: vec![cordon(node)],
                call: call(name, &[("node", json!(node))]),
                changes: vec!["evict pods"; count(node)],
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
        "k8s::node" | "k8s::pods_on" | "k8s::spare_node" => reads(std::slice::from_ref(&node)),
        "k8s::ready_replicas" => reads(&[workload]),
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
        "k8s::uncordon" => patches(vec![cordon("gpu-1")], call(name, std::slice::from_ref(&node))),
        "k8s::untaint" => patches(vec![taint()], call(name, &[node.clone(), key.clone()])),
        "mig::plan" => {
            stage.agent("gpu-1", |_| Outcome::Ok(super::mig::inventory()));
            reads(&[node, ("demand", json!({ "1g.10gb": 2 }))])
        }
        "mig::rebalance" => {
            // The last node has room for what leaves this one.
            stage.fleet.fault(Fault::MigManager { node: "gpu-1".to_owned(), behaviour: MigBehaviour::Works }).unwrap();
            Case {
                before: vec![cordon("gpu-1"), call("k8s::drain", &[("node", json!("gpu-1"))])],
                call: call(name, &[node, ("config", json!("all-1g.10gb"))]),
                changes: vec!["patch nodes"],
                write: PATCH_NODE,
            }
        }
        "node::collect" => {
            stage.agent("gpu-1", |_| Outcome::Ok(json!({ "folder": "", "files": [], "missing": [] })));
            reads(&[node])
        }
        "node::reboot" => {
            stage.agent_that_reboots("gpu-1");
            reads(&[node])
        }
        "note" => reads(&[("text", json!("the second time this week"))]),
        "now" => reads(&[]),
        "prom::query" | "prom::value" => {
            stage.fleet.set_prometheus("errors", vec![SimSample::value(0.5)]);
            reads(&[("query", json!("errors"))])
        }
        "sleep" => reads(&[("duration", json!("10m"))]),
        "tell" => reads(&[("channel", json!("hardware")), ("text", json!("gpu-1 did not come back"))]),
        _ => return None,
    })
}
