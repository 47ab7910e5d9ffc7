//! What runs and their journals do.
//!
//! Invariant: each case claims its run as an engine does.

use super::Open;
use super::fixtures::*;
use nightshift::limits;
use nightshift::model::{
    ActionCall, EffectClass, EntryKind, FailureKind, Freeze, ImpactScope, Mode, Outcome, Reason, ReasonCode, RunInput,
    RunState, SchedulingEffect, StepFailure, Subject,
};
use nightshift::policy::{StepProposal, WorldFacts};
use nightshift::store::{BeginOutcome, ControlChange, Filter, NewRun, Store, StoreError};
use serde_json::{Value, json};
use std::sync::Arc;

pub async fn a_step_is_begun_ended_and_final(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let (run, epoch) = (claimed.run.id, claimed.run.epoch);
    let BeginOutcome::Step(step) = store.begin(cordon(&claimed, "gpu-3"), guards(), at(1)).await.unwrap() else {
        panic!("the guards let it pass");
    };
    assert_eq!((step.no, step.attempt, &step.outcome), (0, 1, &None));
    let again = store.begin(cordon(&claimed, "gpu-3"), guards(), at(1)).await;
    assert!(matches!(again, Err(StoreError::Refused(_))), "one open step at a time: {again:?}");
    let step = store.attempt(run, epoch, 0, at(120)).await.unwrap();
    assert_eq!((step.attempt, step.deadline), (2, at(120)));

    let done = Outcome::Ok(json!({ "changed": true }));
    store.end(run, epoch, 0, done.clone(), Vec::new(), at(2)).await.unwrap();
    let other = Outcome::Failed(StepFailure::new(FailureKind::Timeout, "no"));
    assert!(matches!(store.end(run, epoch, 0, other, Vec::new(), at(3)).await, Err(StoreError::Refused(_))));
    let missing = store.end(run, epoch, 7, done.clone(), Vec::new(), at(3)).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    let steps = store.steps(run).await.unwrap();
    assert_eq!((steps.len(), &steps[0].outcome, steps[0].ended_at), (1, &Some(done), Some(at(2))));
    let claimed = store.claim(run, at(4)).await.unwrap().unwrap();
    assert_eq!(claimed.journal, steps);
    let kinds = story(&store).await;
    assert_eq!(kinds[kinds.len() - 2..], ["step_begun", "step_ended"]);
}

pub async fn a_write_under_an_old_epoch_is_fenced(open: Open<'_>) {
    let store = open();
    let old = running(&store, "gpu-3").await;
    store.close().await.unwrap();
    drop(store);
    let store = open();
    let new = store.claim(old.run.id, at(5)).await.unwrap().unwrap();
    assert!(new.run.epoch > old.run.epoch);
    let before = store.counts().await.unwrap();
    let (run, epoch) = (old.run.id, old.run.epoch);
    let fenced =
        |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Fenced { .. })), "{result:?}");
    fenced(store.begin(cordon(&old, "gpu-3"), guards(), at(6)).await.map(drop));
    fenced(store.park(run, epoch, None, RunState::Ready, at(9), at(6)).await);
    fenced(store.end(run, epoch, 0, Outcome::Ok(Value::Null), Vec::new(), at(6)).await);
    fenced(store.unwind(run, epoch, "x".to_owned()).await);
    fenced(store.finish(run, epoch, RunState::Done, at(6)).await);
    assert_eq!(store.counts().await.unwrap(), before);
    store.finish(run, new.run.epoch, RunState::Done, at(7)).await.unwrap();
}

pub async fn a_final_run_never_changes(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let (run, epoch) = (claimed.run.id, claimed.run.epoch);
    let not_final = store.finish(run, epoch, RunState::Ready, at(1)).await;
    assert!(matches!(not_final, Err(StoreError::Refused(_))));
    store.finish(run, epoch, RunState::Stopped { why: "enough".to_owned() }, at(1)).await.unwrap();
    let before = store.runs(of_run(run)).await.unwrap();
    assert_eq!((before[0].ended_at, before[0].wake_at), (Some(at(1)), None));
    assert!(store.finish(run, epoch, RunState::Done, at(2)).await.is_err());
    assert!(store.park(run, epoch, None, RunState::Ready, at(3), at(2)).await.is_err());
    assert_eq!(store.claim(run, at(2)).await.unwrap(), None);
    let cancel = ControlChange::Cancel { run, by: "kim".to_owned(), why: "late".to_owned() };
    assert!(matches!(store.control(cancel, at(2)).await, Err(StoreError::Refused(_))));
    assert_eq!(store.runs(of_run(run)).await.unwrap(), before);
    assert!(store.due(at(9_999), 10).await.unwrap().runs.is_empty());
}

