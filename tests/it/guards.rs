//! Guards that know who serves and who fails together: the floor, racks, pools; told from the ledger and the fleet.
//!
//! Invariant: a hold is seen at the target, where nothing happened, and in the run, whose reason has the numbers.

mod foretold;
mod kill;
mod random;

use crate::night::Night;
use nightshift::model::{Mode, Reason, ReasonCode, RunId, RunState};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

const DRAIN: &str = r#"//! Empty a node.
//!
//! params:
//!   node: Node
//! scope: node

k8s::cordon(node, "test");
k8s::drain(node, #{ within: "30m" });
"#;

const LINGER: &str = r#"//! Cordon a node and stay.
//!
//! params:
//!   node: Node
//! scope: node

k8s::cordon(node, "test");
sleep("1h");
"#;

/// Wide enough that only the guard that is looked at has a say.
async fn night() -> Night {
    let mut night = Night::fall("rules: []", &[("drain", DRAIN), ("linger", LINGER)]).await;
    night.guard_by(|limits| {
        limits.nodes_at_once = 9;
        limits.share_at_once = 1.0;
        limits.domains.clear();
    });
    night
}

/// The nodes of a workload's pods, and its own path.
async fn nodes_of(night: &Night, workload: &str) -> (Vec<String>, String) {
    let selector = BTreeMap::from([("app".to_owned(), workload.to_owned())]);
    let pods = night.parts.world.kube(None).unwrap().pods("inference", &selector).await.unwrap();
    let path = format!("/apis/apps/v1/namespaces/inference/deployments/{workload}");
    (pods.into_iter().map(|pod| pod.node).collect(), path)
}

fn floor(number: &str) -> serde_json::Value {
    json!({ "metadata": { "annotations": { nightshift::world::SERVING_FLOOR: number } } })
}

async fn held(night: &Night, run: RunId) -> Reason {
    match night.run(run).await.state {
        RunState::Held { reason } => reason,
        other => panic!("not held: {other:?}\n{:#?}", night.story(run).await),
    }
}

#[tokio::test]
async fn a_drain_below_the_floor_is_held_with_the_numbers_and_goes_on_when_the_floor_is_lower() {
    let night = night().await;
    night.pass(MINUTE).await;
    let (nodes, path) = nodes_of(&night, "llama-70b").await;
    night.patch(&path, floor("2")).await;
    let run = night.start("drain", Mode::Auto, json!({ "node": nodes[0] })).await;
    night.settle().await;
    let reason = held(&night, run).await;
    assert_eq!(reason.code, ReasonCode::ServingFloor);
    let here = nodes.iter().filter(|node| **node == nodes[0]).count();
    let words = format!(
        "inference/llama-70b has 2 ready replicas, {here} of them on {}; draining it leaves {}; the floor is 2",
        nodes[0],
        2 - here
    );
    assert!(reason.text.starts_with(&words), "{reason}");
    let evictions = |night: &Night| night.effects().keys().filter(|what| what.starts_with("evict ")).count();
    assert_eq!(evictions(&night), 0, "{:?}", night.effects());

    night.patch(&path, floor("0")).await;
    let run = night.until_rest(run, MINUTE * 20).await;
    assert_eq!(run.state, RunState::Done, "{:#?}", night.story(run.id).await);
    assert!(evictions(&night) > 0, "{:?}", night.effects());
}

#[tokio::test]
async fn a_replica_on_a_node_that_others_cordoned_does_not_count_as_staying() {
    let night = night().await;
    night.pass(MINUTE).await;
    let (nodes, _) = nodes_of(&night, "qwen-32b").await;
    assert_ne!(nodes[0], nodes[1], "the two replicas are apart");
    // On gpu-4 there is a notebook that no drain may end.
    let (ours, theirs) = if nodes[0] == "gpu-4" { (&nodes[1], &nodes[0]) } else { (&nodes[0], &nodes[1]) };
    night.by_hand(theirs, true).await;
    let run = night.start("drain", Mode::Auto, json!({ "node": ours })).await;
    night.settle().await;
    let reason = held(&night, run).await;
    assert_eq!(reason.code, ReasonCode::ServingFloor);
    assert!(reason.text.contains(&format!("on a node that is out: {theirs}")), "{reason}");
    night.by_hand(theirs, false).await;
    assert_eq!(night.until_rest(run, MINUTE * 20).await.state, RunState::Done);
}

#[tokio::test]
async fn workloads_that_serve_one_model_are_one_set_where_a_label_says_so() {
    let mut night = night().await;
    night.guard_by(|limits| limits.model_label = Some("model".to_owned()));
    night.pass(MINUTE).await;
    let (nodes, path) = nodes_of(&night, "qwen-32b").await;
    night.patch(&path, floor("2")).await;
    let run = night.start("drain", Mode::Auto, json!({ "node": nodes[0] })).await;
    night.settle().await;
    let reason = held(&night, run).await;
    assert_eq!(reason.code, ReasonCode::ServingFloor);
    assert!(reason.text.starts_with("model Qwen2.5-32B-Instruct has 2 ready replicas, "), "{reason}");
    assert!(reason.text.contains("the floor is 2 (nightshift.dev/serving-floor on it)"), "{reason}");
}

#[tokio::test]
async fn a_floor_that_cannot_be_read_is_a_hold_with_the_word_that_is_wrong() {
    let night = night().await;
    night.pass(MINUTE).await;
    let (nodes, path) = nodes_of(&night, "llama-70b").await;
    night.patch(&path, floor("one")).await;
    let run = night.start("drain", Mode::Auto, json!({ "node": nodes[0] })).await;
    night.settle().await;
    let reason = held(&night, run).await;
    assert_eq!(reason.code, ReasonCode::ServingFloor);
    assert!(reason.text.contains("`one`, which is no number"), "{reason}");
}

#[tokio::test]
async fn one_run_at_a_time_disturbs_a_rack() {
    let mut night = night().await;
    night.guard_by(|limits| limits.domains = vec!["topology.kubernetes.io/rack".to_owned()]);
    let first = night.start("linger", Mode::Auto, json!({ "node": "gpu-2" })).await;
    night.settle().await;
    let second = night.start("linger", Mode::Auto, json!({ "node": "gpu-3" })).await;
    night.settle().await;
    let reason = held(&night, second).await;
    assert_eq!(reason.code, ReasonCode::DomainBusy);
    let words = format!("{first} works on gpu-2, which shares topology.kubernetes.io/rack=rack-1 with gpu-3");
    assert!(reason.text.starts_with(&words), "{reason}");
    // In another rack nobody stands in its way.
    night
        .patch("/api/v1/nodes/gpu-3", json!({ "metadata": { "labels": { "topology.kubernetes.io/rack": "rack-9" } } }))
        .await;
    night.until_rest(second, MINUTE).await;
    assert_eq!(night.effects().get("patch nodes gpu-3"), Some(&1));
}

#[tokio::test]
async fn the_last_node_of_a_pool_stays() {
    let night = night().await;
    let label = |pool: &str| json!({ "metadata": { "labels": { "karpenter.sh/nodepool": pool } } });
    night.patch("/api/v1/nodes/gpu-1", label("h100-big")).await;
    night.patch("/api/v1/nodes/gpu-2", label("h100-big")).await;
    night.patch("/api/v1/nodes/gpu-3", label("lone")).await;
    let lone = night.start("linger", Mode::Auto, json!({ "node": "gpu-3" })).await;
    night.settle().await;
    let RunState::Denied { reason } = night.run(lone).await.state else { panic!("{:?}", night.run(lone).await.state) };
    assert_eq!(reason.text, "node gpu-3 is the only one of pool lone: taking it out would leave none in service");
    night.by_hand("gpu-1", true).await;
    let last = night.start("linger", Mode::Auto, json!({ "node": "gpu-2" })).await;
    night.settle().await;
    let reason = held(&night, last).await;
    assert_eq!(reason.text, "node gpu-2 is the last of 2 of pool h100-big in service; already out: gpu-1");
    assert!(night.effects().is_empty(), "{:?}", night.effects());
}

#[tokio::test]
async fn a_replica_that_is_not_ready_does_not_count_as_staying() {
    let night = night().await;
    night.pass(MINUTE).await;
    let selector = BTreeMap::from([("app".to_owned(), "qwen-32b".to_owned())]);
    let pods = night.parts.world.kube(None).unwrap().pods("inference", &selector).await.unwrap();
    let (gone, stays) = if pods[0].node == "gpu-4" { (&pods[0], &pods[1]) } else { (&pods[1], &pods[0]) };
    // Somebody deletes a pod; the one that follows it takes two seconds to be ready, and no time has passed.
    let url = format!("{}/api/v1/namespaces/inference/pods/{}", night.fleet.url(), gone.name);
    assert!(crate::harness::client().delete(url).send().await.unwrap().status().is_success());
    night.pass(Duration::from_millis(1_500)).await;
    let run = night.start("drain", Mode::Auto, json!({ "node": stays.node })).await;
    night.settle().await;
    let reason = held(&night, run).await;
    assert_eq!(reason.code, ReasonCode::ServingFloor);
    assert!(reason.text.starts_with("inference/qwen-32b has 1 ready replica, 1 of them on "), "{reason}");
    assert_eq!(night.until_rest(run, MINUTE * 20).await.state, RunState::Done, "its follower is ready by then");
}

#[tokio::test]
async fn a_kill_switch_that_nobody_could_read_is_engaged() {
    let mut night = night().await;
    let map = nightshift::world::ConfigMapName { cluster: None, namespace: "ops".into(), name: "stop".into() };
    night.kill_by(nightshift::world::KillSwitchConfig { file: None, config_map: Some(map) });
    let run = night.start("linger", Mode::Auto, json!({ "node": "gpu-2" })).await;
    night.settle().await;
    let reason = held(&night, run).await;
    assert_eq!(reason.code, ReasonCode::Frozen);
    assert!(reason.text.contains("ConfigMap ops/stop was not read for"), "{reason}");
    assert!(night.effects().is_empty(), "{:?}", night.effects());
}

#[test]
fn a_rule_that_selects_everything_runs_nothing() {
    let header = nightshift::model::RunbookHeader {
        title: "x".into(),
        params: vec![],
        reach: nightshift::model::ImpactScope::Node,
        undo: nightshift::model::UndoPolicy::Never,
        approvers: vec![],
    };
    let pin = nightshift::model::RunbookPin { name: "drain".into(), hash: "ab".repeat(32) };
    for when in [r#"node=~".*""#, r#"node!="gpu-1""#, r#"cluster="""#] {
        let rules = serde_json::from_value(json!([{ "name": "all", "when": [when], "run": "drain" }])).unwrap();
        let runbooks = std::collections::HashMap::from([("drain".to_owned(), (pin.clone(), header.clone()))]);
        let compiled = nightshift::policy::RuleSet::compile(rules, runbooks);
        let errors = compiled.map(drop).expect_err(when);
        assert!(format!("{errors:?}").contains("for every event"), "{when}: {errors:?}");
    }
}

/// What `make planted` shows, it shows of every bug that can be planted.
#[test]
fn every_planted_bug_is_named_with_a_test_that_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("tests/planted.txt")).unwrap();
    let named: BTreeMap<&str, &str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect();
    let read = |folder: &str| {
        let mut all = String::new();
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path if path.extension().is_some_and(|end| end == "rs") => {
                        all.push_str(&std::fs::read_to_string(path).unwrap());
                    }
                    _ => {}
                }
            }
        }
        all
    };
    let (source, tests) = (read("src") + &read("crates"), read("tests/it"));
    let planted: std::collections::BTreeSet<&str> =
        source.split("planted(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let listed: std::collections::BTreeSet<&str> = named.keys().copied().collect();
    assert_eq!(planted, listed, "tests/planted.txt names each `planted(…)` of src/, and no other");
    assert!(planted.len() >= 12, "{planted:?}");
    for test in named.values().map(|test| test.trim()) {
        let function = test.rsplit("::").next().unwrap();
        assert!(tests.contains(&format!("fn {function}(")), "there is no test {test}");
    }
}
