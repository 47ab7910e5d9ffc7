//! `POST /in/<kind>/<source>`: body, source, limits, authentication, decode, intake.
//!
//! Invariant: 2xx is answered only after the commit; a body that can never be accepted is 4xx, one that may be later is
//! 503.

use super::{App, Caller, Problem, body, witness};
use crate::config::{KUBERNETES, SourceConfig};
use crate::limits;
use crate::notifiers::one_line;
use crate::planted::planted;
use crate::sources::{self, BodyRefusal, DecodedBody};
use crate::store::{BatchOrigin, EventBatch, IntakeResult, StoreError};
use crate::telemetry::{Refused, Shed};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::json;

const ALERTMANAGER: &str = "alertmanager";

pub(super) fn routes(app: &App) -> Router<App> {
    // PUT because Grafana may be set to it; OPTIONS is the handshake of CloudEvents.
    Router::new()
        .route("/in/{kind}/{source}", post(webhook).put(webhook).options(handshake))
        .route("/in/alertmanager/{source}/api/v2/alerts", post(direct))
        .route_layer(axum::middleware::from_fn_with_state(app.clone(), witness::watch))
}

/// A vendor's webhook.
async fn webhook(
    State(app): State<App>,
    Path((kind, source)): Path<(String, String)>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let (headers, held) = admit(&app, &kind, &source, &caller, request).await?;
    let bytes = held.bytes.clone();
    let started = std::time::Instant::now();
    let decoded = decode(&app, IntakeFormat::Webhook { kind, headers }, &source, bytes).await?;
    let decoded = within_reach(&app, &caller, &source, decoded)?;
    let gaps = decoded.gaps.len();
    let accepted = decoded.events.len();
    app.repeats.forget(&decoded.events);
    let heard = store(&app, &source, &caller, decoded).await?;
    app.parts.metrics.acked(accepted, started.elapsed());
    Ok(answer(StatusCode::OK, accepted, &heard, json!({ "gaps": gaps })))
}

/// A Prometheus that takes us for an Alertmanager: the good alerts are kept, and 400 names the others (rule 19).
async fn direct(
    State(app): State<App>,
    Path(source): Path<String>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let (_, held) = admit(&app, ALERTMANAGER, &source, &caller, request).await?;
    let started = std::time::Instant::now();
    let decoded = decode(&app, IntakeFormat::Direct, &source, held.bytes.clone()).await?;
    let decoded = within_reach(&app, &caller, &source, decoded)?;
    let accepted = decoded.events.len();
    let now = app.parts.clock.now();
    let fresh = app.repeats.fresh(decoded.events, now);
    let marks = app.repeats.mark(&fresh);
    // The sender receives the bad ones each time it repeats them; a ledger entry a minute would add nothing.
    let heard = store(&app, &source, &caller, DecodedBody { events: fresh, gaps: Vec::new() }).await?;
    app.repeats.remember(&marks, now);
    app.parts.metrics.acked(accepted, started.elapsed());
    if decoded.gaps.is_empty() {
        return Ok(answer(StatusCode::OK, accepted, &heard, json!({})));
    }
    app.parts.metrics.refused(Refused::Malformed);
    let why = json!({ "error": decoded.gaps.join("; "), "hint": "the other alerts of this request were accepted" });
    Ok(answer(StatusCode::BAD_REQUEST, accepted, &heard, why))
}

/// The handshake of CloudEvents, before a sender posts.
async fn handshake(
    State(app): State<App>,
    Path((kind, source)): Path<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.need_source(&source, app.parts.config.sources.get(&source))?;
    known(&app, &kind, &source)?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    let out = response.headers_mut();
    if let Some(origin) = headers.get("webhook-request-origin") {
        out.insert("webhook-allowed-origin", origin.clone());
    }
    out.insert(header::ALLOW, http::HeaderValue::from_static("POST, PUT, OPTIONS"));
    Ok(response)
}

/// Everything that is checked before a byte of the body is read, then the body.
async fn admit(
    app: &App,
    kind: &str,
    source: &str,
    caller: &Caller,
    request: Request,
) -> Result<(HeaderMap, body::HeldBody), Problem> {
    caller.need_source(source, app.parts.config.sources.get(source))?;
    known(app, kind, source)?;
    let (parts, body): (_, Body) = request.into_parts();
    media_type(app, &parts.headers)?;
    let held = body::read(app, source, &parts.headers, body).await?;
    Ok((parts.headers, held))
}

