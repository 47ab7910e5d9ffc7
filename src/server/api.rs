//! `/api/v1`: what the command line and people use. One table says method, path, role and handler of every route.
//!
//! Invariant: a handler runs only after `Allowed` has compared the caller's role with the table's.

mod act;
mod agents;
mod audit;
mod incidents;
mod read;
mod refuse;
mod why;

use super::App;
use super::{Caller, Problem};
use crate::config::Role;
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, MatchedPath, Query, Request};
use axum::routing::{get, post};
use http::request::Parts;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

macro_rules! table {
    ($($method:ident $path:literal $role:ident $handler:path;)*) => {
        /// Every route of the API, to be merged into the server's router.
        pub fn routes() -> Router<App> {
            Router::new()
                $(.route($path, $method($handler)))*
                .layer(DefaultBodyLimit::max(crate::limits::API_BODY_BYTES))
        }

        /// Method, path and the least role.
        const ROLES: &[(&str, &str, Role)] = &[$((stringify!($method), $path, Role::$role)),*];
    };
}

table! {
    get  "/api/v1/status" Viewer read::status;
    get  "/api/v1/incidents" Viewer read::incidents;
    get  "/api/v1/incidents/{id}" Viewer read::incident;
    post "/api/v1/incidents/{id}/ack" Responder act::acknowledge;
    post "/api/v1/incidents/{id}/assign" Responder incidents::assign;
    post "/api/v1/incidents/{id}/silence" Responder incidents::silence;
    get  "/api/v1/runs" Viewer read::runs;
    post "/api/v1/runs" Operator act::start;
    get  "/api/v1/runs/{id}" Viewer read::run;
    post "/api/v1/runs/{id}/cancel" Operator act::cancel;
    get  "/api/v1/runbooks" Viewer read::runbooks;
    get  "/api/v1/rules" Viewer read::rules;
    post "/api/v1/simulate" Responder act::simulate;
    get  "/api/v1/approvals" Viewer read::approvals;
    get  "/api/v1/approvals/{id}" Viewer read::approval;
    post "/api/v1/approvals/{id}" Approver act::decide;
    get  "/api/v1/entries" Viewer read::entries;
    get  "/api/v1/why" Viewer why::why;
    get  "/api/v1/guards" Viewer read::guards;
    post "/api/v1/breakers/reset" Operator act::reset_breaker;
    get  "/api/v1/freezes" Viewer read::freezes;
    post "/api/v1/freezes" Responder act::freeze;
    post "/api/v1/unfreeze" Operator act::unfreeze;
    get  "/api/v1/agents" Viewer agents::list;
    post "/api/v1/agents/join-tokens" Admin agents::join_token;
    post "/api/v1/agents/{node}/remove" Admin agents::remove;
    get  "/api/v1/audit/checkpoints" Viewer audit::checkpoints;
    get  "/api/v1/audit/proof/{no}" Viewer audit::proof;
    get  "/api/v1/audit/raw" Viewer audit::raw;
    post "/api/v1/audit/redact" Admin act::redact;
}

/// The API asked from inside, in the name of somebody whom a signature has identified.
pub(super) async fn ask(
    app: &App,
    caller: Caller,
    method: &str,
    path: String,
    body: serde_json::Value,
) -> Result<serde_json::Value, Problem> {
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(format!("/api/v1/{path}")).body(axum::body::Body::from(bytes));
    let mut request = request.map_err(|_| refuse::bad("that cannot be asked", "use letters, digits, `-` and `.`"))?;
    request.extensions_mut().insert(caller);
    let answer = routes().with_state(app.clone()).oneshot(request).await.unwrap_or_else(|never| match never {});
    let status = answer.status();
    let bytes = axum::body::to_bytes(answer.into_body(), crate::limits::CLIENT_BODY_BYTES).await;
    let value: serde_json::Value = bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    if status.is_success() {
        return Ok(value);
    }
    let text = |name: &str| value[name].as_str().unwrap_or("no such thing").to_owned();
    Err(Problem::new(status, text("error"), text("hint")))
}

/// A caller whose role is enough for the route that was matched.
struct Allowed(Caller);

impl FromRequestParts<App> for Allowed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let path = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        caller.need(role_for(parts.method.as_str(), path))?;
        Ok(Allowed(caller))
    }
}

/// 403 unless this route is open to the caller: for questions that are asked before the answer is sent there.
pub(super) fn may(caller: &Caller, method: &str, route: &str) -> Result<(), Problem> {
    caller.need(role_for(method, &format!("/api/v1/{route}")))
}

/// A route that is not in the table is for admins alone: a slip here locks out, it does not let in.
fn role_for(method: &str, path: &str) -> Role {
    let method = if method == "HEAD" { "GET" } else { method };
    let row = ROLES.iter().find(|(verb, at, _)| verb.eq_ignore_ascii_case(method) && *at == path);
    row.map_or(Role::Admin, |(_, _, role)| *role)
}

/// A JSON body within its bound, refused in words.
struct Body<T>(T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let bytes = axum::body::Bytes::from_request(request, app).await.map_err(|rejection| {
            let bound = crate::limits::API_BODY_BYTES;
            refuse::with(
                rejection.status(),
                "the body could not be read",
                format!("send at most {bound} bytes of JSON"),
            )
        })?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let value = serde_json::from_slice(text).map_err(|error| {
            refuse::bad(
                format!("the body is not what this route takes: {error}"),
                "send a JSON object with the keys that the API describes",
            )
        })?;
        Ok(Body(value))
    }
}

/// The query of the URL, refused in words.
struct Asked<T>(T);

impl<T: DeserializeOwned> FromRequestParts<App> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(value)) => Ok(Asked(value)),
            Err(error) => {
                Err(refuse::bad(error.body_text(), "see `nightshift <command> --help` for what can be asked"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_that_changes_something_needs_more_than_a_viewer() {
        for (method, path, role) in ROLES {
            // A plan changes nothing, but makes us ask the world, as often as somebody wants.
            assert_eq!(*method == "get", *role == Role::Viewer, "{method} {path}");
            assert!(*role > Role::Source, "{method} {path}");
        }
    }

    #[test]
    fn a_route_that_is_not_in_the_table_is_for_admins() {
        assert_eq!(role_for("GET", "/api/v1/runs"), Role::Viewer);
        assert_eq!(role_for("HEAD", "/api/v1/runs"), Role::Viewer);
        assert_eq!(role_for("POST", "/api/v1/runs"), Role::Operator);
        assert_eq!(role_for("POST", "/api/v1/status"), Role::Admin);
        assert_eq!(role_for("GET", ""), Role::Admin);
    }
}
