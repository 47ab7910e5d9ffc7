//! The broken glass: everybody hears of it, everything it does is in the ledger, and it ends.
//!
//! Invariant: what people were told is counted where they would read it.

use super::{beside, nightshift};
use crate::harness::{Engine, Site, eventually, secret};
use crate::roles::{chat, token};
use crate::slack_in::Chat;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use nightshift::config::Role;
use nightshift::limits;
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
        let (code, _, err) = nightshift(&site, &["break-glass", "--why", "x", "--expires", "2h"]);
        assert!(err.contains("write for example `15m` or `45m`; from 1m to 1h"), "{err}");
        assert!(code == 2 && err.contains("cannot last 2h"), "{code} {err}");
        let (code, out, err) = nightshift(&site, &["break-glass", "--reason", "Slack and the login are down"]);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("notifying: pager, second") && err.contains("revoke t1"), "{err}");
        (site, out.trim().to_owned())
    })
    .await;
    let told = eventually("both channels are told", async || {
        // The freeze above notifies them, too.
        let mut pages = pages.lock().unwrap().clone();
        pages.retain(|page| page["payload"]["summary"].as_str().is_some_and(|text| text.contains("break-glass")));
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
            out.contains("break-glass access t1 is active until ") && out.contains("Slack and the login are down"),
            "{out}"
        );
        assert_eq!(nightshift(&site, &["tokens", "revoke", "t1", "--why", "over"]).0, 0);
        let (_, out, _) = nightshift(&site, &["status"]);
        assert!(!out.contains("is active until"), "{out}");
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

/// A chat whose glass is broken, and the text that it gave.
async fn broken() -> (Chat, String) {
    let chat = chat(vec![token("local", Role::Admin, None)]).await;
    let (status, made) = chat.posts(&secret("local"), "/api/v1/break-glass", json!({ "reason": "dark" })).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    (chat, made["token"].as_str().unwrap().to_owned())
}

/// What the ledger says that it was used for.
async fn used(chat: &Chat) -> Vec<String> {
    let entries = chat.night.entries().await;
    let used = entries.iter().filter(|entry| entry.kind.name() == "break_glass_used");
    let lines = used.map(|entry| nightshift::engine::story::line(entry).unwrap().text);
    lines.map(|line| line.split_once("): ").unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn whoever_looks_at_much_behind_a_broken_glass_does_not_act_unseen_after_it() {
    let (chat, text) = broken().await;
    let get = async |path: String| chat.asks("GET", &text, &path, Value::Null).await.0;
    for run in 1..=2 * limits::WITNESS_KINDS {
        assert_eq!(get(format!("/api/v1/runs/r{run}")).await, StatusCode::NOT_FOUND);
    }
    for page in ["status", "rules", "scorecards", "runbooks", "freezes", "guards", "agents", "tokens", "entries"] {
        assert_eq!(get(format!("/api/v1/{page}")).await, StatusCode::OK);
    }
    assert_eq!(get("/metrics".to_owned()).await, StatusCode::OK);
    let acts: Vec<String> = (1..=3).map(|run| format!("/api/v1/runs/r{run}/cancel")).collect();
    for path in &acts {
        chat.posts(&text, path, json!({ "why": "x" })).await;
    }
    let told = used(&chat).await;
    assert_eq!((told.len(), told[0].as_str()), (1 + 9 + 1 + 3, "GET /api/v1/runs/r1"), "{told:#?}");
    for act in acts {
        assert!(told.contains(&format!("POST {act}")), "each act by itself: {told:#?}");
    }
    chat.night.pass(limits::WITNESS_WINDOW).await;
    let told =
        eventually("the rest as a number", async || Some(used(&chat).await).filter(|told| told.len() > 14)).await;
    assert_eq!(told[14..], ["GET /api/v1/runs/{id}, 39 more times"]);
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done_with_a_broken_glass_and_not_at_the_second_try() {
    let (chat, text) = broken().await;
    let file = rusqlite::Connection::open(chat.night.path().join("nightshift.db")).unwrap();
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON entry WHEN NEW.kind = 'break_glass_used' \
                  BEGIN SELECT raise(ABORT, 'the disk is full'); END";
    file.execute_batch(refuse).unwrap();
    let get = async || chat.asks("GET", &text, "/api/v1/tokens", Value::Null).await.0;
    let freeze = async || chat.posts(&text, "/api/v1/freezes", json!({ "scope": "all", "why": "y" })).await.0;
    for round in 0..3 {
        let (one, other, act) = tokio::join!(get(), get(), freeze());
        assert_eq!([one, other, act], [StatusCode::SERVICE_UNAVAILABLE; 3], "round {round}");
    }
    assert_eq!(chat.asks("GET", &secret("local"), "/api/v1/freezes", Value::Null).await.1["freezes"], json!([]));
    file.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!((get().await, freeze().await), (StatusCode::OK, StatusCode::CREATED));
    assert_eq!(used(&chat).await, ["GET /api/v1/tokens", "POST /api/v1/freezes"]);
}
