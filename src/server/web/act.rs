//! Acts on pages: each is the request to the API that a command line would send, in the user's name.
//!
//! Invariant: the API's table of roles decides; a form carries the hash of the plan that was shown above its buttons.

use super::read::segment;
use super::visitor::{Posted, Visitor};
use super::{pages, read};
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
        _ => return pages::problem(&app, &visitor, &unknown("press Approve or Deny")).await,
    };
    let shown = fields.get("plan_hash");
    let body = json!({ "approve": approve, "why": fields.get("why"), "plan_hash": shown });
    let done = ask(&app, &visitor, format!("approvals/{}", segment(&id)), body).await;
    let run = fields.get("run").to_owned();
    match done {
        Ok(_) => Redirect::to(&format!("/runs/{}", segment(&run))).into_response(),
        // In place: the page of the run as it is now, with why the answer does not count.
        Err(problem) => read::run_page(&app, &visitor, &run, Some(&problem)).await,
    }
}

/// One press; a reason is welcome, and not required.
pub(super) async fn judge(State(app): State<App>, Path(id): Path<String>, posted: Posted) -> Response {
    let Posted { visitor, fields } = posted;
    let verdict = fields.get("verdict");
    if !matches!(verdict, "right" | "wrong") {
        return pages::problem(&app, &visitor, &unknown("press Right or Wrong")).await;
    }
    let body = json!({ "verdict": verdict, "why": fields.get("why") });
    match ask(&app, &visitor, format!("runs/{}/judge", segment(&id)), body).await {
        Ok(_) => Redirect::to(&format!("/runs/{}", segment(&id))).into_response(),
        Err(problem) => read::run_page(&app, &visitor, &id, Some(&problem)).await,
    }
}

pub(super) async fn acknowledge(State(app): State<App>, Path(id): Path<String>, posted: Posted) -> Response {
    let Posted { visitor, .. } = posted;
    match ask(&app, &visitor, format!("incidents/{}/ack", segment(&id)), Value::Null).await {
        Ok(_) => Redirect::to(&format!("/incidents/{}", segment(&id))).into_response(),
        Err(problem) => read::incident_page(&app, &visitor, &id, Some(&problem)).await,
    }
}

pub(super) async fn freeze(State(app): State<App>, posted: Posted) -> Response {
    scoped(&app, posted, "freezes").await
}

pub(super) async fn unfreeze(State(app): State<App>, posted: Posted) -> Response {
    scoped(&app, posted, "unfreeze").await
}

async fn scoped(app: &App, posted: Posted, path: &str) -> Response {
    let Posted { visitor, fields } = posted;
    let scope = fields.get("scope");
    let mut body = json!({ "scope": scope, "why": fields.get("why") });
    if let Some(lasts) = Some(fields.get("for")).filter(|text| !text.is_empty() && path == "freezes") {
        body["for"] = json!(lasts);
    }
    match ask(app, &visitor, path.to_owned(), body).await {
        Ok(_) => Redirect::to("/").into_response(),
        Err(problem) => read::home_page(app, &visitor, Some(&problem)).await,
    }
}

/// The API, in the visitor's name; its witness writes down who was refused.
async fn ask(app: &App, visitor: &Visitor, path: String, body: Value) -> Result<Value, Problem> {
    api::ask(app, visitor.caller.clone(), "POST", path, body).await
}

fn unknown(hint: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "this form has no action", hint)
}
