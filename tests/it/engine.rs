//! Stories of the engine: modes, questions, guards, undo, doubt, and files that change in the middle.
//!
//! Invariant: what was done is counted by the fleet; why it was not done is read from the ledger.

use crate::night::Night;
use nightshift::engine::Runner;
use nightshift::model::{ApprovalState, Freeze, Mode, ReasonCode, RunState};
use nightshift::store::{ControlChange, DecisionOutcome, Filter, StoreError};
use nightshift::world::sim::{ApiFault, RequestFault, SimFault};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const XID: &[(&str, &str)] = &[("alertname", "GpuXid"), ("xid", "79"), ("node", "gpu-2"), ("gpu", "3")];

const CORDON: &str = r#"//! Cordon a node.
//!
//! params:
//!   node: Node
//! scope: node
//! undo: on-failure

k8s::cordon(node, "test");
"#;

fn rule(mode: &str) -> String {
    format!("rules:\n  - name: r\n    when: ['alertname=\"GpuXid\"']\n    run: cordon\n    mode: {mode}\n")
}

#[tokio::test]
async fn a_rule_that_observes_writes_the_plan_down_and_touches_nothing() {
    let night = Night::fall(&rule("observe"), &[("cordon", CORDON)]).await;
    let heard = night.hear("firing", XID).await;
    let run = night.until_rest(heard.runs[0], MINUTE).await;
    assert_eq!(run.state, RunState::Planned);
    assert!(night.effects().is_empty(), "{:?}", night.effects());
    let planned = night.entries().await.into_iter().filter(|entry| entry.kind.name() == "run_planned").count();
    assert_eq!(planned, 1);
}

#[tokio::test]
async fn a_rule_in_auto_acts_once_however_often_the_alert_is_repeated() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    let heard = night.hear("firing", XID).await;
    let run = night.until_rest(heard.runs[0], MINUTE).await;
    assert_eq!(run.state, RunState::Done);
    for _ in 0..5 {
        let again = night.hear("firing", XID).await;
        assert_eq!((again.refreshed, again.runs.len()), (1, 0));
    }
    night.settle().await;
    assert_eq!(night.effects().into_iter().collect::<Vec<_>>(), [("patch nodes gpu-2".to_owned(), 1)]);
}

#[tokio::test]
async fn a_person_approves_the_frozen_plan_and_a_second_answer_is_too_late() {
    let night = Night::fall(&rule("approve"), &[("cordon", CORDON)]).await;
    let heard = night.hear("firing", XID).await;
    let run = night.until_rest(heard.runs[0], MINUTE).await;
    let RunState::Asking { approval } = run.state else { panic!("{:?}", run.state) };
    assert!(night.effects().is_empty());
    let answer = night.parts.store.decide(approval, true, "ada", "go", night.now()).await.unwrap();
    assert!(matches!(answer, DecisionOutcome::Now(_)));
    let late = night.parts.store.decide(approval, false, "bob", "no", night.now()).await.unwrap();
    let DecisionOutcome::Already(approval) = late else { panic!("{late:?}") };
    assert_eq!(approval.decided_by.as_deref(), Some("ada"));
    assert_eq!(night.until_rest(run.id, MINUTE).await.state, RunState::Done);
    assert_eq!(night.effects()["patch nodes gpu-2"], 1);
}

#[tokio::test]
async fn nobody_answers_and_that_is_a_no() {
    let night = Night::fall(&rule("approve"), &[("cordon", CORDON)]).await;
    let heard = night.hear("firing", XID).await;
    night.until_rest(heard.runs[0], MINUTE).await;
    night.pass(MINUTE * 31).await;
    night.settle().await;
    let run = night.run(heard.runs[0]).await;
    let RunState::Denied { reason } = run.state else { panic!("{:?}", run.state) };
    assert_eq!(reason.code, ReasonCode::ApprovalExpired);
    assert!(night.effects().is_empty());
}

#[tokio::test]
async fn the_kill_switch_holds_what_has_not_begun_and_releases_it_later() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    let freeze = Freeze {
        scope: "all".into(),
        by: "ada".into(),
        why: "maintenance".into(),
        since: night.now(),
        until: None,
        release_by: None,
    };
    night.parts.store.control(ControlChange::Freeze(freeze, Vec::new()), night.now()).await.unwrap();
    let heard = night.hear("firing", XID).await;
    night.settle().await;
    let run = night.run(heard.runs[0]).await;
    let RunState::Held { reason } = run.state else { panic!("{:?}", run.state) };
    assert_eq!(reason.code, ReasonCode::Frozen);
    assert!(reason.text.contains("ada"), "{reason}");
    let thaw = ControlChange::Unfreeze { scope: "all".into(), by: "ada".into(), why: "done".into(), persons: 1 };
    night.parts.store.control(thaw, night.now()).await.unwrap();
    assert_eq!(night.until_rest(run.id, MINUTE).await.state, RunState::Done);
    assert_eq!(night.effects()["patch nodes gpu-2"], 1);
}

