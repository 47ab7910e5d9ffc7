//! Taking a pod's traffic away on a real API server: what its Service's endpoints, its ReplicaSet and its Deployment do then.
//!
//! Invariant: what serves is read from EndpointSlices, as a proxy reads it.

use crate::actions::{Server, Stage, action, ok, refused};
use crate::engines::Engine;
use crate::harness::eventually;
use nightshift::model::{ActionCall, FailureKind};
use nightshift::world::{ProbeConfig, ProbedEngines};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn drain(pod: &str, options: &[(&'static str, Value)]) -> ActionCall {
    let pod = ("pod", json!(pod));
    ActionCall::new("inference::drain_traffic", [pod].into_iter().chain(options.iter().cloned()))
}

/// A Deployment of two and its Service; the label that traffic goes by is in the Service's selector, and where it is told
/// so in the Deployment's too.
async fn serve(stage: &Stage, name: &str, in_both: bool) {
    let mut selector = json!({ "app": name });
    let labels = json!({ "app": name, "nightshift.dev/traffic": "on" });
    if in_both {
        selector.clone_from(&labels);
    }
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "namespace": stage.id, "name": name },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": selector },
            "template": { "metadata": { "labels": labels }, "spec": {
                "nodeSelector": { "stage": stage.id },
                "containers": [{ "name": "server", "image": "example/server" }],
            } },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": stage.id, "name": name },
        "spec": { "selector": labels, "ports": [{ "port": 8000 }] },
    });
    stage.admin.apply(&deployment).await;
    stage.admin.apply(&service).await;
    eventually("its endpoints", async || (endpoints(stage, name).await.len() == 2).then_some(())).await;
}

/// The pods that the Service sends requests to.
async fn endpoints(stage: &Stage, service: &str) -> BTreeSet<String> {
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector=kubernetes.io/service-name={service}",
        stage.id
    );
    let slices = stage.admin.get(&path).await;
    let all = slices["items"].as_array().cloned().unwrap_or_default();
    let endpoints = all.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready.map(|endpoint| endpoint["targetRef"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn pods(stage: &Stage, app: &str) -> BTreeSet<String> {
    let path = format!("/api/v1/namespaces/{}/pods?labelSelector=app={app}", stage.id);
    let list = stage.admin.get(&path).await;
    list["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_pod_without_traffic_leaves_its_endpoints_stays_its_deployments_and_comes_back() {
    let mut stage = Stage::with(vec![Server::new("mistral-7b", 1)]).await;
    serve(&stage, "llama", false).await;
    let both = pods(&stage, "llama").await;
    let one = both.first().unwrap().clone();
    let name = format!("{}/{one}", stage.id);
    let engine = Engine::start("vllm").await;
    let targets = vec![engine.target(&[("pod", &name)])];
    stage.world.engines = ProbedEngines::of([&ProbeConfig { targets, ..ProbeConfig::default() }]);
    let mut step = stage.begin(drain(&name, &[])).await;
    let came = ok(stage.finish(&mut step).await.0);
    assert_eq!((&came["changed"], &came["drained"]), (&json!(true), &json!(true)), "{came}");
    let left: BTreeSet<String> = both.iter().filter(|pod| **pod != one).cloned().collect();
    eventually("its endpoint is gone", async || (endpoints(&stage, "llama").await == left).then_some(())).await;
    // The other pod of the set is the last that gets requests now.
    let other = format!("{}/{}", stage.id, left.first().unwrap());
    let targets = vec![engine.target(&[("pod", &other)])];
    let mut world = stage.world.clone();
    world.engines = ProbedEngines::of([&ProbeConfig { targets, ..ProbeConfig::default() }]);
    let foreseen = action("inference::drain_traffic").predict(&world, &drain(&other, &[])).await;
    refused(foreseen, FailureKind::Refused, "is the last one that serves");
    // Its ReplicaSet has not let go of it, and nobody made another one.
    let path = format!("/apis/apps/v1/namespaces/{}/deployments/llama", stage.id);
    let status = stage.admin.get(&path).await["status"].clone();
    assert_eq!((&status["replicas"], &status["readyReplicas"]), (&json!(2), &json!(2)), "{status}");
    assert_eq!(pods(&stage, "llama").await, both);
    let owner = stage.admin.get(&format!("/api/v1/namespaces/{}/pods/{one}", stage.id)).await;
    assert_eq!(owner["metadata"]["ownerReferences"][0]["kind"], "ReplicaSet");
    let undo = action("inference::drain_traffic").undo(&step).unwrap();
    assert_eq!(ok(stage.run(undo).await)["changed"], true);
    eventually("its endpoint is back", async || (endpoints(&stage, "llama").await == both).then_some(())).await;
}

#[tokio::test]
async fn a_label_that_the_deployment_knows_its_pods_by_is_never_taken() {
    let mut stage = Stage::with(vec![Server::new("mistral-7b", 1)]).await;
    serve(&stage, "qwen", true).await;
    let both = pods(&stage, "qwen").await;
    let name = format!("{}/{}", stage.id, both.first().unwrap());
    let engine = Engine::start("vllm").await;
    let targets = vec![engine.target(&[("pod", &name)])];
    stage.world.engines = ProbedEngines::of([&ProbeConfig { targets, ..ProbeConfig::default() }]);
    let mark = stage.mark();
    refused(stage.run(drain(&name, &[])).await, FailureKind::Refused, "would release");
    assert_eq!(stage.since(mark), [""; 0]);
    assert_eq!(pods(&stage, "qwen").await, both);
}
