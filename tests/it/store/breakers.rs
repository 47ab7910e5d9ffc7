//! What trips a breaker, what it holds, and who lets it close.
//!
//! Invariant: a breaker is seen from outside: by what may begin, and by what the ledger says.

use super::Open;
use super::fixtures::*;
use nightshift::model::{ImpactScope, Mode, ReasonCode, RunState};
use nightshift::policy::GuardLimits;
use nightshift::store::{BeginOutcome, ClaimedRun, ControlChange, Store, StoreError};
use serde_json::json;
use std::sync::Arc;

/// Wide enough that no other guard has a say.
fn wide() -> Arc<GuardLimits> {
    Arc::new(GuardLimits {
        nodes_at_once: 50,
        share_at_once: 1.0,
        share_per_hour: 1.0,
        share_per_day: 1.0,
        ..GuardLimits::default()
    })
}

async fn begin(store: &Arc<dyn Store>, claimed: &ClaimedRun, node: &str, second: u64) -> BeginOutcome {
    store.begin(cordon(claimed, node), wide(), at(second)).await.unwrap()
}

pub(super) async fn fails(store: &Arc<dyn Store>, node: &str, second: u64, acts: bool) {
    let claimed = running(store, node).await;
    if acts {
        let begun = begin(store, &claimed, node, second).await;
        assert!(matches!(begun, BeginOutcome::Step(_)), "{begun:?}");
        let outcome = nightshift::model::Outcome::Ok(json!({ "changed": true }));
        store.end(claimed.run.id, claimed.run.epoch, 0, outcome, Vec::new(), at(second)).await.unwrap();
    }
    let state = RunState::Failed { why: "it did not help".to_owned(), undone: false };
    store.finish(claimed.run.id, claimed.run.epoch, state, at(second)).await.unwrap();
}

fn held(begun: &BeginOutcome) -> ReasonCode {
    let BeginOutcome::Held { reason, .. } = begun else { panic!("{begun:?}") };
    reason.code
}

pub async fn three_remedies_that_failed_trip_the_breaker_and_a_person_resets_it(open: Open<'_>) {
    let store = open();
    for (at, node) in ["gpu-1", "gpu-2"].into_iter().enumerate() {
        fails(&store, node, 10 + at as u64, true).await;
    }
    assert!(store.breakers().await.unwrap().is_empty(), "two are bad luck");
    let under_way = running(&store, "gpu-9").await;
    assert!(matches!(begin(&store, &under_way, "gpu-9", 12).await, BeginOutcome::Step(_)));
    fails(&store, "gpu-3", 700, true).await;
    let scopes: Vec<String> = store.breakers().await.unwrap().into_iter().map(|breaker| breaker.scope).collect();
    assert_eq!(scopes, ["cluster:default", "rule:xid"]);

    store.close().await.unwrap();
    drop(store);
    let store = open();
    let next = running(&store, "gpu-4").await;
    assert_eq!(held(&begin(&store, &next, "gpu-4", 701).await), ReasonCode::BreakerTripped, "also after a restart");
    let mut undo = cordon(&next, "gpu-4");
    undo.undoes = Some(0);
    assert!(matches!(store.begin(undo, wide(), at(702)).await.unwrap(), BeginOutcome::Step(_)), "taking back passes");
    let other = running(&store, "gpu-5").await;
    assert_eq!(held(&begin(&store, &other, "gpu-5", 703).await), ReasonCode::BreakerTripped);

    let reset = |scope: &str| ControlChange::ResetBreaker {
        scope: scope.to_owned(),
        by: "kim".to_owned(),
        why: "a bad driver".to_owned(),
    };
    assert!(matches!(store.control(reset("rule:other"), at(704)).await, Err(StoreError::NotFound { .. })));
    store.control(reset("rule:xid"), at(704)).await.unwrap();
    assert_eq!(
        held(&begin(&store, &other, "gpu-5", 705).await),
        ReasonCode::BreakerTripped,
        "the cluster's is open still"
    );
    store.control(reset("cluster:default"), at(705)).await.unwrap();
    assert!(matches!(begin(&store, &other, "gpu-5", 706).await, BeginOutcome::Step(_)));
    let trips = story(&store).await.into_iter().filter(|kind| *kind == "breaker_tripped").count();
    assert_eq!(trips, 2, "what came before the reset does not count again");
}