fn known<'a>(app: &'a App, kind: &str, source: &str) -> Result<&'a SourceConfig, Problem> {
    let sources = &app.parts.config.sources;
    let Some(found) = sources.get(source) else {
        let names: Vec<_> = sources.iter().map(|(name, source)| format!("{}/{name}", source.kind)).collect();
        let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Problem::not_found(
            "no source of that name is configured",
            format!("configured under `sources:` in nightshift.yaml: {list}"),
        ));
    };
    if found.kind == KUBERNETES {
        return Err(Problem::not_found(
            format!("nothing is posted to source `{source}`"),
            "it is of kind kubernetes: the engine itself watches the cluster",
        ));
    }
    if found.kind != kind {
        return Err(Problem::not_found(
            format!("source `{source}` is of another kind"),
            format!("post to /in/{}/{source}", found.kind),
        ));
    }
    Ok(found)
}

/// JSON in any of its names, or no name at all; a form or a text is another thing.
fn media_type(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default();
    let name = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = name == "application/json" || (name.starts_with("application/") && name.ends_with("+json"));
    if json || headers.contains_key("ce-id") {
        return Ok(());
    }
    app.parts.metrics.refused(Refused::MediaType);
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the Content-Type is not that of JSON",
        "send `Content-Type: application/json` (Datadog: switch off `Encode as form`)",
    ))
}

enum IntakeFormat {
    Webhook { kind: String, headers: HeaderMap },
    Direct,
}

async fn decode(app: &App, form: IntakeFormat, source: &str, bytes: Bytes) -> Result<DecodedBody, Problem> {
    let now = app.parts.clock.now();
    let cfg = app.parts.config.sources.get(source).cloned();
    let Some(cfg) = cfg else { return Err(Problem::not_found("the source is gone", "check `sources:`")) };
    let name = source.to_owned();
    let large = bytes.len() > limits::DECODE_INLINE_BYTES;
    let decoded = match form {
        IntakeFormat::Webhook { kind, headers } if kind != ALERTMANAGER => {
            let Some(shape) = (app.current)().decoders.get(&kind).cloned() else {
                return Err(Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("there is no decoder for `{kind}`"),
                    format!("put integrations/{kind}/decode.rhai in place; `nightshift check` shows the error"),
                ));
            };
            let attributes = sources::cloudevents::attributes(
                headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))),
            );
            // A script may take its whole time slice and a deep stack: never on a thread that serves requests.
            let work = move || sources::shape::decode(&shape, &bytes, attributes, &name, &cfg, now);
            tokio::task::spawn_blocking(move || on_deep_stack(work)).await
        }
        IntakeFormat::Webhook { .. } if large => {
            tokio::task::spawn_blocking(move || sources::alertmanager::decode(&bytes, &name, &cfg, now)).await
        }
        IntakeFormat::Webhook { .. } => Ok(sources::alertmanager::decode(&bytes, &name, &cfg, now)),
        IntakeFormat::Direct if large => {
            tokio::task::spawn_blocking(move || sources::alertmanager::decode_direct(&bytes, &name, &cfg, now)).await
        }
        IntakeFormat::Direct => Ok(sources::alertmanager::decode_direct(&bytes, &name, &cfg, now)),
    };
    let decoded = decoded.map_err(|panicked| {
        tracing::error!(%panicked, source, "a decoder failed");
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "the body could not be decoded",
            "see the engine's log for the reason",
        )
    })?;
    decoded.map_err(|refusal| refuse(app, source, refusal))
}

/// Runs a script where it cannot overflow: its limits are made for this much stack.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, BodyRefusal> + Send) -> Result<T, BodyRefusal> {
    let broken = || BodyRefusal::Malformed("the decoder broke on this body".to_owned());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(limits::SCRIPT_STACK_BYTES).spawn_scoped(scope, work);
        thread.map_err(|_| broken())?.join().map_err(|_| broken())?
    })
}

/// A refusal is loud here, because the sender will not show it to any user.
fn refuse(app: &App, source: &str, refusal: BodyRefusal) -> Problem {
    tracing::warn!(source, why = %refusal, "request body rejected; its events are lost unless they are sent again");
    match refusal {
        BodyRefusal::Malformed(why) => {
            app.parts.metrics.refused(Refused::Malformed);
            Problem::new(StatusCode::BAD_REQUEST, why, "sending the same again will not help")
        }
        BodyRefusal::TooLarge(why) => {
            app.parts.metrics.refused(Refused::TooLarge);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why, "group less into one notification (group_by)")
        }
    }
}