#[tokio::test]
async fn the_second_node_is_held_while_the_first_is_out_and_goes_on_when_it_is_back() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    let first = night.hear("firing", XID).await;
    night.until_rest(first.runs[0], MINUTE).await;
    let second = night.hear("firing", &[("alertname", "GpuXid"), ("node", "gpu-3")]).await;
    night.settle().await;
    let held = night.run(second.runs[0]).await;
    let RunState::Held { reason } = &held.state else { panic!("{:?}", held.state) };
    assert_eq!(reason.code, ReasonCode::BlastRadius);
    assert!(reason.text.contains("gpu-2"), "the reason names the node that is out: {reason}");
    night.by_hand("gpu-2", false).await;
    assert_eq!(night.until_rest(held.id, MINUTE).await.state, RunState::Done);
    assert_eq!(night.effects().get("patch nodes gpu-3"), Some(&1));
}

#[tokio::test]
async fn a_failure_takes_back_what_was_done_in_reverse_order() {
    let runbook = r#"//! Fails after two changes.
//!
//! params:
//!   node: Node
//! scope: workload
//! undo: on-failure

k8s::scale("inference/mistral-7b", 5);
k8s::label(node, "nightshift.dev/test", "yes");
k8s::scale("inference/no-such-thing", 2);
"#;
    let runbook = runbook.replace("scope: workload", "scope: node");
    let night = Night::fall("rules: []", &[("fails", &runbook)]).await;
    let run = night.start("fails", Mode::Auto, json!({"node": "gpu-1"})).await;
    let run = night.until_rest(run, MINUTE).await;
    assert!(matches!(run.state, RunState::Failed { undone: true, .. }), "{:?}", run.state);
    let story = night.story(run.id).await;
    assert_eq!(story.len(), 5, "{story:#?}");
    assert!(story[2].ends_with("not_found"), "{story:#?}");
    assert!(story[3].starts_with("undo: k8s::"), "{story:#?}");
    assert!(story[4].starts_with("undo: k8s::scale"), "{story:#?}");
}

#[tokio::test]
async fn somebody_elses_cordon_is_respected() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    night.by_hand("gpu-2", true).await;
    let heard = night.hear("firing", XID).await;
    let run = night.until_rest(heard.runs[0], MINUTE).await;
    let RunState::Denied { reason } = run.state else { panic!("{:?}", run.state) };
    assert_eq!(reason.code, ReasonCode::ForeignCordon);
    assert!(!night.effects().contains_key("patch nodes gpu-2"));
}

#[tokio::test]
async fn a_complaint_that_ends_before_anything_was_done_starts_nothing() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    let heard = night.hear("firing", XID).await;
    night.hear("resolved", XID).await;
    let run = night.until_rest(heard.runs[0], MINUTE).await;
    let RunState::Denied { reason } = run.state else { panic!("{:?}", run.state) };
    assert_eq!(reason.code, ReasonCode::EpisodeOver);
    assert!(night.effects().is_empty());
}

#[tokio::test]
async fn attempts_on_one_subject_cool_down_twice_as_long_each_time_and_end() {
    // What comes back would bring the rule down before; that is another story.
    let stays = format!("{}    demote: {{ auto: 0 }}\n", rule("auto"));
    let night = Night::fall(&stays, &[("cordon", CORDON)]).await;
    let mut started = Vec::new();
    for attempt in ["first", "second", "third", "fourth"] {
        let labels = [("alertname", "GpuXid"), ("node", "gpu-2"), ("boot", attempt)];
        let heard = night.hear("firing", &labels).await;
        let began = night.now();
        let ended = night.until_rest(heard.runs[0], MINUTE * 60 * 20).await;
        night.hear("resolved", &labels).await;
        night.by_hand("gpu-2", false).await;
        let waited = (night.now().as_second() - began.as_second()) / 60;
        started.push((attempt, waited, ended.state.name()));
    }
    let waits: Vec<i64> = started.iter().map(|(_, waited, _)| *waited).collect();
    assert_eq!(waits[0], 0, "{started:?}");
    assert!((29..=31).contains(&waits[1]), "{started:?}");
    assert!((59..=61).contains(&waits[2]), "{started:?}");
    assert_eq!(started[3].2, "refused", "{started:?}");
}

