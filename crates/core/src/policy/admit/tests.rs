//! Tests of the guards: one refusal each.
//!
//! Invariant: a refusal carries its code and words that a person can use.

use super::*;
use crate::model::{Outcome, PlanEnd, PlannedCall};
use serde_json::{Value, json};

mod ends;
mod sequences;
mod serving;

const NOW: i64 = 1_700_000_000;

fn now() -> Time {
    Time::from_second(NOW).unwrap()
}

fn ago(minutes: i64) -> Time {
    Time::from_second(NOW - 60 * minutes).unwrap()
}

fn levels() -> GuardInputs {
    GuardInputs {
        mode: Mode::Auto,
        rule: Some("xid-79".to_owned()),
        cooldown: Span::minutes(30),
        attempts_max: 3,
        declared_reach: ImpactScope::Node,
        ..GuardInputs::default()
    }
}

fn cordon(node: &str) -> StepProposal {
    StepProposal {
        run: RunId(1),
        epoch: 1,
        call: ActionCall::new("k8s::cordon", [("node", json!(node))]),
        effect: EffectClass::Converge,
        reach: ImpactScope::Node,
        disruptive: true,
        scheduling: SchedulingEffect::Cordon,
        approval: ApprovalNeed::ByMode,
        doing: "",
        target: Subject::node(node),
        undoes: None,
        deadline: now(),
        carry: Value::Null,
        facts: WorldFacts { nodes_total: Some(40), ..WorldFacts::default() },
    }
}

fn word(verdict: &GuardDecision) -> &'static str {
    match verdict {
        GuardDecision::Allow => "allow",
        GuardDecision::Hold { .. } => "hold",
        GuardDecision::Deny { .. } => "deny",
    }
}

/// Asserts a refusal, its code, and that its text carries the wanted words.
fn refused(levels: &GuardInputs, proposal: &StepProposal, how: &str, code: ReasonCode, words: &str) {
    let verdict = admit(&GuardLimits::default(), levels, proposal, now());
    let (GuardDecision::Hold { reason, .. } | GuardDecision::Deny { reason }) = &verdict else {
        panic!("allowed, wanted {code:?}")
    };
    assert_eq!((word(&verdict), reason.code), (how, code), "{reason}");
    assert!(reason.text.contains(words), "{reason}");
}

fn allowed(levels: &GuardInputs, proposal: &StepProposal) {
    assert_eq!(admit(&GuardLimits::default(), levels, proposal, now()), GuardDecision::Allow);
}

#[test]
fn a_step_within_all_limits_may_begin() {
    allowed(&levels(), &cordon("gpu-3"));
}

#[test]
fn reads_may_always_begin() {
    let freeze = Freeze {
        scope: "all".into(),
        by: "ann".into(),
        why: "drill".into(),
        since: ago(5),
        until: None,
        release_by: None,
    };
    let levels =
        GuardInputs { mode: Mode::Observe, freezes: vec![freeze], declared_reach: ImpactScope::None, ..levels() };
    let read = StepProposal { effect: EffectClass::Read, facts: WorldFacts::default(), ..cordon("gpu-3") };
    allowed(&levels, &read);
}

#[test]
fn a_rule_that_only_looks_never_acts() {
    for mode in [Mode::Observe, Mode::Suggest] {
        refused(&GuardInputs { mode, ..levels() }, &cordon("gpu-3"), "deny", ReasonCode::Mode, "k8s::cordon");
        let undo = StepProposal { undoes: Some(0), ..cordon("gpu-3") };
        allowed(&GuardInputs { mode, acted: true, ..levels() }, &undo);
    }
}