/// Removes events about clusters outside the source's or the caller's scope. A removed one is a gap, in words; where
/// nothing is left, the whole request is refused.
fn within_reach(app: &App, caller: &Caller, source: &str, decoded: DecodedBody) -> Result<DecodedBody, Problem> {
    let DecodedBody { events, mut gaps } = decoded;
    let allowed = app.parts.config.sources.get(source).map(|cfg| cfg.clusters.as_slice()).unwrap_or_default();
    let whose = |cluster: Option<&str>| {
        let named = cluster.is_some_and(|cluster| allowed.iter().any(|name| name == cluster));
        if !allowed.is_empty() && !named {
            return Some(format!("source `{source}` is about {} alone", allowed.join(", ")));
        }
        let refused = caller.need_cluster(cluster).is_err() && !planted("cluster-limit-ignored-for-posts");
        refused.then(|| format!("`{}` may not post events about that cluster", caller.name))
    };
    let said = events.len();
    let (mut kept, mut refused) = (Vec::with_capacity(said), Vec::new());
    for event in events {
        let cluster = app.cluster_of(&event.subject);
        match whose(cluster) {
            None => kept.push(event),
            Some(why) => {
                let place = one_line(cluster.unwrap_or("an unknown cluster"), limits::ALERT_PLACE_CHARS);
                let name = one_line(event.name(), limits::ALERT_PLACE_CHARS);
                refused.push(format!("alert {name} is about cluster {place} and was refused: {why}"));
            }
        }
    }
    let Some(first) = refused.first() else { return Ok(DecodedBody { events: kept, gaps }) };
    if kept.is_empty() {
        let more = if refused.len() > 1 { format!(" (and {} more)", refused.len() - 1) } else { String::new() };
        let hint =
            format!("post it to a source of that cluster, or name the cluster under `sources.{source}.clusters`");
        return Err(Problem::new(StatusCode::FORBIDDEN, format!("{first}{more}"), hint));
    }
    let more = refused.len().saturating_sub(limits::GAPS_PER_BODY);
    gaps.extend(refused.into_iter().take(limits::GAPS_PER_BODY));
    if more > 0 {
        gaps.push(format!("and {more} more alerts about other clusters were refused"));
    }
    Ok(DecodedBody { events: kept, gaps })
}

async fn store(app: &App, source: &str, caller: &Caller, decoded: DecodedBody) -> Result<IntakeResult, Problem> {
    if decoded.events.is_empty() && decoded.gaps.is_empty() {
        return Ok(IntakeResult::default());
    }
    let (said, gaps) = (decoded.events.len(), decoded.gaps.len());
    let batch = EventBatch {
        source: source.to_owned(),
        events: decoded.events,
        gaps: decoded.gaps,
        rules: (app.current)().rules.clone(),
        now: app.parts.clock.now(),
        origin: BatchOrigin { kind: app.kind_of(source).to_owned(), via: Some(caller.as_poster()) },
    };
    let heard = app.intake.intake(batch).await.map_err(|error| unstored(app, source, &error))?;
    app.parts.metrics.heard(said, heard.refreshed, heard.late);
    app.parts.metrics.unmatched(source, heard.unmatched);
    app.parts.metrics.gap(gaps);
    if heard.nudge {
        app.parts.nudge.nudge();
    }
    Ok(heard)
}

fn unstored(app: &App, source: &str, error: &StoreError) -> Problem {
    if let StoreError::Busy(_) = error {
        app.parts.metrics.shed(Shed::Busy);
        return Problem::busy("the store is busy");
    }
    tracing::error!(%error, source, "cannot store events");
    app.parts.metrics.shed(Shed::Store);
    // Words of the database may hold paths: the log has them, the sender does not need them.
    Problem::busy("the cannot store events")
}

fn answer(status: StatusCode, accepted: usize, heard: &IntakeResult, more: serde_json::Value) -> Response {
    let mut body = json!({
        "accepted": accepted,
        "opened": heard.opened,
        "reopened": heard.reopened,
        "refreshed": heard.refreshed,
        "resolved": heard.resolved,
        "late": heard.late,
        "unmatched": heard.unmatched,
        "runs": heard.runs,
    });
    if let (Some(body), serde_json::Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    (status, Json(body)).into_response()
}
