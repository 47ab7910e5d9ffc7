//! What ends a run's right to begin, or does not.
//!
//! Invariant: taking back goes on where only what is new must wait.

use super::*;

#[test]
fn a_complaint_that_is_over_begins_nothing_and_ends_nothing() {
    let over = GuardInputs { over: true, ..levels() };
    refused(&over, &cordon("gpu-3"), "deny", ReasonCode::EpisodeOver, "no action was taken");
    allowed(&GuardInputs { acted: true, ..over.clone() }, &cordon("gpu-3"));
    allowed(&over, &StepProposal { undoes: Some(0), ..cordon("gpu-3") });
}

#[test]
fn while_an_alert_may_come_back_a_first_step_waits_and_is_not_given_up() {
    let until = now() + Span::minutes(5).0;
    let kept = GuardInputs { over: true, kept: Some(until), ..levels() };
    refused(&kept, &cordon("gpu-3"), "hold", ReasonCode::EpisodeOver, "starts only if the alert fires again before");
    allowed(&GuardInputs { acted: true, ..kept }, &cordon("gpu-3"));
}

#[test]
fn a_target_that_cannot_be_read_just_now_is_waited_for() {
    let facts = WorldFacts { unread: Some("no answer: 503".into()), ..WorldFacts::default() };
    let unread = StepProposal { facts, disruptive: false, ..cordon("gpu-3") };
    refused(&levels(), &unread, "hold", ReasonCode::TargetUnavailable, "503");
}

#[test]
fn a_step_under_way_minds_the_kill_switch_and_nothing_else() {
    let freeze = Freeze {
        scope: "all".into(),
        by: "ada".into(),
        why: "stop".into(),
        since: now(),
        until: None,
        release_by: None,
    };
    let again = |levels: &GuardInputs| admit_again(&GuardLimits::default(), levels, &cordon("gpu-3"), now());
    assert_eq!(word(&again(&GuardInputs { freezes: vec![freeze], ..levels() })), "hold");
    assert_eq!(again(&GuardInputs { over: true, node_holder: Some(RunId(9)), ..levels() }), GuardDecision::Allow);
}

#[test]
fn a_node_that_somebody_gave_back_is_left_alone_but_for_taking_back() {
    let given_back = WorldFacts { our_cordon: Some(false), ..cordon("gpu-3").facts };
    let taken = GuardInputs { cordoned: true, acted: true, ..levels() };
    let drain = StepProposal { facts: given_back, ..cordon("gpu-3") };
    refused(&taken, &drain, "deny", ReasonCode::GivenBack, "uncordoned by another user");
    allowed(&levels(), &drain);
    allowed(&taken, &StepProposal { undoes: Some(0), ..drain.clone() });
    allowed(
        &taken,
        &StepProposal { facts: WorldFacts { our_cordon: Some(true), ..cordon("gpu-3").facts }, ..drain.clone() },
    );
    allowed(&taken, &StepProposal { facts: WorldFacts { our_cordon: None, ..cordon("gpu-3").facts }, ..drain });
}

#[test]
fn a_tripped_breaker_holds_what_is_new_and_lets_work_and_taking_back_go_on() {
    let breaker = Breaker { scope: "rule:xid-79".into(), why: "3 remedies failed".into(), since: ago(5) };
    let tripped = GuardInputs { breakers: vec![breaker], ..levels() };
    refused(&tripped, &cordon("gpu-3"), "hold", ReasonCode::BreakerTripped, "nightshift guards reset rule:xid-79");
    allowed(&GuardInputs { acted: true, ..tripped.clone() }, &cordon("gpu-3"));
    allowed(&tripped, &StepProposal { undoes: Some(0), ..cordon("gpu-3") });
    let back = ActionCall::new("k8s::uncordon", [("node", json!("gpu-3"))]);
    let scheduling = SchedulingEffect::Uncordon;
    allowed(&tripped, &StepProposal { call: back, disruptive: false, scheduling, ..cordon("gpu-3") });
}

#[test]
fn one_symptom_on_many_nodes_is_not_the_nodes() {
    let showing = |symptom_nodes: u32| GuardInputs { symptom_nodes, ..levels() };
    allowed(&showing(5), &cordon("gpu-3"));
    refused(&showing(6), &cordon("gpu-3"), "hold", ReasonCode::Correlated, "6 of 40 nodes within 5m");
    let by_hand = GuardInputs { rule: None, ..showing(40) };
    allowed(&by_hand, &cordon("gpu-3"));
    let off = GuardLimits { correlated_share: 1.0, ..GuardLimits::default() };
    assert_eq!(admit(&off, &showing(40), &cordon("gpu-3"), now()), GuardDecision::Allow);
    assert_eq!(GuardLimits::default().correlated_limit(4), Some(3), "in a small fleet a share means nothing");
}

#[test]
fn what_stops_everything_from_outside_the_store_holds_undo_too_and_a_step_under_way() {
    let facts = WorldFacts {
        stopped: Some("the file /etc/stop exists".into()),
        nodes_total: Some(40),
        ..WorldFacts::default()
    };
    let stopped = StepProposal { facts, ..cordon("gpu-3") };
    refused(&levels(), &stopped, "hold", ReasonCode::Frozen, "/etc/stop");
    refused(&levels(), &StepProposal { undoes: Some(0), ..stopped.clone() }, "hold", ReasonCode::Frozen, "/etc/stop");
    assert_eq!(word(&admit_again(&GuardLimits::default(), &levels(), &stopped, now())), "hold");
}

#[test]
fn a_reboot_asks_people_in_every_mode_and_what_they_named_may_begin() {
    let call = ActionCall::new("node::reboot", [("node", json!("gpu-3"))]);
    let reboot =
        StepProposal { call, effect: EffectClass::Witnessed, approval: ApprovalNeed::LastResort, ..cordon("gpu-3") };
    let auto = GuardInputs { mode: Mode::Auto, ..levels() };
    refused(&auto, &reboot, "deny", ReasonCode::NotApproved, "requires an approved plan");
    let planned = PlannedCall {
        call: reboot.call.clone(),
        effect: reboot.effect,
        reach: reboot.reach,
        target: reboot.target.clone(),
        predicted: Outcome::Ok(Value::Null),
    };
    let plan = Plan { calls: vec![planned], end: PlanEnd::Done, hash: String::new() };
    allowed(&GuardInputs { approved: Some(plan), ..auto }, &reboot);
}
