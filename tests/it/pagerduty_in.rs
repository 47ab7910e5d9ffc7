//! What people do in PagerDuty, heard here: once, as far as they may, and never our own echo.
//!
//! Invariant: whatever it comes to, PagerDuty is answered so that it neither tries again nor gives up.

use crate::slack_in::{Chat, SECRET};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use nightshift::model::Incident;
use nightshift::server::ConfiguredTokens;
use nightshift::store::Filter;
use nightshift::world::KubeConfig;
use serde_json::{Value, json};
use tower::ServiceExt;

/// What PagerDuty posts when somebody does something there.
async fn pages(chat: &Chat, id: &str, kind: &str, agent: Value, data: Value) -> StatusCode {
    let event = json!({ "id": id, "event_type": kind, "resource_type": "incident", "agent": agent, "data": data });
    delivers(chat, event).await
}

/// A signed delivery of this event.
async fn delivers(chat: &Chat, event: Value) -> StatusCode {
    let body = json!({ "event": event }).to_string();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = ring::hmac::sign(&key, body.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let request = Request::post("/pagerduty/webhook")
        .header("x-pagerduty-signature", format!("v1={hex}"))
        .body(Body::from(body))
        .unwrap();
    chat.router.clone().oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn what_people_do_in_pagerduty_is_the_same_here_once_and_our_echo_is_nothing() {
    let chat = Chat::begin().await;
    chat.asking().await;
    let ours = |key: &str| json!({ "id": "Q1", "type": "incident", "incident_key": key });
    let ada = json!({ "id": "P0ADA", "type": "user_reference", "summary": "Ada L." });
    let incident = || async {
        let filter = Filter { limit: 1, ..Filter::default() };
        chat.night.parts.store.incidents(filter).await.unwrap().remove(0)
    };
    let key = incident().await.dedup_key("nightshift");
    let key = key.as_str();
    for (id, agent) in [("1", Value::Null), ("2", json!({ "id": "I1", "type": "integration_reference" }))] {
        assert_eq!(pages(&chat, id, "incident.acknowledged", agent, ours(key)).await, StatusCode::OK);
        assert_eq!(incident().await.acknowledged_by, None, "our own event that comes back");
    }
    for foreign in
        ["nightshift/other/i1", "nightshift/nightshift/i99", "nightshift/nightshift/i1/0123456789abcdef", "x", ""]
    {
        let status = pages(&chat, foreign, "incident.acknowledged", ada.clone(), ours(foreign)).await;
        assert_eq!(status, StatusCode::OK, "a 4xx thrice would switch the subscription off");
    }
    for _ in 0..2 {
        assert_eq!(pages(&chat, "3", "incident.acknowledged", ada.clone(), ours(key)).await, StatusCode::OK);
        let note = json!({ "content": "looks like <!channel> the switch", "incident": ours(key) });
        let bob = json!({ "id": "P9", "type": "user_reference", "summary": "Bob <b>" });
        assert_eq!(pages(&chat, "4", "incident.annotated", bob, note).await, StatusCode::OK);
    }
    assert_eq!(incident().await.acknowledged_by.as_deref(), Some("ada"));
    let remarks: Vec<String> = chat
        .night
        .entries()
        .await
        .iter()
        .filter(|entry| entry.kind.name() == "remarked")
        .filter_map(|entry| nightshift::engine::story::line(entry).map(|line| line.text))
        .collect();
    assert_eq!(remarks, ["Bob <b> (PagerDuty) noted in PagerDuty: looks like <!channel> the switch"]);
}

async fn incident_of_ours(chat: &Chat) -> Value {
    json!({ "id": "Q1", "type": "incident", "incident_key": incident(chat).await.dedup_key("nightshift") })
}

fn user(id: &str, name: &str) -> Value {
    json!({ "id": id, "type": "user_reference", "summary": name })
}

async fn incident(chat: &Chat) -> Incident {
    let filter = Filter { limit: 1, ..Filter::default() };
    chat.night.parts.store.incidents(filter).await.unwrap().remove(0)
}

#[tokio::test]
async fn who_may_not_respond_here_acknowledges_nothing_there_and_the_story_says_why() {
    let chat = Chat::begin().await;
    chat.asking().await;
    for id in ["1", "2"] {
        let status =
            pages(&chat, id, "incident.acknowledged", user("P0VIC", "Vic"), incident_of_ours(&chat).await).await;
        assert_eq!(status, StatusCode::OK, "PagerDuty would try again");
    }
    assert_eq!(incident(&chat).await.acknowledged_by, None);
    let refusals = chat.refusals().await;
    assert_eq!(refusals.len(), 1, "a repeat is a number: {refusals:?}");
    assert!(
        refusals[0].starts_with("denied for vic: POST /api/v1/incidents/i1/ack, by PagerDuty: `vic` has role viewer"),
        "{refusals:?}"
    );
    let entries = chat.night.entries().await;
    let refused = entries.iter().find(|entry| entry.kind.name() == "refused").unwrap();
    assert_eq!(refused.about.incident.unwrap().to_string(), "i1", "it is in the story of its incident");
    // What they say is still heard: words act on nothing.
    let note = json!({ "content": "I am on my way", "incident": incident_of_ours(&chat).await });
    assert_eq!(pages(&chat, "3", "incident.annotated", user("P0VIC", "Vic"), note).await, StatusCode::OK);
    assert!(chat.night.entries().await.iter().any(|entry| entry.kind.name() == "remarked"));
    assert_eq!(
        pages(&chat, "4", "incident.acknowledged", user("P0OLI", "Oli"), incident_of_ours(&chat).await).await,
        StatusCode::OK
    );
    assert_eq!(incident(&chat).await.acknowledged_by.as_deref(), Some("oli"));
}

#[tokio::test]
async fn who_may_act_in_other_clusters_alone_acknowledges_nothing_of_this_one() {
    let chat = Chat::begin_with(ConfiguredTokens::default(), |config| {
        config.clusters.insert("sim".into(), KubeConfig::default());
        config.people[0].clusters = Some(vec!["elsewhere".into()]);
        config.people[1].clusters = Some(vec!["sim".into()]);
    })
    .await;
    chat.asking().await;
    let acknowledges = async |id: &str, who: &str| {
        assert_eq!(
            pages(&chat, id, "incident.acknowledged", user(who, "x"), incident_of_ours(&chat).await).await,
            StatusCode::OK
        );
        incident(&chat).await.acknowledged_by
    };
    assert_eq!(acknowledges("1", "P0ADA").await, None);
    assert!(chat.refusals().await[0].contains("`ada` may act only in elsewhere"), "{:?}", chat.refusals().await);
    assert_eq!(acknowledges("2", "P0BOB").await.as_deref(), Some("bob"));
}

#[tokio::test]
async fn whom_only_pagerduty_knows_counts_by_the_name_that_it_gives_and_is_nobody_of_ours() {
    let chat = Chat::begin().await;
    chat.asking().await;
    // Called like somebody of ours, and not them.
    let status = pages(&chat, "1", "incident.acknowledged", user("P9", "ada"), incident_of_ours(&chat).await).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(incident(&chat).await.acknowledged_by.as_deref(), Some("ada (PagerDuty)"));
    assert!(chat.refusals().await.is_empty());
}

#[tokio::test]
async fn an_acknowledgement_of_what_is_over_is_answered_and_changes_nothing() {
    let chat = Chat::begin().await;
    chat.asking().await;
    chat.night.hear("resolved", crate::slack_in::XID).await;
    assert!(incident(&chat).await.closed_at.is_some());
    for (id, who) in [("1", "P0ADA"), ("2", "P9")] {
        let status = pages(&chat, id, "incident.acknowledged", user(who, "x"), incident_of_ours(&chat).await).await;
        assert_eq!(status, StatusCode::OK, "{who}");
    }
    assert_eq!(incident(&chat).await.acknowledged_by, None);
}

#[tokio::test]
async fn a_copy_of_an_old_delivery_acknowledges_nothing_after_a_restart() {
    let chat = Chat::begin().await;
    chat.asking().await;
    let incident = || async {
        let filter = Filter { limit: 1, ..Filter::default() };
        chat.night.parts.store.incidents(filter).await.unwrap().remove(0)
    };
    let key = incident().await.dedup_key("nightshift");
    let (now, most) = (chat.night.now(), std::time::Duration::from_secs(2 * 86_400));
    let event = |at: nightshift::model::Time| {
        let agent = json!({ "id": "P0ADA", "type": "user_reference", "summary": "Ada L." });
        let data = json!({ "id": "Q1", "type": "incident", "incident_key": key });
        json!({ "id": "1", "event_type": "incident.acknowledged", "occurred_at": at.to_string(), "agent": agent, "data": data })
    };
    // This engine has not heard its number, as after a restart.
    let old = now - most - std::time::Duration::from_secs(1);
    assert_eq!(delivers(&chat, event(old)).await, StatusCode::OK, "PagerDuty need not try again");
    assert_eq!(incident().await.acknowledged_by, None);
    assert_eq!(delivers(&chat, event(now - most)).await, StatusCode::OK);
    assert_eq!(incident().await.acknowledged_by.as_deref(), Some("ada"));
}