pub async fn a_cancelled_run_still_learns_how_its_open_step_ended(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let (run, epoch) = (claimed.run.id, claimed.run.epoch);
    store.begin(cordon(&claimed, "gpu-3"), guards(), at(1)).await.unwrap();
    let cancel = ControlChange::Cancel { run, by: "kim".to_owned(), why: "wrong node".to_owned() };
    store.control(cancel, at(2)).await.unwrap();
    assert_eq!(store.counts().await.unwrap().nodes_held, 1, "its effect may still be under way");
    store.end(run, epoch, 0, Outcome::Ok(Value::Null), Vec::new(), at(3)).await.unwrap();
    assert_eq!(store.counts().await.unwrap().nodes_held, 0);
    let run = store.runs(of_run(run)).await.unwrap().remove(0);
    assert!(matches!(run.state, RunState::Denied { reason } if reason.code == ReasonCode::Cancelled));
}

pub async fn what_a_cancelled_run_left_open_is_due_until_somebody_has_stopped_it(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let (run, epoch) = (claimed.run.id, claimed.run.epoch);
    assert_eq!(store.abandoned(run).await.unwrap(), None, "nobody has cancelled it");
    store.begin(cordon(&claimed, "gpu-3"), guards(), at(1)).await.unwrap();
    store.park(run, epoch, None, RunState::Waiting { why: "a pod".to_owned() }, at(600), at(1)).await.unwrap();
    let cancel = ControlChange::Cancel { run, by: "kim".to_owned(), why: "wrong node".to_owned() };
    store.control(cancel, at(2)).await.unwrap();
    // At once, though its step wanted to sleep; and for whoever comes after a crash, until it is settled.
    for _ in 0..2 {
        assert_eq!(store.due(at(2), 10).await.unwrap().runs, [run]);
        assert_eq!(store.claim(run, at(2)).await.unwrap(), None);
        let (found, step) = store.abandoned(run).await.unwrap().unwrap();
        assert!(found.state.is_final() && step.outcome.is_none());
    }
    store.look_again(run, epoch, Some(at(30))).await.unwrap();
    let due = store.due(at(29), 10).await.unwrap();
    assert_eq!((due.runs.len(), due.next), (0, Some(at(30))));
    store.end(run, epoch, 0, Outcome::Ok(Value::Null), Vec::new(), at(30)).await.unwrap();
    assert_eq!(store.abandoned(run).await.unwrap(), None);
    assert!(store.due(at(9_999), 10).await.unwrap().runs.is_empty());
}

pub async fn a_disruptive_step_reserves_its_node_until_the_run_ends(open: Open<'_>) {
    let store = open();
    let first = running(&store, "gpu-3").await;
    store.begin(cordon(&first, "gpu-3"), guards(), at(1)).await.unwrap();
    let by_hand = NewRun {
        pin: pin(),
        input: RunInput::default(),
        subject: Subject::node("gpu-3"),
        mode: Mode::Auto,
        rule: None,
        terms: None,
        requested_by: "kim".to_owned(),
        once: None,
        now: at(2),
    };
    let second = store.start(by_hand).await.unwrap().unwrap();
    let second = store.claim(second, at(2)).await.unwrap().unwrap();
    let begun = store.begin(cordon(&second, "gpu-3"), guards(), at(3)).await.unwrap();
    assert!(matches!(&begun, BeginOutcome::Held { reason, .. } if reason.code == ReasonCode::NodeBusy), "{begun:?}");
    let (run, epoch) = (first.run.id, first.run.epoch);
    store.end(run, epoch, 0, Outcome::Ok(Value::Null), Vec::new(), at(4)).await.unwrap();
    assert_eq!(store.counts().await.unwrap().nodes_held, 1, "held until the run ends");
    store.finish(run, epoch, RunState::Done, at(5)).await.unwrap();
    assert_eq!(store.counts().await.unwrap().nodes_held, 0);
    let begun = store.begin(cordon(&second, "gpu-3"), guards(), at(6)).await.unwrap();
    assert!(matches!(begun, BeginOutcome::Step(_)), "{begun:?}");
}

