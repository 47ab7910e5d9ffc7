//! Which doors there are, who passes them, and how they close.
//!
//! Invariant: no door but `/healthz` and `/readyz` opens without a token.

use super::rig::*;
use nightshift::catalog::CatalogSnapshot;
use nightshift::limits;
use nightshift::model::{Actor, EntryKind, EntryLinks};
use nightshift::server::ListenerTimeouts;
use std::sync::Arc;
use tokio::sync::Semaphore;

fn good() -> Vec<u8> {
    bytes(&body(&[alert("A", "firing")]))
}

#[tokio::test]
async fn a_wrong_token_opens_nothing_and_its_body_is_not_read() {
    let rig = rig().await;
    for token in ["", "x", &SOURCE_TOKEN[1..], &format!("{SOURCE_TOKEN}x")] {
        for path in [AM, "/in/alertmanager/nowhere", "/in/grafana/dash", "/metrics"] {
            let method = if path == "/metrics" { "GET" } else { "POST" };
            let answer = rig.request(method, path, token, &[], &good()).await;
            assert_eq!(answer.status, 401, "{path} with {token:?}");
            assert!(answer.head.to_lowercase().contains("www-authenticate: bearer"), "{}", answer.head);
        }
    }
    // The answer comes although the promised body never does.
    let head = format!("POST {AM} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n");
    assert_eq!(rig.raw(head.as_bytes()).await.status, 401);
    assert!(rig.metrics.render().contains("nightshift_auth_failures_total 17"), "{}", rig.metrics.render());
    assert!(rig.store.batches.lock().unwrap().is_empty());
}

#[tokio::test]
async fn wrong_methods_paths_and_media_types_are_refused_as_json() {
    let rig = rig().await;
    let json = ("Content-Type", "application/json");
    for (method, path, headers, status) in [
        ("GET", AM, vec![], 405),
        ("DELETE", AM, vec![], 405),
        ("POST", "/metrics", vec![], 405),
        ("POST", "/nowhere", vec![json], 404),
        ("POST", "/in/alertmanager", vec![json], 404),
        ("POST", "/in/alertmanager/../../etc", vec![json], 404),
        ("POST", AM, vec![("Content-Type", "application/x-www-form-urlencoded")], 415),
        ("POST", AM, vec![("Content-Type", "text/plain")], 415),
        ("POST", AM, vec![json, ("Content-Encoding", "br")], 415),
        ("POST", AM, vec![("Content-Type", "application/json; charset=utf-8")], 200),
        ("POST", AM, vec![], 200),
    ] {
        let answer = rig.request(method, path, SOURCE_TOKEN, &headers, &good()).await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}");
        if status != 200 {
            assert!(
                answer.body["error"].is_string() && answer.body["hint"].is_string(),
                "{method} {path}: {}",
                answer.body
            );
        }
    }
}

