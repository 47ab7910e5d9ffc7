//! What people do on pages: each is the request to the API that a command line would send, in their name.
//!
//! Invariant: the API's table of roles decides; a form carries the hash of the plan that was shown above its buttons.

use super::read::segment;
use super::visitor::{Posted, Visitor};
use super::{pages, read};
use crate::limits;
use crate::model::{About, Actor, EntryKind, RunId};
use crate::notifiers::one_line;
use crate::server::{App, Problem, api};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::{Value, json};

pub(super) async fn decide(State(app): State<App>, Path(id): Path<String>, posted: Posted) -> Response {
    let Posted { visitor, fields } = posted;
    let approve = match fields.get("answer") {
        "approve" => true,
        "deny" => false,
        _ => return pages::problem(&app, &visitor, &unknown("press Approve or Deny")),
    };
    let shown = fields.get("plan_hash");
    let body = json!({ "approve": approve, "why": fields.get("why"), "plan_hash": shown });
    let what = format!("{} {}", if approve { "approve" } else { "deny" }, one_line(&id, 20));
    let done = ask(&app, &visitor, &what, format!("approvals/{}", segment(&id)), body).await;
    let run = fields.get("run").to_owned();
    match done {
        Ok(_) => Redirect::to(&format!("/runs/{}", segment(&run))).into_response(),
        // In place: the page of the run as it is now, with why the answer does not count.
        Err(problem) => read::run_page(&app, &visitor, &run, Some(&problem)).await,
    }
}

pub(super) async fn acknowledge(State(app): State<App>, Path(id): Path<String>, posted: Posted) -> Response {
    let Posted { visitor, .. } = posted;
    let what = format!("acknowledge {}", one_line(&id, 20));
    match ask(&app, &visitor, &what, format!("incidents/{}/ack", segment(&id)), Value::Null).await {
        Ok(_) => Redirect::to(&format!("/incidents/{}", segment(&id))).into_response(),
        Err(problem) => read::incident_page(&app, &visitor, &id, Some(&problem)).await,
    }
}

pub(super) async fn freeze(State(app): State<App>, posted: Posted) -> Response {
    scoped(&app, posted, "freeze", "freezes").await
}

pub(super) async fn unfreeze(State(app): State<App>, posted: Posted) -> Response {
    scoped(&app, posted, "release", "unfreeze").await
}

async fn scoped(app: &App, posted: Posted, verb: &str, path: &str) -> Response {
    let Posted { visitor, fields } = posted;
    let scope = fields.get("scope");
    let body = json!({ "scope": scope, "why": fields.get("why") });
    match ask(app, &visitor, &format!("{verb} {}", one_line(scope, 80)), path.to_owned(), body).await {
        Ok(_) => Redirect::to("/").into_response(),
        Err(problem) => read::home_page(app, &visitor, Some(&problem)).await,
    }
}

/// The API, in the visitor's name. Who is refused for want of a right is written down, as others must be able to see it.
async fn ask(app: &App, visitor: &Visitor, what: &str, path: String, body: Value) -> Result<Value, Problem> {
    let done = api::ask(app, visitor.caller.clone(), "POST", path.clone(), body).await;
    if let Err(problem) = &done
        && problem.status == StatusCode::FORBIDDEN
    {
        let text = format!("tried to {what} on the web page and was refused: {}", problem.error);
        let kind =
            EntryKind::Remarked { by: visitor.caller.name.clone(), text: one_line(&text, limits::STORY_LINE_CHARS) };
        let actor = Actor::person(&visitor.caller.name);
        let about = About { incident: None, run: run_of(app, visitor, &path).await };
        if let Err(error) = app.parts.store.note(actor, about, kind, app.parts.clock.now()).await {
            tracing::error!(%error, "a refusal could not be written down");
        }
    }
    done
}

/// The run whose question was to be answered: what a form says of it is not believed.
async fn run_of(app: &App, visitor: &Visitor, path: &str) -> Option<RunId> {
    let question = path.starts_with("approvals/").then(|| path.to_owned())?;
    let answer = api::ask(app, visitor.caller.clone(), "GET", question, Value::Null).await.ok()?;
    answer["approval"]["run"].as_str()?.parse().ok()
}

fn unknown(hint: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "this form does not say what to do", hint)
}