#[tokio::test]
async fn a_run_keeps_the_runbook_it_started_with() {
    let before = CORDON.replace("k8s::cordon(node, \"test\");", "sleep(\"10m\");\nk8s::cordon(node, \"before\");");
    let night = Night::fall("rules: []", &[("cordon", &before)]).await;
    let run = night.start("cordon", Mode::Auto, json!({"node": "gpu-2"})).await;
    night.settle().await;
    let after = before.replace("\"before\"", "\"after\"");
    std::fs::write(night.path().join("runbooks/cordon.rhai"), after).unwrap();
    nightshift::engine::reload(&night.parts).await;
    let run = night.until_rest(run, MINUTE * 15).await;
    assert_eq!(run.state, RunState::Done);
    let story = night.story(run.id).await;
    assert!(story.iter().any(|line| line.contains("before")), "{story:#?}");
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_asked_again_and_done_once() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    night.fleet.fault(ApiFault::next(2, "PATCH", "nodes/gpu-2", RequestFault::LoseReply)).unwrap();
    let heard = night.hear("firing", XID).await;
    let run = night.until_rest(heard.runs[0], MINUTE * 5).await;
    assert_eq!(run.state, RunState::Done);
    assert_eq!(night.effects()["patch nodes gpu-2"], 1);
}

#[tokio::test]
async fn a_missing_right_is_named_and_ends_the_run() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    night.fleet.fault(SimFault::Deny { verb: "patch".into(), resource: "nodes".into() }).unwrap();
    let heard = night.hear("firing", XID).await;
    let run = night.until_rest(heard.runs[0], MINUTE * 5).await;
    let RunState::Failed { why, .. } = run.state else { panic!("{:?}", run.state) };
    assert!(why.contains(r#"add to the role: - {apiGroups: [""], resources: ["nodes"], verbs: ["patch"]}"#), "{why}");
}

#[tokio::test]
async fn an_action_that_is_off_is_refused_with_a_reason_and_foretold_so_in_a_plan() {
    let mut night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    let mut config = (*night.parts.config).clone();
    config.actions.deny = vec!["k8s::*".to_owned()];
    night.parts.config = Arc::new(config);
    night.runner = Runner::new(night.parts.clone());
    let heard = night.hear("firing", XID).await;
    let run = night.until_rest(heard.runs[0], MINUTE).await;
    assert_eq!(code(&run.state), ReasonCode::ActionOff);
    assert!(night.effects().is_empty(), "{:?}", night.effects());
    let loaded = night.parts.catalog.current();
    let plan = nightshift::engine::plan(&night.parts, &loaded.runbooks["cordon"], &run.input, &[]).await;
    let foretold = format!("{:?}", plan.calls[0].predicted);
    assert!(foretold.contains("Refused") && foretold.contains("is off"), "{foretold}");
}

#[tokio::test]
async fn replaying_a_finished_run_makes_no_call() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    let heard = night.hear("firing", XID).await;
    let run = night.until_rest(heard.runs[0], MINUTE).await;
    let loaded = night.parts.catalog.current();
    let runbook = loaded.runbooks["cordon"].clone();
    let (input, journal) = (run.input.clone(), night.steps(run.id).await);
    let turn =
        tokio::task::spawn_blocking(move || nightshift::script::advance(&runbook, &input, &journal)).await.unwrap();
    assert!(matches!(turn, nightshift::script::ScriptTurn::Done(_)), "{turn:?}");
}

#[tokio::test]
async fn one_episode_of_each_of_eight_gpus_is_one_incident_and_one_run_at_a_time_on_the_node() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    for gpu in 0..8 {
        let gpu = gpu.to_string();
        night.hear("firing", &[("alertname", "GpuXid"), ("node", "gpu-2"), ("gpu", &gpu)]).await;
    }
    night.settle().await;
    let incidents = night.parts.store.incidents(Filter { limit: 100, ..Filter::default() }).await.unwrap();
    assert_eq!(incidents.len(), 1);
    assert_eq!(incidents[0].firing, 8);
    assert_eq!(night.effects()["patch nodes gpu-2"], 1);
}

