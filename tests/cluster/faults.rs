//! What goes wrong between an engine and its API server: it is away, it forgets us, it lacks a right, it says no.
//!
//! Invariant: the engine is the real program with a ServiceAccount's token, and what it did is in the audit log.

use crate::harness::{eventually, eventually_within};
use crate::plane::{ControlPlane, NodeSpec, Options, shared};
use crate::rig::{CORDON, OPEN, Rig};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn an_api_server_that_is_away_only_delays_what_is_to_be_done() {
    let plane = ControlPlane::start(Options::default()).await;
    plane.kubelet().add([NodeSpec::gpu("away-1", 8), NodeSpec::gpu("away-2", 8)]).await;
    let rig = Rig::new(&plane, "away", CORDON, OPEN).await;
    plane.stop_api();
    rig.complain(&["away-1"]).await;
    let run = rig.until_run("away-1", |state| state == "held").await;
    assert!(run["state"].to_string().contains("not reached"), "{run:#}");
    let ready = rig.engine.get("/readyz").await.unwrap();
    assert!(ready["ready"] == true && ready["clusters"]["real"].to_string().contains("not watched since"), "{ready}");
    plane.start_api().await;
    let mut last = serde_json::Value::Null;
    eventually_within(Duration::from_secs(180), "the run's end", async || {
        let state = rig.engine.get("/api/v1/runs").await?["runs"][0]["state"].clone();
        if state != last {
            println!("{} {state}", jiff::Timestamp::now());
            last = state.clone();
        }
        if state["reason"]["code"] == "blast_radius" {
            // The node controller has called them Unknown meanwhile; kubelets say that they are ready once they can.
            plane.kubelet().ready("away-1").await;
            plane.kubelet().ready("away-2").await;
        }
        (state["is"] == "done").then_some(())
    })
    .await;
    assert_eq!(rig.patched(&plane), ["away-1"]);
    let node = plane.admin().await.get("/api/v1/nodes/away-1").await;
    assert_eq!(node["spec"]["unschedulable"], true);
}

#[tokio::test]
async fn a_right_that_is_missing_stops_the_run_and_names_the_line_to_add() {
    let plane = shared().await;
    plane.kubelet().add([NodeSpec::gpu("lacking-1", 8), NodeSpec::gpu("lacking-2", 8)]).await;
    let rights = [("", "nodes", "get"), ("", "nodes", "list"), ("", "nodes", "watch")];
    let rig = Rig::with_rights(plane, "lacking", CORDON, OPEN, &rights).await;
    rig.complain(&["lacking-1"]).await;
    let run = rig.until_run("lacking-1", |state| state == "failed").await;
    let why = run["state"].to_string();
    assert!(why.contains("add to the role: - {apiGroups: ["), "{why}");
    assert!(why.contains("nodes") && why.contains("patch"), "{why}");
    assert!(rig.patched(plane).is_empty());
}

#[tokio::test]
async fn a_token_that_has_expired_is_said_and_nothing_is_done() {
    let plane = shared().await;
    plane.kubelet().add([NodeSpec::gpu("expired-1", 8), NodeSpec::gpu("expired-2", 8)]).await;
    let token = plane.expired_token("expired", "engine").await;
    let rig = Rig::with_token(plane, "expired", CORDON, OPEN, &token).await;
    rig.complain(&["expired-1"]).await;
    let run = rig.until_run("expired-1", |state| !matches!(state, "ready" | "waiting")).await;
    assert!(run.to_string().contains("(401); check the token"), "{run:#}");
    assert!(rig.patched(plane).is_empty());
}

