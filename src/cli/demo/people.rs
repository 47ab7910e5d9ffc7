//! The users' side: an inbox in the shape of Slack's and PagerDuty's APIs that reports its messages.
//!
//! Invariant: it counts messages as users would have seen them: posted, edited, paged.

use super::ScenarioLog;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Default)]
struct MessageInbox {
    /// Top-level messages by their `ts`: the last text each.
    posted: BTreeMap<String, String>,
    threads: usize,
    edits: usize,
    /// PagerDuty's events by dedup key, in order.
    pages: BTreeMap<String, Vec<String>>,
}

#[derive(Clone)]
pub(super) struct InboxServer {
    pub address: SocketAddr,
    inbox: Arc<Mutex<MessageInbox>>,
    say: ScenarioLog,
}

impl InboxServer {
    pub(super) async fn start(say: ScenarioLog) -> anyhow::Result<InboxServer> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let people = InboxServer { address: listener.local_addr()?, inbox: Arc::default(), say };
        let routes = Router::new()
            .route("/slack/chat.postMessage", post(posted))
            .route("/slack/chat.update", post(edited))
            .route(
                "/slack/auth.test",
                post(|| async { Json(json!({"ok": true, "team": "demo", "user": "nightshift"})) }),
            )
            .route("/pagerduty", post(paged))
            .with_state(people.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(people)
    }

    /// (top-level messages, edits, replies in threads, PagerDuty incidents)
    pub(super) fn counts(&self) -> (usize, usize, usize, usize) {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        (inbox.posted.len(), inbox.edits, inbox.threads, inbox.pages.len())
    }

    /// Messages whose text names this.
    pub(super) fn messages_about(&self, word: &str) -> usize {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.posted.values().filter(|text| text.contains(word)).count()
    }
}

async fn posted(State(people): State<InboxServer>, Json(body): Json<Value>) -> Json<Value> {
    let text = body["text"].as_str().unwrap_or_default().to_owned();
    let mut inbox = people.inbox.lock().unwrap_or_else(PoisonError::into_inner);
    let ts = format!("{}.{:06}", 1_700_000_000, inbox.posted.len() + inbox.threads + 1);
    if body["thread_ts"].is_string() {
        inbox.threads += 1;
        people.say.say("Slack thread", &one_line(&text));
    } else {
        people.say.say("Slack", &one_line(&text));
        inbox.posted.insert(ts.clone(), text);
    }
    Json(json!({"ok": true, "channel": body["channel"], "ts": ts}))
}

async fn edited(State(people): State<InboxServer>, Json(body): Json<Value>) -> Json<Value> {
    let text = body["text"].as_str().unwrap_or_default().to_owned();
    let ts = body["ts"].as_str().unwrap_or_default().to_owned();
    let mut inbox = people.inbox.lock().unwrap_or_else(PoisonError::into_inner);
    inbox.edits += 1;
    people.say.say("Slack edit", &one_line(&text));
    inbox.posted.insert(ts.clone(), text);
    Json(json!({"ok": true, "channel": body["channel"], "ts": ts}))
}

async fn paged(State(people): State<InboxServer>, Json(body): Json<Value>) -> (axum::http::StatusCode, Json<Value>) {
    let action = body["event_action"].as_str().unwrap_or_default().to_owned();
    let key = body["dedup_key"].as_str().unwrap_or_default().to_owned();
    let summary = body["payload"]["summary"].as_str().unwrap_or_default();
    people.say.say("PagerDuty", &one_line(&format!("{action} {summary}")));
    let mut inbox = people.inbox.lock().unwrap_or_else(PoisonError::into_inner);
    inbox.pages.entry(key.clone()).or_default().push(action);
    let answer = json!({"status": "success", "message": "Event processed", "dedup_key": key});
    (axum::http::StatusCode::ACCEPTED, Json(answer))
}

fn one_line(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 150 { line } else { line.chars().take(149).chain(['…']).collect() }
}