async fn freeze(night: &Night) {
    let freeze = Freeze {
        scope: "all".into(),
        by: "ada".into(),
        why: "stop".into(),
        since: night.now(),
        until: None,
        release_by: None,
    };
    night.parts.store.control(ControlChange::Freeze(freeze, Vec::new()), night.now()).await.unwrap();
}

async fn thaw(night: &Night) {
    let thaw = ControlChange::Unfreeze { scope: "all".into(), by: "ada".into(), why: "go on".into(), persons: 1 };
    night.parts.store.control(thaw, night.now()).await.unwrap();
}

fn code(state: &RunState) -> ReasonCode {
    match state {
        RunState::Held { reason } | RunState::Denied { reason } | RunState::Stuck { reason } => reason.code,
        other => panic!("{other:?}"),
    }
}

const DRAIN: &str = r#"//! Empty a node.
//!
//! params:
//!   node: Node
//! scope: node

k8s::cordon(node, "test");
k8s::drain(node, #{ within: "30m", only: "all", evict_bare: true, delete_empty_dir: true });
"#;

#[tokio::test]
async fn a_drain_under_way_stops_at_the_kill_switch_and_goes_on_after_it() {
    let night = Night::fall("rules: []", &[("drain", DRAIN)]).await;
    let run = night.start("drain", Mode::Auto, json!({"node": "gpu-2"})).await;
    night.settle().await;
    let under_way = night.run(run).await;
    assert!(matches!(under_way.state, RunState::Waiting { .. }), "{:?}", under_way.state);
    freeze(&night).await;
    for _ in 0..10 {
        night.pass(Duration::from_secs(20)).await;
        night.settle().await;
        assert_eq!(code(&night.run(run).await.state), ReasonCode::Frozen);
    }
    thaw(&night).await;
    let run = night.until_rest(run, MINUTE * 30).await;
    assert_eq!(run.state, RunState::Done, "{:#?}", night.story(run.id).await);
    let steps = night.steps(run.id).await;
    assert!(steps.iter().all(|step| step.attempt == 1), "waiting is no attempt: {steps:#?}");
}

const READ_THEN_CORDON: &str = r#"//! Look, then cordon.
//!
//! params:
//!   node: Node
//! scope: node

let it = k8s::node(node);
k8s::cordon(node, "test");
"#;

#[tokio::test]
async fn a_held_run_that_has_only_read_ends_with_its_complaint() {
    let night = Night::fall(&rule("auto"), &[("cordon", READ_THEN_CORDON)]).await;
    freeze(&night).await;
    let run = night.hear("firing", XID).await.runs[0];
    night.settle().await;
    assert_eq!(code(&night.run(run).await.state), ReasonCode::Frozen);
    night.hear("resolved", XID).await;
    night.pass(MINUTE).await;
    night.settle().await;
    assert_eq!(code(&night.run(run).await.state), ReasonCode::EpisodeOver, "it does not wait for the thaw");
    assert!(night.effects().is_empty());
}

#[tokio::test]
async fn a_run_that_waited_finds_its_complaint_over_before_it_acts() {
    let sleeps = READ_THEN_CORDON.replace("let it", "sleep(\"10m\");\nlet it");
    let night = Night::fall(&rule("auto"), &[("cordon", &sleeps)]).await;
    let run = night.hear("firing", XID).await.runs[0];
    night.settle().await;
    night.hear("resolved", XID).await;
    let run = night.until_rest(run, MINUTE * 15).await;
    assert_eq!(code(&run.state), ReasonCode::EpisodeOver);
    assert!(night.effects().is_empty());
}

#[tokio::test]
async fn a_run_that_two_episodes_want_goes_on_while_one_of_them_fires() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    freeze(&night).await;
    let gpu = |gpu| [("alertname", "GpuXid"), ("node", "gpu-2"), ("gpu", gpu)];
    let run = night.hear("firing", &gpu("1")).await.runs[0];
    assert!(night.hear("firing", &gpu("2")).await.runs.is_empty());
    night.settle().await;
    night.hear("resolved", &gpu("1")).await;
    thaw(&night).await;
    assert_eq!(night.until_rest(run, MINUTE).await.state, RunState::Done);
}