pub async fn a_failure_before_anything_was_done_trips_nothing(open: Open<'_>) {
    let store = open();
    for node in ["gpu-1", "gpu-2", "gpu-3", "gpu-4"] {
        fails(&store, node, 20, false).await;
    }
    assert!(store.breakers().await.unwrap().is_empty());
}

pub async fn one_symptom_on_many_nodes_trips_a_breaker_of_its_own(open: Open<'_>) {
    let store = open();
    store.pin(&pin(), TEXT, ImpactScope::Node, start()).await.unwrap();
    let names: Vec<String> = (0..15).map(|number| format!("gpu-{number}")).collect();
    let mut runs = Vec::new();
    for name in &names {
        runs.extend(hear(&store, &auto(), vec![event("Xid79", name)], at(1)).await.runs);
    }
    let first = store.claim(runs[0], at(2)).await.unwrap().unwrap();
    assert_eq!(held(&begin(&store, &first, "gpu-0", 2).await), ReasonCode::Correlated, "15 of 100");
    assert_eq!(store.breakers().await.unwrap()[0].scope, "symptom:xid");
    let second = store.claim(runs[1], at(3)).await.unwrap().unwrap();
    let begun = begin(&store, &second, "gpu-1", 900).await;
    assert_eq!(held(&begun), ReasonCode::BreakerTripped, "time alone does not let it close");
    let reset = ControlChange::ResetBreaker {
        scope: "symptom:xid".to_owned(),
        by: "kim".to_owned(),
        why: "a switch".to_owned(),
    };
    store.control(reset, at(901)).await.unwrap();
    assert!(matches!(begin(&store, &second, "gpu-1", 902).await, BeginOutcome::Step(_)));
}

pub async fn a_complaint_that_comes_and_goes_is_held_until_it_was_steady(open: Open<'_>) {
    let store = open();
    store.pin(&pin(), TEXT, ImpactScope::Node, start()).await.unwrap();
    let rules = rules(json!([rule(Mode::Auto)]));
    let one = |start: u64| nightshift::model::Event { starts_at: at(start), ..event("Xid79", "gpu-3") };
    let mut runs = Vec::new();
    for round in [0, 100, 200] {
        runs = hear(&store, &rules, vec![one(round)], at(round)).await.runs;
        let claimed = store.claim(runs[0], at(round)).await.unwrap().unwrap();
        if round < 200 {
            store.finish(claimed.run.id, claimed.run.epoch, RunState::Done, at(round + 10)).await.unwrap();
            hear(&store, &rules, vec![resolved(one(round))], at(round + 50)).await;
        }
    }
    let claimed = store.claim(runs[0], at(201)).await.unwrap().unwrap();
    let begun = begin(&store, &claimed, "gpu-3", 202).await;
    assert_eq!(held(&begun), ReasonCode::Flapping);
    assert!(matches!(begun, BeginOutcome::Held { until, .. } if until == at(200 + 15 * 60)));
    assert!(matches!(begin(&store, &claimed, "gpu-3", 200 + 15 * 60 + 1).await, BeginOutcome::Step(_)));
}

pub async fn undo_and_giving_back_pass_a_breaker_that_has_tripped(open: Open<'_>) {
    let store = open();
    for (at, node) in ["gpu-1", "gpu-2", "gpu-3"].into_iter().enumerate() {
        fails(&store, node, 10 + 700 * at as u64, true).await;
    }
    assert_eq!(store.breakers().await.unwrap().len(), 2);
    let next = running(&store, "gpu-4").await;
    assert_eq!(held(&begin(&store, &next, "gpu-4", 1_500).await), ReasonCode::BreakerTripped);
    let undo = nightshift::policy::StepProposal { undoes: Some(0), ..cordon(&next, "gpu-4") };
    let begun = store.begin(undo, wide(), at(1_501)).await.unwrap();
    assert!(matches!(begun, BeginOutcome::Step(_)), "{begun:?}");
    let outcome = nightshift::model::Outcome::Ok(json!({ "changed": true }));
    store.end(next.run.id, next.run.epoch, 0, outcome, Vec::new(), at(1_502)).await.unwrap();
    let give_back = proposal(&next, "k8s::uncordon", nightshift::model::Subject::node("gpu-4"));
    let begun = store.begin(give_back, wide(), at(1_503)).await.unwrap();
    assert!(matches!(begun, BeginOutcome::Step(_)), "{begun:?}");
}
