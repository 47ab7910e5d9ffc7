//! Every action of the catalog: once, again, predicted, undone, and through every trouble of the API.
//!
//! Invariant: the fleet's own count of changes is the same, whatever went wrong on the way.

use super::cases::{Case, call, case, cordon};
use super::*;
use nightshift::actions::catalog;
use nightshift::model::Effect;
use serde_json::json;
use std::collections::BTreeSet;

/// A stage where the case's call has something to do, and how many changes that took.
async fn ready(name: &str) -> (Stage, Case, usize) {
    let is_kube = name.starts_with("k8s::");
    let stage = if is_kube { Stage::of_kube(SimOptions::default()).await } else { Stage::new().await };
    let case = case(&stage, name).unwrap_or_else(|| panic!("{name} has no case: write one in cases.rs"));
    for call in &case.before {
        ok(stage.run(call.clone()).await);
    }
    let before = stage.fleet.changes().len();
    (stage, case, before)
}

fn since(stage: &Stage, before: usize) -> Vec<String> {
    let mut list: Vec<String> = stage.fleet.changes()[before..]
        .iter()
        .map(|applied| format!("{} {}", applied.verb, applied.resource))
        .collect();
    list.sort();
    list
}

fn names() -> Vec<&'static str> {
    // `approve` is answered by the engine; containers need a real Docker engine: both have tests of their own.
    let apart = |name: &&str| *name == "approve" || name.starts_with("docker::");
    catalog().iter().map(|action| action.spec().name).filter(|name| !apart(name)).collect()
}

fn writers() -> Vec<&'static str> {
    names().into_iter().filter(|name| name.starts_with("k8s::") && action(name).spec().effect != Effect::Read).collect()
}

#[tokio::test]
async fn every_action_of_the_catalog_has_a_case() {
    let stage = Stage::new().await;
    for action in catalog() {
        let name = action.spec().name;
        let case = case(&stage, name).unwrap_or_else(|| panic!("{name} has no case: write one in cases.rs"));
        assert_eq!(case.call.action, name);
        // A case that leaves out what the action requires would show a failure of its own making.
        for param in action.spec().params {
            assert!(case.call.args.contains_key(param.name), "{name}: {}", param.name);
        }
    }
}

#[tokio::test]
async fn every_action_does_its_work_once_and_nothing_else() {
    for name in names() {
        let (stage, case, before) = ready(name).await;
        ok(stage.run(case.call).await);
        assert_eq!(since(&stage, before), case.changes, "{name}");
    }
}

#[tokio::test]
async fn an_action_performed_again_for_one_step_changes_nothing_more_and_says_the_same() {
    for name in names().into_iter().filter(|name| action(name).spec().effect != Effect::Blind) {
        let (stage, case, before) = ready(name).await;
        let mut step = stage.begin(case.call).await;
        let open = step.clone();
        let first = ok(stage.finish(&mut step).await.0);
        // The end was never recorded: the step is open, and another process settles it.
        let mut again = Step { attempt: 2, ..open };
        let second = ok(stage.finish(&mut again).await.0);
        assert_eq!(since(&stage, before), case.changes, "{name}");
        assert_eq!(first["changed"], second["changed"], "{name}");
        assert_eq!(first["before"], second["before"], "{name}");
    }
}

#[tokio::test]
async fn a_prediction_touches_nothing_and_is_what_then_happens() {
    for name in names() {
        let (stage, case, before) = ready(name).await;
        let foretold = ok(action(name).predict(&stage.world, &case.call).await);
        assert_eq!(since(&stage, before), [""; 0], "{name}");
        let came = ok(stage.run(case.call).await);
        assert_eq!(foretold["changed"], came["changed"], "{name}");
        assert_eq!(foretold["before"], came["before"], "{name}");
    }
}

