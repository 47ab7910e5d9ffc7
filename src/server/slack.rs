//! Slack's two doors: the slash command and what people press. Signed by Slack, answered at once, done after it.
//!
//! Invariant: nothing is decoded before its signature holds; a person is known by user id alone, never by a name.

mod signature;

pub use signature::{Door, SlackDoor};

use super::{App, Caller, Problem, Way, command};
use crate::limits;
use crate::notifiers::slack_private as private;
use crate::planted::planted;
use crate::world::HttpRequest;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/slack/command", post(slash))
        .route("/slack/interact", post(interact))
        .layer(DefaultBodyLimit::max(limits::API_BODY_BYTES))
}

/// What Slack sends of a slash command.
#[derive(Deserialize)]
struct Slash {
    #[serde(default)]
    team_id: String,
    user_id: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    response_url: String,
}

async fn slash(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Json<Value>, Problem> {
    door(&app)?.check(&headers, &body, app.parts.clock.now())?;
    let slash: Slash = form(&body)?;
    Ok(Json(command_of(&app, slash).await))
}

/// Does the command; what takes longer than Slack waits is answered later, at the address that came with it.
async fn command_of(app: &App, slash: Slash) -> Value {
    let caller = match caller(app, &slash.team_id, &slash.user_id).await {
        Ok(caller) => caller,
        Err(problem) => return said(&problem),
    };
    let (inside, line) = (app.clone(), slash.text);
    let mut work = tokio::spawn(async move {
        match command::perform(&inside, &caller, &line).await {
            Ok(text) => private(&text),
            Err(problem) => said(&problem),
        }
    });
    match tokio::time::timeout(limits::SLACK_PATIENCE, &mut work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => private("a bug ended this command; the ledger says what was done"),
        Err(_) => {
            let app = app.clone();
            tokio::spawn(async move {
                if let Ok(answer) = work.await {
                    reply(&app, &slash.response_url, answer).await;
                }
            });
            private("working on it …")
        }
    }
}

/// What Slack sends when somebody presses something.
#[derive(Deserialize)]
struct Pressed {
    #[serde(rename = "type")]
    kind: String,
    user: Named,
    #[serde(default)]
    team: Option<Named>,
    #[serde(default)]
    actions: Vec<Press>,
    #[serde(default)]
    response_url: String,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Deserialize)]
struct Press {
    action_id: String,
    #[serde(default)]
    value: String,
}

async fn interact(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<StatusCode, Problem> {
    door(&app)?.check(&headers, &body, app.parts.clock.now())?;
    let fields: BTreeMap<String, String> = form(&body)?;
    let pressed: Pressed = serde_json::from_str(fields.get("payload").map_or("", String::as_str))
        .map_err(|_| malformed("`payload` is not what Slack sends"))?;
    take(&app, pressed);
    Ok(StatusCode::OK)
}

/// Begins what was pressed and returns at once; the answer goes to the person who pressed.
fn take(app: &App, pressed: Pressed) {
    if pressed.kind != "block_actions" {
        return;
    }
    let app = app.clone();
    tokio::spawn(async move {
        let team = pressed.team.as_ref().map_or("", |team| team.id.as_str());
        for press in pressed.actions.iter().take(limits::SLACK_PRESSES) {
            let done = match caller(&app, team, &pressed.user.id).await {
                Ok(caller) => do_press(&app, &caller, press).await,
                Err(problem) => Err(problem),
            };
            let answer = match done {
                Ok(text) => private(&text),
                Err(problem) => said(&problem),
            };
            reply(&app, &pressed.response_url, answer).await;
        }
    });
}

/// A button says what it does and carries what it was shown for: `a4 <hash of the plan>` or `i3`.
async fn do_press(app: &App, caller: &Caller, press: &Press) -> Result<String, Problem> {
    let (id, shown) = press.value.split_once(' ').unwrap_or((&press.value, ""));
    let line = match press.action_id.as_str() {
        "approve" | "deny" => {
            still_the_same(app, caller, id, shown).await?;
            format!("{} {id} by a button in Slack", press.action_id)
        }
        "right" | "wrong" => format!("judge {id} {}", press.action_id),
        "ack" => format!("ack {id}"),
        _ => return Err(malformed("this button is of another version; use the command instead")),
    };
    command::perform(app, caller, &line).await
}

/// The answer counts for the plan that the button was shown with, and for no other.
async fn still_the_same(app: &App, caller: &Caller, id: &str, shown: &str) -> Result<(), Problem> {
    let path = format!("approvals/{}", url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>());
    let answer = super::api::ask(app, caller.clone(), "GET", path, Value::Null).await?;
    let hash = answer["approval"]["plan_hash"].as_str().unwrap_or_default();
    if !shown.is_empty() && shown == hash {
        return Ok(());
    }
    let error = format!("{id} is not the question that this button was shown with");
    Err(Problem::new(StatusCode::CONFLICT, error, "look at the message as it is now, or use `show`"))
}

/// The person behind a user id, with the role that the configuration gives now.
async fn caller(app: &App, team: &str, user: &str) -> Result<Caller, Problem> {
    let ours = app.parts.config.slack.as_ref().and_then(|slack| slack.team.as_deref());
    let foreign = ours.is_some_and(|ours| ours != team);
    let roster = app.roster.now();
    match roster.by_slack(user) {
        Some(person) if !foreign => {
            let second = if planted("self-approval-by-a-second-identity") { " (Slack)" } else { "" };
            Ok(Caller { name: format!("{}{second}", person.name), ..Caller::of(person, Way::Slack) })
        }
        _ => {
            app.parts.metrics.auth_failed();
            let shown: String = user.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
            let error = format!("nobody in `people` has the Slack user id {shown}");
            app.witness.refused(app, &format!("Slack user {shown}"), "anything in Slack", "", &error).await;
            Err(Problem::new(StatusCode::FORBIDDEN, error, "an operator adds `slack: …` to your entry under `people`"))
        }
    }
}

async fn reply(app: &App, url: &str, body: Value) {
    let allowed = app.slack.as_ref().is_some_and(|door| door.may_reply_to(url));
    if !allowed {
        tracing::warn!("an answer to Slack is not sent: its address is none of Slack's");
        return;
    }
    let request = HttpRequest { method: "POST".to_owned(), url: url.to_owned(), headers: BTreeMap::new(), body };
    if let Err(error) = app.parts.world.http.send(&request).await {
        tracing::warn!(%error, "Slack did not take an answer; what was done is in the ledger");
    }
}

fn door(app: &App) -> Result<&SlackDoor, Problem> {
    app.slack.as_deref().ok_or_else(|| {
        Problem::not_found("Slack is not set up here", "add `slack: { signing_secret: … }` to nightshift.yaml")
    })
}

fn form<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let fields: serde_json::Map<String, Value> =
        url::form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), json!(value))).collect();
    serde_json::from_value(Value::Object(fields)).map_err(|_| malformed("this is not the form that Slack sends"))
}

fn malformed(error: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, error, "set the app up from integrations/slack/manifest.yaml")
}

fn said(problem: &Problem) -> Value {
    private(&format!("{}\n{}", problem.error, problem.hint))
}