#[tokio::test]
async fn a_question_is_moot_when_the_complaint_ends() {
    let night = Night::fall(&rule("approve"), &[("cordon", CORDON)]).await;
    let run = night.hear("firing", XID).await.runs[0];
    let RunState::Asking { approval } = night.until_rest(run, MINUTE).await.state else { panic!() };
    night.hear("resolved", XID).await;
    night.settle().await;
    assert_eq!(code(&night.run(run).await.state), ReasonCode::EpisodeOver);
    let late = night.parts.store.decide(approval, true, "ada", "", night.now()).await.unwrap();
    assert!(matches!(late, DecisionOutcome::Already(asked) if asked.state == ApprovalState::Void));
}

#[tokio::test]
async fn a_no_to_the_question_of_a_runbook_stops_it() {
    let asks = CORDON.replace("k8s::cordon", "approve(\"Really?\");\nk8s::cordon");
    let night = Night::fall("rules: []", &[("cordon", &asks)]).await;
    let run = night.start("cordon", Mode::Auto, json!({"node": "gpu-2"})).await;
    let RunState::Asking { approval } = night.until_rest(run, MINUTE).await.state else { panic!() };
    night.parts.store.decide(approval, false, "ada", "not now", night.now()).await.unwrap();
    let run = night.until_rest(run, MINUTE).await;
    let RunState::Failed { why, .. } = run.state else { panic!("{:?}", run.state) };
    assert!(why.contains("denied by ada: not now"), "{why}");
    assert!(night.effects().is_empty());
}

#[tokio::test]
async fn who_asked_for_a_run_cannot_approve_it() {
    let night = Night::fall("rules: []", &[("cordon", CORDON)]).await;
    let run = night.start("cordon", Mode::Approve, json!({"node": "gpu-2"})).await;
    let RunState::Asking { approval } = night.until_rest(run, MINUTE).await.state else { panic!() };
    let own = night.parts.store.decide(approval, true, "a test", "", night.now()).await;
    assert!(matches!(&own, Err(StoreError::Refused(why)) if why.contains("another approver must")), "{own:?}");
    night.parts.store.decide(approval, true, "ada", "", night.now()).await.unwrap();
    assert_eq!(night.until_rest(run, MINUTE).await.state, RunState::Done);
}

#[tokio::test]
async fn what_the_plan_did_not_name_asks_again_and_a_no_takes_back_what_was_done() {
    let text = r#"//! Label, wait, label by what is seen then.
//!
//! params:
//!   node: Node
//! scope: node
//! undo: on-failure

k8s::label(node, "nightshift.dev/one", "yes");
sleep("10m");
k8s::label(node, "nightshift.dev/two", `${k8s::node(node).unschedulable}`);
"#;
    let night = Night::fall("rules: []", &[("labels", text)]).await;
    let run = night.start("labels", Mode::Approve, json!({"node": "gpu-2"})).await;
    let RunState::Asking { approval } = night.until_rest(run, MINUTE).await.state else { panic!() };
    night.parts.store.decide(approval, true, "ada", "", night.now()).await.unwrap();
    night.settle().await;
    night.by_hand("gpu-2", true).await;
    let RunState::Asking { approval: second } = night.until_rest(run, MINUTE * 15).await.state else { panic!() };
    assert_ne!(approval, second);
    night.parts.store.decide(second, false, "ada", "", night.now()).await.unwrap();
    let run = night.until_rest(run, MINUTE).await;
    assert!(matches!(run.state, RunState::Failed { undone: true, .. }), "{:?}", run.state);
    assert!(night.story(run.id).await.last().unwrap().starts_with("undo: k8s::label"));
}

#[tokio::test]
async fn an_alert_from_another_cluster_never_touches_a_node_of_that_name_here() {
    let text = CORDON.replace("k8s::cordon(node, \"test\")", "k8s::label(node, \"nightshift.dev/test\", \"yes\")");
    let night = Night::fall(&rule("auto"), &[("cordon", &text)]).await;
    let labels = [("alertname", "GpuXid"), ("node", "gpu-2"), ("cluster", "elsewhere")];
    let run = night.hear("firing", &labels).await.runs[0];
    let run = night.until_rest(run, MINUTE).await;
    assert_eq!(run.subject.cluster.as_deref(), Some("elsewhere"));
    let RunState::Denied { reason } = run.state else { panic!("{:?}", run.state) };
    assert!(reason.code == ReasonCode::TargetUnavailable && reason.text.contains("elsewhere"), "{reason}");
    assert!(night.effects().is_empty(), "{:?}", night.effects());
}