#[tokio::test]
async fn no_trouble_of_the_api_makes_an_effect_happen_twice_or_not_at_all() {
    let status = |code, retry_after| Trouble::Status { code, retry_after };
    let troubles = [
        Trouble::LoseReply,
        Trouble::Cut,
        Trouble::Garbage,
        status(409, None),
        status(429, Some(3)),
        status(429, None),
        status(500, None),
        status(503, Some(1)),
    ];
    for name in writers() {
        for trouble in &troubles {
            let (stage, case, before) = ready(name).await;
            let (method, path) = case.write.unwrap_or_else(|| panic!("{name}: which request writes?"));
            let mut step = stage.begin(case.call).await;
            stage.trouble(1, method, path, trouble.clone());
            let (outcome, waits) = stage.finish(&mut step).await;
            let value = ok(outcome);
            assert_eq!(since(&stage, before), case.changes, "{name} with {trouble:?}: {waits:?}");
            assert_ne!(value["changed"], json!(false), "{name} with {trouble:?} changed something");
        }
    }
}

#[tokio::test]
async fn every_read_that_fails_for_a_while_is_only_a_delay() {
    for name in names().into_iter().filter(|name| name.starts_with("k8s::")) {
        for code in [429, 500, 503] {
            let (stage, case, before) = ready(name).await;
            let mut step = stage.begin(case.call).await;
            stage.trouble(2, "GET", "/", Trouble::Status { code, retry_after: None });
            ok(stage.finish(&mut step).await.0);
            assert_eq!(since(&stage, before), case.changes, "{name} with {code}");
        }
    }
}

