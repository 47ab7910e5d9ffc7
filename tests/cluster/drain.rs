//! Draining on a real API server: budgets that stay shut, two budgets on one pod, and every kind of pod.
//!
//! Invariant: a pod leaves only by an eviction that the API server accepted, unless the runbook said `force`.

use crate::actions::{Server, Stage, action, ok, refused};
use crate::harness::eventually;
use nightshift::actions::PerformResult;
use nightshift::model::{ActionCall, FailureKind};
use serde_json::{Value, json};

fn drain(node: &str, options: &[(&'static str, Value)]) -> ActionCall {
    let node = ("node", json!(node));
    ActionCall::new("k8s::drain", [node].into_iter().chain(options.iter().cloned()))
}

fn cordon(node: &str) -> ActionCall {
    ActionCall::new("k8s::cordon", [("node", json!(node)), ("why", json!("a test"))])
}

/// A stage whose first pod's node is cordoned; the node's name.
async fn cordoned(servers: Vec<Server>) -> (Stage, String) {
    let stage = Stage::with(servers).await;
    let node = (1..=2).map(|number| stage.node(number)).find(|node| stage.served_on(node) > 0).unwrap();
    ok(stage.run(cordon(&node)).await);
    (stage, node)
}

/// One replica, which the budget keeps.
fn shut() -> Server {
    Server { min_available: Some(1), ..Server::new("llm", 1) }
}

#[tokio::test]
async fn a_budget_that_stays_shut_is_waited_for_named_and_never_broken() {
    let (stage, node) = cordoned(vec![shut()]).await;
    let mark = stage.mark();
    let mut step = stage.begin(drain(&node, &[("within", json!("1m"))])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    refused(outcome, FailureKind::Timeout, "1 still there");
    assert!(waits.iter().all(|why| why.contains("disruption budget llm needs 1 healthy pods")), "{waits:?}");
    assert_eq!(stage.since(mark), [""; 0], "nothing was evicted or deleted");
    assert_eq!(stage.pods_now().await[&node].len(), 1);
}

#[tokio::test]
async fn a_drain_told_to_force_deletes_only_after_its_time_and_says_so() {
    let (stage, node) = cordoned(vec![shut()]).await;
    let mark = stage.mark();
    let options = [("within", json!("1m")), ("then", json!("force"))];
    let mut step = stage.begin(drain(&node, &options)).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    let value = ok(outcome);
    assert_eq!((value["forced"].as_array().unwrap().len(), &value["evicted"]), (1, &json!([])), "{value}");
    assert_eq!(stage.since(mark), ["delete pods"]);
    assert!(waits.iter().any(|why| why.starts_with("overdue: 1m were given, so pods are deleted")), "{waits:?}");
}

#[tokio::test]
async fn a_drain_told_to_hold_says_that_it_is_overdue_and_goes_on_when_the_budget_opens() {
    let (stage, node) = cordoned(vec![shut()]).await;
    let mut step = stage.begin(drain(&node, &[("within", json!("1s")), ("then", json!("hold"))])).await;
    let mut overdue = false;
    for _ in 0..50 {
        match action("k8s::drain").perform(&stage.world, &step).await {
            PerformResult::Again { after, why, carry } => {
                overdue |= why.starts_with("overdue: 1s were given");
                step.carry = carry;
                stage.pass(after);
            }
            other => panic!("{other:?}"),
        }
        if overdue {
            break;
        }
    }
    assert!(overdue, "it says so");
    let budget = format!("/apis/policy/v1/namespaces/{}/poddisruptionbudgets/llm", stage.id);
    stage.admin.patch(&budget, &json!({ "spec": { "minAvailable": 0 } })).await;
    assert_eq!(ok(stage.finish(&mut step).await.0)["forced"], json!([]));
}

#[tokio::test]
async fn two_budgets_on_one_pod_are_for_a_person_to_mend() {
    let (stage, node) = cordoned(vec![Server { min_available: Some(0), ..Server::new("llm", 1) }]).await;
    let second = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "namespace": stage.id, "name": "again" },
        "spec": { "minAvailable": 0, "selector": { "matchLabels": { "app": "llm" } } },
    });
    stage.admin.apply(&second).await;
    let mut step = stage.begin(drain(&node, &[("within", json!("30s"))])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    refused(outcome, FailureKind::Timeout, "1 still there");
    assert!(waits.iter().any(|why| why.contains("AN OPERATOR MUST FIX a disruption budget")), "{waits:?}");

    // The person does, and the next drain goes through.
    stage.admin.delete(&format!("/apis/policy/v1/namespaces/{}/poddisruptionbudgets/again", stage.id)).await;
    assert_eq!(ok(stage.run(drain(&node, &[])).await)["evicted"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_unhealthy_pod_leaves_only_if_its_budget_always_allows_that() {
    let sick = |name, policy| Server {
        annotations: vec![("kubelet/never-ready", "yes")],
        unhealthy_policy: policy,
        min_available: Some(1),
        ..Server::new(name, 1)
    };
    let (stage, node) = cordoned(vec![sick("llm", Some("AlwaysAllow"))]).await;
    // The budget's controller must have seen the pod, or there is nothing that it allows.
    let path = format!("/apis/policy/v1/namespaces/{}/poddisruptionbudgets/llm", stage.id);
    eventually("the budget is counted", async || {
        (stage.admin.get(&path).await["status"]["expectedPods"] == 1).then_some(())
    })
    .await;
    assert_eq!(ok(stage.run(drain(&node, &[])).await)["evicted"].as_array().unwrap().len(), 1);

    let (stage, node) = cordoned(vec![sick("llm", None)]).await;
    let mut step = stage.begin(drain(&node, &[("within", json!("20s"))])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    refused(outcome, FailureKind::Timeout, "1 still there");
    assert!(waits.iter().any(|why| why.contains("blocked by a disruption budget")), "{waits:?}");
}

#[tokio::test]
async fn every_kind_of_pod_stays_or_leaves_as_it_should() {
    let server = Server { min_available: None, ..Server::new("llm", 2) };
    let scratch = Server { min_available: None, empty_dir: true, ..Server::new("scratch", 2) };
    let (stage, node) = cordoned(vec![server.clone(), scratch]).await;
    let place = |kind: &str, name: &str, annotations: Value| {
        let mut pod = server.template(&stage.id);
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!(kind);
        pod["metadata"] = json!({ "namespace": stage.id, "name": name, "annotations": annotations });
        pod["spec"]["nodeName"] = json!(node);
        pod
    };
    // As a kubelet shows a pod of its own files.
    stage.admin.apply(&place("Pod", "mirror", json!({ "kubernetes.io/config.mirror": "x" }))).await;
    stage.admin.apply(&place("Pod", "over", json!({ "kubelet/exit": "0" }))).await;
    stage.admin.apply(&place("Pod", "bare", json!({}))).await;
    let mut template = server.template(&stage.id);
    template["metadata"]["labels"] = json!({ "app": "exporter" });
    stage
        .admin
        .apply(&json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "namespace": stage.id, "name": "exporter" },
            "spec": { "selector": { "matchLabels": { "app": "exporter" } }, "template": template },
        }))
        .await;
    eventually("they run", async || {
        let pods = stage.admin.get(&format!("/api/v1/namespaces/{}/pods", stage.id)).await;
        let pods = pods["items"].as_array().unwrap();
        let phase = |name: &str| {
            let found = pods.iter().find(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().starts_with(name));
            found.map(|pod| pod["status"]["phase"].clone()).unwrap_or_default()
        };
        let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        (phase("over") == "Succeeded" && phase("exporter") == "Running" && running == 8).then_some(())
    })
    .await;

    let mark = stage.mark();
    refused(stage.run(drain(&node, &[])).await, FailureKind::Refused, "bare would not be started again (evict_bare)");
    let bare = ("evict_bare", json!(true));
    let scratch_here = stage.pods_now().await[&node].iter().any(|pod| pod.contains("/scratch-"));
    if scratch_here {
        let outcome = stage.run(drain(&node, std::slice::from_ref(&bare))).await;
        refused(outcome, FailureKind::Refused, "would lose an emptyDir (delete_empty_dir)");
    }
    assert_eq!(stage.since(mark), [""; 0], "refused before anything is evicted");
    let value = ok(stage.run(drain(&node, &[bare, ("delete_empty_dir", json!(true))])).await);
    let left = value["left"].to_string();
    for (name, why) in [("mirror", "the kubelet itself"), ("over", "has finished"), ("exporter", "a DaemonSet")] {
        assert!(left.contains(name) && left.contains(why), "{name}: {left}");
    }
    let still: Vec<String> = stage.pods_now().await.remove(&node).unwrap();
    assert_eq!(still.len(), 3, "{still:?}");
    assert!(value["evicted"].to_string().contains("/bare"), "{value}");
}

#[tokio::test]
async fn a_person_who_uncordons_the_node_stops_the_drain() {
    let (stage, node) = cordoned(vec![shut()]).await;
    let step = stage.begin(drain(&node, &[])).await;
    assert!(matches!(action("k8s::drain").perform(&stage.world, &step).await, PerformResult::Again { .. }));
    stage.admin.patch(&format!("/api/v1/nodes/{node}"), &json!({ "spec": { "unschedulable": null } })).await;
    let PerformResult::Done(outcome) = action("k8s::drain").perform(&stage.world, &step).await else { panic!() };
    refused(outcome, FailureKind::Conflict, "no longer is");
}

#[tokio::test]
async fn a_pod_that_hangs_keeps_the_drain_waiting_and_its_end_ends_it() {
    let (stage, node) = cordoned(vec![Server { min_available: None, ..Server::new("llm", 1) }]).await;
    stage.hang(&node, true).await;
    let mut step = stage.begin(drain(&node, &[("within", json!("20s"))])).await;
    let (outcome, waits) = stage.finish(&mut step).await;
    refused(outcome, FailureKind::Timeout, "(ending)");
    assert!(waits.iter().any(|why| why.contains("1 of them ending")), "{waits:?}");
    stage.hang(&node, false).await;
    let value = ok(stage.run(drain(&node, &[])).await);
    assert_eq!(value["evicted"], json!([]), "it was on its way already");
}