#[tokio::test]
async fn a_node_that_is_deleted_in_the_middle_ends_the_run_in_words() {
    let plane = shared().await;
    plane.kubelet().add([NodeSpec::gpu("vanish-1", 8), NodeSpec::gpu("vanish-2", 8)]).await;
    let runbook = "//! Cordon, wait, label.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: on-failure\n\n\
                   k8s::cordon(node, \"a test\");\nsleep(\"2s\");\nk8s::label(node, \"nightshift.dev/x\", \"y\");\n";
    let rig = Rig::new(plane, "vanish", runbook, OPEN).await;
    rig.complain(&["vanish-1"]).await;
    eventually("the cordon", async || (rig.patched(plane) == ["vanish-1"]).then_some(())).await;
    plane.kubelet().remove(&["vanish-1".to_owned()]).await;
    let run = rig.until_run("vanish-1", |state| matches!(state, "failed" | "stuck")).await;
    assert!(run.to_string().contains("nodes vanish-1 is not there"), "{run:#}");
}

#[tokio::test]
async fn a_policy_that_denies_the_patch_is_quoted_and_nothing_is_undone_or_tried_again() {
    let plane = shared().await;
    plane.kubelet().add([NodeSpec::gpu("denied-1", 8), NodeSpec::gpu("denied-2", 8)]).await;
    let admin = plane.admin().await;
    let version = "admissionregistration.k8s.io/v1";
    admin
        .apply(&json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": { "name": "denied" },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": { "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["nodes"],
                    "resourceNames": ["denied-1"],
                }] },
                "validations": [{
                    "expression": "!(has(object.spec.unschedulable) && object.spec.unschedulable)",
                    "message": "this rack is on loan to research",
                }],
            },
        }))
        .await;
    admin
        .apply(&json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": "denied" },
            "spec": { "policyName": "denied", "validationActions": ["Deny"] },
        }))
        .await;
    let probe = json!({ "spec": { "unschedulable": true } });
    eventually("the policy holds", async || {
        let path = "/api/v1/nodes/denied-1?dryRun=All";
        let (status, _) = admin.ask(http::Method::PATCH, path, Some(&probe)).await.unwrap();
        (status == 422).then_some(())
    })
    .await;
    let rig = Rig::new(plane, "denied", CORDON, OPEN).await;
    rig.complain(&["denied-1"]).await;
    let run = rig.until_run("denied-1", |state| state == "failed").await;
    assert!(run["state"].to_string().contains("this rack is on loan to research"), "{run:#}");
    let tried =
        plane.audit().select(|asked| asked.agent == rig.agent() && asked.verb == "patch" && asked.name == "denied-1");
    assert_eq!(tried.len(), 1, "a no is an answer: {tried:#?}");
}

#[tokio::test]
async fn a_token_that_is_rotated_in_its_file_is_taken_up_without_a_restart() {
    let plane = shared().await;
    plane.kubelet().add([NodeSpec::gpu("rotated-1", 8), NodeSpec::gpu("rotated-2", 8)]).await;
    let stale = plane.expired_token("rotated", "engine").await;
    let rig = Rig::with_token(plane, "rotated", CORDON, OPEN, &stale).await;
    let admin = plane.admin().await;
    admin
        .grant(
            "rotated",
            "engine",
            &[("", "nodes", "get"), ("", "nodes", "list"), ("", "nodes", "watch"), ("", "nodes", "patch")],
        )
        .await;
    let clusters = async || rig.engine.get("/readyz").await.map(|ready| ready["clusters"]["real"].to_string());
    eventually("it says that the cluster is lost", async || {
        clusters().await.filter(|word| word.contains("not watched since"))
    })
    .await;
    std::fs::write(&rig.token_file, admin.token("rotated", "engine", 3_600).await).unwrap();
    // The file is read again each minute, and the watch is tried again within another one.
    eventually_within(Duration::from_secs(180), "the cluster is back", async || {
        clusters().await.filter(|word| word == "\"ok\"")
    })
    .await;
    rig.complain(&["rotated-2"]).await;
    rig.until_run("rotated-2", |state| state == "done").await;
    assert_eq!(rig.patched(plane), ["rotated-2"]);
}