#[tokio::test]
async fn a_rule_that_is_removed_before_it_asks_asks_nobody() {
    let night = Night::fall(&rule("approve"), &[("cordon", CORDON)]).await;
    let run = night.hear("firing", XID).await.runs[0];
    std::fs::write(night.path().join("rules/test.yaml"), "rules: []\n").unwrap();
    nightshift::engine::reload(&night.parts).await;
    assert_eq!(code(&night.until_rest(run, MINUTE).await.state), ReasonCode::NoRuleMatched);
}

#[tokio::test]
async fn a_file_that_stays_bad_is_said_once() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    std::fs::write(night.path().join("rules/test.yaml"), "rules: [{").unwrap();
    for _ in 0..3 {
        nightshift::engine::reload(&night.parts).await;
    }
    let refused = night.entries().await.into_iter().filter(|entry| entry.kind.name() == "catalog_refused").count();
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn a_redacted_event_is_gone_from_the_run_that_it_started() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    let run = night.hear("firing", XID).await.runs[0];
    let heard = night.entries().await.into_iter().find(|entry| entry.kind.name() == "heard").unwrap().no;
    let redact = || ControlChange::Redact {
        entry: heard,
        by: "ada".into(),
        why: "personal".into(),
        persons: 1,
        notify: Vec::new(),
    };
    let early = night.parts.store.control(redact(), night.now()).await;
    assert!(matches!(early, Err(StoreError::Refused(_))), "{early:?}");
    night.until_rest(run, MINUTE).await;
    night.parts.store.control(redact(), night.now()).await.unwrap();
    assert!(night.run(run).await.input.event.is_null());
}

#[tokio::test]
async fn the_kill_file_holds_everything_until_it_is_removed() {
    let mut night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    let file = night.path().join("stop");
    std::fs::write(&file, "").unwrap();
    night.kill_by(nightshift::world::KillSwitchConfig { file: Some(file.clone()), config_map: None });
    let heard = night.hear("firing", XID).await;
    night.settle().await;
    let RunState::Held { reason } = night.run(heard.runs[0]).await.state else { panic!("not held") };
    assert_eq!(reason.code, ReasonCode::Frozen);
    assert!(reason.text.contains("exists; remove it"), "{reason}");
    assert!(night.effects().is_empty());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(night.until_rest(heard.runs[0], MINUTE).await.state, RunState::Done);
}

#[tokio::test]
async fn an_act_waits_for_the_second_signal_of_its_rule() {
    let rules = format!("{}    confirm_query: 'ill{{node=$node}} > 0'\n", rule("auto"));
    let night = Night::fall(&rules, &[("cordon", CORDON)]).await;
    night.fleet.set_prometheus("ill{node=\"gpu-2\"} > 0", vec![]);
    let heard = night.hear("firing", XID).await;
    night.settle().await;
    let RunState::Held { reason } = night.run(heard.runs[0]).await.state else { panic!("not held") };
    assert_eq!(reason.code, ReasonCode::NotConfirmed);
    assert!(reason.text.contains("has no result"), "{reason}");
    assert!(night.effects().is_empty());
    let ill = nightshift::world::sim::SimSample::value(1.0);
    night.fleet.set_prometheus("ill{node=\"gpu-2\"} > 0", vec![ill]);
    night.pass(Duration::from_secs(20)).await;
    assert_eq!(night.until_rest(heard.runs[0], MINUTE).await.state, RunState::Done);
    assert_eq!(night.effects()["patch nodes gpu-2"], 1);
}

const NOT_READY: &[(&str, &str)] = &[("alertname", "KubeNodeNotReady"), ("node", "gpu-3")];

fn not_ready() -> String {
    "rules:\n  - name: r\n    when: ['alertname=\"KubeNodeNotReady\"']\n    run: node-not-ready\n    mode: auto\n"
        .to_owned()
}

/// gpu-2 is out, so the cordon of gpu-3, whose kubelet is silent, is held.
async fn held_behind_gpu_2() -> (Night, nightshift::model::RunId) {
    let night = Night::fall_on_shipped(&not_ready()).await;
    night.by_hand("gpu-2", true).await;
    night.fleet.fault(SimFault::NodeNotReady { node: "gpu-3".into() }).unwrap();
    let run = night.hear("firing", NOT_READY).await.runs[0];
    night.settle().await;
    assert_eq!(code(&night.run(run).await.state), ReasonCode::BlastRadius);
    (night, run)
}

