//! Each state that a run can be in, and each that an incident can.
//!
//! Invariant: no clock; minutes are counted from one moment.

use super::*;
use crate::model::{ApprovalId, IncidentId, Mode, Reason, ReasonCode, RunId, RunInput, RunbookPin, Severity, Subject};

fn at(minutes: u64) -> Time {
    let begun: Time = "2026-11-23T03:00:00Z".parse().unwrap();
    begun + Span::minutes(minutes).0
}

fn incident(state: IncidentState) -> Incident {
    Incident {
        id: IncidentId(1),
        key: "node=gpu-3".into(),
        title: "XID 79 on gpu-3".into(),
        subject: Subject::node("gpu-3"),
        severity: Severity::Critical,
        state,
        opened_at: at(0),
        closed_at: None,
        resolves_at: None,
        acknowledged_by: None,
        owner: None,
        firing: 1,
        episodes: 1,
        incarnation: String::new(),
    }
}

fn run(id: i64, state: RunState) -> Run {
    Run {
        id: RunId(id),
        rule: Some("xid".into()),
        incident: Some(IncidentId(1)),
        episode: None,
        runbook: RunbookPin { name: "gpu-reset".into(), hash: String::new() },
        input: RunInput::default(),
        subject: Subject::default(),
        mode: Mode::Suggest,
        state,
        wake_at: None,
        epoch: 1,
        approved: None,
        unwinding: None,
        created_at: at(0),
        ended_at: None,
        requested_by: "rule".into(),
        posted_by: None,
    }
}

fn reason() -> Reason {
    Reason::new(ReasonCode::BlastRadius, "1 of 4 nodes is out")
}

fn judge(state: IncidentState, runs: &[Run], minutes: u64) -> PageDecision {
    page(&incident(state), runs, false, Span::minutes(15), at(minutes))
}

#[test]
fn somebody_is_woken_at_once_for_each_thing_that_only_people_can_end() {
    let needs: [(RunState, &str); 6] = [
        (RunState::Asking { approval: ApprovalId(3) }, "gpu-reset (r7) waits for an answer: a3"),
        (RunState::Stopped { why: "needs hands".into() }, "gpu-reset (r7) stopped itself: needs hands"),
        (RunState::Failed { why: "timeout".into(), undone: true }, "gpu-reset (r7) failed: timeout"),
        (RunState::Stuck { reason: reason() }, "gpu-reset (r7) is stuck: 1 of 4 nodes is out [blast_radius]"),
        (RunState::Planned, "gpu-reset (r7) was only planned, in mode suggest"),
        (RunState::Denied { reason: reason() }, "gpu-reset (r7) was not done: 1 of 4 nodes is out [blast_radius]"),
    ];
    for (state, why) in needs {
        assert_eq!(judge(IncidentState::Open, &[run(7, state)], 0), PageDecision::Now { why: why.into() });
    }
    assert_eq!(judge(IncidentState::Open, &[], 0), PageDecision::Now { why: "no runbook works on it".into() });
}

#[test]
fn while_automation_works_nobody_is_woken_until_it_takes_too_long() {
    let works: [RunState; 4] = [
        RunState::Ready,
        RunState::Waiting { why: "a drain".into() },
        RunState::Held { reason: reason() },
        RunState::Done,
    ];
    for state in works {
        let runs = [run(7, state.clone())];
        assert!(
            matches!(judge(IncidentState::Open, &runs, 0), PageDecision::NotYet { until, .. } if until == at(15)),
            "{state:?}"
        );
        assert!(matches!(judge(IncidentState::Open, &runs, 14), PageDecision::NotYet { .. }), "{state:?}");
        let PageDecision::Now { why } = judge(IncidentState::Open, &runs, 15) else { panic!("{state:?}") };
        assert!(why.starts_with("it is still open after 15m: gpu-reset (r7) is"), "{why}");
    }
}

#[test]
fn the_latest_run_counts_but_a_question_or_a_stuck_run_is_never_hidden_by_it() {
    let failed = run(7, RunState::Failed { why: "timeout".into(), undone: true });
    assert!(matches!(judge(IncidentState::Open, &[run(8, RunState::Ready), failed], 1), PageDecision::NotYet { .. }));
    let stuck = run(7, RunState::Stuck { reason: reason() });
    assert!(matches!(judge(IncidentState::Open, &[run(8, RunState::Ready), stuck], 1), PageDecision::Now { .. }));
    let asks = run(7, RunState::Asking { approval: ApprovalId(1) });
    assert!(matches!(judge(IncidentState::Open, &[asks, run(8, RunState::Done)], 1), PageDecision::Now { .. }));
}