pub async fn no_step_reaches_further_than_what_was_pinned_with_the_text(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    store.pin(&pin(), TEXT, ImpactScope::Pod, at(1)).await.unwrap();
    let begun = store.begin(cordon(&claimed, "gpu-3"), guards(), at(2)).await.unwrap();
    assert!(matches!(&begun, BeginOutcome::Denied { reason } if reason.code == ReasonCode::ReachExceeded), "{begun:?}");
    store.pin(&pin(), TEXT, ImpactScope::Node, at(3)).await.unwrap();
    let begun = store.begin(cordon(&claimed, "gpu-3"), guards(), at(4)).await.unwrap();
    assert!(matches!(begun, BeginOutcome::Step(_)), "{begun:?}");
}

/// What a step did to its node's schedule is kept with it, so no name of an action counts.
pub async fn a_cordon_by_any_name_is_remembered_until_it_is_taken_back(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let (run, epoch) = (claimed.run.id, claimed.run.epoch);
    let close = |name: &str, scheduling| {
        let call = ActionCall { action: name.to_owned(), ..cordon(&claimed, "gpu-3").call };
        StepProposal { call, scheduling, ..cordon(&claimed, "gpu-3") }
    };
    // The next step, on a node that bears no cordon of ours: somebody gave it back, if there was one.
    let next = |now| {
        let facts = WorldFacts { our_cordon: Some(false), ..cordon(&claimed, "gpu-3").facts };
        store.begin(StepProposal { facts, ..cordon(&claimed, "gpu-3") }, guards(), now)
    };
    let changed = Outcome::Ok(json!({ "changed": true }));
    store.begin(close("site::close", SchedulingEffect::Cordon), guards(), at(1)).await.unwrap();
    store.end(run, epoch, 0, changed.clone(), Vec::new(), at(2)).await.unwrap();
    let begun = next(at(3)).await.unwrap();
    assert!(matches!(&begun, BeginOutcome::Denied { reason } if reason.code == ReasonCode::GivenBack), "{begun:?}");
    store.begin(close("site::open", SchedulingEffect::Uncordon), guards(), at(4)).await.unwrap();
    store.end(run, epoch, 1, changed, Vec::new(), at(5)).await.unwrap();
    let begun = next(at(6)).await.unwrap();
    assert!(matches!(begun, BeginOutcome::Step(_)), "{begun:?}");
}

pub async fn a_frozen_rule_holds_the_step_and_says_so_once(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let freeze = Freeze {
        scope: "all".to_owned(),
        by: "kim".to_owned(),
        why: "change window".to_owned(),
        since: at(0),
        until: None,
        release_by: None,
    };
    store.control(ControlChange::Freeze(freeze, Vec::new()), at(0)).await.unwrap();
    for second in 1..4 {
        let begun = store.begin(cordon(&claimed, "gpu-3"), guards(), at(second)).await.unwrap();
        assert!(matches!(&begun, BeginOutcome::Held { reason, .. } if reason.code == ReasonCode::Frozen), "{begun:?}");
    }
    let kinds = story(&store).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == "step_held").count(), 1, "{kinds:?}");
    let run = store.runs(of_run(claimed.run.id)).await.unwrap().remove(0);
    assert!(matches!(run.state, RunState::Held { .. }) && run.wake_at > Some(at(3)), "{run:?}");
    assert!(store.steps(run.id).await.unwrap().is_empty());
}

pub async fn an_outcome_that_is_too_large_is_refused_and_changes_nothing(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    store.begin(cordon(&claimed, "gpu-3"), guards(), at(1)).await.unwrap();
    let before = story(&store).await;
    let huge = Outcome::Ok(json!("x".repeat(limits::OUTCOME_BYTES)));
    let result = store.end(claimed.run.id, claimed.run.epoch, 0, huge, Vec::new(), at(2)).await;
    assert!(matches!(result, Err(StoreError::Refused(_))));
    assert_eq!(store.steps(claimed.run.id).await.unwrap()[0].outcome, None);
    assert_eq!(story(&store).await, before);
}

pub async fn a_tick_of_a_schedule_starts_one_run(open: Open<'_>) {
    let store = open();
    let tick = NewRun {
        pin: pin(),
        input: RunInput::default(),
        subject: Subject::default(),
        mode: Mode::Auto,
        rule: Some("nightly".to_owned()),
        terms: None,
        requested_by: "schedule".to_owned(),
        once: Some("nightly@2026-03-01T03:00:00Z".to_owned()),
        now: at(0),
    };
    assert!(store.start(tick.clone()).await.unwrap().is_some());
    assert_eq!(store.start(tick).await.unwrap(), None);
    assert_eq!(store.runs(all()).await.unwrap().len(), 1);
}

