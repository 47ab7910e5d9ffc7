//! Draining and restarting: waiting for budgets, deadlines and what comes after them, uids.
//!
//! Invariant: a budget is never broken but by `then: "force"`, and a pod never dies for another one's name.

use super::cases::{call, cordon};
use super::*;
use nightshift::world::sim::SimWorkload;
use serde_json::json;

fn drain(options: &[(&'static str, Value)]) -> ActionCall {
    let node = ("node", json!("gpu-1"));
    call("k8s::drain", &[&[node], options].concat())
}

/// One node with GPU pods that a budget protects, and nowhere else to go for them.
async fn cornered() -> Stage {
    let workload = SimWorkload { min_available: Some(2), ..SimWorkload::deployment("llm", "acme/llm", 2, 1) };
    let options = SimOptions { nodes: 1, workloads: vec![workload], lone_pod: false, ..SimOptions::default() };
    let stage = Stage::with(options).await;
    ok(stage.run(cordon("gpu-1")).await);
    stage
}

fn inference_pods(stage: &Stage, node: &str) -> usize {
    stage.fleet.pods_on(node).iter().filter(|(namespace, _)| namespace == "inference").count()
}

#[tokio::test]
async fn a_drain_waits_for_the_budget_and_leaves_the_node_without_gpu_pods() {
    let stage = Stage::new().await;
    ok(stage.run(cordon("gpu-1")).await);
    let pods = inference_pods(&stage, "gpu-1");
    let mut step = stage.begin(drain(&[])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    let value = ok(outcome);
    assert_eq!(value["evicted"].as_array().unwrap().len(), pods, "{value}");
    assert_eq!(inference_pods(&stage, "gpu-1"), 0);
    assert!(waits.iter().any(|why| why.contains("to go")), "{waits:?}");
    let left = value["left"].to_string();
    assert!(left.contains("dcgm-exporter") && left.contains("belongs to a DaemonSet"), "{left}");
}

#[tokio::test]
async fn pods_of_a_protected_namespace_stay_on_a_node_that_is_drained() {
    let stage = Stage::new().await;
    stage.world.kube(None).unwrap().protect(vec!["inference".to_owned()]);
    ok(stage.run(cordon("gpu-1")).await);
    let pods = inference_pods(&stage, "gpu-1");
    assert!(pods > 0);
    let mut step = stage.begin(drain(&[])).await;
    let value = ok(stage.finish(&mut step).await.0);
    assert_eq!(inference_pods(&stage, "gpu-1"), pods, "{value}");
    let stayed = value["left"].as_array().unwrap().iter().filter(|left| left[1] == "is in a protected namespace");
    assert_eq!(stayed.count(), pods, "{value}");
    let asked = stage.fleet.changes().into_iter().filter(|applied| applied.verb == "evict").count();
    assert_eq!(asked, 0, "nothing was evicted there");
}

#[tokio::test]
async fn a_blocked_drain_says_which_budget_and_fails_when_its_time_is_up() {
    let stage = cornered().await;
    let mut step = stage.begin(drain(&[("within", json!("5m"))])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    refused(outcome, FailureKind::Timeout, "2 still there: inference/llm");
    assert!(waits.iter().all(|why| why.contains("The disruption budget llm needs 2 healthy pods")), "{waits:?}");
    assert_eq!(inference_pods(&stage, "gpu-1"), 2);
}

#[tokio::test]
async fn a_drain_that_is_told_to_force_deletes_only_after_its_time() {
    let stage = cornered().await;
    let mut step = stage.begin(drain(&[("within", json!("5m")), ("then", json!("force"))])).await;
    let value = ok(stage.finish(&mut step).await.0);
    assert_eq!((value["forced"].as_array().unwrap().len(), &value["evicted"]), (2, &json!([])), "{value}");
    let deleted: Vec<_> = stage.fleet.changes().into_iter().filter(|applied| applied.verb == "delete").collect();
    assert_eq!(deleted.len(), 2);
    assert!(deleted.iter().all(|applied| applied.at >= step.begun_at + minutes(5)));
}

#[tokio::test]
async fn a_drain_that_is_told_to_hold_goes_on_waiting_and_says_so() {
    let stage = cornered().await;
    let mut step = stage.begin(drain(&[("within", json!("5m")), ("then", json!("hold"))])).await;
    stage.clock.advance(minutes(60));
    match action("k8s::drain").perform(&stage.world, &step).await {
        PerformResult::Again { why, carry, .. } => {
            assert!(why.starts_with("overdue: 5m were given"), "{why}");
            step.carry = carry;
        }
        other => panic!("{other:?}"),
    }
    // The budget gives way in the end, and the drain goes on where it stood.
    let scaled = call("k8s::scale", &[("workload", json!("inference/llm")), ("replicas", json!(4))]);
    ok(stage.run(call("k8s::uncordon", &[("node", json!("gpu-1"))])).await);
    ok(stage.run(scaled).await);
    stage.clock.advance(minutes(5));
    let _ = stage.fleet.pods_on("gpu-1");
    ok(stage.run(cordon("gpu-1")).await);
    let again = action("k8s::drain").perform(&stage.world, &step).await;
    assert!(
        matches!(&again, PerformResult::Again { carry, .. } if !carry["evicted"].as_array().unwrap().is_empty()),
        "{again:?}"
    );
}

#[tokio::test]
async fn an_open_node_is_not_drained_and_a_person_who_uncordons_it_stops_the_drain() {
    let stage = Stage::new().await;
    refused(stage.run(drain(&[])).await, FailureKind::Conflict, "is not cordoned");
    assert_eq!(stage.changes(), [""; 0]);

    let stage = cornered().await;
    let step = stage.begin(drain(&[])).await;
    assert!(matches!(action("k8s::drain").perform(&stage.world, &step).await, PerformResult::Again { .. }));
    stage.kube().patch_node("gpu-1", json!({ "spec": { "unschedulable": null } }), None).await.unwrap();
    let PerformResult::Done(outcome) = action("k8s::drain").perform(&stage.world, &step).await else { panic!() };
    refused(outcome, FailureKind::Conflict, "no longer is");
}

#[tokio::test]
async fn a_pod_that_would_be_lost_is_refused_before_anything_is_evicted() {
    let stage = Stage::new().await;
    let on = |options: &[(&'static str, Value)]| call("k8s::drain", &[&[("node", json!("gpu-4"))], options].concat());
    ok(stage.run(cordon("gpu-4")).await);
    let before = stage.fleet.changes().len();
    refused(
        stage.run(on(&[])).await,
        FailureKind::Refused,
        "research/notebook-ada would not be started again (evict_bare)",
    );
    refused(stage.run(on(&[("evict_bare", json!(true))])).await, FailureKind::Refused, "would lose an emptyDir");
    refused(action("k8s::drain").predict(&stage.world, &on(&[])).await, FailureKind::Refused, "notebook-ada");
    assert_eq!(stage.fleet.changes().len(), before);
    let both = [("evict_bare", json!(true)), ("delete_empty_dir", json!(true))];
    let value = ok(stage.run(on(&both)).await);
    assert!(value["evicted"].to_string().contains("research/notebook-ada"), "{value}");
}

#[tokio::test]
async fn a_silent_api_server_only_delays_a_drain_until_its_time_is_up() {
    let stage = cornered().await;
    let silent = RequestFault::Status { code: 503, retry_after: None };
    stage.trouble(10_000, "GET", "/pods", silent);
    let mut step = stage.begin(drain(&[("within", json!("5m"))])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    refused(outcome, FailureKind::Timeout, "not done within 5m");
    assert!(waits.len() > limits::STEP_ATTEMPTS as usize, "patient beyond the attempts of a single request");
}

#[tokio::test]
async fn a_pod_of_the_same_name_and_another_uid_is_left_alone() {
    let stage = Stage::with(SimOptions { workloads: vec![stateful()], lone_pod: false, ..SimOptions::default() }).await;
    for name in ["k8s::evict", "k8s::delete_pod"] {
        let pod = ("pod", json!("inference/cache-0"));
        let mut step = stage.begin(call(name, std::slice::from_ref(&pod))).await;
        let open = step.clone();
        ok(stage.finish(&mut step).await.0);
        // The StatefulSet makes another pod of that name; the step, settled again, must not touch it.
        stage.clock.advance(minutes(5));
        let fresh = stage.kube().pod("inference", "cache-0").await.unwrap().uid;
        assert_ne!(json!(fresh), open.carry["uid"], "{name}");
        let mut again = open;
        ok(stage.finish(&mut again).await.0);
        assert_eq!(stage.kube().pod("inference", "cache-0").await.unwrap().uid, fresh, "{name}");
    }
}

fn stateful() -> SimWorkload {
    SimWorkload {
        kind: nightshift::world::sim::WorkloadKind::StatefulSet,
        min_available: None,
        ..SimWorkload::deployment("cache", "acme/cache", 2, 1)
    }
}

#[tokio::test]
async fn a_stateful_set_is_restarted_scaled_and_read_like_a_deployment() {
    let stage = Stage::with(SimOptions { workloads: vec![stateful()], lone_pod: false, ..SimOptions::default() }).await;
    let workload = ("workload", json!("inference/cache"));
    ok(stage.run(call("k8s::rollout_restart", std::slice::from_ref(&workload))).await);
    ok(stage.run(call("k8s::scale", &[workload.clone(), ("replicas", json!(3))])).await);
    stage.clock.advance(minutes(5));
    assert_eq!(ok(stage.run(call("k8s::ready_replicas", &[workload])).await), json!(3));
    assert_eq!(stage.changes(), ["patch statefulsets", "scale statefulsets"]);
}

#[tokio::test]
async fn a_rollout_that_cannot_end_fails_in_time_and_says_what_is_missing() {
    let stage = Stage::new().await;
    for node in ["gpu-1", "gpu-2", "gpu-3", "gpu-4"] {
        ok(stage.run(cordon(node)).await);
    }
    let args = [("workload", json!("inference/mistral-7b")), ("within", json!("10m"))];
    let mut step = stage.begin(call("k8s::rollout_restart", &args)).await;
    let (outcome, _) = stage.finish(&mut step).await;
    refused(outcome, FailureKind::Timeout, "is not over after 10m");
}

#[tokio::test]
async fn nothing_is_scaled_to_zero_by_accident() {
    let stage = Stage::new().await;
    let workload = ("workload", json!("inference/mistral-7b"));
    let zero = [workload.clone(), ("replicas", json!(0))];
    refused(stage.run(call("k8s::scale", &zero)).await, FailureKind::Refused, "allow_zero");
    for wrong in [json!(-1), json!(1_000_000), json!("3")] {
        let args = [workload.clone(), ("replicas", wrong)];
        refused(stage.run(call("k8s::scale", &args)).await, FailureKind::Invalid, "from 0 to");
    }
    assert_eq!(stage.changes(), [""; 0]);
    let meant = [workload, ("replicas", json!(0)), ("allow_zero", json!(true))];
    assert_eq!(ok(stage.run(call("k8s::scale", &meant)).await), json!({ "changed": true, "before": 4 }));
}
