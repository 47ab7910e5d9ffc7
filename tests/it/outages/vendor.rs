//! A vendor that can be up, broken, silent, limited, or not there at all, and keeps what it was told.
//!
//! Invariant: every call is written down with the simulated time, before its answer goes out.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, Uri};
use nightshift::clock::{Clock, SimClock};
use nightshift::model::Time;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How it behaves from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Up,
    /// Nothing is done; this status, and perhaps a `Retry-After`.
    Refuses(u16, Option<u64>),
    /// Nothing is done, and nothing is answered.
    Hangs,
    /// It is done, and nothing is answered.
    LosesReplies,
}

/// One call as it came.
#[derive(Debug, Clone)]
pub struct Call {
    pub at: Time,
    pub method: String,
}

/// One thing that people see there: each of its editions.
#[derive(Debug, Clone)]
pub struct Posted {
    pub id: String,
    pub thread: Option<String>,
    pub editions: Vec<Value>,
}

impl Posted {
    pub fn last(&self) -> &Value {
        self.editions.last().unwrap()
    }

    /// What it is about, in the metadata of ours.
    pub fn about(&self) -> &Value {
        &self.last()["metadata"]["event_payload"]
    }
}

/// What the vendor has, and the call that it is asked to do: gives the status and body of the answer.
pub type Does = fn(&mut Vec<Posted>, &str, &Value, &str) -> (u16, Value);

struct Shared {
    clock: Arc<SimClock>,
    does: Does,
    manner: Mutex<Manner>,
    calls: Mutex<Vec<Call>>,
    board: Mutex<Vec<Posted>>,
    hung: Notify,
}

pub struct Vendor {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl Vendor {
    pub async fn start(clock: Arc<SimClock>, does: Does) -> Vendor {
        let shared = Arc::new(Shared {
            clock,
            does,
            manner: Mutex::new(Manner::Up),
            calls: Mutex::default(),
            board: Mutex::default(),
            hung: Notify::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let vendor = Vendor { address, shared, server: Mutex::default() };
        vendor.serve(listener);
        vendor
    }

    fn serve(&self, listener: TcpListener) {
        let app = Router::new().fallback(answer).with_state(self.shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        *self.server.lock().unwrap() = Some(server);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn is(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// Nobody listens at its address any more: connections are refused.
    pub async fn goes_away(&self) {
        let server = self.server.lock().unwrap().take().unwrap();
        server.abort();
        let _ = server.await;
    }

    pub async fn comes_back(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.is(Manner::Up);
        self.serve(listener);
    }

    /// Once a call hangs.
    pub async fn hangs(&self) {
        self.shared.hung.notified().await;
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// When calls of this method came since then.
    pub fn moments(&self, method: &str, since: Time) -> Vec<Time> {
        let calls = self.shared.calls.lock().unwrap();
        calls.iter().filter(|call| call.method == method && call.at >= since).map(|call| call.at).collect()
    }

    pub fn board(&self) -> Vec<Posted> {
        self.shared.board.lock().unwrap().clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, body: Bytes) -> Response<Body> {
    let method = uri.path().trim_start_matches('/').to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let manner = *shared.manner.lock().unwrap();
    let (status, after, said) = match manner {
        Manner::Refuses(status, after) => (status, after, json!({ "ok": false, "error": "ratelimited" })),
        Manner::Hangs => (0, None, Value::Null),
        Manner::Up | Manner::LosesReplies => {
            let (status, said) =
                (shared.does)(&mut shared.board.lock().unwrap(), &method, &body, uri.query().unwrap_or_default());
            (if manner == Manner::Up { status } else { 0 }, None, said)
        }
    };
    shared.calls.lock().unwrap().push(Call { at: shared.clock.now(), method });
    if status == 0 {
        shared.hung.notify_one();
        std::future::pending::<()>().await;
    }
    // Closed after each answer, so that a listener that goes away takes nothing with it.
    let mut response = Response::builder().status(status).header("connection", "close");
    if let Some(after) = after {
        response = response.header("retry-after", after);
    }
    response.body(Body::from(said.to_string())).unwrap()
}
