//! The fleet behind a socket: one connection loop for all its APIs, with the troubles that a request may meet.
//!
//! Invariant: whether a cut request was done or not is decided by its trouble alone, never by timing.

use super::answer::{SimBody, SimResponse};
use super::api::{self, SimRequest};
use super::controllers::settle;
use super::effects::ReceivedRequest;
use super::health::{RequestFault, SimFault};
use super::prometheus::SimSample;
use super::state::FleetState;
use super::watch::{self, ResponseStream};
use super::{metrics, prometheus};
use crate::clock::Clock;
use crate::limits;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;

/// The state, shared between the socket and the Rust API.
#[derive(Clone)]
pub(super) struct SharedFleet {
    state: Arc<Mutex<FleetState>>,
    clock: Arc<dyn Clock>,
}

impl SharedFleet {
    /// The state behind a lock, with its clock.
    pub fn new(state: FleetState) -> SharedFleet {
        let clock = state.options.clock.clone();
        SharedFleet { state: Arc::new(Mutex::new(state)), clock }
    }

    /// The state as it is now: everything due has happened.
    pub fn lock(&self) -> MutexGuard<'_, FleetState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        settle(&mut state, self.clock.now());
        state
    }
}

/// Why a connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the simulated fleet closed the connection")]
struct ConnectionCut;

/// Accepts connections until it is dropped.
pub(super) async fn run(listener: TcpListener, shared: SharedFleet) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(shared.clone(), request));
            let mut server = hyper::server::conn::http1::Builder::new();
            // An error of a connection was requested by the caller, or is its own fault.
            let _ = server
                .timer(TokioTimer::new())
                .header_read_timeout(limits::HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    shared: SharedFleet,
    request: hyper::Request<Incoming>,
) -> Result<Response<ResponseStream>, ConnectionCut> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, limits::SIM_BODY_BYTES).collect().await.map_err(|_| ConnectionCut)?.to_bytes();
    let header = |name| parts.headers.get(name).and_then(|v: &header::HeaderValue| v.to_str().ok()).unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default();
    let request = SimRequest {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        content_type: header(header::CONTENT_TYPE).to_owned(),
        user_agent: header(header::USER_AGENT).to_owned(),
        body: body.to_vec(),
    };
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let is_ours = path.starts_with("/sim/") || path == "/metrics";
    let trouble = if is_ours { None } else { shared.lock().health.meet(&request.method, &path) };
    if matches!(trouble, None | Some(RequestFault::Stall | RequestFault::Delay { .. }))
        && let Some(watched) = asked_to_watch(&shared, &request, &path)
    {
        let is_stalled = trouble == Some(RequestFault::Stall);
        return Ok(watched.map_or_else(encode, |watched| watch::stream(shared.clone(), watched, is_stalled)));
    }
    let answer = answer_in_trouble(&shared, &request, path, trouble.as_ref());
    if let Some(RequestFault::Delay { millis }) = trouble {
        shared.clock.sleep_for(std::time::Duration::from_millis(millis)).await;
    }
    answer.map(encode).ok_or(ConnectionCut)
}

fn asked_to_watch(
    shared: &SharedFleet,
    request: &SimRequest,
    path: &str,
) -> Option<Result<watch::SimWatchOptions, SimResponse>> {
    let mut state = shared.lock();
    let watched = api::watched(&state, request)?;
    let (at, code) = (state.now, watched.as_ref().map_or_else(|refusal| refusal.code, |_| 200));
    state.effects.ask(ReceivedRequest { at, method: request.method.clone(), path: path.to_owned(), code });
    Some(watched)
}

/// Performs the request as far as its trouble lets it; `None` if no answer is sent.
fn answer_in_trouble(
    shared: &SharedFleet,
    request: &SimRequest,
    path: String,
    trouble: Option<&RequestFault>,
) -> Option<SimResponse> {
    let mut state = shared.lock();
    let before = state.effects.applied.len();
    let back = if let Some(RequestFault::Stale { versions }) = trouble { *versions } else { 0 };
    let (answer, is_heard) = match trouble {
        Some(RequestFault::Cut) => (None, false),
        Some(RequestFault::Status { code, retry_after }) => (Some(SimResponse::fault(*code, *retry_after)), true),
        Some(RequestFault::LoseReply) => (Some(route(&mut state, request, back)), false),
        Some(RequestFault::Garbage) => {
            route(&mut state, request, back);
            (Some(SimResponse::text("application/json", "<html>garbage".to_owned())), true)
        }
        _ => (Some(route(&mut state, request, back)), true),
    };
    if !is_heard {
        state.effects.lose_since(before);
    }
    if !path.starts_with("/sim/") {
        let (at, code) = (state.now, answer.as_ref().map_or(0, |a| a.code));
        state.effects.ask(ReceivedRequest { at, method: request.method.clone(), path, code });
    }
    answer.filter(|_| is_heard)
}