pub async fn a_parked_run_is_due_at_its_time_and_not_before(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let (run, epoch) = (claimed.run.id, claimed.run.epoch);
    store.begin(cordon(&claimed, "gpu-3"), guards(), at(1)).await.unwrap();
    let waiting = RunState::Waiting { why: "draining".to_owned() };
    store.park(run, epoch, Some((0, json!({ "left": 3 }))), waiting.clone(), at(100), at(1)).await.unwrap();
    let due = store.due(at(99), 10).await.unwrap();
    assert_eq!((due.runs, due.next), (Vec::new(), Some(at(100))));
    assert_eq!(store.due(at(100), 10).await.unwrap().runs, [run]);
    assert_eq!(store.runs(of_run(run)).await.unwrap()[0].state, waiting);
    let claimed = store.claim(run, at(100)).await.unwrap().unwrap();
    assert_eq!(claimed.journal[0].carry, json!({ "left": 3 }));
    let end = RunState::Stuck { reason: Reason::new(ReasonCode::InDoubt, "x") };
    assert!(matches!(store.park(run, epoch, None, end, at(101), at(100)).await, Err(StoreError::Refused(_))));
}

pub async fn a_run_held_for_an_alert_that_ended_goes_on_at_once_if_it_fires_again_meanwhile(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let (run, epoch) = (claimed.run.id, claimed.run.epoch);
    let held = RunState::Held { reason: Reason::new(ReasonCode::EpisodeOver, "its alert has ended") };
    // It was seen to have ended, and fires again before that is written down.
    hear(&store, &auto(), vec![resolved(event("Xid79", "gpu-3"))], at(1)).await;
    hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(2)).await;
    store.park(run, epoch, None, held.clone(), at(300), at(2)).await.unwrap();
    assert_eq!(store.due(at(2), 10).await.unwrap().runs, [run], "it does not sleep over an alert that fires");
    let claimed = store.claim(run, at(2)).await.unwrap().unwrap();
    // Where it has ended, the run waits.
    hear(&store, &auto(), vec![resolved(event("Xid79", "gpu-3"))], at(3)).await;
    store.park(run, claimed.run.epoch, None, held, at(300), at(3)).await.unwrap();
    assert!(store.due(at(4), 10).await.unwrap().runs.is_empty());
    assert_eq!(store.due(at(300), 10).await.unwrap().runs, [run]);
}

pub async fn what_a_runbook_says_reaches_the_channel(open: Open<'_>) {
    let store: Arc<dyn Store> = open();
    store.pin(&pin(), TEXT, ImpactScope::Node, start()).await.unwrap();
    let by_hand = NewRun {
        pin: pin(),
        input: RunInput::default(),
        subject: Subject::node("gpu-3"),
        mode: Mode::Auto,
        rule: None,
        terms: None,
        requested_by: "kim".to_owned(),
        once: None,
        now: at(0),
    };
    let run = store.start(by_hand).await.unwrap().unwrap();
    let claimed = store.claim(run, at(0)).await.unwrap().unwrap();
    let mut tell = cordon(&claimed, "gpu-3");
    tell.call = ActionCall::new("tell", [("channel", json!("hardware"))]);
    (tell.effect, tell.reach, tell.disruptive) = (EffectClass::Converge, ImpactScope::None, false);
    store.begin(tell, guards(), at(1)).await.unwrap();
    let said = vec![("hardware".to_owned(), "needs hands".to_owned())];
    store.end(run, claimed.run.epoch, 0, Outcome::Ok(Value::Null), said, at(2)).await.unwrap();
    let due = store.due(at(2), 10).await.unwrap();
    assert_eq!(due.notices[0].channel, "hardware");
    let told = store.entries(Filter { kinds: vec!["told"], ..all() }).await.unwrap().remove(0);
    assert_eq!(told.about.incident, Some(due.notices[0].incident), "a run by hand gets an incident to speak of");
    assert!(matches!(told.kind, EntryKind::Told { text, .. } if text == "needs hands"));
    store.finish(run, claimed.run.epoch, RunState::Done, at(3)).await.unwrap();
    assert_eq!(store.counts().await.unwrap().incidents_open, 0, "which ends with the run");
}

