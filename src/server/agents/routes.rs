//! `/agent/v1`: reports, poll, answers, join, renew.
//!
//! Invariant: but for `join`, no body is read before its sender is known.

use super::who::Speaker;
use crate::agent::{Granted, Joining, Renewal};
use crate::limits;
use crate::model::{AgentName, Answered, Commands, Reports, Standing, Taken};
use crate::server::{App, Problem, secret};
use crate::sources::agent as source;
use crate::store::{AgentProof, Batch, NewAgent, Numbered, Origin, StoreError};
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::PoisonError;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/agent/v1/reports", post(reports))
        .route("/agent/v1/poll", post(poll))
        .route("/agent/v1/answers", post(answer))
        .route("/agent/v1/renew", post(renew))
        .route("/agent/v1/join", post(join))
}

/// A JSON body within its bounds of bytes and time.
struct Body<T>(T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let reading = axum::body::to_bytes(request.into_body(), limits::AGENT_BODY_BYTES);
        let slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time", "send it again");
        let bytes = tokio::time::timeout(app.pace.body, reading).await.map_err(slow)?.map_err(|_| {
            let most = format!("send at most {} bytes", limits::AGENT_BODY_BYTES);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body could not be read", most)
        })?;
        serde_json::from_slice(&bytes).map(Body).map_err(|error| {
            let why = format!("the body is not what this route takes: {error}");
            Problem::new(StatusCode::BAD_REQUEST, why, "agent and engine should be of the same version")
        })
    }
}

async fn reports(
    speaker: Speaker,
    State(app): State<App>,
    Body(reports): Body<Reports>,
) -> Result<Json<Taken>, Problem> {
    take(&app, &speaker, reports).await.map(Json)
}

/// Findings of an agent become events, each once.
pub(super) async fn take(app: &App, speaker: &Speaker, reports: Reports) -> Result<Taken, Problem> {
    let parts = &app.parts;
    let standing = reports.standing.clone();
    let agent = speaker.agent.name.clone();
    let heard = source::decode(reports, &agent);
    let (said, gaps) = (heard.events.len(), heard.gaps.len());
    let batch = Batch {
        source: source::SOURCE.to_owned(),
        events: heard.events,
        gaps: heard.gaps,
        rules: (app.current)().rules.clone(),
        now: parts.clock.now(),
        origin: Origin::agent(&speaker.agent),
    };
    let numbered = Numbered {
        batch,
        agent,
        boot: standing.boot,
        spool: standing.spool,
        numbers: heard.numbers,
        of_events: heard.of_events,
    };
    let started = std::time::Instant::now();
    let (upto, heard) = parts.store.intake_reports(numbered).await.map_err(unstored)?;
    parts.metrics.acked(said, started.elapsed());
    parts.metrics.heard(said, heard.refreshed, heard.late);
    parts.metrics.unmatched(source::SOURCE, heard.unmatched);
    parts.metrics.gap(gaps);
    if heard.nudge {
        parts.nudge.nudge();
    }
    Ok(Taken { upto })
}

async fn poll(
    speaker: Speaker,
    State(app): State<App>,
    Body(standing): Body<Standing>,
) -> Result<Json<Commands>, Problem> {
    Ok(Json(Commands { commands: hand_over(&app, &speaker, standing).await }))
}

/// Waits for commands of that node; meanwhile it is here.
pub(super) async fn hand_over(app: &App, speaker: &Speaker, mut standing: Standing) -> Vec<crate::model::Command> {
    for text in [&mut standing.version, &mut standing.boot, &mut standing.spool, &mut standing.trouble] {
        *text = text.chars().filter(|c| !c.is_control()).take(limits::REASON_CHARS).collect();
    }
    write_down(app, speaker, &standing).await;
    app.parts.world.agents.take(&speaker.agent.name, standing, limits::AGENT_POLL).await
}

