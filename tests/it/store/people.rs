//! What people's answers and controls do.
//!
//! Invariant: whatever is pressed twice, late or by a stranger is answered in words and changes nothing.

use super::Open;
use super::fixtures::*;
use nightshift::model::{
    ActionCall, Approval, ApprovalState, EffectClass, FailureKind, Freeze, ImpactScope, IncidentState, Outcome, Plan,
    PlanEnd, ReasonCode, RunState,
};
use nightshift::store::{ClaimedRun, ControlChange, DecisionOutcome, Filter, NewApproval, Store, StoreError};
use serde_json::json;
use std::sync::Arc;

fn plan() -> Plan {
    Plan { calls: Vec::new(), end: PlanEnd::Done, hash: "cd".repeat(32) }
}

fn question(step: Option<u32>, approvers: &[&str]) -> NewApproval {
    NewApproval {
        question: "Cordon gpu-3?".to_owned(),
        plan: step.is_none().then(plan),
        foretold: Vec::new(),
        plan_hash: plan().hash,
        step,
        approvers: approvers.iter().map(|name| (*name).to_owned()).collect(),
        needed: 1,
        expires_at: at(600),
    }
}

async fn asking(store: &Arc<dyn Store>, approvers: &[&str]) -> (ClaimedRun, Approval) {
    let claimed = running(store, "gpu-3").await;
    let (run, epoch) = (claimed.run.id, claimed.run.epoch);
    let id = store.ask(run, epoch, question(None, approvers), at(1)).await.unwrap();
    let approval = store.approvals(Filter { open: true, ..all() }).await.unwrap().remove(0);
    assert_eq!((approval.id, approval.state, approval.run), (id, ApprovalState::Open, run));
    let due = store.due(at(599), 10).await.unwrap();
    assert_eq!(
        (due.runs, due.next),
        (Vec::new(), Some(at(600))),
        "a run that asks costs nothing until the question expires"
    );
    (claimed, approval)
}

pub async fn an_approval_is_decided_once(open: Open<'_>) {
    let store = open();
    let (claimed, approval) = asking(&store, &[]).await;
    let first = store.decide(approval.id, true, "kim", "looks right", at(2)).await.unwrap();
    let DecisionOutcome::Now(decided) = first else { panic!("{first:?}") };
    assert_eq!((decided.state, decided.decided_by.as_deref()), (ApprovalState::Approved, Some("kim")));
    let second = store.decide(approval.id, false, "lee", "", at(3)).await.unwrap();
    assert_eq!(second, DecisionOutcome::Already(decided));
    let run = store.runs(of_run(claimed.run.id)).await.unwrap().remove(0);
    assert_eq!((run.state, run.approved, run.wake_at), (RunState::Ready, Some(plan()), Some(at(2))));
    let decisions = story(&store).await.into_iter().filter(|kind| *kind == "approval_decided").count();
    assert_eq!(decisions, 1);
}

pub async fn two_persons_release_a_freeze_where_two_must(open: Open<'_>) {
    let store = open();
    let freeze = Freeze {
        scope: "all".into(),
        by: "kim".into(),
        why: "smoke".into(),
        since: at(1),
        until: None,
        release_by: None,
    };
    let lift =
        |by: &str| ControlChange::Unfreeze { scope: "all".into(), by: by.into(), why: "gone".into(), persons: 2 };
    store.control(ControlChange::Freeze(freeze.clone(), Vec::new()), at(1)).await.unwrap();
    store.control(lift("kim"), at(2)).await.unwrap();
    assert_eq!(store.freezes().await.unwrap()[0].release_by.as_deref(), Some("kim"), "it is frozen still");
    assert!(matches!(store.control(lift("kim"), at(3)).await, Err(StoreError::Refused(_))), "one person is one");
    store.control(lift("lee"), at(2 + 31 * 60)).await.unwrap();
    let first = store.freezes().await.unwrap()[0].release_by.clone();
    assert_eq!(first.as_deref(), Some("lee"), "half an hour later the first one's word is forgotten");
    store.control(lift("kim"), at(2 + 32 * 60)).await.unwrap();
    assert!(store.freezes().await.unwrap().is_empty());
    store.control(ControlChange::Freeze(freeze, Vec::new()), at(3_000)).await.unwrap();
    assert_eq!(store.freezes().await.unwrap()[0].release_by, None, "a new freeze begins from nothing");
}

pub async fn a_question_for_two_is_answered_by_two_different_persons(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let two = NewApproval { needed: 2, ..question(None, &[]) };
    let id = store.ask(claimed.run.id, claimed.run.epoch, two, at(1)).await.unwrap();
    let first = store.decide(id, true, "kim", "", at(2)).await.unwrap();
    let DecisionOutcome::Seconded(approval) = first else { panic!("{first:?}") };
    assert_eq!((approval.state, approval.given.as_slice()), (ApprovalState::Open, &["kim".to_owned()][..]));
    assert!(matches!(store.decide(id, true, "kim", "", at(3)).await, Err(StoreError::Refused(_))), "one person is one");
    let run = store.runs(of_run(claimed.run.id)).await.unwrap().remove(0);
    assert_eq!(run.approved, None);
    let second = store.decide(id, true, "lee", "", at(4)).await.unwrap();
    assert!(
        matches!(&second, DecisionOutcome::Now(approval) if approval.state == ApprovalState::Approved),
        "{second:?}"
    );
    assert_eq!(story(&store).await.into_iter().filter(|kind| *kind == "approval_seconded").count(), 1);
}

