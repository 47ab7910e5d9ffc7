//! `/agent/v1`: reports, poll, answers, join, renew.
//!
//! Invariant: but for `join`, no body is read before its sender is known, and an agent that was removed while it arrived is refused;
//! `join` is behind the agents' own listener alone.

use super::authority::AgentAuthority;
use super::who::{self, AgentCaller};
use crate::agent::{IssuedCertificate, JoinRequest, RenewalRequest};
use crate::limits;
use crate::model::{AgentCommand, AgentName, AgentStatus, CommandBatch, CommandReport, FindingAck, FindingBatch, Time};
use crate::server::{App, Problem, body, secret};
use crate::sources::agent as source;
use crate::store::{AgentProof, BatchOrigin, EventBatch, NewAgent, NumberedBatch, StoreError};
use crate::world::WorldError;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::{Arc, PoisonError};

/// The routes of agents that have an identity.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/agent/v1/reports", post(reports))
        .route("/agent/v1/poll", post(poll))
        .route("/agent/v1/answers", post(answer))
        .route("/agent/v1/renew", post(renew))
}

/// The route of a machine that joins.
pub fn join_route() -> Router<App> {
    Router::new().route("/agent/v1/join", post(join))
}

/// A JSON body within its bounds of bytes and time.
struct AgentBody<T>(T);

impl<T: DeserializeOwned> FromRequest<App> for AgentBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let reading = axum::body::to_bytes(request.into_body(), limits::AGENT_BODY_BYTES);
        let slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time", "send it again");
        let bytes = tokio::time::timeout(app.pace.body, reading).await.map_err(slow)?.map_err(|_| {
            let most = format!("send at most {} bytes", limits::AGENT_BODY_BYTES);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body could not be read", most)
        })?;
        serde_json::from_slice(&bytes).map(AgentBody).map_err(misunderstood)
    }
}

fn misunderstood(error: serde_json::Error) -> Problem {
    let why = format!("the body does not match this route's schema: {error}");
    Problem::new(StatusCode::BAD_REQUEST, why, "agent and engine should be of the same version")
}

async fn reports(
    speaker: AgentCaller,
    State(app): State<App>,
    AgentBody(reports): AgentBody<FindingBatch>,
) -> Result<Json<FindingAck>, Problem> {
    speaker.confirm(&app).await?;
    take(&app, &speaker, reports).await.map(Json)
}