#[test]
fn the_kill_switch_holds_acts_and_undo_but_not_words_for_people() {
    let frozen = |scope: &str| GuardInputs {
        freezes: vec![Freeze {
            scope: scope.into(),
            by: "ann".into(),
            why: "drill".into(),
            since: ago(5),
            until: None,
            release_by: None,
        }],
        ..levels()
    };
    refused(&frozen("all"), &cordon("gpu-3"), "hold", ReasonCode::Frozen, "frozen by ann");
    refused(&frozen("rule:xid-79"), &cordon("gpu-3"), "hold", ReasonCode::Frozen, "drill");
    refused(&frozen("cluster:eu"), &cordon("gpu-3"), "hold", ReasonCode::Frozen, "does not name its cluster");
    refused(&frozen("galaxy:x"), &cordon("gpu-3"), "hold", ReasonCode::Frozen, "unknown scope");
    let undo = StepProposal { undoes: Some(0), ..cordon("gpu-3") };
    refused(&frozen("all"), &undo, "hold", ReasonCode::Frozen, "drill");
    allowed(&frozen("rule:other"), &cordon("gpu-3"));
    let target = Subject { cluster: Some("us".into()), ..Subject::node("gpu-3") };
    allowed(&frozen("cluster:eu"), &StepProposal { target, ..cordon("gpu-3") });
    let tell = StepProposal {
        call: ActionCall::new("tell", []),
        effect: EffectClass::Keyed,
        reach: ImpactScope::None,
        disruptive: false,
        scheduling: SchedulingEffect::Unchanged,
        target: Subject::default(),
        ..cordon("gpu-3")
    };
    allowed(&frozen("all"), &tell);
    refused(&frozen("all"), &StepProposal { effect: EffectClass::Blind, ..tell }, "hold", ReasonCode::Frozen, "drill");
}

#[test]
fn what_is_protected_is_never_touched() {
    let limits = GuardLimits {
        protected: ProtectedObjects { nodes: vec!["gpu-3".into()], namespaces: vec!["kube-system".into()] },
        ..GuardLimits::default()
    };
    let code = |proposal: &StepProposal| match admit(&limits, &levels(), proposal, now()) {
        GuardDecision::Deny { reason } => Some(reason.code),
        _ => None,
    };
    assert_eq!(code(&cordon("gpu-3")), Some(ReasonCode::Protected));
    assert_eq!(code(&cordon("gpu-4")), None);
    let pod = StepProposal { target: Subject::pod("kube-system", "dns"), reach: ImpactScope::Pod, ..cordon("gpu-4") };
    assert_eq!(code(&pod), Some(ReasonCode::Protected));
    let facts = WorldFacts { protected: Some("it runs the control plane".into()), ..cordon("gpu-4").facts };
    let undo = StepProposal { facts, undoes: Some(0), ..cordon("gpu-4") };
    refused(&levels(), &undo, "deny", ReasonCode::Protected, "control plane");
}

#[test]
fn a_runbook_stays_within_the_reach_of_its_header() {
    let low = GuardInputs { declared_reach: ImpactScope::Pod, ..levels() };
    refused(&low, &cordon("gpu-3"), "deny", ReasonCode::ReachExceeded, "`scope: pod`");
}

#[test]
fn a_node_that_somebody_else_cordoned_is_left_alone() {
    let facts = WorldFacts { foreign_cordon: Some("bob (kubectl)".into()), ..cordon("gpu-3").facts };
    let mine = StepProposal { facts, ..cordon("gpu-3") };
    refused(&levels(), &mine, "deny", ReasonCode::ForeignCordon, "bob");
    let give_back = StepProposal {
        call: ActionCall::new("k8s::uncordon", [("node", json!("gpu-3"))]),
        disruptive: false,
        scheduling: SchedulingEffect::Uncordon,
        undoes: Some(0),
        ..mine.clone()
    };
    refused(&levels(), &give_back, "deny", ReasonCode::ForeignCordon, "bob");
    let scheduling = SchedulingEffect::Unchanged;
    let label = StepProposal { call: ActionCall::new("k8s::label", []), disruptive: false, scheduling, ..mine };
    allowed(&levels(), &label);
}

#[test]
fn in_mode_approve_only_what_the_plan_names_may_begin() {
    let levels = GuardInputs { mode: Mode::Approve, ..levels() };
    refused(&levels, &cordon("gpu-3"), "deny", ReasonCode::NotApproved, "requires an approved plan");
    let step = cordon("gpu-3");
    let planned = PlannedCall {
        call: step.call.clone(),
        effect: step.effect,
        reach: step.reach,
        target: step.target.clone(),
        predicted: Outcome::Ok(Value::Null),
    };
    let plan = Plan { calls: vec![planned], end: PlanEnd::Done, hash: String::new() };
    let levels = GuardInputs { approved: Some(plan), ..levels };
    allowed(&levels, &step);
    refused(&levels, &cordon("gpu-4"), "deny", ReasonCode::NotInPlan, "k8s::cordon(node: gpu-3)");
    allowed(&levels, &StepProposal { undoes: Some(0), ..cordon("gpu-4") });
}