#[tokio::test]
async fn a_node_that_came_back_while_its_run_was_held_is_not_cordoned_although_its_alert_still_fires() {
    let (night, run) = held_behind_gpu_2().await;
    night.fleet.repair("gpu-3", None).unwrap();
    night.by_hand("gpu-2", false).await;
    let ended = night.until_rest(run, MINUTE).await;
    assert_eq!(code(&ended.state), ReasonCode::NoLongerNeeded);
    assert_eq!(ended.state.name(), "withdrawn");
    let RunState::Denied { reason } = &ended.state else { panic!("{:?}", ended.state) };
    assert!(reason.text.contains("k8s::cordon") && reason.text.contains("recovered by itself"), "{reason}");
    assert!(!night.effects().contains_key("patch nodes gpu-3"), "{:?}", night.effects());
    let steps = night.steps(run).await;
    assert_eq!(steps.len(), 1, "what was read again is no step of the run: {steps:#?}");
}

#[tokio::test]
async fn a_held_step_that_is_still_needed_begins_once_the_guard_lets_it() {
    let (night, run) = held_behind_gpu_2().await;
    night.pass(MINUTE).await;
    night.settle().await;
    assert_eq!(code(&night.run(run).await.state), ReasonCode::BlastRadius, "gpu-2 is still out");
    night.by_hand("gpu-2", false).await;
    night.pass(MINUTE).await;
    night.settle().await;
    assert_eq!(night.effects().get("patch nodes gpu-3"), Some(&1));
}

#[tokio::test]
async fn a_held_run_whose_node_cannot_be_read_waits_and_does_not_act_on_what_it_read_before() {
    let (night, run) = held_behind_gpu_2().await;
    night.by_hand("gpu-2", false).await;
    let broken = RequestFault::Status { code: 500, retry_after: None };
    night.fleet.fault(ApiFault::next(100, "GET", "nodes/gpu-3", broken)).unwrap();
    night.pass(Duration::from_secs(20)).await;
    night.settle().await;
    assert_eq!(code(&night.run(run).await.state), ReasonCode::TargetUnavailable);
    assert!(!night.effects().contains_key("patch nodes gpu-3"), "{:?}", night.effects());
    night.fleet.calm();
    night.pass(Duration::from_secs(20)).await;
    night.settle().await;
    assert_eq!(night.effects().get("patch nodes gpu-3"), Some(&1), "it could be read again, and is still NotReady");
}

#[tokio::test]
async fn a_held_run_is_withdrawn_in_the_moment_in_which_its_alert_ends() {
    let (night, run) = held_behind_gpu_2().await;
    night.hear("resolved", NOT_READY).await;
    night.settle().await;
    let ended = night.run(run).await;
    assert_eq!(code(&ended.state), ReasonCode::EpisodeOver, "it does not wait for the guard's next look");
    assert_eq!(ended.state.name(), "withdrawn");
    night.by_hand("gpu-2", false).await;
    night.pass(MINUTE).await;
    night.settle().await;
    assert!(!night.effects().contains_key("patch nodes gpu-3"), "{:?}", night.effects());
}

fn freeze_until(night: &Night, until: Option<Duration>) -> ControlChange {
    let until = until.map(|lasts| night.now() + lasts);
    let (by, why) = ("ada".into(), "upgrade".into());
    let freeze = Freeze { scope: "all".into(), by, why, since: night.now(), until, release_by: None };
    ControlChange::Freeze(freeze, vec!["oncall".to_owned(), "pager".to_owned()])
}

#[tokio::test]
async fn a_freeze_notifies_every_channel_and_ends_by_itself_with_an_entry_and_a_notification() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    night.parts.store.control(freeze_until(&night, Some(MINUTE * 120)), night.now()).await.unwrap();
    let due = night.parts.store.due(night.now(), 10).await.unwrap().notices;
    let channels: Vec<&str> = due.iter().map(|row| row.channel.as_str()).collect();
    assert_eq!(channels, ["oncall", "pager"], "each channel once");
    assert!(due.iter().all(|row| row.alone), "it is not counted away in a digest");
    let incident = due[0].incident;
    let run = night.hear("firing", XID).await.runs[0];
    night.settle().await;
    assert_eq!(code(&night.run(run).await.state), ReasonCode::Frozen);
    night.pass(MINUTE * 120 - Duration::from_secs(1)).await;
    night.settle().await;
    assert_eq!(code(&night.run(run).await.state), ReasonCode::Frozen);
    assert!(night.effects().is_empty());
    night.pass(Duration::from_secs(20)).await;
    night.settle().await;
    assert!(night.parts.store.freezes().await.unwrap().is_empty());
    assert_eq!(night.until_rest(run, MINUTE).await.state, RunState::Done);
    let story: Vec<String> = night
        .entries()
        .await
        .iter()
        .filter(|entry| entry.about.incident == Some(incident))
        .filter_map(|entry| nightshift::engine::story::line(entry).map(|line| line.text))
        .collect();
    assert!(
        story.iter().any(|line| line.contains("no longer frozen: all") && line.contains("its end has come")),
        "{story:#?}"
    );
    let incidents = night.parts.store.incidents(Filter { limit: 10, ..Filter::default() }).await.unwrap();
    let freeze = incidents.iter().find(|found| found.id == incident).unwrap();
    assert!(freeze.closed_at.is_some(), "{freeze:?}");
    let due = night.parts.store.due(night.now(), 10).await.unwrap().notices;
    assert_eq!(due.iter().filter(|row| row.incident == incident).count(), 2, "both channels hear of the end");
}