/// Findings of an agent become events, each once.
pub(super) async fn take(app: &App, speaker: &AgentCaller, reports: FindingBatch) -> Result<FindingAck, Problem> {
    let parts = &app.parts;
    let standing = cleaned(reports.standing.clone());
    let agent = speaker.agent.name.clone();
    let heard = source::decode(reports, &agent);
    let (said, gaps) = (heard.events.len(), heard.gaps.len());
    let batch = EventBatch {
        source: source::SOURCE.to_owned(),
        events: heard.events,
        gaps: heard.gaps,
        rules: (app.current)().rules.clone(),
        now: parts.clock.now(),
        origin: BatchOrigin::agent(&speaker.agent),
    };
    let numbered = NumberedBatch {
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
    Ok(FindingAck { upto })
}

async fn poll(
    speaker: AgentCaller,
    State(app): State<App>,
    AgentBody(standing): AgentBody<AgentStatus>,
) -> Result<Json<CommandBatch>, Problem> {
    speaker.confirm(&app).await?;
    Ok(Json(CommandBatch { commands: hand_over(&app, &speaker, standing).await? }))
}

/// An agent's report on itself, made fit for the ledger and a terminal.
fn cleaned(mut standing: AgentStatus) -> AgentStatus {
    for text in [&mut standing.version, &mut standing.boot, &mut standing.spool, &mut standing.trouble] {
        *text = text.chars().filter(|c| !c.is_control()).take(limits::REASON_CHARS).collect();
    }
    standing
}

/// Waits for commands of that node; meanwhile it is here.
pub(super) async fn hand_over(
    app: &App,
    speaker: &AgentCaller,
    standing: AgentStatus,
) -> Result<Vec<AgentCommand>, Problem> {
    let standing = cleaned(standing);
    write_down(app, speaker, &standing).await?;
    let commands = app.parts.world.agents.take(&speaker.agent.name, standing, limits::AGENT_POLL).await;
    if !commands.is_empty() {
        // It may have been removed while it waited.
        speaker.confirm(app).await?;
    }
    Ok(commands)
}

/// The store has an agent within a minute, so that its silence is noticed after a restart too.
async fn write_down(app: &App, speaker: &AgentCaller, standing: &AgentStatus) -> Result<(), Problem> {
    let (name, now) = (&speaker.agent.name, app.parts.clock.now());
    {
        let mut written = app.agents.written.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = written.get(name).is_some_and(|at| now >= *at && now < *at + limits::AGENT_WRITTEN_EVERY);
        if lately {
            return Ok(());
        }
        if written.len() >= limits::NODES as usize {
            written.clear();
        }
        written.insert(name.clone(), now);
    }
    match app.parts.store.agent_seen(speaker.agent.clone(), standing.clone(), now).await {
        Ok(()) => {}
        Err(StoreError::Refused(why)) => {
            // Not known, so nothing was written down of it, and its next poll is looked at again.
            app.agents.written.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            app.parts.metrics.auth_failed();
            return Err(who::unknown(why));
        }
        Err(error) => tracing::warn!(%error, agent = %name, "cannot record the last contact of an agent"),
    }
    Ok(())
}

async fn answer(
    speaker: AgentCaller,
    State(app): State<App>,
    AgentBody(answered): AgentBody<CommandReport>,
) -> Result<Json<Value>, Problem> {
    speaker.confirm(&app).await?;
    let wanted = app.parts.world.agents.answered(&speaker.agent.name, &answered.key, answered.answer);
    Ok(Json(json!({ "wanted": wanted })))
}

/// Checks the sender, node and token in the order of their cost: a body within its bounds, names, the token, whether
/// there is such a node, and only then the request for a certificate.
async fn join(State(app): State<App>, request: Request) -> Result<Json<IssuedCertificate>, Problem> {
    let authority = app.agents.authority.clone().ok_or_else(no_door)?;
    let busy = |_| Problem::busy("too many agents join at once");
    let joining: JoinRequest = {
        let _place = Arc::clone(&app.agents.joins.bodies).try_acquire_owned().map_err(|_| busy(()))?;
        let (parts, body) = request.into_parts();
        let held = body::unproved(&app, &parts.headers, body, limits::AGENT_JOIN_BYTES).await?;
        serde_json::from_slice(&held.bytes).map_err(misunderstood)?
    };
    let name = name_of(&app, &joining)?;
    let hash = hash_of(&joining.token);
    let places = Arc::clone(&app.agents.joins.tokens).acquire_owned();
    let _place = tokio::time::timeout(limits::AGENT_JOIN_WAIT, places).await.map_err(|_| busy(()))?;
    let now = app.parts.clock.now();
    let is_bound = match app.parts.store.join_check(&hash, &name, now).await {
        Ok(is_bound) => is_bound,
        Err(error) => {
            // A sender who tries many waits with each, and so do others in these places, not in those of agents.
            tokio::time::sleep(limits::AGENT_JOIN_PAUSE).await;
            return Err(unjoined(&app, error));
        }
    };
    if !is_bound {
        check_there(&app, &name).await?;
    }
    let agent =
        NewAgent { name, how: AgentProof::Certificate, family: hex::encode(secret::bytes::<8>()), generation: 1 };
    // First what can fail without a trace; a token is used up last.
    let granted = granted(&authority, &joining.request, &agent, now)?;
    app.parts.store.join(&hash, agent, now).await.map_err(|error| unjoined(&app, error))?;
    Ok(Json(granted))
}

/// The names in a request, if there can be such a cluster and node.
fn name_of(app: &App, joining: &JoinRequest) -> Result<AgentName, Problem> {
    let bad = |why: String, hint: &str| Err(Problem::new(StatusCode::BAD_REQUEST, why, hint));
    let (node, cluster) = (&joining.node, &joining.cluster);
    if !is_node_name(node) || !(cluster.is_empty() || is_node_name(cluster)) {
        let hint = "letters, digits, `-` and `.`, at most 253";
        return bad("that is no name of a node or cluster".to_owned(), hint);
    }
    let clusters: Vec<&str> = app.parts.world.clusters.keys().map(String::as_str).collect();
    if cluster.is_empty() && clusters.len() > 1 {
        let why = format!("the cluster of {node} is missing: choose one of {}", clusters.join(", "));
        return bad(why, "set `cluster` in agent.yaml, or --cluster");
    }
    if !cluster.is_empty() && !clusters.is_empty() && !clusters.contains(&cluster.as_str()) {
        let why = format!("no cluster `{cluster}` is configured; configured are {}", clusters.join(", "));
        return bad(why, "set `cluster` in agent.yaml to one of them");
    }
    Ok(AgentName::new(cluster, node))
}

/// A token for any node is good for nodes that are there: the admin who made it has named none.
async fn check_there(app: &App, name: &AgentName) -> Result<(), Problem> {
    let world = &app.parts.world;
    if world.clusters.is_empty() {
        return Ok(());
    }
    let cluster = if name.cluster.is_empty() { world.default_cluster.as_str() } else { name.cluster.as_str() };
    let kube = world.kube(Some(cluster)).map_err(|error| Problem::busy(error.to_string()))?;
    match kube.node(&name.node).await {
        Ok(_) => Ok(()),
        Err(WorldError::NotFound(_)) => Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("cluster {cluster} has no node {}, and this join token names none", name.node),
            format!("for a machine outside the cluster make the token with `--node {}`", name.node),
        )),
        Err(error) if error.is_transient() => {
            Err(Problem::busy(format!("whether cluster {cluster} has node {} could not be read: {error}", name.node)))
        }
        // Without the right to read nodes nothing is known of them.
        Err(error) => {
            tracing::warn!(%error, agent = %name, "cannot check whether the node of a joining agent exists");
            Ok(())
        }
    }
}

