//! The serving floor, failure domains and pools: one refusal each, with its numbers.

use super::*;
use crate::policy::{AffectedReplicas, NodeGroup, ReadyReplica, TakenReplica};

/// Ready replicas of llm/chat, one for each node named.
fn chat(nodes: &[&str], takes: &[usize]) -> AffectedReplicas {
    let pod = |at: usize| format!("llm/chat-{at}");
    AffectedReplicas {
        set: "llm/chat".into(),
        floor: 1,
        floor_from: "guards.serving_floor".into(),
        ready: nodes.iter().enumerate().map(|(at, node)| ReadyReplica { pod: pod(at), node: (*node).into() }).collect(),
        takes: takes.iter().map(|at| pod(*at)).collect(),
        takes_any: 0,
    }
}

fn drain(node: &str, serving: AffectedReplicas) -> StepProposal {
    let facts = WorldFacts { serving: vec![serving], ..cordon(node).facts };
    let call = ActionCall::new("k8s::drain", [("node", json!(node))]);
    let scheduling = SchedulingEffect::Withdraw;
    StepProposal { run: RunId(5), call, scheduling, doing: "draining it", facts, ..cordon(node) }
}

#[test]
fn the_last_ready_replica_stays_and_the_sentence_has_the_numbers() {
    let both = drain("gpu-2", chat(&["gpu-2", "gpu-2"], &[0, 1]));
    let words = "llm/chat has 2 ready replicas, 2 of them on gpu-2; draining it leaves 0; the floor is 1";
    refused(&levels(), &both, "hold", ReasonCode::ServingFloor, words);
    allowed(&levels(), &drain("gpu-2", chat(&["gpu-2", "gpu-3"], &[0])));
    let two = AffectedReplicas { floor: 2, ..chat(&["gpu-2", "gpu-3"], &[0]) };
    refused(&levels(), &drain("gpu-2", two), "hold", ReasonCode::ServingFloor, "leaves 1; the floor is 2");
    // Those that do not serve may go: it makes nothing worse.
    let unready = AffectedReplicas { floor: 3, ..chat(&["gpu-3"], &[]) };
    allowed(&levels(), &drain("gpu-2", AffectedReplicas { takes: vec!["llm/chat-9".into()], ..unready }));
    allowed(&levels(), &StepProposal { undoes: Some(0), ..drain("gpu-2", chat(&["gpu-2"], &[0])) });
}

#[test]
fn what_others_took_out_does_not_count_as_staying() {
    let mut step = drain("gpu-2", chat(&["gpu-2", "gpu-3"], &[0]));
    step.facts.nodes_out = vec!["gpu-3".into()];
    let limits = GuardLimits { nodes_at_once: 9, share_at_once: 1.0, ..GuardLimits::default() };
    let verdict = |levels: &GuardInputs, step: &StepProposal| match admit(&limits, levels, step, now()) {
        GuardDecision::Hold { reason, .. } => format!("{} {}", reason.code.name(), reason.text),
        other => word(&other).to_owned(),
    };
    let text = verdict(&levels(), &step);
    assert!(text.contains("on a node that is out: gpu-3") && text.contains("leaves 0"), "{text}");
    // A younger run of ours that holds the node and has taken nothing waits for us; an older one goes first.
    let held =
        |run| GuardInputs { holders: vec![("gpu-3".into(), RunId(run))], nodes_held: vec!["gpu-3".into()], ..levels() };
    assert_eq!(verdict(&held(9), &step), "allow");
    assert!(verdict(&held(2), &step).contains("leaves 0"));
    // One that was reserved is gone for everybody.
    step.facts.nodes_out.clear();
    let taken = |pod: &str, count, is_open| TakenReplica {
        run: RunId(9),
        set: "llm/chat".into(),
        pod: pod.into(),
        count,
        is_open,
    };
    let by = |taken| GuardInputs { replicas_taken: vec![taken], ..levels() };
    assert!(verdict(&by(taken("llm/chat-1", 1, false)), &step).starts_with("serving_floor"));
    assert!(verdict(&by(taken("", 1, false)), &step).contains("1 are being taken by another run"));
    assert_eq!(verdict(&by(taken("llm/chat-7", 1, false)), &step), "allow");
}

