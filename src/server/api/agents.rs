//! Agents, as users see them, admit them and remove them.
//!
//! Invariant: each decision here is an entry of the ledger.

use super::{Allowed, App, Body, Problem, refuse};
use crate::server::agents::{self, Wanted};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Why {
    #[serde(default)]
    why: String,
    #[serde(default)]
    cluster: Option<String>,
}

pub(super) async fn list(_: Allowed, State(app): State<App>) -> Result<Json<Value>, Problem> {
    agents::list(&app).await.map(Json).map_err(refuse::store)
}

pub(super) async fn join_token(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Body(wanted): Body<Wanted>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    agents::join_token(&app, &caller, wanted).await.map(|made| (StatusCode::CREATED, Json(made)))
}

pub(super) async fn remove(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Path(node): Path<String>,
    Body(body): Body<Why>,
) -> Result<Json<Value>, Problem> {
    agents::scoped(&caller, body.cluster.as_deref())?;
    let why = refuse::reason(&body.why)?;
    agents::remove(&app, &caller, &node, body.cluster.as_deref(), &why).await.map(Json).map_err(refuse::store)
}
