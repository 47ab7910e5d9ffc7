//! Agents, as users see them, admit them and remove them.
//!
//! Invariant: each decision here is an entry of the ledger.

use super::{Allowed, App, Body, Created, Problem, refuse};
use crate::api::{AgentList, AgentRemoval, AgentRemoved, JoinTokenMade, JoinTokenRequest};
use crate::server::agents;
use axum::Json;
use axum::extract::{Path, State};

pub(super) async fn list(_: Allowed, State(app): State<App>) -> Result<Json<AgentList>, Problem> {
    agents::list(&app).await.map(Json).map_err(refuse::store)
}

pub(super) async fn join_token(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Body(wanted): Body<JoinTokenRequest>,
) -> Result<Created<JoinTokenMade>, Problem> {
    agents::join_token(&app, &caller, wanted).await.map(Created)
}

pub(super) async fn remove(
    Allowed(caller): Allowed,
    State(app): State<App>,
    Path(node): Path<String>,
    Body(body): Body<AgentRemoval>,
) -> Result<Json<AgentRemoved>, Problem> {
    agents::scoped(&caller, body.cluster.as_deref())?;
    let why = refuse::reason(&body.why)?;
    agents::remove(&app, &caller, &node, body.cluster.as_deref(), &why).await.map(Json).map_err(refuse::store)
}
