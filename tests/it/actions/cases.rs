//! One case for each action of the catalog.
//!
//! Invariant: an action without a case fails the battery.

use super::Stage;
use super::kube_cases::{PATCH_NODE, kube_case};
use nightshift::model::Outcome;
use nightshift::world::sim::{MigBehaviour, SimFault, SimSample};
use serde_json::{Value, json};

pub(super) use super::kube_cases::{Case, call, cordon, reads};

/// The case of an action, or nothing for one that is not known here.
pub(super) fn case(stage: &Stage, name: &str) -> Option<Case> {
    let node = ("node", json!("gpu-1"));
    let reads = |args: &[(&'static str, Value)]| reads(name, args);
    let pod = || ("pod", json!(stage.pod_of("mistral-7b")));
    Some(match name {
        "approve" => reads(&[("question", json!("Reset GPU 3?"))]),
        "cache::status" | "cache::verify" => {
            stage.agent("gpu-1", |_| Outcome::Ok(json!({ "sound": true })));
            reads(&[node, ("path", json!("/models/llama"))])
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
        "gpu::sharing" => Case {
            before: vec![],
            call: call(name, &[node, ("profile", json!("slices-4"))]),
            changes: vec!["patch nodes"],
            write: PATCH_NODE,
        },
        "http::get" => reads(&[("url", json!(format!("{}/api/v1/nodes/gpu-1", stage.fleet.url())))]),
        "http::post" => reads(&[("url", json!(format!("{}/hook", stage.fleet.url()))), ("body", json!({ "a": 1 }))]),
        "inference::drain_traffic" => Case {
            before: vec![],
            call: call(name, &[pod()]),
            changes: vec!["patch pods"],
            write: Some(("PATCH", "/pods/")),
        },
        "inference::health" => reads(&[("workload", json!("inference/mistral-7b"))]),
        "inference::models_on" => reads(&[node]),
        "inference::restart" => {
            // Prometheus sees it in two ways, whatever the engine's own page says.
            stage.fleet.set_prometheus("stuck", vec![SimSample::value(1.0)]);
            stage.fleet.set_prometheus("silent", vec![SimSample::value(1.0)]);
            Case {
                before: vec![],
                call: call(name, &[pod(), ("also", json!(["stuck", "silent"]))]),
                changes: vec!["evict pods"],
                write: Some(("POST", "/eviction")),
            }
        }
        "inference::return_traffic" => Case {
            before: vec![call("inference::drain_traffic", &[pod()])],
            call: call(name, &[pod()]),
            changes: vec!["patch pods"],
            write: Some(("PATCH", "/pods/")),
        },
        "mig::plan" => {
            stage.agent("gpu-1", |_| Outcome::Ok(super::mig::inventory()));
            reads(&[node, ("demand", json!({ "1g.10gb": 2 }))])
        }
        "mig::rebalance" => {
            // The last node has room for what leaves this one.
            stage
                .fleet
                .fault(SimFault::MigManager { node: "gpu-1".to_owned(), behaviour: MigBehaviour::Works })
                .unwrap();
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
        _ => return kube_case(stage, name),
    })
}
