//! Entries as lines of the log: their words, and what a storm leaves out.
//!
//! Invariant: time is a number here.

use super::*;
use crate::model::{
    ActionCall, Actor, ApprovalId, EffectClass, EntryLinks as Of, EntryNo, FailureKind, Freeze, Mode, Outcome, Reason,
    ReasonCode, RunState, RunbookPin, StepFailure, Subject, Time,
};
use serde_json::json;

fn at() -> Time {
    "2026-11-23T03:00:00Z".parse().unwrap()
}

fn entry(no: i64, incident: Option<i64>, run: Option<i64>, kind: EntryKind) -> Entry {
    let about = Of { incident: incident.map(IncidentId), run: run.map(RunId) };
    Entry { no: EntryNo(no), at: at(), actor: Actor::engine(), about, kind }
}

fn opened(no: i64) -> Entry {
    let subject = Subject::node(format!("gpu-{no}"));
    let (key, title) = (format!("node=gpu-{no}"), format!("gpu-{no}: XID 79"));
    let kind = EntryKind::IncidentOpened { key, title, subject, alert: Some("GpuXid".into()) };
    entry(no, Some(no), None, kind)
}

fn created() -> Entry {
    let kind = EntryKind::RunCreated {
        runbook: RunbookPin { name: "gpu-reset".into(), hash: "0".repeat(64) },
        rule: Some("xid-79".into()),
        episode: None,
        subject: Subject::node("gpu-3"),
        mode: Mode::Approve,
        requested_by: "rule".into(),
        content: None,
    };
    entry(4, Some(3), Some(7), kind)
}

#[test]
fn a_run_is_told_from_its_creation_to_its_end_with_incident_run_node_and_rule() {
    let call = ActionCall::new("k8s::cordon", [("node", json!("gpu-3"))]);
    let begun = EntryKind::StepBegun {
        step: 0,
        call: call.clone(),
        effect: EffectClass::Converge,
        target: Subject::node("gpu-3"),
        undoes: None,
    };
    let read = EntryKind::StepBegun {
        step: 1,
        call: ActionCall::new("prom::value", [("query", json!("up"))]),
        effect: EffectClass::Read,
        target: Subject::default(),
        undoes: None,
    };
    let failed = |step| EntryKind::StepEnded {
        step,
        outcome: Outcome::Failed(StepFailure::new(FailureKind::Unavailable, "no answer")),
    };
    let reason = Reason::new(ReasonCode::BlastRadius, "1 of 4 nodes is out (gpu-2)");
    let kinds = [
        EntryKind::ApprovalAsked {
            approval: ApprovalId(2),
            question: "Cordon gpu-3?".into(),
            plan_hash: String::new(),
            expires_at: at() + Duration::from_secs(1_800),
        },
        EntryKind::ApprovalDecided { approval: ApprovalId(2), approved: true, by: "ana".into(), why: "go".into() },
        EntryKind::StepHeld { call, reason, until: at() },
        begun,
        failed(0),
        read,
        failed(1),
        EntryKind::Delivered { channel: "pager".into(), upto: EntryNo(9) },
        EntryKind::Delivered { channel: "pager".into(), upto: EntryNo(10) },
        EntryKind::RunEnded { state: RunState::Failed { why: "cordon failed".into(), undone: false } },
    ];
    let mut entries = vec![opened(3), created()];
    entries.extend((5..).zip(kinds).map(|(no, kind)| entry(no, Some(3), Some(7), kind)));
    let lines = EventLines::default().of(&entries, Duration::ZERO);
    let said: Vec<(LogLevel, &str)> = lines.iter().map(|line| (line.loud, line.text.as_str())).collect();
    assert_eq!(
        said,
        [
            (LogLevel::Info, "incident opened: gpu-3: XID 79 (alert GpuXid)"),
            (
                LogLevel::Info,
                "run created: gpu-reset in mode approve; it waits for approval before it changes anything"
            ),
            (
                LogLevel::Info,
                "approval requested: Cordon gpu-3?; denied unless answered by 03:30:00 UTC; `nightshift approve a2` or \
                 `nightshift deny a2`"
            ),
            (LogLevel::Info, "approval a2 given by ana"),
            (LogLevel::Info, "step on hold: cordon gpu-3; checked again at 03:00:00 UTC"),
            (LogLevel::Info, "step started: cordon gpu-3"),
            (LogLevel::Warn, "step failed: cordon gpu-3"),
            (LogLevel::Info, "channel pager notified"),
            (LogLevel::Warn, "run ended: gpu-reset failed; its changes stand; an operator must continue"),
        ]
    );
    for line in &lines[1..] {
        let fields = (line.incident, line.run, line.node.as_deref(), line.rule.as_deref());
        assert_eq!(fields, (Some(IncidentId(3)), Some(RunId(7)), Some("gpu-3"), Some("xid-79")), "{line:?}");
    }
    let whys: Vec<&str> = lines.iter().filter_map(|line| line.why.as_deref()).collect();
    assert_eq!(whys[0], "go");
    assert!(whys[1].contains("1 of 4 nodes is out (gpu-2)") && whys[2].contains("no answer"), "{whys:?}");
}

