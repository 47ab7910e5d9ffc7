//! `inference::models_on` and `inference::restart`: who serves what, and never the last one.
//!
//! Invariant: a refused restart evicts nobody.

use super::cases::call;
use super::*;
use serde_json::json;

#[tokio::test]
async fn a_node_says_which_models_its_pods_serve() {
    let stage = Stage::new().await;
    let mut all = Vec::new();
    for node in ["gpu-1", "gpu-2", "gpu-3", "gpu-4"] {
        let models = ok(stage.run(call("inference::models_on", &[("node", json!(node))])).await);
        all.extend(models.as_array().unwrap().clone());
    }
    let count = |model: &str| -> usize {
        let of = all.iter().filter(|one| one["model"] == model);
        of.map(|one| one["pods"].as_array().unwrap().len()).sum()
    };
    assert_eq!((count("Mistral-7B-Instruct-v0.3"), count("Llama-3.3-70B-Instruct"), count("notebook")), (4, 2, 1));
    let by_app = call("inference::models_on", &[("node", json!("gpu-1")), ("label", json!("app"))]);
    assert!(
        ok(stage.run(by_app).await).as_array().unwrap().iter().all(|one| one["model"].as_str().unwrap().contains('-'))
    );
}

#[tokio::test]
async fn a_server_is_restarted_while_another_one_serves_and_the_last_one_is_not() {
    let stage = Stage::new().await;
    let pod = stage.pod_of("llama-70b");
    let restart = |pod: &str| call("inference::restart", &[("pod", json!(pod))]);
    assert_eq!(ok(stage.run(restart(&pod)).await)["changed"], true);
    stage.clock.advance(minutes(5));
    let scale = [("workload", json!("inference/llama-70b")), ("replicas", json!(1))];
    ok(stage.run(call("k8s::scale", &scale)).await);
    stage.clock.advance(minutes(5));
    let before = stage.fleet.changes().len();
    let last = stage.pod_of("llama-70b");
    refused(stage.run(restart(&last)).await, FailureKind::Refused, "is the last one that serves");
    refused(stage.run(restart("research/notebook-ada")).await, FailureKind::Refused, "nothing would start");
    refused(
        action("inference::restart").predict(&stage.world, &restart(&last)).await,
        FailureKind::Refused,
        "last one",
    );
    assert_eq!(stage.fleet.changes().len(), before);
}