#[test]
fn a_smaller_scale_counts_what_it_ends_whichever_that_is() {
    let scale = |takes_any| {
        let serving = AffectedReplicas { takes_any, ..chat(&["gpu-1", "gpu-2", "gpu-3"], &[]) };
        let facts = WorldFacts { serving: vec![serving], ..cordon("x").facts };
        let target = Subject::workload("llm", "chat");
        let (call, scheduling, doing) =
            (ActionCall::new("k8s::scale", []), SchedulingEffect::Unchanged, "the smaller scale");
        StepProposal { call, reach: ImpactScope::Pod, scheduling, doing, target, facts, ..cordon("x") }
    };
    allowed(&levels(), &scale(2));
    let words = "llm/chat has 3 ready replicas; the smaller scale leaves 0; the floor is 1 (guards.serving_floor)";
    refused(&levels(), &scale(3), "hold", ReasonCode::ServingFloor, words);
}

#[test]
fn what_would_be_left_and_could_not_be_read_is_a_hold() {
    let mut step = cordon("gpu-2");
    step.facts.serving_unread = Some("forbidden: get deployments".into());
    refused(&levels(), &step, "hold", ReasonCode::ServingFloor, "get deployments");
}

#[test]
fn one_run_at_a_time_disturbs_a_rack_and_a_set_of_replicas() {
    let mut step = cordon("gpu-2");
    let members = vec!["gpu-1".to_owned(), "gpu-2".to_owned()];
    step.facts.groups =
        vec![NodeGroup { label: "topology.kubernetes.io/rack".into(), value: "r7".into(), members, out: vec![] }];
    let held = GuardInputs { holders: vec![("gpu-1".into(), RunId(3))], ..levels() };
    refused(
        &held,
        &step,
        "hold",
        ReasonCode::DomainBusy,
        "r3 works on gpu-1, which shares topology.kubernetes.io/rack=r7",
    );
    allowed(&GuardInputs { is_holder: true, ..held.clone() }, &step);
    allowed(&GuardInputs { holders: vec![("gpu-9".into(), RunId(3))], ..levels() }, &step);
    let taken =
        TakenReplica { run: RunId(3), set: "llm/chat".into(), pod: "llm/chat-2".into(), count: 1, is_open: true };
    let taken = GuardInputs { replicas_taken: vec![taken], ..levels() };
    let drain = drain("gpu-2", chat(&["gpu-2", "gpu-3", "gpu-4", "gpu-5"], &[0]));
    refused(&taken, &drain, "hold", ReasonCode::DomainBusy, "r3 is taking replica llm/chat-2 of llm/chat away");
}

#[test]
fn a_pool_has_its_own_level_and_keeps_its_last_node() {
    let pool = |members: &[&str], out: &[&str]| {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let label = "eks.amazonaws.com/nodegroup".into();
        let mut step = cordon("gpu-2");
        step.facts.groups = vec![NodeGroup { label, value: "a100".into(), members: names(members), out: names(out) }];
        step.facts.nodes_out = names(out);
        step
    };
    let limits = GuardLimits { nodes_at_once: 4, share_at_once: 0.34, share_per_hour: 0.5, ..GuardLimits::default() };
    let verdict = |levels: &GuardInputs, step: &StepProposal| match admit(&limits, levels, step, now()) {
        GuardDecision::Hold { reason, .. } | GuardDecision::Deny { reason } => reason.text,
        GuardDecision::Allow => String::new(),
    };
    assert_eq!(verdict(&levels(), &pool(&["gpu-1", "gpu-2", "gpu-3"], &[])), "");
    assert_eq!(
        verdict(&levels(), &pool(&["gpu-1", "gpu-2", "gpu-3"], &["gpu-1"])),
        "gpu-1 is already out of service, and only 1 of 3 nodes of pool a100 may be out at a time"
    );
    assert!(verdict(&levels(), &pool(&["gpu-2"], &[])).contains("is the only one of pool a100"));
    let taken = GuardInputs { taken_lately: vec![("gpu-3".into(), ago(5))], ..levels() };
    let words = "Nightshift took 1 node of pool a100 out of service within an hour; the limit is 1 of 3 (50 %)";
    assert_eq!(verdict(&taken, &pool(&["gpu-1", "gpu-2", "gpu-3"], &[])), words);
}