pub async fn an_answer_after_expiry_is_no(open: Open<'_>) {
    let store = open();
    let (claimed, approval) = asking(&store, &[]).await;
    let late = store.decide(approval.id, true, "kim", "", at(600)).await.unwrap();
    assert!(
        matches!(&late, DecisionOutcome::Already(approval) if approval.state == ApprovalState::Expired),
        "{late:?}"
    );
    expect_expired(&store, &claimed).await;
}

pub async fn nobody_answering_ends_the_run_at_the_tick(open: Open<'_>) {
    let store = open();
    let (claimed, _) = asking(&store, &[]).await;
    assert_eq!(store.tick(at(599)).await.unwrap(), 0);
    assert_eq!(store.tick(at(600)).await.unwrap(), 1);
    assert_eq!(store.tick(at(601)).await.unwrap(), 0);
    expect_expired(&store, &claimed).await;
}

async fn expect_expired(store: &Arc<dyn Store>, claimed: &ClaimedRun) {
    let run = store.runs(of_run(claimed.run.id)).await.unwrap().remove(0);
    assert!(matches!(run.state, RunState::Denied { reason } if reason.code == ReasonCode::ApprovalExpired));
    let kinds = story(store).await;
    assert_eq!(kinds[kinds.len() - 2..], ["approval_expired", "run_ended"]);
}

pub async fn a_stranger_may_not_approve(open: Open<'_>) {
    let store = open();
    let (_, approval) = asking(&store, &["kim", "lee"]).await;
    let refused = store.decide(approval.id, true, "eve", "", at(2)).await;
    assert!(matches!(&refused, Err(StoreError::Refused(text)) if text.contains("kim, lee")), "{refused:?}");
    let denied = store.decide(approval.id, false, "lee", "not tonight", at(3)).await.unwrap();
    assert!(matches!(denied, DecisionOutcome::Now(approval) if approval.state == ApprovalState::Denied));
    let run = store.runs(all()).await.unwrap().remove(0);
    assert!(
        matches!(&run.state, RunState::Denied { reason } if reason.text == "denied by lee: not tonight"),
        "{run:?}"
    );
}

pub async fn a_question_of_a_step_is_answered_into_its_outcome(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let (run, epoch) = (claimed.run.id, claimed.run.epoch);
    let mut approve = cordon(&claimed, "gpu-3");
    approve.call = ActionCall::new("approve", [("question", json!("Go on?"))]);
    (approve.effect, approve.reach, approve.disruptive) = (EffectClass::Read, ImpactScope::None, false);
    store.begin(approve, guards(), at(1)).await.unwrap();
    let id = store.ask(run, epoch, question(Some(0), &[]), at(1)).await.unwrap();
    store.decide(id, false, "kim", "", at(2)).await.unwrap();
    let claimed = store.claim(run, at(3)).await.unwrap().unwrap();
    let Some(Outcome::Failed(failure)) = &claimed.journal[0].outcome else { panic!("{:?}", claimed.journal) };
    assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Refused, "denied by kim"));
    assert_eq!(claimed.run.state, RunState::Ready, "the runbook may catch that, and else it fails");
}

pub async fn freezes_are_set_listed_and_lifted(open: Open<'_>) {
    let store = open();
    let freeze = |scope: &str| Freeze {
        scope: scope.to_owned(),
        by: "kim".to_owned(),
        why: "change window".to_owned(),
        since: at(1),
        until: None,
        release_by: None,
    };
    store.control(ControlChange::Freeze(freeze("all"), Vec::new()), at(1)).await.unwrap();
    store.control(ControlChange::Freeze(freeze("rule:xid"), Vec::new()), at(1)).await.unwrap();
    for wrong in ["", "everything", "rule:", "node:gpu-3"] {
        let refused = store.control(ControlChange::Freeze(freeze(wrong), Vec::new()), at(1)).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{wrong}");
    }
    assert_eq!(store.freezes().await.unwrap(), [freeze("all"), freeze("rule:xid")]);
    let lift = || ControlChange::Unfreeze {
        scope: "all".to_owned(),
        by: "lee".to_owned(),
        why: "done".to_owned(),
        persons: 1,
    };
    store.control(lift(), at(2)).await.unwrap();
    assert!(matches!(store.control(lift(), at(3)).await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.freezes().await.unwrap(), [freeze("rule:xid")]);
}

pub async fn an_incident_is_acknowledged_once(open: Open<'_>) {
    let store = open();
    hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(1)).await;
    let incident = store.incidents(all()).await.unwrap()[0].id;
    for by in ["kim", "lee"] {
        store.control(ControlChange::Acknowledge { incident, by: by.to_owned() }, at(2)).await.unwrap();
    }
    let found = store.incidents(all()).await.unwrap().remove(0);
    assert_eq!((found.state, found.acknowledged_by.as_deref()), (IncidentState::Acknowledged, Some("kim")));
    assert_eq!(story(&store).await.iter().filter(|kind| **kind == "incident_acknowledged").count(), 1);
    hear(&store, &auto(), vec![resolved(event("Xid79", "gpu-3"))], at(3)).await;
    let late = store.control(ControlChange::Acknowledge { incident, by: "kim".to_owned() }, at(4)).await;
    assert!(matches!(late, Err(StoreError::Refused(_))));
}