#[tokio::test]
async fn a_second_freeze_never_makes_the_first_one_shorter() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    let until = async |night: &Night| night.parts.store.freezes().await.unwrap()[0].until;
    night.parts.store.control(freeze_until(&night, Some(MINUTE * 60)), night.now()).await.unwrap();
    let first = until(&night).await;
    night.parts.store.control(freeze_until(&night, Some(MINUTE)), night.now()).await.unwrap();
    assert_eq!(until(&night).await, first);
    night.parts.store.control(freeze_until(&night, None), night.now()).await.unwrap();
    assert_eq!(until(&night).await, None);
    night.parts.store.control(freeze_until(&night, Some(MINUTE)), night.now()).await.unwrap();
    assert_eq!(until(&night).await, None, "it lasts until it is released");
    let open = Filter { open: true, limit: 10, ..Filter::default() };
    assert_eq!(night.parts.store.incidents(open).await.unwrap().len(), 1, "one incident for one scope");
}

#[tokio::test]
async fn this_machines_token_is_no_person_when_a_freeze_is_released_whatever_user_it_names() {
    let night = Night::fall(&rule("auto"), &[("cordon", CORDON)]).await;
    night.parts.store.control(freeze_until(&night, None), night.now()).await.unwrap();
    let lift = |by: &str| ControlChange::Unfreeze { scope: "all".into(), by: by.into(), why: "x".into(), persons: 2 };
    let refused_to_all = async || {
        for by in ["local:root (uid 0)", "local:eve (uid 1000)", "local"] {
            let refused = night.parts.store.control(lift(by), night.now()).await;
            assert!(
                matches!(&refused, Err(StoreError::Refused(text)) if text.contains("does not count")),
                "{by}: {refused:?}"
            );
        }
    };
    refused_to_all().await;
    night.parts.store.control(lift("ada"), night.now()).await.unwrap();
    refused_to_all().await;
    night.parts.store.control(lift("bob"), night.now()).await.unwrap();
    assert!(night.parts.store.freezes().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_filter_by_state_finds_new_rows_by_their_own_word_and_old_ones_that_say_denied() {
    let night = Night::fall(&rule("approve"), &[("cordon", CORDON)]).await;
    let run = night.hear("firing", XID).await.runs[0];
    night.until_rest(run, MINUTE).await;
    let cancel = ControlChange::Cancel { run, by: "ada".into(), why: "x".into() };
    night.parts.store.control(cancel, night.now()).await.unwrap();
    let found = async |word: &'static str| {
        let filter = Filter { state: Some(word), limit: 10, ..Filter::default() };
        night.parts.store.runs(filter).await.unwrap().iter().map(|run| run.id).collect::<Vec<_>>()
    };
    let expect = async |when: &str| {
        assert_eq!(found("cancelled").await, [run], "{when}");
        assert_eq!(found("denied").await, [run], "{when}: the old word stays an alias");
        for other in ["withdrawn", "refused", "expired", "done", "held"] {
            assert!(found(other).await.is_empty(), "{when}: {other}");
        }
    };
    expect("as it is written now").await;
    assert_eq!(night.run(run).await.state.words(), "cancelled");
    let conn = rusqlite::Connection::open(night.path().join("nightshift.db")).unwrap();
    let old = r#"{"is":"denied","reason":{"code":"cancelled","text":"cancelled by ada: x"}}"#;
    assert_eq!(conn.execute("UPDATE run SET state = ?2 WHERE id = ?1", rusqlite::params![run.0, old]).unwrap(), 1);
    expect("as it was written before").await;
    assert_eq!(night.run(run).await.state.words(), "cancelled");
}
