//! What becomes of notices.
//!
//! Invariant: a case plays the courier: it asks what is due, and records what came of it.

use super::Open;
use super::fixtures::*;
use nightshift::model::{DeliveryReceipt, EntryNo, Freeze, RunState};
use nightshift::store::{ControlChange, DeliveryOutcome, DueNotice, NewApproval, Store, StoreError};
use serde_json::json;
use std::sync::Arc;

async fn due(store: &Arc<dyn Store>, seconds: u64) -> Vec<DueNotice> {
    store.due(at(seconds), 10).await.unwrap().notices
}

async fn told(open: Open<'_>) -> (Arc<dyn Store>, DueNotice) {
    let store = open();
    hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(1)).await;
    let notice = due(&store, 1).await.remove(0);
    assert_eq!((notice.shown, &notice.receipt, notice.attempts, notice.maybe_sent), (None, &None, 0, false));
    (store, notice)
}

async fn report(store: &Arc<dyn Store>, notice: &DueNotice, what: DeliveryOutcome, seconds: u64) {
    store.receipted(&notice.channel, notice.incident, what, at(seconds)).await.unwrap();
}

pub async fn a_delivery_settles_the_notice_until_something_happens(open: Open<'_>) {
    let (store, notice) = told(open).await;
    let receipt = DeliveryReceipt(json!({ "ts": "17.5" }));
    report(&store, &notice, DeliveryOutcome::Sending, 2).await;
    report(&store, &notice, DeliveryOutcome::Delivered { upto: notice.want, receipt: receipt.clone() }, 2).await;
    assert!(due(&store, 9_999).await.is_empty(), "a delivery is no news");
    let acknowledge = ControlChange::Acknowledge { incident: notice.incident, by: "kim".to_owned() };
    store.control(acknowledge, at(5)).await.unwrap();
    let again = due(&store, 5).await.remove(0);
    assert!(again.want > notice.want);
    assert_eq!((again.shown, again.receipt), (Some(notice.want), Some(receipt)));
    let unknown = store.receipted("nowhere", notice.incident, DeliveryOutcome::Sending, at(5)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}

pub async fn a_failing_channel_is_noted_once_and_tried_later(open: Open<'_>) {
    let (store, notice) = told(open).await;
    for (second, attempts) in [(10, 1), (20, 2)] {
        report(&store, &notice, DeliveryOutcome::Retry { why: "503".to_owned(), at: at(second) }, second - 5).await;
        assert!(due(&store, second - 1).await.is_empty());
        assert_eq!(due(&store, second).await[0].attempts, attempts);
        assert_eq!(store.due(at(second - 1), 10).await.unwrap().next, Some(at(second)));
    }
    let failures = |kinds: Vec<&str>| kinds.iter().filter(|kind| **kind == "delivery_failed").count();
    assert_eq!(failures(story(&store).await), 1);
    // News do not cut the wait short: the channel is down, whatever there is to say.
    store
        .control(ControlChange::Acknowledge { incident: notice.incident, by: "kim".to_owned() }, at(12))
        .await
        .unwrap();
    assert!(due(&store, 19).await.is_empty());
    assert_eq!(due(&store, 20).await.len(), 1);
}

pub async fn a_turn_that_comes_later_is_no_failure(open: Open<'_>) {
    let (store, notice) = told(open).await;
    report(&store, &notice, DeliveryOutcome::Delivered { upto: notice.want, receipt: DeliveryReceipt(json!(1)) }, 2)
        .await;
    let acknowledge = ControlChange::Acknowledge { incident: notice.incident, by: "kim".to_owned() };
    store.control(acknowledge, at(5)).await.unwrap();
    let upto = due(&store, 5).await[0].want;
    report(&store, &notice, DeliveryOutcome::Later { upto, at: at(60) }, 5).await;
    let assign = ControlChange::Assign { incident: notice.incident, owner: "kim".to_owned(), by: "kim".to_owned() };
    store.control(assign, at(6)).await.unwrap();
    assert!(due(&store, 59).await.is_empty(), "what happens meanwhile goes into the same edit");
    let again = due(&store, 60).await.remove(0);
    assert_eq!((again.attempts, again.shown), (0, Some(notice.want)));
    assert!(!story(&store).await.contains(&"delivery_failed"));
}

pub async fn a_refused_notice_rests_until_something_new_happens(open: Open<'_>) {
    let (store, notice) = told(open).await;
    report(&store, &notice, DeliveryOutcome::Refused { upto: notice.want, why: "no such channel".to_owned() }, 2).await;
    assert!(due(&store, 9_999).await.is_empty());
    assert_eq!(store.counts().await.unwrap().notices_due, 0);
    store.control(ControlChange::Acknowledge { incident: notice.incident, by: "kim".to_owned() }, at(3)).await.unwrap();
    assert_eq!(due(&store, 3).await[0].shown, None, "it was never shown");
}

pub async fn a_crash_while_sending_says_it_may_have_arrived(open: Open<'_>) {
    let (store, notice) = told(open).await;
    report(&store, &notice, DeliveryOutcome::Sending, 2).await;
    store.close().await.unwrap();
    drop(store);
    let store = open();
    assert!(due(&store, 3).await[0].maybe_sent);
    report(&store, &notice, DeliveryOutcome::Retry { why: "timeout".to_owned(), at: at(4) }, 3).await;
    assert!(!due(&store, 4).await[0].maybe_sent);
}

/// The run of the notice asks people.
async fn asks(store: &Arc<dyn Store>, seconds: u64) {
    let run = store.runs(all()).await.unwrap().remove(0);
    let run = store.claim(run.id, at(seconds)).await.unwrap().unwrap().run;
    let question = NewApproval {
        question: "Cordon gpu-3?".to_owned(),
        plan: None,
        foretold: Vec::new(),
        plan_hash: "cd".repeat(32),
        step: None,
        approvers: Vec::new(),
        needed: 1,
        expires_at: at(1_800),
    };
    store.ask(run.id, run.epoch, question, at(seconds)).await.unwrap();
}

async fn acknowledge(store: &Arc<dyn Store>, notice: &DueNotice, seconds: u64) {
    let acknowledge = ControlChange::Acknowledge { incident: notice.incident, by: "kim".to_owned() };
    store.control(acknowledge, at(seconds)).await.unwrap();
}

fn not_yet(upto: EntryNo) -> DeliveryOutcome {
    let why = "a run is at work".to_owned();
    DeliveryOutcome::Judged { upto, paged: false, why, until: Some(at(900)), news: true }
}

pub async fn a_question_between_the_look_and_the_judgement_is_not_put_off(open: Open<'_>) {
    let (store, notice) = told(open).await;
    asks(&store, 2).await;
    // The judgement was made before the question was there, and is written after it.
    report(&store, &notice, not_yet(notice.want), 3).await;
    let again = due(&store, 3).await;
    assert_eq!(again.len(), 1, "the question waits for no patience");
    assert!(again[0].urgent && again[0].want > notice.want);
    // One that has seen it puts it off.
    report(&store, &notice, not_yet(again[0].want), 4).await;
    assert!(due(&store, 899).await.is_empty());
    assert_eq!(due(&store, 900).await.len(), 1);
}

pub async fn news_between_the_look_and_the_judgement_are_looked_at(open: Open<'_>) {
    let (store, notice) = told(open).await;
    acknowledge(&store, &notice, 2).await;
    report(&store, &notice, not_yet(notice.want), 3).await;
    assert_eq!(due(&store, 3).await.len(), 1);
}

pub async fn a_question_that_comes_during_a_delivery_waits_for_no_pace(open: Open<'_>) {
    let (store, notice) = told(open).await;
    report(&store, &notice, DeliveryOutcome::Sending, 2).await;
    asks(&store, 2).await;
    report(&store, &notice, DeliveryOutcome::Delivered { upto: notice.want, receipt: DeliveryReceipt(json!(1)) }, 3)
        .await;
    let again = due(&store, 3).await;
    assert!(again.len() == 1 && again[0].urgent, "{again:?}");
    report(&store, &notice, DeliveryOutcome::Delivered { upto: again[0].want, receipt: DeliveryReceipt(json!(1)) }, 3)
        .await;
    acknowledge(&store, &notice, 3).await;
    assert!(due(&store, 3).await.is_empty(), "other news go into one more edit");
    let later = due(&store, 5).await;
    assert!(later.len() == 1 && !later[0].urgent, "{later:?}");
}

pub async fn a_question_that_comes_before_a_turn_is_recorded_waits_for_no_turn(open: Open<'_>) {
    let (store, notice) = told(open).await;
    report(&store, &notice, DeliveryOutcome::Delivered { upto: notice.want, receipt: DeliveryReceipt(json!(1)) }, 2)
        .await;
    acknowledge(&store, &notice, 5).await;
    let upto = due(&store, 5).await[0].want;
    asks(&store, 6).await;
    report(&store, &notice, DeliveryOutcome::Later { upto, at: at(3_600) }, 6).await;
    assert_eq!(due(&store, 6).await.len(), 1);
}

pub async fn a_first_message_that_waits_is_due_with_the_first_news(open: Open<'_>) {
    let (store, notice) = told(open).await;
    acknowledge(&store, &notice, 2).await;
    report(&store, &notice, DeliveryOutcome::Later { upto: notice.want, at: at(60) }, 2).await;
    assert_eq!(due(&store, 2).await.len(), 1);
}

pub async fn a_question_after_a_refusal_is_tried_at_once(open: Open<'_>) {
    let (store, notice) = told(open).await;
    asks(&store, 2).await;
    report(&store, &notice, DeliveryOutcome::Refused { upto: notice.want, why: "no such channel".to_owned() }, 3).await;
    assert_eq!(due(&store, 3).await.len(), 1);
}

pub async fn nothing_to_send_settles_the_notice_and_leaves_no_entry(open: Open<'_>) {
    let (store, notice) = told(open).await;
    let kept = DeliveryReceipt(json!({ "state": "triggered" }));
    report(&store, &notice, DeliveryOutcome::Delivered { upto: notice.want, receipt: kept.clone() }, 2).await;
    for (second, receipt) in [(5, None), (8, Some(DeliveryReceipt(json!({ "state": "acknowledged" }))))] {
        let assign =
            ControlChange::Assign { incident: notice.incident, owner: format!("o{second}"), by: "kim".to_owned() };
        store.control(assign, at(second)).await.unwrap();
        let again = due(&store, second).await.remove(0);
        assert_eq!(again.receipt.as_ref(), Some(&kept));
        report(&store, &notice, DeliveryOutcome::Sending, second).await;
        report(&store, &notice, DeliveryOutcome::Nothing { upto: again.want, receipt }, second).await;
        assert!(due(&store, 9_999).await.is_empty());
    }
    let delivered = story(&store).await.into_iter().filter(|kind| *kind == "delivered").count();
    assert_eq!(delivered, 1, "one request was answered");
    acknowledge(&store, &notice, 11).await;
    let last = due(&store, 11).await.remove(0);
    assert_eq!(last.receipt, Some(DeliveryReceipt(json!({ "state": "acknowledged" }))));
    assert!(!last.maybe_sent && last.shown > Some(notice.want));
}

pub async fn a_hold_that_lasts_is_recorded_once_more_and_people_wait_for_it(open: Open<'_>) {
    let store = open();
    let claimed = running(&store, "gpu-3").await;
    let freeze = Freeze {
        scope: "all".to_owned(),
        by: "kim".to_owned(),
        why: "change window".to_owned(),
        since: at(0),
        release_by: None,
        until: None,
    };
    store.control(ControlChange::Freeze(freeze, Vec::new()), at(0)).await.unwrap();
    let notice = due(&store, 1).await.remove(0);
    for second in (1..3_600).step_by(15) {
        store.begin(cordon(&claimed, "gpu-3"), guards(), at(second)).await.unwrap();
        for row in due(&store, second).await {
            assert!(row.urgent == (second > 600 && second < 620), "{second}: {row:?}");
            let receipt = DeliveryReceipt(json!(1));
            report(&store, &notice, DeliveryOutcome::Delivered { upto: row.want, receipt }, second).await;
        }
    }
    let held = story(&store).await.into_iter().filter(|kind| *kind == "step_held").count();
    assert_eq!(held, 2, "when it began, and when it had lasted");
    assert!(matches!(store.runs(of_run(claimed.run.id)).await.unwrap()[0].state, RunState::Held { .. }));
}

pub async fn what_a_channel_has_nothing_to_say_of_is_looked_at_at_the_same_pace(open: Open<'_>) {
    let (store, notice) = told(open).await;
    report(&store, &notice, DeliveryOutcome::Delivered { upto: notice.want, receipt: DeliveryReceipt(json!(1)) }, 2)
        .await;
    acknowledge(&store, &notice, 10).await;
    let row = due(&store, 10).await.remove(0);
    // News come while the channel decides that it has nothing to say.
    let assign = ControlChange::Assign { incident: notice.incident, owner: "ana".to_owned(), by: "kim".to_owned() };
    store.control(assign, at(10)).await.unwrap();
    report(&store, &notice, DeliveryOutcome::Nothing { upto: row.want, receipt: None }, 10).await;
    assert!(due(&store, 11).await.is_empty(), "a flap would be judged anew with each of its turns");
    assert_eq!(due(&store, 12).await.len(), 1);
    // A question waits for no pace.
    let row = due(&store, 12).await.remove(0);
    asks(&store, 12).await;
    report(&store, &notice, DeliveryOutcome::Nothing { upto: row.want, receipt: None }, 12).await;
    assert_eq!(due(&store, 12).await.len(), 1);
}
