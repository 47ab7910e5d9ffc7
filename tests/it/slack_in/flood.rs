//! Bodies that nobody has signed: however many and however slow, they take a small room that is theirs alone.
//!
//! Invariant: what is refused is counted by its status, while the bodies that wait lack their last byte.

use super::rig::{Chat, SECRET};
use crate::harness::{alertmanager_body, eventually, secret};
use crate::roles::token;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use nightshift::config::Role;
use nightshift::limits;
use nightshift::server::ConfiguredTokens;
use std::sync::{Arc, Mutex};
use tower::ServiceExt;

/// A request that announces so much and sends all of it but the last byte.
fn stuck(request: axum::http::request::Builder, bytes: usize) -> Request<Body> {
    let most = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes - 1]))]);
    let body = futures::StreamExt::chain(most, futures::stream::pending());
    request.header("content-length", bytes).body(Body::from_stream(body)).unwrap()
}

/// Two minutes ago Slack may have signed this, as far as its headers say.
fn forged(chat: &Chat, path: &str) -> axum::http::request::Builder {
    let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    let stamp = (chat.night.now().as_second() - 120).to_string();
    request
        .header("x-slack-request-timestamp", stamp)
        .header("x-slack-signature", format!("v0={}", "0".repeat(64)))
        .header("x-pagerduty-signature", format!("v1={}", "0".repeat(64)))
}

#[tokio::test]
async fn a_flood_of_unsigned_bodies_is_refused_and_events_go_on_getting_in() {
    let chat = Chat::begin_with(ConfiguredTokens::new(vec![token("am", Role::Operator, None)]).unwrap(), |_| {}).await;
    let room = limits::UNPROVED_BYTES / 4 / limits::SLACK_BODY_BYTES;
    let paths = ["/slack/command", "/slack/interact", "/slack/events"];
    let answers: Arc<Mutex<Vec<StatusCode>>> = Arc::default();
    let mut floods = Vec::new();
    for at in 0..room + 10 {
        let request = stuck(forged(&chat, paths[at % paths.len()]), limits::SLACK_BODY_BYTES);
        let (router, answers) = (chat.router.clone(), answers.clone());
        floods.push(tokio::spawn(async move {
            let status = router.oneshot(request).await.unwrap().status();
            answers.lock().unwrap().push(status);
        }));
    }
    let refused = eventually("what does not fit is refused", async || {
        let answers = answers.lock().unwrap().clone();
        (answers.len() >= 10).then_some(answers)
    })
    .await;
    assert_eq!(refused, vec![StatusCode::SERVICE_UNAVAILABLE; 10], "the room is for {room}");
    let pager = forged(&chat, "/pagerduty/webhook").body(Body::from("{}")).unwrap();
    let answer = chat.router.clone().oneshot(pager).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "PagerDuty has a room of its own, and is read");
    let body = alertmanager_body("firing", crate::night::NIGHT, &[&[("alertname", "A")]]);
    let (status, said) = chat.posts(&secret("am"), "/in/alertmanager/test", body).await;
    assert_eq!(status, StatusCode::OK, "events have a room of their own: {said}");
    for flood in &floods {
        flood.abort();
    }
    for flood in floods {
        let _ = flood.await;
    }
    assert!(chat.types("U0ADA", "status").await.contains("open incidents"), "and Slack is heard again");
}

#[tokio::test]
async fn what_claims_no_signature_of_now_is_not_even_read() {
    let chat = Chat::begin().await;
    let bare = |path: &str| Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    let old = chat.request_at("/slack/command", "text=freeze", SECRET, chat.night.now().as_second() - 301);
    let mut late = bare("/slack/command");
    for (name, value) in old.headers() {
        late = late.header(name, value);
    }
    let unsigned = ["/slack/command", "/slack/interact", "/slack/events", "/pagerduty/webhook"].map(bare);
    for request in unsigned.into_iter().chain([late]) {
        let answer = chat.router.clone().oneshot(stuck(request, 100)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    for (path, bytes) in
        [("/slack/command", limits::SLACK_BODY_BYTES), ("/pagerduty/webhook", limits::PAGERDUTY_WEBHOOK_BYTES)]
    {
        let answer = chat.router.clone().oneshot(stuck(forged(&chat, path), bytes + 1)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let packed = forged(&chat, path).header("content-encoding", "gzip");
        let answer = chat.router.clone().oneshot(stuck(packed, 100)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    assert!(chat.night.parts.store.freezes().await.unwrap().is_empty());
}
