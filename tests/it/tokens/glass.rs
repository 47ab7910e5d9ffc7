//! The broken glass: everybody hears of it, everything it does is in the ledger, and it ends.
//!
//! Invariant: what people were told is counted where they would read it.

use super::{beside, nightshift};
use crate::harness::{Engine, Site, eventually, secret};
use axum::Router;
use axum::routing::post;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

type Pages = Arc<Mutex<Vec<Value>>>;

/// A pager and a webhook that take everything, and an engine that knows both.
async fn scene() -> (Site, Engine, Pages) {
    let pages: Pages = Arc::default();
    let heard = pages.clone();
    let take = move |body: String| {
        let body: Value = serde_json::from_str(&body).unwrap();
        let key = body["dedup_key"].clone();
        heard.lock().unwrap().push(body);
        let answer = json!({ "status": "success", "message": "ok", "dedup_key": key }).to_string();
        std::future::ready((axum::http::StatusCode::ACCEPTED, answer))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().route("/pager", post(take.clone())).route("/second", post(take));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let channels = format!(
        "channels:\n  pager: {{ kind: pagerduty, routing_key: {{ env: KEY }}, api: '{url}/pager' }}\n  second: {{ kind: pagerduty, routing_key: {{ env: KEY }}, api: '{url}/second' }}\nmode_ceiling: observe\n"
    );
    let site = Site::new(&channels, "rules: []", &[]);
    site.add_token("root", "admin", "");
    let engine = site.start(&[("KEY", "k".repeat(32))]).await.unwrap_or_else(|| panic!("{}", site.log()));
    (site, engine, pages)
}

fn actions(pages: &Pages) -> Vec<String> {
    let mut actions: Vec<String> =
        pages.lock().unwrap().iter().map(|page| page["event_action"].as_str().unwrap().to_owned()).collect();
    actions.dedup();
    actions
}

#[tokio::test]
async fn breaking_the_glass_pages_everybody_and_each_use_is_in_the_ledger() {
    let (site, engine, pages) = scene().await;
    // Nothing that quiets actions quiets this.
    engine.post("/api/v1/freezes", &json!({ "scope": "all", "why": "a storm" })).await.unwrap();
    let (site, text) = beside(move || {
        let (code, _, err) = nightshift(&site, &["break-glass"]);
        assert!(code == 2 && err.contains("--reason"), "{code} {err}");
        let (code, _, err) = nightshift(&site, &["break-glass", "--reason", " "]);
        assert!(code == 2 && err.contains("a reason is missing"), "{code} {err}");
        let (code, _, err) = nightshift(&site, &["break-glass", "--reason", "x", "--expires", "2h"]);
        assert!(code == 2 && err.contains("cannot last 2h"), "{code} {err}");
        let (code, out, err) = nightshift(&site, &["break-glass", "--reason", "Slack and the login are down"]);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("being told now: pager, second") && err.contains("revoke t1"), "{err}");
        (site, out.trim().to_owned())
    })
    .await;
    let told = eventually("both channels are told", async || {
        let pages = pages.lock().unwrap().clone();
        (pages.len() >= 2).then_some(pages)
    })
    .await;
    for page in &told[..2] {
        assert_eq!((&page["event_action"], &page["payload"]["severity"]), (&json!("trigger"), &json!("critical")));
        let summary = page["payload"]["summary"].as_str().unwrap();
        assert!(summary.contains("break-glass used by ann, uid "), "{summary}");
        assert!(summary.contains("because Slack and the login are down"), "{summary}");
        assert!(!page.to_string().contains(&text));
    }
    for _ in 0..3 {
        let (status, said) = engine.ask("GET", "/api/v1/incidents", Some(&text), &Value::Null).await;
        assert_eq!(status, 200, "{said}");
    }
    let (status, _) = engine.ask("POST", "/api/v1/freezes", Some(&text), &json!({ "scope": "all", "why": "y" })).await;
    assert_eq!(status, 201);
    let long = json!({ "name": "x", "role": "admin", "expires": "2h" });
    let (status, said) = engine.ask("POST", "/api/v1/tokens", Some(&text), &long).await;
    assert_eq!(status, 403, "what it makes would outlive it: {said}");
    let used = engine.get("/api/v1/entries?kind=break_glass_used&after=-1").await.unwrap();
    let used: Vec<&str> =
        used["entries"].as_array().unwrap().iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(used, ["GET /api/v1/incidents", "POST /api/v1/freezes", "POST /api/v1/tokens"], "before each was done");
    let site = beside(move || {
        let (_, out, _) = nightshift(&site, &["status"]);
        assert!(
            out.contains("break-glass t1 is in force until ") && out.contains("Slack and the login are down"),
            "{out}"
        );
        assert_eq!(nightshift(&site, &["tokens", "revoke", "t1", "--why", "over"]).0, 0);
        let (_, out, _) = nightshift(&site, &["status"]);
        assert!(!out.contains("is in force until"), "{out}");
        site
    })
    .await;
    let (status, _) = engine.ask("GET", "/api/v1/status", Some(&text), &Value::Null).await;
    assert_eq!(status, 401);
    eventually("its incident ends with it", async || {
        actions(&pages).iter().any(|action| action == "resolve").then_some(())
    })
    .await;
    drop(site);
}

#[tokio::test]
async fn only_the_machines_own_token_breaks_the_glass() {
    let (site, engine, pages) = scene().await;
    let wish = json!({ "reason": "I want to" });
    let (status, said) = engine.ask("POST", "/api/v1/break-glass", Some(&secret("root")), &wish).await;
    assert_eq!(status, 403, "{said}");
    assert!(said["hint"].as_str().unwrap().contains("nightshift break-glass"), "{said}");
    let (_, made) =
        engine.post("/api/v1/tokens", &json!({ "name": "x", "role": "admin", "expires": "1d" })).await.unwrap();
    let (status, _) = engine.ask("POST", "/api/v1/break-glass", made["token"].as_str(), &wish).await;
    assert_eq!(status, 403);
    let (_, glass) = engine.post("/api/v1/break-glass", &wish).await.unwrap();
    let (status, _) = engine.ask("POST", "/api/v1/break-glass", glass["token"].as_str(), &wish).await;
    assert_eq!(status, 403, "it does not mend itself");
    eventually("one was told", async || (pages.lock().unwrap().len() >= 2).then_some(())).await;
    drop(site);
}
