//! The node's side of MIG against GPUs made of software: reading, changing, rolling back, and the layout after a boot.
//!
//! Invariant: what the library wrote to its timeline is what happened, not what our answer says.

use crate::gpus::Gpus;
use nightshift::config::{AgentConfig, NvmlConfig};
use nightshift::model::{CommandStatus, FailureKind, Finding, Outcome, Time};
use nightshift::node::{Machine, find, watchers};
use nightshift::world::AgentMailbox;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

struct Node {
    gpus: Gpus,
    machine: Machine,
    _data: tempfile::TempDir,
}

impl Node {
    fn new(timeline: &str) -> Node {
        let gpus = Gpus::new(timeline);
        let data = tempfile::tempdir().unwrap();
        let settings = AgentConfig {
            data_dir: data.path().to_owned(),
            nvml: NvmlConfig { library: Some(gpus.library()), ..NvmlConfig::default() },
            kubelet_checkpoint: data.path().join("none"),
            ..AgentConfig::default()
        };
        Node { machine: Machine::here("gpu-1".to_owned(), Arc::new(settings)), gpus, _data: data }
    }

    async fn ask(&self, verb: &str, args: Value) -> Outcome {
        let args = args.as_object().cloned().unwrap_or_default();
        let command = AgentMailbox::default().question(verb, args, Time::MAX);
        match find(verb).unwrap().perform(&self.machine, &command, &|_| {}).await {
            CommandStatus::Ended { outcome } => outcome,
            CommandStatus::Working { why, .. } => panic!("still working: {why}"),
        }
    }

    async fn gpu(&self, index: usize) -> Value {
        match self.ask("mig::inventory", Value::Null).await {
            Outcome::Ok(value) => value["gpus"][index].clone(),
            Outcome::Failed(failure) => panic!("{failure}"),
        }
    }

    /// `3g.40gb@0 1g.10gb@6`, as it lies there now.
    async fn layout(&self, index: usize) -> String {
        let gpu = self.gpu(index).await;
        let one = |instance: &Value| {
            let bare = if instance["compute"].as_array().unwrap().is_empty() { "!" } else { "" };
            format!("{}@{}{bare}", instance["profile"].as_str().unwrap(), instance["start"])
        };
        gpu["instances"].as_array().unwrap().iter().map(one).collect::<Vec<_>>().join(" ")
    }

    async fn apply(&self, changes: &[(&str, &str, &str)]) -> Outcome {
        let change = |(gpu, before, after): &(&str, &str, &str)| json!({ "gpu": gpu, "before": places(before), "after": places(after) });
        self.ask("mig::apply", json!({ "changes": changes.iter().map(change).collect::<Vec<_>>() })).await
    }

    async fn at_boot(&self) -> Vec<Finding> {
        let watcher = watchers().find(|watcher| watcher.name() == "mig-layout").unwrap();
        let (out, mut heard) = mpsc::channel(8);
        let (_go_on, stop) = watch::channel(false);
        watcher.watch(&self.machine, out, stop).await;
        let mut findings = Vec::new();
        while let Some(finding) = heard.recv().await {
            findings.push(finding);
        }
        findings
    }
}

fn places(text: &str) -> Vec<Value> {
    let place = |word: &str| {
        let (profile, start) = word.split_once('@').unwrap();
        json!({ "profile": profile, "start": start.parse::<u32>().unwrap() })
    };
    text.split_whitespace().map(place).collect()
}

fn changed(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Ok(value) => value["changed"].as_bool().unwrap(),
        Outcome::Failed(failure) => panic!("{failure}"),
    }
}

fn refused(outcome: &Outcome, kind: FailureKind, words: &str) {
    match outcome {
        Outcome::Failed(failure) => {
            assert_eq!(failure.kind, kind, "{failure}");
            assert!(failure.message.contains(words), "`{words}` is not in: {failure}");
        }
        Outcome::Ok(value) => panic!("wanted a failure with `{words}`, got {value}"),
    }
}

#[tokio::test]
async fn an_inventory_says_what_a_gpu_offers_what_lies_on_it_and_who_has_it() {
    let node = Node::new(
        "machine h100 gpus 3\ngpu 0 mig on\ngpu 0 gi 1 profile 9 start 4\ngpu 0 ci 1 0 slices 3 start 0\n\
         gpu 0 process 4711 python 1000 gi 1 ci 0\ngpu 1 recovery reset",
    );
    let gpu = node.gpu(0).await;
    assert_eq!((&gpu["enabled"], &gpu["pending"], &gpu["ill"]), (&json!(true), &json!(false), &Value::Null));
    let profiles = gpu["profiles"].as_array().unwrap();
    let two = profiles.iter().find(|profile| profile["name"] == "2g.20gb").unwrap();
    assert_eq!((&two["starts"], &two["width"], &two["most"]), (&json!([0, 2, 4]), &json!(2), &json!(3)));
    let instance = &gpu["instances"][0];
    assert_eq!(
        (&instance["profile"], &instance["start"], &instance["width"]),
        (&json!("3g.40gb"), &json!(4), &json!(4))
    );
    assert_eq!(instance["compute"][0]["processes"], json!([4711]));
    assert!(instance["compute"][0]["uuid"].as_str().unwrap().starts_with("MIG-"));
    assert_eq!(node.gpu(1).await["ill"], "recovery action: GPU reset");
    assert_eq!(node.gpu(2).await["enabled"], false);
    // The tables for planning without the machine say the same as the machine.
    let table = nightshift::policy::profiles_of_product("NVIDIA H100 80GB HBM3").unwrap();
    for known in table {
        let read = profiles.iter().find(|profile| profile["name"] == known.name.as_str());
        let read = read.unwrap_or_else(|| panic!("{} is not offered", known.name));
        assert_eq!(json!(known), *read);
    }
}