#[tokio::test]
async fn a_source_that_is_unknown_or_of_another_kind_is_404_and_says_what_there_is() {
    let rig = rig().await;
    let answer = rig.post("/in/grafana/prod", &good()).await;
    assert_eq!(answer.status, 404);
    assert!(answer.body["hint"].as_str().unwrap().contains("/in/alertmanager/prod"));
    // Only who may post there learns what is there.
    let answer = rig.post("/in/alertmanager/nowhere", &good()).await;
    assert_eq!(answer.status, 403);
    assert!(rig.store.batches.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_question_of_cloud_events_names_no_source_to_a_stranger() {
    let rig = rig().await;
    for (token, status) in [("", 401), (VIEWER_TOKEN, 403), (SOURCE_TOKEN, 403)] {
        let answer = rig.request("OPTIONS", "/in/alertmanager/nosuch", token, &[], b"").await;
        assert_eq!(answer.status, status, "{token}");
        assert!(!answer.body.to_string().contains("/prod"), "{}", answer.body);
    }
}

#[tokio::test]
async fn health_needs_no_token_and_readiness_tells_what_is_wrong() {
    let loaded = CatalogSnapshot { hash: "h".to_owned(), ..CatalogSnapshot::default() };
    let rig = rig_with(ListenerTimeouts::default(), loaded).await;
    assert_eq!(rig.get("/healthz", "").await.status, 200);
    let ready = rig.get("/readyz", "").await;
    assert_eq!((ready.status, &ready.body["ready"]), (200, &serde_json::json!(true)));
    rig.durable.close().await.unwrap();
    let why = rig.durable.health().await.unwrap_err().to_string();
    let ready = rig.get("/readyz", "").await;
    assert_eq!(ready.status, 503);
    assert!(!ready.body.to_string().contains(&why), "the words of the store are for the log: {why}");
    assert_eq!(rig.get("/healthz", "").await.status, 200, "alive all the same");
}

#[tokio::test]
async fn metrics_show_levels_of_the_store_to_tokens_that_may_scrape() {
    let rig = rig().await;
    assert_eq!(rig.get("/metrics", SOURCE_TOKEN).await.status, 403, "a sender reads nothing");
    let seven: Vec<_> = (1..=7).map(|at| alert(&format!("XidError{at}"), "firing")).collect();
    assert_eq!(rig.post(AM, &bytes(&body(&seven))).await.status, 200);
    let batch = rig.store.batches.lock().unwrap().pop().unwrap();
    rig.durable.intake(batch).await.unwrap();
    rig.durable.checkpoint(rig.key.clone(), now()).await.unwrap();
    for at in 1..=6 {
        let kind = EntryKind::Trouble { text: format!("unsigned entry {at}") };
        rig.durable.note(Actor::engine(), EntryLinks::default(), kind, now()).await.unwrap();
    }
    let page = rig.get("/metrics", VIEWER_TOKEN).await;
    assert_eq!(page.status, 200);
    let text = page.body.as_str().unwrap();
    assert!(text.contains("nightshift_episodes_open 7"), "{text}");
    assert!(text.contains("nightshift_audit_unanchored_leaves 6"), "{text}");
    assert!(text.contains("nightshift_connections 1"), "{text}");
}

#[tokio::test]
async fn answers_carry_headers_that_keep_browsers_harmless() {
    let rig = rig().await;
    let head = rig.get("/healthz", "").await.head.to_lowercase();
    for header in
        ["x-content-type-options: nosniff", "content-security-policy: default-src 'none'", "cache-control: no-store"]
    {
        assert!(head.contains(header), "{head}");
    }
    assert!(!head.contains("access-control-allow-origin"));
}

#[tokio::test]
async fn too_many_or_too_long_headers_are_refused() {
    let rig = rig().await;
    let many: String = (0..200).map(|at| format!("X-{at}: y\r\n")).collect();
    assert_eq!(rig.raw(format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).await.status, 431);
    let long = |bytes: usize| format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(bytes));
    for bytes in [200_000, 100_000, limits::HEADER_BYTES] {
        assert_eq!(rig.raw(long(bytes).as_bytes()).await.status, 431, "{bytes}");
    }
    assert_eq!(
        rig.raw(long(limits::HEADER_BYTES - 100).as_bytes()).await.status,
        200,
        "the bound is what `limits` says"
    );
}

#[tokio::test]
async fn a_request_under_way_ends_well_when_the_server_stops() {
    let mut rig = rig().await;
    let gate = Arc::new(Semaphore::new(0));
    *rig.store.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let mut waiting = rig.store.waiting.subscribe();
    let stop = rig.stop.take().unwrap();
    let bytes = good();
    let mut answer = Box::pin(rig.post(AM, &bytes));
    tokio::select! {
        biased;
        early = &mut answer => panic!("answered {} too early", early.status),
        _ = waiting.wait_for(|count| *count == 1) => {}
    }
    stop.send(()).unwrap();
    // The listener is closed before the request ends.
    eventually(async || tokio::net::TcpStream::connect(rig.address).await.is_err()).await;
    gate.add_permits(1);
    assert_eq!(answer.await.status, 200);
    assert!(rig.served.await.unwrap().is_ok());
}
