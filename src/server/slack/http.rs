//! Slack's three endpoints over HTTP: the command, interactions and forms, events.
//!
//! Invariant: the signature over the raw body is checked first, whatever the body's content; a request without one, or
//! with an old one, is not even read.

use super::said::{EventCallback, SlackInteraction, SlashCommand};
use super::{App, SlackReceiver};
use crate::limits;
use crate::server::{Problem, body};
use crate::telemetry::SlackDoor as Kind;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

pub(in crate::server) fn routes() -> Router<App> {
    Router::new()
        .route("/slack/command", post(slash))
        .route("/slack/interact", post(interact))
        .route("/slack/events", post(event))
}

async fn slash(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let begun = Instant::now();
    let (chat, held) = opened(&app, request).await?;
    let slash: SlashCommand = form(&held.bytes)?;
    drop(held);
    let answer = chat.command(slash).await;
    app.parts.metrics.slack_answered(Kind::Command, begun.elapsed());
    Ok(answered(answer))
}

async fn interact(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let begun = Instant::now();
    let (chat, held) = opened(&app, request).await?;
    let fields: BTreeMap<String, String> = form(&held.bytes)?;
    drop(held);
    let said: SlackInteraction = serde_json::from_str(fields.get("payload").map_or("", String::as_str))
        .map_err(|_| malformed("`payload` is not a valid Slack payload"))?;
    let answer = chat.interact(said).await;
    app.parts.metrics.slack_answered(Kind::Interaction, begun.elapsed());
    Ok(answered(answer))
}

async fn event(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (chat, held) = opened(&app, request).await?;
    let said: EventCallback =
        serde_json::from_slice(&held.bytes).map_err(|_| malformed("this is not a valid Slack event"))?;
    if said.kind == "url_verification" {
        let challenge: String = said.challenge.chars().take(limits::SLACK_ID_CHARS).collect();
        return Ok(answered(json!({ "challenge": challenge })));
    }
    chat.event(said);
    Ok(StatusCode::OK.into_response())
}

/// The chat and the body, once Slack's signature holds.
async fn opened(app: &App, request: Request) -> Result<(SlackReceiver, body::HeldBody), Problem> {
    let chat = SlackReceiver::of(app)?;
    let signature = chat.door.signature.as_ref().ok_or_else(|| {
        Problem::not_found(
            "Slack is not set up here over HTTP",
            "add `slack.signing_secret` to nightshift.yaml, or use Socket Mode in the app's settings",
        )
    })?;
    let (parts, body) = request.into_parts();
    signature.claims(&parts.headers, app.parts.clock.now())?;
    let bound = body::BodyBound::new(body::UnprovenSender::Slack, limits::SLACK_BODY_BYTES);
    let held = body::unproved(app, &parts.headers, body, bound).await?;
    signature.check(&parts.headers, &held.bytes, app.parts.clock.now())?;
    Ok((chat, held))
}

/// Slack expects an empty body where there is no answer.
fn answered(answer: Value) -> Response {
    if answer.is_null() { StatusCode::OK.into_response() } else { Json(answer).into_response() }
}

fn form<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let fields: serde_json::Map<String, Value> =
        url::form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), json!(value))).collect();
    serde_json::from_value(Value::Object(fields)).map_err(|_| malformed("this is not a valid Slack form"))
}

fn malformed(error: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, error, "set the app up from integrations/slack/manifest.yaml")
}