#[tokio::test]
async fn a_layout_is_changed_at_the_named_places_and_a_second_time_changes_nothing() {
    let node = Node::new("machine h100 gpus 1\ngpu 0 mig on");
    let first = [("0", "", "3g.40gb@0 1g.10gb@5")];
    assert!(changed(node.apply(&first).await));
    assert_eq!(node.layout(0).await, "3g.40gb@0 1g.10gb@5");
    let lines = node.gpus.timeline();
    assert!(!changed(node.apply(&first).await));
    assert_eq!(node.gpus.timeline(), lines, "nothing was touched");
    // The 3g is not touched while the 1g makes room.
    assert!(changed(node.apply(&[("0", "3g.40gb@0 1g.10gb@5", "3g.40gb@0 2g.20gb@4 1g.10gb@6")]).await));
    assert_eq!(node.layout(0).await, "3g.40gb@0 2g.20gb@4 1g.10gb@6");
    assert_eq!(node.gpus.timeline().matches("profile 9").count(), 1);
}

#[tokio::test]
async fn what_is_held_ill_pending_or_not_as_planned_is_refused_before_anything_is_touched() {
    let node = Node::new(
        "machine a100-80 gpus 4\ngpu 0 mig on\ngpu 0 gi 1 profile 9 start 4\ngpu 0 ci 1 0 slices 3 start 0\n\
         gpu 0 process 4711 python 1000 gi 1 ci 0\ngpu 1 mig on\ngpu 1 recovery reboot\ngpu 2 mig on\ngpu 2 mig-pending off",
    );
    let lines = node.gpus.timeline();
    let held = node.apply(&[("0", "3g.40gb@4", "4g.40gb@0")]).await;
    refused(&held, FailureKind::Refused, "processes [4711] hold its 3g.40gb at 4");
    refused(&node.apply(&[("1", "", "4g.40gb@0")]).await, FailureKind::Refused, "recovery action: node reboot");
    refused(&node.apply(&[("2", "", "4g.40gb@0")]).await, FailureKind::Refused, "waits for a reset");
    refused(&node.apply(&[("3", "", "4g.40gb@0")]).await, FailureKind::Refused, "not partitioned");
    refused(&node.apply(&[("9", "", "4g.40gb@0")]).await, FailureKind::NotFound, "not on this node");
    let stale = node.apply(&[("0", "1g.10gb@6", "4g.40gb@0")]).await;
    refused(&stale, FailureKind::Conflict, "the layout was changed by another user or tool");
    // One GPU that is refused keeps the others as they are.
    refused(
        &node.apply(&[("0", "3g.40gb@4", "3g.40gb@4 1g.10gb@0"), ("1", "", "4g.40gb@0")]).await,
        FailureKind::Refused,
        "reboot",
    );
    let since = node.gpus.timeline();
    assert!(!since[lines.len().min(since.len())..].contains("gi "), "{since}");
}

#[tokio::test]
async fn the_first_failure_puts_every_layout_back() {
    let node = Node::new("machine h100 gpus 2\ngpu 0 mig on\ngpu 1 mig on");
    assert!(changed(node.apply(&[("0", "", "3g.40gb@0")]).await));
    node.gpus.say("gpu 1 error nvmlDeviceCreateGpuInstanceWithPlacement 23");
    let both = [("0", "3g.40gb@0", "4g.40gb@0 1g.10gb@6"), ("1", "", "7g.80gb@0")];
    let outcome = node.apply(&both).await;
    refused(&outcome, FailureKind::Conflict, "no instance of this size fits there");
    refused(&outcome, FailureKind::Conflict, "the old layout is back");
    assert_eq!((node.layout(0).await.as_str(), node.layout(1).await.as_str()), ("3g.40gb@0", ""));

    // A failure half way through one GPU: its instance is gone and back again.
    node.gpus.say("gpu 1 error nvmlDeviceCreateGpuInstanceWithPlacement none");
    node.gpus.say("gpu 0 error nvmlGpuInstanceCreateComputeInstance 999");
    let outcome = node.apply(&[("0", "3g.40gb@0", "4g.40gb@0")]).await;
    refused(&outcome, FailureKind::Conflict, "could NOT be restored; an operator must check it");
    node.gpus.say("gpu 0 error nvmlGpuInstanceCreateComputeInstance none");
    // What was cut short is ended by asking again.
    assert!(node.layout(0).await.contains('!') || node.layout(0).await.is_empty(), "{}", node.layout(0).await);
    changed(node.apply(&[("0", "3g.40gb@0", "4g.40gb@0")]).await);
    assert_eq!(node.layout(0).await, "4g.40gb@0");
}