#[test]
fn the_wait_between_attempts_doubles_until_they_are_used_up() {
    let after = |minutes: &[i64]| GuardInputs { attempts: minutes.iter().map(|m| ago(*m)).collect(), ..levels() };
    refused(&after(&[10]), &cordon("gpu-3"), "hold", ReasonCode::Cooldown, "attempt 2 of 3 waits 30m");
    allowed(&after(&[31]), &cordon("gpu-3"));
    refused(&after(&[100, 40]), &cordon("gpu-3"), "hold", ReasonCode::Cooldown, "attempt 3 of 3 waits 1h");
    allowed(&after(&[200, 61]), &cordon("gpu-3"));
    refused(&after(&[900, 700, 500]), &cordon("gpu-3"), "deny", ReasonCode::AttemptsUsedUp, "3 times");
    allowed(&after(&[1441, 1500, 1600]), &cordon("gpu-3"));
    allowed(&GuardInputs { acted: true, ..after(&[3, 2, 1]) }, &cordon("gpu-3"));
    allowed(&after(&[3, 2, 1]), &StepProposal { undoes: Some(0), ..cordon("gpu-3") });
    // A clock that jumped back: the wait is never longer than the wait.
    let verdict = admit(&GuardLimits::default(), &after(&[-600]), &cordon("gpu-3"), now());
    let GuardDecision::Hold { until, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(until.as_second(), NOW + 30 * 60);
    // A person's own run has a wait, but no cap.
    let by_hand = GuardInputs { rule: None, attempts_max: 0, ..after(&[900, 700, 500]) };
    allowed(&by_hand, &cordon("gpu-3"));
}

#[test]
fn one_disruptive_run_has_a_node_at_a_time() {
    let busy = GuardInputs { node_holder: Some(RunId(7)), ..levels() };
    refused(&busy, &cordon("gpu-3"), "hold", ReasonCode::NodeBusy, "r7 works on gpu-3 already");
    let scheduling = SchedulingEffect::Unchanged;
    let label =
        StepProposal { call: ActionCall::new("k8s::label", []), disruptive: false, scheduling, ..cordon("gpu-3") };
    allowed(&busy, &label);
}

#[test]
fn the_blast_radius_counts_what_others_took_out_too() {
    let with = |total: Option<u32>, out: &[&str]| StepProposal {
        facts: WorldFacts {
            nodes_total: total,
            nodes_out: out.iter().map(|name| (*name).to_owned()).collect(),
            ..WorldFacts::default()
        },
        ..cordon("gpu-3")
    };
    let limits = GuardLimits { nodes_at_once: 2, ..GuardLimits::default() };
    let says = |levels: &GuardInputs, proposal: &StepProposal| match admit(&limits, levels, proposal, now()) {
        GuardDecision::Allow => "allow".to_owned(),
        GuardDecision::Hold { reason, .. } | GuardDecision::Deny { reason } => reason.text,
    };
    assert_eq!(says(&levels(), &with(Some(40), &["gpu-1"])), "allow");
    assert_eq!(
        says(&levels(), &with(Some(40), &["gpu-7", "gpu-1"])),
        "2 nodes are already out of service (gpu-1, gpu-7), and only 2 of 40 nodes may be out at a time"
    );
    let held = GuardInputs { nodes_held: vec!["gpu-1".into(), "gpu-9".into()], ..levels() };
    assert_eq!(
        says(&held, &with(Some(40), &["gpu-1"])),
        "2 nodes are already out of service (gpu-1, gpu-9), and only 2 of 40 nodes may be out at a time"
    );
    assert_eq!(says(&levels(), &with(Some(40), &["gpu-3", "gpu-1"])), "allow", "the target does not count");
    assert_eq!(
        says(&levels(), &with(Some(4), &["gpu-1"])),
        "gpu-1 is already out of service, and only 1 of 4 nodes may be out at a time"
    );
    refused(&levels(), &with(None, &[]), "hold", ReasonCode::FleetUnknown, "could not be read");
    refused(&levels(), &with(Some(0), &[]), "hold", ReasonCode::FleetUnknown, "could not be read");
    refused(&levels(), &with(Some(1), &[]), "deny", ReasonCode::BlastRadius, "the only GPU node");
    let hour = GuardInputs { nodes_hour: 4, ..levels() };
    refused(
        &hour,
        &with(Some(40), &[]),
        "hold",
        ReasonCode::BlastRadius,
        "within an hour; the limit is 4 of 40 (10 %)",
    );
    let day = GuardInputs { nodes_day: 8, ..levels() };
    refused(&day, &with(Some(40), &[]), "hold", ReasonCode::BlastRadius, "within a day; the limit is 8 of 40 (20 %)");
    let nameless = StepProposal { target: Subject::default(), ..with(Some(40), &[]) };
    refused(&levels(), &nameless, "deny", ReasonCode::BlastRadius, "names no node");
    allowed(&hour, &StepProposal { undoes: Some(0), ..with(None, &["a", "b", "c"]) });
}

#[test]
fn on_a_site_of_one_node_a_gpu_may_be_acted_on_and_the_node_only_where_the_site_says_so() {
    let of = |target: Subject, out: &[&str]| StepProposal {
        target,
        facts: WorldFacts {
            nodes_total: Some(1),
            nodes_out: out.iter().map(|name| (*name).to_owned()).collect(),
            ..WorldFacts::default()
        },
        ..cordon("gpu-1")
    };
    let gpu = || Subject { gpu: Some("3".to_owned()), ..Subject::node("gpu-1") };
    allowed(&levels(), &of(gpu(), &[]));
    refused(
        &levels(),
        &of(Subject::node("gpu-1"), &[]),
        "deny",
        ReasonCode::BlastRadius,
        "guards: { only_node: true }",
    );
    // One run at a time holds the node, whatever it is about.
    let busy = GuardInputs { node_holder: Some(RunId(7)), ..levels() };
    refused(&busy, &of(gpu(), &[]), "hold", ReasonCode::NodeBusy, "r7 works on gpu-1 already");
    let limits = GuardLimits { only_node: true, ..GuardLimits::default() };
    assert_eq!(admit(&limits, &levels(), &of(Subject::node("gpu-1"), &[]), now()), GuardDecision::Allow);
    // Where there are others, the last one in service stays, GPU or not, whatever the site says of an only one.
    let facts = WorldFacts { nodes_total: Some(2), nodes_out: vec!["gpu-2".to_owned()], ..WorldFacts::default() };
    for target in [gpu(), Subject::node("gpu-1")] {
        let last = StepProposal { facts: facts.clone(), ..of(target, &[]) };
        assert!(matches!(admit(&limits, &levels(), &last, now()), GuardDecision::Hold { .. }));
    }
}

#[test]
fn a_pattern_that_would_protect_nothing_is_refused() {
    assert_eq!(ProtectedObjects::default().check(), Ok(()));
    let protected = ProtectedObjects { nodes: vec!["gpu-*".to_owned()], ..ProtectedObjects::default() };
    assert!(protected.check().unwrap_err().contains("gpu-*"));
}

#[test]
fn who_is_denied_for_ever_is_not_told_to_wait() {
    let both = GuardInputs {
        attempts: vec![ago(90), ago(60), ago(30)],
        node_holder: Some(RunId(7)),
        nodes_hour: 30,
        ..levels()
    };
    refused(&both, &cordon("gpu-3"), "deny", ReasonCode::AttemptsUsedUp, "an operator must look into it");
}

#[test]
fn the_last_node_in_service_stays_however_generous_the_limits() {
    let limits = GuardLimits {
        nodes_at_once: 100,
        share_at_once: 1.0,
        share_per_hour: 1.0,
        share_per_day: 1.0,
        ..GuardLimits::default()
    };
    let facts =
        WorldFacts { nodes_total: Some(3), nodes_out: vec!["gpu-1".into(), "gpu-2".into()], ..WorldFacts::default() };
    let verdict = admit(&limits, &levels(), &StepProposal { facts, ..cordon("gpu-3") }, now());
    let GuardDecision::Hold { reason, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(reason.text, "node gpu-3 is the last of 3 in service; already out: gpu-1, gpu-2");
}