fn encode(answer: SimResponse) -> Response<ResponseStream> {
    let (kind, body) = match answer.body {
        SimBody::Json(value) => ("application/json", value.to_string()),
        SimBody::Text(kind, text) => (kind, text),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn route(state: &mut FleetState, request: &SimRequest, back: usize) -> SimResponse {
    let method = request.method.as_str();
    match (method, request.path.as_str()) {
        ("GET", "/metrics") => SimResponse::text("text/plain; version=0.0.4; charset=utf-8", metrics::page(state)),
        ("GET" | "POST", "/api/v1/query") => prometheus::query(state, request),
        ("GET", "/-/ready" | "/-/healthy") => SimResponse::text("text/plain; charset=utf-8", "ok".to_owned()),
        (_, path) if path.starts_with("/sim/") => control(state, request).unwrap_or_else(|refusal| refusal),
        _ => api::handle(state, request, back),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RepairRequest {
    node: String,
    #[serde(default)]
    gpu: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptedQuery {
    expression: String,
    samples: Vec<SimSample>,
}

/// The fleet's own doors for tests and the demo, where no trouble is met.
fn control(state: &mut FleetState, request: &SimRequest) -> Result<SimResponse, SimResponse> {
    fn read<T: for<'de> Deserialize<'de>>(request: &SimRequest) -> Result<T, SimResponse> {
        serde_json::from_slice(&request.body)
            .map_err(|e| SimResponse::bad_request(format!("cannot read the body: {e}")))
    }
    let done = |result: Result<(), String>| match result {
        Ok(()) => Ok(SimResponse::ok(json!({"done": true}))),
        Err(why) => Err(SimResponse::bad_request(why)),
    };
    match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/sim/fault") => done(api::inject(state, read::<SimFault>(request)?)),
        ("POST", "/sim/repair") => {
            let repair: RepairRequest = read(request)?;
            done(api::mend(state, &repair.node, repair.gpu))
        }
        ("POST", "/sim/calm") => {
            state.health.clear_api();
            state.health.denied.clear();
            done(Ok(()))
        }
        ("POST", "/sim/prometheus") => {
            let script: ScriptedQuery = read(request)?;
            state.table.set(&script.expression, script.samples);
            done(Ok(()))
        }
        ("GET", "/sim/effects") => Ok(SimResponse::ok(json!(state.effects.applied))),
        ("GET", "/sim/requests") => Ok(SimResponse::ok(json!(state.effects.asked))),
        ("GET", "/sim/state") => Ok(SimResponse::ok(overview(state))),
        _ => Err(SimResponse::no_such_path()),
    }
}

/// The fleet at a glance.
fn overview(state: &FleetState) -> Value {
    use super::object::{ObjectKind, condition, gpus_wanted, is_terminating, number, text};
    let nodes: Vec<Value> = state
        .keys(ObjectKind::Node, "")
        .map(|(key, node)| {
            let seat = state.seats.get(&key.name).cloned().unwrap_or_default();
            let sick =
                (0..seat.slots.len()).filter(|g| state.health.gpu(&key.name, u32::try_from(*g).unwrap_or(0)).is_some());
            json!({"name": key.name, "ready": seat.ready, "schedulable": seat.schedulable, "gpus": seat.slots.len(),
                "allocatable": seat.allocatable, "free": seat.free(), "ill_gpus": sick.collect::<Vec<_>>(),
                "boot_id": text(node, "/status/nodeInfo/bootID"), "taints": node["spec"]["taints"]})
        })
        .collect();
    let pods: Vec<Value> = state
        .keys(ObjectKind::Pod, "")
        .map(|(key, pod)| {
            json!({"namespace": key.namespace, "name": key.name, "node": text(pod, "/spec/nodeName"),
                "phase": text(pod, "/status/phase"), "ready": condition(pod, "Ready"),
                "terminating": is_terminating(pod), "gpus": gpus_wanted(pod)})
        })
        .collect();
    let deployments: Vec<Value> = state
        .keys(ObjectKind::Deployment, "")
        .map(|(key, d)| {
            json!({"namespace": key.namespace, "name": key.name, "replicas": number(d, "/spec/replicas"),
                "ready": number(d, "/status/readyReplicas"), "updated": number(d, "/status/updatedReplicas")})
        })
        .collect();
    json!({"now": state.now, "version": state.version, "nodes": nodes, "pods": pods, "deployments": deployments,
        "effects": state.effects.applied.len()})
}