/// The store knows of an agent within a minute, so that its silence is noticed after a restart too.
async fn write_down(app: &App, speaker: &Speaker, standing: &Standing) {
    let (name, now) = (&speaker.agent.name, app.parts.clock.now());
    {
        let mut written = app.agents.written.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = written.get(name).is_some_and(|at| now >= *at && now < *at + limits::AGENT_WRITTEN_EVERY);
        if lately {
            return;
        }
        if written.len() >= limits::NODES as usize {
            written.clear();
        }
        written.insert(name.clone(), now);
    }
    if let Err(error) = app.parts.store.agent_seen(speaker.agent.clone(), standing.clone(), now).await {
        tracing::warn!(%error, agent = %name, "that an agent was heard of could not be written down");
    }
}

async fn answer(
    speaker: Speaker,
    State(app): State<App>,
    Body(answered): Body<Answered>,
) -> Result<Json<Value>, Problem> {
    let wanted = app.parts.world.agents.answered(&speaker.agent.name, &answered.key, answered.answer);
    Ok(Json(json!({ "wanted": wanted })))
}

async fn join(State(app): State<App>, Body(joining): Body<Joining>) -> Result<Json<Granted>, Problem> {
    let authority = app.agents.authority.clone().ok_or_else(no_door)?;
    let is_none = joining.cluster.is_empty();
    if !is_node_name(&joining.node) || !(is_none || is_node_name(&joining.cluster)) {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "that is no name of a node or cluster",
            "letters, digits, `-` and `.`, at most 253",
        ));
    }
    let clusters: Vec<&str> = app.parts.world.clusters.keys().map(String::as_str).collect();
    if is_none && clusters.len() > 1 {
        let why = format!("which cluster is {} in? This engine knows {}", joining.node, clusters.join(", "));
        return Err(Problem::new(StatusCode::BAD_REQUEST, why, "set `cluster` in agent.yaml, or --cluster"));
    }
    let name = AgentName { cluster: joining.cluster, node: joining.node };
    let family = hex(&secret::bytes::<8>());
    let now = app.parts.clock.now();
    // First what can fail without a trace; a token is used up last.
    let granted = authority.grant(&joining.request, &name, &family, now);
    let granted = granted.map_err(|why| Problem::new(StatusCode::BAD_REQUEST, why, "send a signing request in PEM"))?;
    let agent = NewAgent { name, how: AgentProof::Certificate, family };
    app.parts.store.join(&hash_of(&joining.token), agent, now).await.map_err(|error| match error {
        StoreError::Refused(why) => {
            app.parts.metrics.auth_failed();
            Problem::new(StatusCode::FORBIDDEN, why, "a token is good once, for a short while")
        }
        other => unstored(other),
    })?;
    Ok(Json(granted))
}

async fn renew(
    speaker: Speaker,
    State(app): State<App>,
    Body(renewal): Body<Renewal>,
) -> Result<Json<Granted>, Problem> {
    let authority = app.agents.authority.clone().ok_or_else(no_door)?;
    if speaker.agent.how != AgentProof::Certificate {
        return Err(Problem::new(StatusCode::FORBIDDEN, "only a certificate renews a certificate", "join first"));
    }
    let granted = authority.grant(&renewal.request, &speaker.agent.name, &speaker.agent.family, app.parts.clock.now());
    granted.map(Json).map_err(|why| Problem::new(StatusCode::BAD_REQUEST, why, "send a signing request in PEM"))
}

pub(super) fn no_door() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "this engine has no door for agents with certificates",
        "set `agents.listen` in nightshift.yaml, or use ServiceAccount tokens",
    )
}

pub(super) fn is_node_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (1..=253).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['-', '.'])
}

/// What the store keeps of a join token.
pub(super) fn hash_of(token: &str) -> String {
    hex(&Sha256::digest(token.trim().as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unstored(error: StoreError) -> Problem {
    tracing::warn!(%error, "what an agent said could not be stored; it sends it again");
    Problem::busy("the store is busy")
}
