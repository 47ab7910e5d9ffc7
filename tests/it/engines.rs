//! An inference engine made of one page: vLLM, TGI or Triton on a port of this machine, that freezes, starts anew, hangs,
//! or sends what no engine would.
//!
//! Invariant: it counts its steps by what it is asked, not by time: a look at an engine that works sees more of them.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use nightshift::world::EngineTarget;
use serde_json::json;
use std::sync::{Arc, Mutex};

/// How it answers a question for its metrics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    Well,
    /// Takes the connection and says nothing.
    Hangs,
    Garbage,
    /// 100 MB, without saying so before.
    Huge,
    Status(u16),
}

/// What it says.
#[derive(Debug, Clone)]
pub struct Page {
    pub manner: Manner,
    pub ready: bool,
    pub running: u32,
    pub waiting: u32,
    pub moves: bool,
    pub steps: u64,
    pub cache: f64,
    /// First tokens within a second, and later.
    pub first_tokens: (u64, u64),
    /// Questions for the metrics so far.
    pub asked: usize,
}

pub struct Engine {
    kind: &'static str,
    port: u16,
    page: Arc<Mutex<Page>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Engine {
    pub async fn start(kind: &'static str) -> Engine {
        let page = Page {
            manner: Manner::Well,
            ready: true,
            running: 0,
            waiting: 0,
            moves: true,
            steps: 100,
            cache: 0.3,
            first_tokens: (0, 0),
            asked: 0,
        };
        let page = Arc::new(Mutex::new(page));
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(answer).with_state((kind, page.clone()));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Engine { kind, port, page, serving }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, change: impl FnOnce(&mut Page)) {
        change(&mut self.page.lock().unwrap());
    }

    pub fn page(&self) -> Page {
        self.page.lock().unwrap().clone()
    }

    /// Freezes while so many requests wait.
    pub fn freeze(&self, waiting: u32) {
        self.set(|page| (page.waiting, page.moves) = (waiting, false));
    }

    pub fn thaw(&self) {
        self.set(|page| (page.waiting, page.moves) = (0, true));
    }

    /// As the configuration names it, with `workload` or `pod` as `namespace/name`, and other parts as they are.
    pub fn target(&self, parts: &[(&str, &str)]) -> EngineTarget {
        let url = format!("http://127.0.0.1:{}", self.port);
        let mut target = json!({ "url": url, "engine": self.kind, "metrics": format!("{url}/metrics") });
        for (name, value) in parts {
            let (namespace, value) = value.split_once('/').map_or((None, *value), |(space, name)| (Some(space), name));
            target[*name] = value.into();
            if let Some(namespace) = namespace {
                target["namespace"] = namespace.into();
            }
        }
        serde_json::from_value(target).unwrap()
    }
}

type Shared = (&'static str, Arc<Mutex<Page>>);

async fn answer(State((kind, shared)): State<Shared>, uri: Uri) -> Response {
    let is_page = uri.path() == "/metrics";
    let page = {
        let mut page = shared.lock().unwrap();
        page.asked += usize::from(is_page);
        page.steps += u64::from(page.moves && is_page);
        page.clone()
    };
    if page.manner == Manner::Hangs {
        std::future::pending::<()>().await;
    }
    match uri.path() {
        "/health" | "/v2/health/ready" if page.ready => StatusCode::OK.into_response(),
        "/health" | "/v2/health/ready" => (StatusCode::SERVICE_UNAVAILABLE, "engine is dead\n").into_response(),
        "/metrics" => match page.manner {
            Manner::Garbage => "\u{0}<html>vllm:num_requests_waiting{ what\n\n".into_response(),
            Manner::Huge => {
                let line = Bytes::from("vllm:num_requests_waiting 1\n".repeat(40_000));
                let chunks = (0..100).map(move |_| Ok::<_, std::io::Error>(line.clone()));
                Body::from_stream(futures::stream::iter(chunks)).into_response()
            }
            Manner::Status(code) => (StatusCode::from_u16(code).unwrap(), "no\n").into_response(),
            Manner::Well | Manner::Hangs => text(kind, &page).into_response(),
        },
        "/v1/completions" if kind == "vllm" => token(&page).await,
        "/generate" if kind == "tgi" => token(&page).await,
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A request: answered by an engine that makes steps.
async fn token(page: &Page) -> Response {
    if !page.moves {
        std::future::pending::<()>().await;
    }
    "{}".into_response()
}

fn text(kind: &str, page: &Page) -> String {
    let Page { running, waiting, steps, cache, first_tokens: (soon, late), .. } = page;
    match kind {
        "vllm" => format!(
            "# TYPE vllm:num_requests_running gauge\n\
             vllm:num_requests_running{{engine=\"0\",model_name=\"m\"}} {running}.0\n\
             vllm:num_requests_waiting{{engine=\"0\",model_name=\"m\"}} {waiting}.0\n\
             vllm:kv_cache_usage_perc{{engine=\"0\",model_name=\"m\"}} {cache}\n\
             vllm:iteration_tokens_total_sum{{engine=\"0\",model_name=\"m\"}} {steps}.0\n\
             vllm:time_to_first_token_seconds_bucket{{engine=\"0\",le=\"1.0\",model_name=\"m\"}} {soon}\n\
             vllm:time_to_first_token_seconds_bucket{{engine=\"0\",le=\"10.0\",model_name=\"m\"}} {soon}\n\
             vllm:time_to_first_token_seconds_bucket{{engine=\"0\",le=\"+Inf\",model_name=\"m\"}} {}\n",
            soon + late
        ),
        "tgi" => format!(
            "tgi_queue_size {waiting}\ntgi_batch_current_size {running}\n\
             tgi_batch_inference_count{{method=\"decode\"}} {steps}\ntgi_request_generated_tokens_sum 9\n"
        ),
        _ => format!(
            "nv_inference_count{{model=\"m\",version=\"1\"}} {steps}\n\
             nv_inference_exec_count{{model=\"m\",version=\"1\"}} 5\n\
             nv_inference_pending_request_count{{model=\"m\",version=\"1\"}} {waiting}\n"
        ),
    }
}
