//! A server in the shape of a vendor's API that writes down what it was sent and answers what a test tells it.
//!
//! Invariant: it listens on a free loopback port and answers requests in the order of its script, then by default.
#![allow(clippy::unwrap_used)] // a test says what it expects by unwrapping

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, Response, Uri};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: nightshift::model::Time,
    pub method: String,
    pub path: String,
    pub authorization: String,
    pub text: String,
    /// Null if the body is no JSON.
    pub body: Value,
}

pub enum Answer {
    Json(u16, Value),
    /// Status, `Retry-After`, body.
    Later(u16, u64, &'static str),
    Text(u16, &'static str),
    /// A head, and then the connection closes.
    BreakOff,
}

type DefaultBody = fn(&Seen, usize) -> Value;

struct Shared {
    seen: Vec<Seen>,
    script: VecDeque<Answer>,
    status: u16,
    default: DefaultBody,
}

#[derive(Clone)]
pub struct Recording {
    pub url: String,
    shared: Arc<Mutex<Shared>>,
}

impl Recording {
    /// `default` makes the body of an answer that is not scripted, from the request and its number.
    pub async fn start(status: u16, default: DefaultBody) -> Recording {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared { seen: Vec::new(), script: VecDeque::new(), status, default }));
        let app = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Recording { url, shared }
    }

    /// Slack's Web API: every post has a place of its own.
    pub async fn slack() -> Recording {
        Recording::start(200, |seen, number| match seen.path.as_str() {
            "/chat.postMessage" => json!({ "ok": true, "channel": "C1", "ts": format!("1700.{number:04}") }),
            "/chat.update" => json!({ "ok": true, "channel": "C1", "ts": seen.body["ts"] }),
            _ => json!({ "ok": true, "messages": [] }),
        })
        .await
    }

    /// PagerDuty's Events API v2.
    pub async fn pagerduty() -> Recording {
        let body = |seen: &Seen, _: usize| json!({ "status": "success", "message": "Event processed", "dedup_key": seen.body["dedup_key"] });
        Recording::start(202, body).await
    }

    pub fn then(&self, answer: Answer) -> &Recording {
        self.shared.lock().unwrap().script.push_back(answer);
        self
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().unwrap().seen.clone()
    }

    /// The paths of all requests so far.
    pub fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.path).collect()
    }
}

async fn answer(
    State(shared): State<Arc<Mutex<Shared>>>,
    method: Method,
    uri: Uri,
    headers: axum::http::HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let text = String::from_utf8_lossy(&body).into_owned();
    let authorization =
        headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    let at = nightshift::model::Time::now();
    let seen = Seen { at, method: method.to_string(), path: uri.path().to_owned(), authorization, text, body };
    let scripted = {
        let mut shared = shared.lock().unwrap();
        shared.seen.push(seen.clone());
        let (status, default, number) = (shared.status, shared.default, shared.seen.len());
        shared.script.pop_front().unwrap_or_else(|| Answer::Json(status, default(&seen, number)))
    };
    let build = |status: u16, body: String| Response::builder().status(status).body(Body::from(body)).unwrap();
    match scripted {
        Answer::Json(status, body) => build(status, body.to_string()),
        Answer::Text(status, body) => build(status, body.to_owned()),
        Answer::Later(status, after, body) => {
            let mut response = build(status, body.to_owned());
            response.headers_mut().insert("retry-after", after.into());
            response
        }
        Answer::BreakOff => {
            let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("the server fell over"))]);
            Response::builder().status(202).body(Body::from_stream(broken)).unwrap()
        }
    }
}