#[tokio::test]
async fn a_missing_right_is_said_with_the_line_to_add() {
    for name in writers() {
        let (stage, case, before) = ready(name).await;
        let mut step = stage.begin(case.call).await;
        for verb in ["patch", "create", "delete"] {
            for resource in ["nodes", "pods", "pods/eviction", "deployments", "deployments/scale"] {
                let fault = Fault::Deny { verb: verb.to_owned(), resource: resource.to_owned() };
                stage.fleet.fault(fault).unwrap();
            }
        }
        refused(stage.finish(&mut step).await.0, FailureKind::Forbidden, "add to the role: - {apiGroups: [");
        assert_eq!(since(&stage, before), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn an_undo_leaves_the_world_as_it_was() {
    for name in names().into_iter().filter(|name| action(name).spec().undo.is_some()) {
        let (stage, case, _) = ready(name).await;
        let look = || {
            let node = stage.fleet.node("gpu-1").unwrap();
            let deployment = stage.fleet.deployment("inference", "mistral-7b").unwrap();
            let spec = &node["spec"];
            (
                node["metadata"]["labels"].clone(),
                node["metadata"]["annotations"].as_object().cloned().unwrap_or_default(),
                spec["unschedulable"] == json!(true),
                spec["taints"].as_array().cloned().unwrap_or_default(),
                deployment["spec"]["replicas"].clone(),
            )
        };
        let before = look();
        let mut step = stage.begin(case.call).await;
        ok(stage.finish(&mut step).await.0);
        assert_ne!(look(), before, "{name} did something");
        let undo = action(name).undo(&step).unwrap_or_else(|| panic!("{name} can be undone"));
        assert_eq!(Some(undo.action.as_str()), action(name).spec().undo, "{name} says what undoes it");
        ok(stage.run(undo).await);
        assert_eq!(look(), before, "{name}");
    }
}

#[tokio::test]
async fn what_changed_nothing_is_not_undone() {
    for name in names().into_iter().filter(|name| action(name).spec().undo.is_some()) {
        let (stage, case, _) = ready(name).await;
        ok(stage.run(case.call.clone()).await);
        let mut second = stage.begin(case.call).await;
        second.no = 1;
        assert_eq!(ok(stage.finish(&mut second).await.0)["changed"], json!(false), "{name}");
        assert_eq!(action(name).undo(&second), None, "{name}");
    }
}

#[tokio::test]
async fn an_undo_does_not_touch_what_somebody_else_has_changed_since() {
    let stage = Stage::new().await;
    let label = |value: &str| {
        let key = ("key", json!("nightshift.dev/pool"));
        call("k8s::label", &[("node", json!("gpu-1")), key, ("value", json!(value))])
    };
    let mut step = stage.begin(label("ours")).await;
    ok(stage.finish(&mut step).await.0);
    ok(stage.run(label("theirs")).await);
    assert_eq!(ok(stage.run(action("k8s::label").undo(&step).unwrap()).await)["changed"], json!(false));
    assert_eq!(stage.kube().node("gpu-1").await.unwrap().labels["nightshift.dev/pool"], "theirs");
}

#[tokio::test]
async fn a_cordon_of_somebody_else_is_neither_taken_over_nor_lifted() {
    let stage = Stage::new().await;
    let cordoned = json!({ "spec": { "unschedulable": true } });
    stage.kube().patch_node("gpu-1", cordoned, None).await.unwrap();
    let before = stage.fleet.changes().len();
    refused(stage.run(cordon("gpu-1")).await, FailureKind::Conflict, "cordoned by somebody");
    let uncordon = call("k8s::uncordon", &[("node", json!("gpu-1"))]);
    refused(stage.run(uncordon.clone()).await, FailureKind::Conflict, "only they may give it back");
    refused(action("k8s::cordon").predict(&stage.world, &cordon("gpu-1")).await, FailureKind::Conflict, "somebody");
    assert_eq!(stage.fleet.changes().len(), before);
    assert!(stage.kube().node("gpu-1").await.unwrap().unschedulable);

    // Another installation's mark is foreign too, and named.
    let theirs = json!({ "metadata": { "annotations": { "nightshift.dev/cordoned-by": "nightshift/other r9 x" } } });
    stage.kube().patch_node("gpu-1", theirs, None).await.unwrap();
    refused(stage.run(uncordon).await, FailureKind::Conflict, "nightshift/other");
}

#[tokio::test]
async fn a_person_who_uncordons_our_node_wins_and_only_our_mark_is_removed() {
    let stage = Stage::new().await;
    ok(stage.run(cordon("gpu-1")).await);
    stage.kube().patch_node("gpu-1", json!({ "spec": { "unschedulable": null } }), None).await.unwrap();
    let uncordon = call("k8s::uncordon", &[("node", json!("gpu-1"))]);
    assert_eq!(ok(stage.run(uncordon).await)["changed"], json!(false));
    let node = stage.kube().node("gpu-1").await.unwrap();
    assert!(!node.unschedulable && !node.annotations.contains_key("nightshift.dev/cordoned-by"));
}

#[tokio::test]
async fn an_action_uses_no_right_that_it_does_not_declare() {
    for name in names().into_iter().filter(|name| name.starts_with("k8s::")) {
        let (stage, case, _) = ready(name).await;
        let heard = stage.fleet.requests().len();
        ok(stage.run(case.call).await);
        let declared: BTreeSet<(&str, &str)> =
            action(name).spec().permissions.iter().map(|right| (right.verb, right.resource)).collect();
        for asked in &stage.fleet.requests()[heard..] {
            let right = right_of(&asked.method, &asked.path);
            let is_declared = declared.iter().any(|(verb, resource)| (*verb, *resource) == (right.0, right.1.as_str()));
            assert!(is_declared, "{name}: {} {} needs {right:?}", asked.method, asked.path);
        }
    }
}

/// The verb and resource, as RBAC names them, of a request to the API.
fn right_of(method: &str, path: &str) -> (&'static str, String) {
    let parts: Vec<&str> = path.split('?').next().unwrap().trim_start_matches('/').split('/').collect();
    let at = if parts[0] == "api" { 2 } else { 3 };
    let rest = if parts[at] == "namespaces" { &parts[at + 2..] } else { &parts[at..] };
    let resource = if rest.len() > 2 { format!("{}/{}", rest[0], rest[2]) } else { rest[0].to_owned() };
    let verb = match (method, rest.len()) {
        ("GET", 1) => "list",
        ("GET", _) => "get",
        ("POST", _) => "create",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        other => panic!("{other:?}"),
    };
    (verb, resource)
}