/// The certificate has family and generation in one word.
fn granted(
    authority: &AgentAuthority,
    request: &str,
    agent: &NewAgent,
    now: Time,
) -> Result<IssuedCertificate, Problem> {
    let family = format!("{}.{}", agent.family, agent.generation);
    let granted = authority.grant(request, &agent.name, &family, now);
    granted.map_err(|why| Problem::new(StatusCode::BAD_REQUEST, why, "send a signing request in PEM"))
}

fn unjoined(app: &App, error: StoreError) -> Problem {
    match error {
        StoreError::Refused(why) => {
            app.parts.metrics.auth_failed();
            Problem::new(StatusCode::FORBIDDEN, why, "a token is good once, for a short while")
        }
        other => unstored(other),
    }
}

async fn renew(
    speaker: AgentCaller,
    State(app): State<App>,
    AgentBody(renewal): AgentBody<RenewalRequest>,
) -> Result<Json<IssuedCertificate>, Problem> {
    let authority = app.agents.authority.clone().ok_or_else(no_door)?;
    if speaker.agent.how != AgentProof::Certificate {
        return Err(Problem::new(StatusCode::FORBIDDEN, "only a certificate renews a certificate", "join first"));
    }
    speaker.confirm(&app).await?;
    let now = app.parts.clock.now();
    // A request that cannot be signed is refused before it counts as a renewal.
    granted(&authority, &renewal.request, &speaker.agent, now)?;
    let generation = app.parts.store.agent_renewed(speaker.agent.clone(), now).await.map_err(|error| match error {
        StoreError::Refused(why) => who::unknown(why),
        StoreError::Busy(why) => Problem::new(StatusCode::TOO_MANY_REQUESTS, why, "use the certificate that came then"),
        other => unstored(other),
    })?;
    granted(&authority, &renewal.request, &NewAgent { generation, ..speaker.agent }, now).map(Json)
}

pub(super) fn no_door() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "this engine has no listener for agents with certificates",
        "set `agents.listen` in nightshift.yaml, or use ServiceAccount tokens",
    )
}

pub(super) fn is_node_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (1..=253).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['-', '.'])
}

/// The store's form of a join token.
pub(super) fn hash_of(token: &str) -> String {
    hex::encode(Sha256::digest(token.trim().as_bytes()))
}

fn unstored(error: StoreError) -> Problem {
    tracing::warn!(%error, "cannot store an agent's findings; the agent sends them again");
    Problem::busy("the store is busy")
}
