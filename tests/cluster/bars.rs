//! What can be counted of the bars, whatever the machine is busy with; what is measured stands in `benches/cluster.rs`.
//!
//! Invariant: counts are the API server's.

use crate::harness::eventually;
use crate::plane::{NodeSpec, shared};
use crate::rig::{CORDON, OPEN, REMEDIATE, Rig, crowded};
use std::collections::BTreeMap;

/// Calls for a node that is cordoned, drained of five pods and given back.
const CALLS: usize = 14;
/// Looks at the pods of a drain whose pods end at once. A machine that is busy ends them later, and is looked at more often.
const LOOKS: usize = 2;

#[tokio::test]
async fn a_node_that_is_remediated_costs_few_calls() {
    let plane = shared().await;
    crowded(plane, "cost", 5).await;
    let rig = Rig::new(plane, "bill", REMEDIATE, OPEN).await;
    let before = rig.asked(plane).len();
    rig.complain(&["cost-1"]).await;
    rig.until_run("cost-1", |state| state == "done").await;
    let asked = rig.asked(plane).split_off(before);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for asked in asked.iter().filter(|asked| is_for_one_node(asked)) {
        *kinds.entry(format!("{} {}", asked.verb, asked.resource)).or_default() += 1;
    }
    let sum: usize = kinds.values().sum();
    println!("calls for one node: {sum}: {kinds:?}");
    assert_eq!(kinds["create pods/eviction"], 5, "{kinds:?}");
    let late = kinds["list pods"].saturating_sub(LOOKS);
    assert!(sum - late <= CALLS, "{sum} calls: {kinds:?}");
}

/// What is asked because of one node. Watches and lists of everything are shared by all runs, and what is written for
/// people (events, our condition) is counted apart.
fn is_for_one_node(asked: &crate::plane::Asked) -> bool {
    let of_all = matches!(asked.verb.as_str(), "list" | "watch") && !asked.path.contains("Selector");
    let for_people = matches!(asked.resource.as_str(), "events" | "nodes/status");
    !of_all && !for_people && matches!(asked.resource.split('/').next(), Some("nodes" | "pods" | "deployments"))
}

#[tokio::test]
async fn of_many_sick_nodes_exactly_the_budget_is_taken_and_the_rest_is_held_with_a_reason() {
    let plane = shared().await;
    let names: Vec<String> = (1..=12).map(|number| format!("budget-{number}")).collect();
    plane.kubelet().add(names.iter().map(|name| NodeSpec::gpu(name, 8))).await;
    // Every default but one: these twelve are ill with the same thing, which alone would stop everything.
    let rig = Rig::new(plane, "thrift", CORDON, "guards:\n  correlated_share: 1.0\n").await;
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    rig.complain(&nodes).await;
    let held = eventually("one run is done and the others are held", async || {
        let runs = rig.engine.get("/api/v1/runs?limit=1000").await?["runs"].as_array()?.clone();
        let count = |wanted: &str| runs.iter().filter(|run| run["state"]["is"] == wanted).count();
        let held = runs.iter().filter(|run| run["state"]["is"] == "held").cloned().collect::<Vec<_>>();
        (runs.len() == names.len() && count("done") <= 1 && held.len() >= names.len() - 1).then_some(held)
    })
    .await;
    assert!(held.iter().all(|run| run["state"]["reason"]["code"] == "blast_radius"), "{held:#?}");
    assert!(rig.patched(plane).len() <= 1, "{:?}", rig.patched(plane));
}
