//! Every action of the catalog: once, again, predicted, undone, and through every trouble of the API.
//!
//! It runs against the simulated fleet and, in tests/cluster, against a real API server: what `Stage` is differs, no line here.
//!
//! Invariant: the target's own count of changes is the same, whatever went wrong on the way.

use super::cases::{Case, call, case, cordon};
use super::*;
use nightshift::model::{EffectClass, FailureKind, KubePermission, Step};
use nightshift::world::sim::RequestFault;
use serde_json::json;

/// A stage where the case's call has something to do, and the moment from which changes count.
async fn ready(name: &str) -> (Stage, Case, usize) {
    let stage = Stage::ready_for(name).await;
    let case = case(&stage, name).unwrap_or_else(|| panic!("{name} has no case: write one in cases.rs"));
    for call in &case.before {
        ok(stage.run(call.clone()).await);
    }
    let mark = stage.mark();
    (stage, case, mark)
}

/// Those that speak to the API server alone.
pub(super) fn on_kube(name: &str) -> bool {
    name.starts_with("k8s::") || name == "cache::warm"
}

fn writers() -> Vec<&'static str> {
    names().into_iter().filter(|name| on_kube(name) && action(name).spec().effect != EffectClass::Read).collect()
}

#[tokio::test]
async fn every_action_of_the_catalog_has_a_case() {
    each(names(), |name| async move {
        let stage = Stage::ready_for(name).await;
        let case = case(&stage, name).unwrap_or_else(|| panic!("{name} has no case: write one in cases.rs"));
        assert_eq!(case.call.action, name);
        // A case that leaves out what the action requires would show a failure of its own making.
        for param in action(name).spec().params {
            assert!(case.call.args.contains_key(param.name), "{name}: {}", param.name);
        }
    })
    .await;
}

#[tokio::test]
async fn every_action_does_its_work_once_and_nothing_else() {
    each(names(), |name| async move {
        let (stage, case, mark) = ready(name).await;
        ok(stage.run(case.call).await);
        assert_eq!(stage.since(mark), case.changes, "{name}");
    })
    .await;
}

#[tokio::test]
async fn an_action_performed_again_for_one_step_changes_nothing_more_and_says_the_same() {
    let settled = names().into_iter().filter(|name| action(name).spec().effect != EffectClass::Blind);
    each(settled, |name| async move {
        let (stage, case, mark) = ready(name).await;
        let mut step = stage.begin(case.call).await;
        let open = step.clone();
        let first = ok(stage.finish(&mut step).await.0);
        // The end was never recorded: the step is open, and another process settles it.
        let mut again = Step { attempt: 2, ..open };
        let second = ok(stage.finish(&mut again).await.0);
        assert_eq!(stage.since(mark), case.changes, "{name}");
        assert_eq!(first["changed"], second["changed"], "{name}");
        assert_eq!(first["before"], second["before"], "{name}");
    })
    .await;
}

#[tokio::test]
async fn a_prediction_touches_nothing_and_is_what_then_happens() {
    each(names(), |name| async move {
        let (stage, case, mark) = ready(name).await;
        let foretold = ok(action(name).predict(&stage.world, &case.call).await);
        assert_eq!(stage.since(mark), [""; 0], "{name}");
        let came = ok(stage.run(case.call).await);
        assert_eq!(foretold["changed"], came["changed"], "{name}");
        assert_eq!(foretold["before"], came["before"], "{name}");
    })
    .await;
}

#[tokio::test]
async fn no_trouble_of_the_api_makes_an_effect_happen_twice_or_not_at_all() {
    let status = |code, retry_after| RequestFault::Status { code, retry_after };
    let troubles = [
        RequestFault::LoseReply,
        RequestFault::Cut,
        RequestFault::Garbage,
        status(409, None),
        status(429, Some(3)),
        status(429, None),
        status(500, None),
        status(503, Some(1)),
    ];
    let all = writers().into_iter().flat_map(|name| troubles.iter().map(move |trouble| (name, trouble)));
    each(all, |(name, trouble)| async move {
        let (stage, case, mark) = ready(name).await;
        let (method, path) = case.write.unwrap_or_else(|| panic!("{name}: which request writes?"));
        let mut step = stage.begin(case.call).await;
        stage.trouble(1, method, path, trouble.clone());
        let (outcome, waits) = stage.finish(&mut step).await;
        let value = ok(outcome);
        assert_eq!(stage.since(mark), case.changes, "{name} with {trouble:?}: {waits:?}");
        assert_ne!(value["changed"], json!(false), "{name} with {trouble:?} changed something");
    })
    .await;
}

#[tokio::test]
async fn every_read_that_fails_for_a_while_is_only_a_delay() {
    let kube = names().into_iter().filter(|name| on_kube(name));
    each(kube.flat_map(|name| [429, 500, 503].map(|code| (name, code))), |(name, code)| async move {
        let (stage, case, mark) = ready(name).await;
        let mut step = stage.begin(case.call).await;
        stage.trouble(2, "GET", "/", RequestFault::Status { code, retry_after: None });
        ok(stage.finish(&mut step).await.0);
        assert_eq!(stage.since(mark), case.changes, "{name} with {code}");
    })
    .await;
}

#[tokio::test]
async fn a_stale_read_costs_a_conflict_and_never_somebody_elses_change() {
    let patching = writers().into_iter().filter(|name| action(name).spec().permissions.iter().any(patches_nodes));
    each(patching, |name| async move {
        let (stage, case, _) = ready(name).await;
        let node = stage.node(1);
        let mut step = stage.begin(case.call).await;
        let theirs = json!({ "metadata": { "annotations": { "example.com/theirs": "kept" } } });
        stage.kube().patch_node(&node, theirs, None).await.unwrap();
        let mark = stage.mark();
        stage.trouble(1, "GET", &format!("/nodes/{node}"), RequestFault::Stale { versions: 1 });
        ok(stage.finish(&mut step).await.0);
        assert_eq!(stage.since(mark), case.changes, "{name}");
        let after = stage.kube().node(&node).await.unwrap();
        assert_eq!(after.annotations.get("example.com/theirs").map(String::as_str), Some("kept"), "{name}");
    })
    .await;
}