pub async fn a_stuck_run_keeps_its_node_until_a_person_lets_go(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let (run, epoch) = (claimed.run.id, claimed.run.epoch);
    store.begin(cordon(&claimed, "gpu-3"), guards(), at(1)).await.unwrap();
    let reason = Reason::new(ReasonCode::InDoubt, "nobody knows");
    store.finish(run, epoch, RunState::Stuck { reason }, at(2)).await.unwrap();
    store.tick(at(100_000)).await.unwrap();
    assert_eq!(store.counts().await.unwrap().nodes_held, 1, "time does not settle a doubt");
    let cancel = || ControlChange::Cancel { run, by: "kim".to_owned(), why: "looked at it".to_owned() };
    store.control(cancel(), at(100_001)).await.unwrap();
    assert_eq!(store.counts().await.unwrap().nodes_held, 0);
    let last = store.entries(Filter { limit: 1, ..Filter::default() }).await.unwrap().remove(0);
    assert!(matches!(last.kind, EntryKind::NodesReleased { nodes, by, .. } if nodes == ["gpu-3"] && by == "kim"));
    assert!(matches!(store.control(cancel(), at(100_002)).await, Err(StoreError::Refused(_))));
    let stuck = store.runs(of_run(run)).await.unwrap().remove(0);
    assert!(matches!(stuck.state, RunState::Stuck { .. }), "what it came to does not change");
}

pub async fn a_node_that_a_run_has_just_left_counts_for_what_was_read_before(open: Open<'_>) {
    let store = open();
    let first = running(&store, "gpu-3").await;
    let (run, epoch) = (first.run.id, first.run.epoch);
    store.begin(cordon(&first, "gpu-3"), guards(), at(1)).await.unwrap();
    store.end(run, epoch, 0, Outcome::Ok(Value::Null), Vec::new(), at(4)).await.unwrap();
    store.finish(run, epoch, RunState::Done, at(5)).await.unwrap();
    let second = running(&store, "gpu-4").await;
    let one = || Arc::new(nightshift::policy::GuardLimits { share_at_once: 1.0, ..Default::default() });
    let mut read_before = cordon(&second, "gpu-4");
    // Read while the first one was at work, and before its cordon was seen.
    read_before.facts.read_at = Some(at(3));
    let begun = store.begin(read_before, one(), at(6)).await.unwrap();
    assert!(matches!(&begun, BeginOutcome::Held { reason, .. } if reason.code == ReasonCode::BlastRadius), "{begun:?}");
    let mut read_after = cordon(&second, "gpu-4");
    read_after.facts.read_at = Some(at(6));
    let begun = store.begin(read_after, one(), at(6)).await.unwrap();
    assert!(matches!(begun, BeginOutcome::Step(_)), "{begun:?}");
}

pub async fn a_step_is_not_performed_again_while_all_is_frozen(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let run = claimed.run.id;
    store.begin(cordon(&claimed, "gpu-3"), guards(), at(1)).await.unwrap();
    let again = |at| store.again(cordon(&claimed, "gpu-3"), 0, guards(), at);
    assert!(
        matches!(again(at(2)).await.unwrap(), BeginOutcome::Step(step) if step.attempt == 1 && step.deadline == at(60))
    );
    let freeze = Freeze {
        scope: "all".to_owned(),
        by: "kim".to_owned(),
        why: "stop".to_owned(),
        since: at(3),
        until: None,
        release_by: None,
    };
    store.control(ControlChange::Freeze(freeze, Vec::new()), at(3)).await.unwrap();
    for second in 3..6 {
        let held = again(at(second)).await.unwrap();
        assert!(matches!(&held, BeginOutcome::Held { reason, .. } if reason.code == ReasonCode::Frozen), "{held:?}");
    }
    assert_eq!(story(&store).await.iter().filter(|kind| **kind == "step_held").count(), 1);
    let claimed = store.claim(run, at(30)).await.unwrap().unwrap();
    assert!(matches!(claimed.run.state, RunState::Held { .. }) && claimed.journal[0].outcome.is_none());
}

pub async fn a_run_is_found_as_it_was_left(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let (run, epoch) = (claimed.run.id, claimed.run.epoch);
    store.begin(cordon(&claimed, "gpu-3"), guards(), at(1)).await.unwrap();
    let waiting = RunState::Waiting { why: "draining".to_owned() };
    store.park(run, epoch, None, waiting.clone(), at(10), at(1)).await.unwrap();
    assert_eq!(store.claim(run, at(10)).await.unwrap().unwrap().run.state, waiting, "nothing was on its way");
    // Claimed and not parked again: what the owner did before it died is not known.
    assert_eq!(store.claim(run, at(11)).await.unwrap().unwrap().run.state, RunState::Ready);
}