#[test]
fn a_storm_is_some_lines_a_second_with_the_count_of_the_rest_and_no_decision_is_lost_in_it() {
    let mut lines = EventLines::default();
    let mut written = Vec::new();
    for batch in 0..100 {
        let entries: Vec<Entry> = (0..1_000).map(|no| opened(batch * 1_000 + no)).collect();
        // A hundred thousand incidents in four seconds.
        written.extend(lines.of(&entries, Duration::from_millis(40) * u32::try_from(batch).unwrap()));
    }
    let freeze = Freeze {
        scope: "all".into(),
        by: "ana".into(),
        why: "storm".into(),
        since: at(),
        release_by: None,
        until: None,
    };
    written.extend(lines.of(&[entry(100_000, None, None, EntryKind::Frozen { freeze })], Duration::from_millis(3_999)));
    assert!(written.last().unwrap().text.starts_with("automation frozen: all by ana"), "{:?}", written.last());
    written.extend(lines.left_out(Duration::from_secs(5), false));
    assert!(written.len() <= 4 * (LOG_LINES_PER_SECOND + 1) + 1, "{} lines", written.len());
    let counted: usize = written
        .iter()
        .filter_map(|line| line.text.split_once(" more events in one second")?.0.parse::<usize>().ok())
        .sum();
    let own = written.iter().filter(|line| line.text.starts_with("incident opened")).count();
    assert_eq!(own + counted, 100_000, "each has its line or is counted");
    assert!(lines.known.incidents.len() <= LOG_CACHE);
}

#[test]
fn what_was_open_at_the_start_is_named_too() {
    let mut lines = EventLines::default();
    lines.of(&[opened(3), created()], Duration::ZERO);
    let mut after = EventLines::default();
    let ended = entry(9, Some(3), Some(7), EntryKind::RunEnded { state: RunState::Done });
    let unknown = after.of(std::slice::from_ref(&ended), Duration::ZERO);
    assert_eq!((unknown[0].text.as_str(), unknown[0].rule.as_deref()), ("run ended: the run done", None));
    let known = lines.of(&[ended], Duration::ZERO);
    assert_eq!((known[0].text.as_str(), known[0].rule.as_deref()), ("run ended: gpu-reset done", Some("xid-79")));
}

#[test]
fn a_hostile_label_is_one_bounded_line() {
    let title = format!("x\n{}\u{202e}", "y".repeat(10_000));
    let kind = EntryKind::IncidentOpened { key: "k".into(), title, subject: Subject::node("n\nx"), alert: None };
    let line = EventLines::default().of(&[entry(1, Some(1), None, kind)], Duration::ZERO).remove(0);
    assert!(line.text.chars().count() <= 400 && !line.text.contains('\n'), "{}", line.text.len());
    assert_eq!(line.node.as_deref(), Some("n x"));
}

#[test]
fn a_flap_of_an_hour_has_a_line_for_its_first_turns_and_each_tenth() {
    let mut lines = EventLines::default();
    let mut written = Vec::new();
    for turn in 0..50 {
        let over = EntryKind::IncidentRecovering { until: at() };
        let again = EntryKind::IncidentRecurred { alert: "GpuHot".into() };
        let entries = [entry(turn * 2, Some(3), None, over), entry(turn * 2 + 1, Some(3), None, again)];
        written.extend(lines.of(&entries, Duration::from_secs(turn.unsigned_abs())));
    }
    let again: Vec<&str> =
        written.iter().map(|line| line.text.as_str()).filter(|text| text.starts_with("incident open again")).collect();
    assert_eq!(again[..3], ["incident open again: GpuHot fires; the same incident continues"; 3]);
    let tens: Vec<String> = (1..=5)
        .map(|ten| format!("incident open again for the {ten}0th time: GpuHot flaps; the same incident continues"))
        .collect();
    assert_eq!(again[3..], tens);
    // Another incident is not quieted by it.
    let other = entry(200, Some(4), None, EntryKind::IncidentRecurred { alert: "GpuHot".into() });
    assert_eq!(lines.of(&[other], Duration::from_secs(60)).len(), 1);
}