fn patches_nodes(right: &KubePermission) -> bool {
    (right.verb, right.resource) == ("patch", "nodes")
}

#[tokio::test]
async fn a_missing_right_is_said_with_the_line_to_add() {
    each(writers(), |name| async move {
        let (mut stage, case, mark) = ready(name).await;
        let mut step = stage.begin(case.call).await;
        stage.deny_writes().await;
        refused(stage.finish(&mut step).await.0, FailureKind::Forbidden, "add to the role: - {apiGroups: [");
        assert_eq!(stage.since(mark), [""; 0], "{name}");
    })
    .await;
}

#[tokio::test]
async fn an_undo_leaves_the_world_as_it_was() {
    each(names().into_iter().filter(|name| action(name).spec().undo.is_some()), |name| async move {
        let (stage, case, _) = ready(name).await;
        let before = stage.look().await;
        let mut step = stage.begin(case.call).await;
        ok(stage.finish(&mut step).await.0);
        assert_ne!(stage.look().await, before, "{name} did something");
        let undo = action(name).undo(&step).unwrap_or_else(|| panic!("{name} can be undone"));
        assert_eq!(Some(undo.action.as_str()), action(name).spec().undo, "{name} says what undoes it");
        ok(stage.run(undo).await);
        assert_eq!(stage.look().await, before, "{name}");
    })
    .await;
}

#[tokio::test]
async fn what_changed_nothing_is_not_undone() {
    each(names().into_iter().filter(|name| action(name).spec().undo.is_some()), |name| async move {
        let (stage, case, _) = ready(name).await;
        ok(stage.run(case.call.clone()).await);
        let mut second = stage.begin(case.call).await;
        second.no = 1;
        assert_eq!(ok(stage.finish(&mut second).await.0)["changed"], json!(false), "{name}");
        assert_eq!(action(name).undo(&second), None, "{name}");
    })
    .await;
}

#[tokio::test]
async fn an_undo_does_not_touch_what_somebody_else_has_changed_since() {
    let stage = Stage::ready_for("k8s::cordon").await;
    let node = stage.node(1);
    let label = |value: &str| {
        let key = ("key", json!("nightshift.dev/pool"));
        call("k8s::label", &[("node", json!(node)), key, ("value", json!(value))])
    };
    let mut step = stage.begin(label("ours")).await;
    ok(stage.finish(&mut step).await.0);
    ok(stage.run(label("theirs")).await);
    assert_eq!(ok(stage.run(action("k8s::label").undo(&step).unwrap()).await)["changed"], json!(false));
    assert_eq!(stage.kube().node(&node).await.unwrap().labels["nightshift.dev/pool"], "theirs");
}

#[tokio::test]
async fn a_cordon_of_somebody_else_is_neither_taken_over_nor_lifted() {
    let stage = Stage::ready_for("k8s::cordon").await;
    let node = stage.node(1);
    let cordoned = json!({ "spec": { "unschedulable": true } });
    stage.kube().patch_node(&node, cordoned, None).await.unwrap();
    let before = stage.mark();
    refused(stage.run(cordon(&node)).await, FailureKind::Conflict, "cordoned by another user or tool");
    let uncordon = call("k8s::uncordon", &[("node", json!(node))]);
    refused(stage.run(uncordon.clone()).await, FailureKind::Conflict, "only they may");
    refused(
        action("k8s::cordon").predict(&stage.world, &cordon(&node)).await,
        FailureKind::Conflict,
        "another user or tool",
    );
    assert_eq!(stage.since(before), [""; 0]);
    assert!(stage.kube().node(&node).await.unwrap().unschedulable);

    // Another installation's mark is foreign too, and named.
    let theirs = json!({ "metadata": { "annotations": { "nightshift.dev/cordoned-by": "nightshift/other r9 x" } } });
    stage.kube().patch_node(&node, theirs, None).await.unwrap();
    refused(stage.run(uncordon).await, FailureKind::Conflict, "nightshift/other");
}

#[tokio::test]
async fn a_person_who_uncordons_our_node_wins_and_only_our_mark_is_removed() {
    let stage = Stage::ready_for("k8s::cordon").await;
    let node = stage.node(1);
    ok(stage.run(cordon(&node)).await);
    stage.kube().patch_node(&node, json!({ "spec": { "unschedulable": null } }), None).await.unwrap();
    let uncordon = call("k8s::uncordon", &[("node", json!(node))]);
    assert_eq!(ok(stage.run(uncordon).await)["changed"], json!(false));
    let node = stage.kube().node(&node).await.unwrap();
    assert!(!node.unschedulable && !node.annotations.contains_key("nightshift.dev/cordoned-by"));
}

#[tokio::test]
async fn an_action_uses_no_right_that_it_does_not_declare() {
    each(names().into_iter().filter(|name| on_kube(name)), |name| async move {
        let (stage, case, _) = ready(name).await;
        let heard = stage.heard();
        ok(stage.run(case.call).await);
        let used = stage.rights_since(heard);
        assert!(!used.is_empty(), "{name} asks the API something");
        let declared = |(verb, resource): &(String, String)| {
            let mut rights = action(name).spec().permissions.iter();
            rights.any(|right| right.verb == verb && right.resource == resource)
        };
        assert!(used.iter().all(declared), "{name} used {used:?}");
    })
    .await;
}