#[tokio::test]
async fn after_a_boot_the_layout_is_put_back_or_people_hear_why_not() {
    let node = Node::new("machine h100 gpus 2\ngpu 0 mig on");
    assert_eq!(node.at_boot().await, [], "nothing was ever applied");
    assert!(changed(node.apply(&[("0", "", "3g.40gb@0 1g.10gb@6")]).await));
    node.gpus.say("reboot\ngpu 0 mig off");
    let findings = node.at_boot().await;
    assert_eq!(findings.len(), 1);
    assert!(findings[0].summary.contains("it is not partitioned"), "{}", findings[0].summary);
    node.gpus.say("gpu 0 mig on");
    assert_eq!(node.layout(0).await, "");
    assert_eq!(node.at_boot().await, []);
    assert_eq!(node.layout(0).await, "3g.40gb@0 1g.10gb@6");
    // A GPU that somebody gave another layout meanwhile is left alone.
    node.gpus.say("reboot\ngpu 0 mig on\ngpu 0 gi 0 profile 0 start 0\ngpu 0 ci 0 0 slices 7 start 0");
    assert_eq!(node.at_boot().await, []);
    assert_eq!(node.layout(0).await, "7g.80gb@0");
}

#[tokio::test]
async fn a_library_that_is_missing_or_a_gpu_that_is_lost_is_an_answer_in_words() {
    let mut node = Node::new("machine h100 gpus 1\ngpu 0 mig on");
    node.gpus.say("gpu 0 lost");
    refused(&node.ask("mig::inventory", Value::Null).await, FailureKind::Unavailable, "NVML: ");
    refused(&node.ask("mig::apply", json!({ "changes": 3 })).await, FailureKind::Invalid, "mig::apply");
    let settings = AgentConfig {
        nvml: NvmlConfig { library: Some("/nowhere/libnvidia-ml.so.1".into()), ..NvmlConfig::default() },
        ..AgentConfig::default()
    };
    node.machine = Machine::here("gpu-1".to_owned(), Arc::new(settings));
    refused(&node.ask("mig::inventory", Value::Null).await, FailureKind::Unavailable, "/nowhere/");
}

#[tokio::test]
async fn a_gpu_with_a_fault_that_is_not_over_is_shut_for_plans_and_for_changes() {
    use nightshift::model::GpuName;
    use nightshift::node::{FaultObservation, xid_finding};
    let node = Node::new(
        "machine h100 gpus 4\ngpu 0 mig on\ngpu 1 mig on\ngpu 2 mig on\ngpu 3 mig on\ngpu 1 rows pending\ngpu 2 rows failed",
    );
    let name: GpuName = serde_json::from_value(node.gpu(0).await["gpu"].clone()).unwrap();
    assert_eq!(node.gpu(0).await["ill"], Value::Null);
    // An application's own fault shuts nothing.
    let now = Time::now();
    let hear = |code: u32| {
        node.machine.faults.hear(FaultObservation::nvml(xid_finding(code, name.clone(), [].into(), "", now)), now)
    };
    hear(43);
    assert_eq!(node.gpu(0).await["ill"], Value::Null);
    hear(95);
    assert!(node.gpu(0).await["ill"].as_str().unwrap().starts_with("XID 95 on GPU "), "{}", node.gpu(0).await);
    assert_eq!(node.gpu(1).await["ill"], "rows of its memory wait for a reset to be remapped");
    assert_eq!(node.gpu(2).await["ill"], "rows of its memory could not be remapped");
    let lines = node.gpus.timeline();
    refused(&node.apply(&[("0", "", "3g.40gb@0")]).await, FailureKind::Refused, "is not touched: XID 95 on GPU");
    refused(&node.apply(&[("1", "", "3g.40gb@0")]).await, FailureKind::Refused, "wait for a reset");
    assert_eq!(node.gpus.timeline(), lines);
    // The planner leaves them out, and the one that is well serves.
    let outcome = node.ask("mig::inventory", Value::Null).await;
    let Outcome::Ok(inventory) = outcome else { panic!("{outcome:?}") };
    let inventory: nightshift::world::MigInventory = serde_json::from_value(inventory).unwrap();
    let wish = |count: u32| nightshift::world::MigWish {
        demand: [("7g.80gb".to_owned(), count)].into(),
        most_moves: 1,
        warm_up: nightshift::model::Span::seconds(60),
    };
    let plan = nightshift::world::mig_plan(&inventory, None, &wish(1)).unwrap();
    assert_eq!((plan.cost.unserved, plan.diffs.len()), (0, 1));
    let plan = nightshift::world::mig_plan(&inventory, None, &wish(2)).unwrap();
    assert_eq!(plan.cost.unserved, 1);
    assert!(plan.refused[0].why.contains("is left out: XID 95"), "{}", plan.refused[0].why);
    // A reset ends it.
    node.machine.faults.healed(&name.uuid, "a reset", now);
    assert_eq!(node.gpu(0).await["ill"], Value::Null);
}
