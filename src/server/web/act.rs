//! Acts on pages: each is the request to the API that a command line would send, in the user's name.
//!
//! Invariant: the API's table of roles decides; a form carries the hash of the plan that was shown above its buttons.

use super::read::segment;
use super::visitor::{Posted, Visitor};
use super::{pages, read};
use crate::api::{DecisionRequest, FreezeRequest, JudgeRequest, ScopeRequest};
use crate::server::api::Inside;
use crate::server::{App, Problem};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

pub(super) async fn decide(State(app): State<App>, Path(id): Path<String>, posted: Posted) -> Response {
    let Posted { visitor, fields } = posted;
    let approve = match fields.get("answer") {
        "approve" => true,
        "deny" => false,
        _ => return pages::problem(&app, &visitor, &unknown("press Approve or Deny")).await,
    };
    let request = DecisionRequest {
        approve,
        plan_hash: Some(fields.get("plan_hash").to_owned()),
        why: fields.get("why").to_owned(),
    };
    let done = Inside::new(&app, &visitor.caller).decide(&id, request).await;
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
    let request =
        JudgeRequest { verdict: fields.get("verdict").to_owned(), why: fields.get("why").to_owned(), first: false };
    if !matches!(request.verdict.as_str(), "right" | "wrong") {
        return pages::problem(&app, &visitor, &unknown("press Right or Wrong")).await;
    }
    match Inside::new(&app, &visitor.caller).judge(&id, request).await {
        Ok(_) => Redirect::to(&format!("/runs/{}", segment(&id))).into_response(),
        Err(problem) => read::run_page(&app, &visitor, &id, Some(&problem)).await,
    }
}

pub(super) async fn acknowledge(State(app): State<App>, Path(id): Path<String>, posted: Posted) -> Response {
    let Posted { visitor, .. } = posted;
    match Inside::new(&app, &visitor.caller).acknowledge(&id).await {
        Ok(_) => Redirect::to(&format!("/incidents/{}", segment(&id))).into_response(),
        Err(problem) => read::incident_page(&app, &visitor, &id, Some(&problem)).await,
    }
}

pub(super) async fn freeze(State(app): State<App>, posted: Posted) -> Response {
    let Posted { visitor, fields } = posted;
    let request = FreezeRequest {
        scope: fields.get("scope").to_owned(),
        why: fields.get("why").to_owned(),
        lasts: Some(fields.get("for").to_owned()).filter(|text| !text.is_empty()),
    };
    let done = Inside::new(&app, &visitor.caller).freeze(request).await;
    back_home(&app, &visitor, done).await
}

pub(super) async fn unfreeze(State(app): State<App>, posted: Posted) -> Response {
    let Posted { visitor, fields } = posted;
    let request = ScopeRequest { scope: fields.get("scope").to_owned(), why: fields.get("why").to_owned() };
    let done = Inside::new(&app, &visitor.caller).unfreeze(request).await;
    back_home(&app, &visitor, done).await
}

async fn back_home<T>(app: &App, visitor: &Visitor, done: Result<T, Problem>) -> Response {
    match done {
        Ok(_) => Redirect::to("/").into_response(),
        Err(problem) => read::home_page(app, visitor, Some(&problem)).await,
    }
}

fn unknown(hint: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "this form has no action", hint)
}