fn of(rule: &str, run: Run) -> Run {
    Run { rule: Some(rule.into()), ..run }
}

#[test]
fn a_rule_that_is_done_does_not_hide_another_that_failed() {
    let failed = run(7, RunState::Failed { why: "timeout".into(), undone: true });
    let runs = [of("reset", failed.clone()), of("warm", run(8, RunState::Done))];
    assert_eq!(
        judge(IncidentState::Open, &runs, 1),
        PageDecision::Now { why: "gpu-reset (r7) failed: timeout".into() }
    );
    // The same rule's second attempt is what counts of it.
    let runs = [of("reset", failed.clone()), of("reset", run(8, RunState::Ready))];
    assert!(matches!(judge(IncidentState::Open, &runs, 1), PageDecision::NotYet { .. }));
    // What somebody began by hand is nobody's second attempt.
    let by_hand = Run { rule: None, ..run(8, RunState::Ready) };
    assert!(matches!(judge(IncidentState::Open, &[of("reset", failed), by_hand], 1), PageDecision::Now { .. }));
}

#[test]
fn of_several_nodes_each_ones_latest_run_counts() {
    let on = |node: &str, run: Run| Run { subject: Subject::node(node), ..run };
    let failed = run(7, RunState::Failed { why: "timeout".into(), undone: true });
    let runs = [on("gpu-3", failed), on("gpu-4", run(8, RunState::Ready))];
    assert_eq!(
        judge(IncidentState::Open, &runs, 1),
        PageDecision::Now { why: "gpu-reset (r7) failed: timeout".into() }
    );
}

#[test]
fn what_ended_without_anybody_knowing_how_is_no_reason_to_be_silent() {
    let stuck = [run(7, RunState::Stuck { reason: reason() }), run(8, RunState::Done)];
    let PageDecision::Now { why } = judge(IncidentState::Resolved, &stuck, 1) else { panic!("it keeps its node") };
    assert!(why.starts_with("gpu-reset (r7) is stuck"), "{why}");
    let done = [run(7, RunState::Done)];
    let silent = page(&incident(IncidentState::Resolved), &done, true, Span::minutes(15), at(1));
    assert_eq!(silent, PageDecision::Now { why: "its source stopped reporting, so its state is unknown".into() });
}

#[test]
fn a_rule_that_only_looks_wakes_nobody_while_another_works() {
    let looks = of("trial", run(8, RunState::Planned));
    let works = of("reset", run(7, RunState::Ready));
    assert!(matches!(judge(IncidentState::Open, &[works.clone(), looks.clone()], 1), PageDecision::NotYet { .. }));
    let PageDecision::Now { why } = judge(IncidentState::Open, &[works, looks.clone()], 15) else { panic!() };
    assert!(why.contains("(r7)"), "{why}");
    assert!(matches!(judge(IncidentState::Open, &[looks], 1), PageDecision::Now { .. }));
}

#[test]
fn what_is_in_hand_or_over_spares_people_with_its_reason() {
    let spared = |why: &str| PageDecision::Spared { why: why.into() };
    let done = [run(7, RunState::Done)];
    assert_eq!(judge(IncidentState::Acknowledged, &done, 1), spared("it is acknowledged"));
    assert_eq!(judge(IncidentState::Resolved, &done, 1), spared("gpu-reset (r7) fixed it"));
    assert_eq!(judge(IncidentState::Resolved, &[], 1), spared("it resolved by itself before anyone was needed"));
}

#[test]
fn an_incident_that_recovers_pages_no_one_until_it_is_over_or_fires_again() {
    let recovering = Incident { resolves_at: Some(at(20)), firing: 0, ..incident(IncidentState::Open) };
    let judge = |runs: &[Run], minutes| page(&recovering, runs, false, Span::minutes(15), at(minutes));
    let over = [run(7, RunState::Denied { reason: reason() })];
    for runs in [&[][..], &over] {
        assert!(matches!(judge(runs, 16), PageDecision::NotYet { until, .. } if until == at(20)), "{runs:?}");
    }
    let PageDecision::NotYet { until, .. } = judge(&over, 20) else { panic!("maintenance closes it in a moment") };
    assert!(until > at(20) && until < at(21), "{until}");
    let stuck = [run(7, RunState::Stuck { reason: reason() })];
    assert!(matches!(judge(&stuck, 16), PageDecision::Now { .. }));
}
