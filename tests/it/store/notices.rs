//! What becomes of notices.
//!
//! Invariant: a case plays the courier: it asks what is due, and records what came of it.

use super::Open;
use super::fixtures::*;
use nightshift::model::Receipt;
use nightshift::store::{Control, DueNotice, Receipted, Store, StoreError};
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

async fn report(store: &Arc<dyn Store>, notice: &DueNotice, what: Receipted, seconds: u64) {
    store.receipted(&notice.channel, notice.incident, what, at(seconds)).await.unwrap();
}

pub async fn a_delivery_settles_the_notice_until_something_happens(open: Open<'_>) {
    let (store, notice) = told(open).await;
    let receipt = Receipt(json!({ "ts": "17.5" }));
    report(&store, &notice, Receipted::Sending, 2).await;
    report(&store, &notice, Receipted::Delivered { upto: notice.want, receipt: receipt.clone() }, 2).await;
    assert!(due(&store, 9_999).await.is_empty(), "a delivery is no news");
    let acknowledge = Control::Acknowledge { incident: notice.incident, by: "kim".to_owned() };
    store.control(acknowledge, at(5)).await.unwrap();
    let again = due(&store, 5).await.remove(0);
    assert!(again.want > notice.want);
    assert_eq!((again.shown, again.receipt), (Some(notice.want), Some(receipt)));
    let unknown = store.receipted("nowhere", notice.incident, Receipted::Sending, at(5)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}

pub async fn a_failing_channel_is_noted_once_and_tried_later(open: Open<'_>) {
    let (store, notice) = told(open).await;
    for (second, attempts) in [(10, 1), (20, 2)] {
        report(&store, &notice, Receipted::Retry { why: "503".to_owned(), at: at(second) }, second - 5).await;
        assert!(due(&store, second - 1).await.is_empty());
        assert_eq!(due(&store, second).await[0].attempts, attempts);
        assert_eq!(store.due(at(second - 1), 10).await.unwrap().next, Some(at(second)));
    }
    let failures = |kinds: Vec<&str>| kinds.iter().filter(|kind| **kind == "delivery_failed").count();
    assert_eq!(failures(story(&store).await), 1);
    // News do not cut the wait short: the channel is down, whatever there is to say.
    store.control(Control::Acknowledge { incident: notice.incident, by: "kim".to_owned() }, at(12)).await.unwrap();
    assert!(due(&store, 19).await.is_empty());
    assert_eq!(due(&store, 20).await.len(), 1);
}

pub async fn a_turn_that_comes_later_is_no_failure(open: Open<'_>) {
    let (store, notice) = told(open).await;
    report(&store, &notice, Receipted::Delivered { upto: notice.want, receipt: Receipt(json!(1)) }, 2).await;
    let acknowledge = Control::Acknowledge { incident: notice.incident, by: "kim".to_owned() };
    store.control(acknowledge, at(5)).await.unwrap();
    report(&store, &notice, Receipted::Later { at: at(60) }, 5).await;
    let assign = Control::Assign { incident: notice.incident, owner: "kim".to_owned(), by: "kim".to_owned() };
    store.control(assign, at(6)).await.unwrap();
    assert!(due(&store, 59).await.is_empty(), "what happens meanwhile goes into the same edit");
    let again = due(&store, 60).await.remove(0);
    assert_eq!((again.attempts, again.shown), (0, Some(notice.want)));
    assert!(!story(&store).await.contains(&"delivery_failed"));
}

pub async fn a_refused_notice_rests_until_something_new_happens(open: Open<'_>) {
    let (store, notice) = told(open).await;
    report(&store, &notice, Receipted::Refused { upto: notice.want, why: "no such channel".to_owned() }, 2).await;
    assert!(due(&store, 9_999).await.is_empty());
    assert_eq!(store.counts().await.unwrap().notices_due, 0);
    store.control(Control::Acknowledge { incident: notice.incident, by: "kim".to_owned() }, at(3)).await.unwrap();
    assert_eq!(due(&store, 3).await[0].shown, None, "it was never shown");
}

pub async fn a_crash_while_sending_says_it_may_have_arrived(open: Open<'_>) {
    let (store, notice) = told(open).await;
    report(&store, &notice, Receipted::Sending, 2).await;
    store.close().await.unwrap();
    drop(store);
    let store = open();
    assert!(due(&store, 3).await[0].maybe_sent);
    report(&store, &notice, Receipted::Retry { why: "timeout".to_owned(), at: at(4) }, 3).await;
    assert!(!due(&store, 4).await[0].maybe_sent);
}
