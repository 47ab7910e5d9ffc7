//! `/api/v1`: the API of the command line and of users. One table has method, path, right, object and
//! handler of every route.
//!
//! Invariant: a handler runs only after `Allowed` has checked the caller's right in the table.

mod act;
mod agents;
mod audit;
mod channels;
mod humans;
mod incidents;
mod inside;
mod ladder;
mod page;
mod read;
mod refuse;
mod sessions;
mod spec;
mod tokens;
mod why;

use super::App;
use super::access::ActsOn;
use super::{Caller, Problem, witness};
use crate::model::Right;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, MatchedPath, Query, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Not in the table of roles: no role opens it, but this machine's own token.
pub(super) const BREAK_GLASS: &str = "/api/v1/break-glass";

macro_rules! table {
    ($($method:ident $path:literal $right:ident $acts_on:ident $handler:path, $summary:literal;)*) => {
        /// Every route of the API, to be merged into the server's router.
        pub fn routes(app: &App) -> Router<App> {
            Router::new()
                $(.route($path, $method($handler)))*
                .route(BREAK_GLASS, post(tokens::break_glass))
                .route_layer(axum::middleware::from_fn_with_state(app.clone(), witness::watch))
                .layer(DefaultBodyLimit::max(crate::limits::API_BODY_BYTES))
        }

        /// Every route with what its handler takes and answers.
        fn described(schemas: &mut spec::Schemas) -> Vec<spec::Route> {
            vec![
                $(spec::Route {
                    method: stringify!($method),
                    path: $path,
                    right: Some(Right::$right),
                    summary: $summary,
                    shape: spec::Described::shape(&$handler, schemas),
                },)*
                spec::Route {
                    method: "post",
                    path: BREAK_GLASS,
                    right: None,
                    summary: "Activate break-glass access",
                    shape: spec::Described::shape(&tokens::break_glass, schemas),
                },
            ]
        }

        /// Method, path and the right that it needs.
        const RIGHTS: &[(&str, &str, Right)] = &[$((stringify!($method), $path, Right::$right)),*];

        /// What each route acts on, as far as clusters go.
        const ACTS_ON: &[(&str, &str, ActsOn)] = &[$((stringify!($method), $path, ActsOn::$acts_on)),*];
    };
}

table! {
    get  "/api/v1/status" Read Nothing read::status, "Show version, counts and everything that is switched off";
    get  "/api/v1/incidents" Read Nothing read::incidents, "List incidents";
    get  "/api/v1/incidents/{id}" Read Nothing read::incident, "Show an incident with its alerts, runs, approvals and timeline";
    post "/api/v1/incidents/{id}/ack" Respond Object act::acknowledge, "Acknowledge an incident";
    post "/api/v1/incidents/{id}/assign" Respond Object incidents::assign, "Assign an incident to a person";
    post "/api/v1/incidents/{id}/silence" Respond Object incidents::silence, "Silence the alerts of an incident at their source";
    post "/api/v1/incidents/{id}/resolve" Operate Object incidents::resolve, "Resolve an incident whose source does not";
    get  "/api/v1/runs" Read Nothing read::runs, "List runs";
    post "/api/v1/runs" Operate Object act::start, "Start a runbook";
    get  "/api/v1/runs/{id}" Read Nothing read::run, "Show a run with its steps, approvals and timeline";
    post "/api/v1/runs/{id}/cancel" Operate Object act::cancel, "Cancel a run";
    get  "/api/v1/runbooks" Read Nothing read::runbooks, "List runbooks";
    post "/api/v1/runs/{id}/judge" Respond Object ladder::judge, "Review a run: right or wrong";
    get  "/api/v1/rules" Read Nothing read::rules, "List rules";
    get  "/api/v1/rules/{rule}/scorecard" Read Nothing ladder::scorecard, "Show the statistics and the mode of a rule";
    post "/api/v1/rules/{rule}/promote" Operate AllClusters ladder::promote, "Promote a rule to the next mode";
    post "/api/v1/rules/{rule}/demote" Respond AllClusters ladder::demote, "Demote a rule";
    get  "/api/v1/scorecards" Read Nothing ladder::scorecards, "List the statistics of all rules with a runbook";
    post "/api/v1/simulate" Check Nothing act::simulate, "Plan a runbook without starting it";
    get  "/api/v1/approvals" Read Nothing read::approvals, "List approvals";
    get  "/api/v1/approvals/{id}" Read Nothing read::approval, "Show an approval with its plan";
    post "/api/v1/approvals/{id}" Approve Object act::decide, "Approve or deny a pending request";
    get  "/api/v1/entries" Read Nothing read::entries, "List entries of the ledger";
    get  "/api/v1/why" Read Nothing why::why, "Explain action and inaction about a subject";
    get  "/api/v1/guards" Read Nothing read::guards, "Show the limits of the guards and how much of them is used";
    post "/api/v1/breakers/reset" Operate Named act::reset_breaker, "Reset a tripped breaker";
    get  "/api/v1/freezes" Read Nothing read::freezes, "List freezes";
    post "/api/v1/freezes" Respond Named act::freeze, "Freeze automation";
    post "/api/v1/unfreeze" Operate Named act::unfreeze, "Release a freeze";
    get  "/api/v1/agents" Read Nothing agents::list, "List agents";
    post "/api/v1/agents/join-tokens" Administer Named agents::join_token, "Make a join token for one agent";
    post "/api/v1/agents/{node}/remove" Administer Named agents::remove, "Remove an agent and its certificate";
    get  "/api/v1/channels" Read Nothing channels::list, "List notification channels";
    post "/api/v1/channels/{name}/test" Operate AllClusters channels::test, "Send a test message through a channel";
    get  "/api/v1/audit/checkpoints" Audit Nothing audit::checkpoints, "List signed checkpoints of the ledger";
    get  "/api/v1/audit/proof/{no}" Audit Nothing audit::proof, "Prove that an entry is in the signed ledger";
    get  "/api/v1/audit/raw" Audit Nothing audit::raw, "List raw entries for export";
    get  "/api/v1/tokens" Audit Nothing tokens::list, "List API tokens";
    post "/api/v1/tokens" Administer Named tokens::make, "Make an API token";
    post "/api/v1/tokens/{id}/revoke" Own Token tokens::revoke, "Revoke an API token";
    get  "/api/v1/sessions" Audit Nothing sessions::list, "List sessions of the pages";
    post "/api/v1/sessions/end" Administer AllClusters sessions::end, "End the sessions of a person";
    post "/api/v1/sessions/unlink" Administer AllClusters sessions::unlink, "Unlink a person from an account of the identity provider";
    get  "/api/v1/openapi.json" Read Nothing spec::show, "Show this document";
    post "/api/v1/audit/redact" Administer AllClusters act::redact, "Redact the body of an entry";
}

pub(super) use inside::InternalApi;
pub(super) use ladder::places;
pub(super) use page::{ledger, page as reference};
pub(super) use refuse::store as store_problem;

/// One segment of a path or one value of a query, escaped.
pub(super) fn segment(word: &str) -> String {
    // A blank becomes `+`, which means a blank in a query alone; a plus itself is written otherwise.
    url::form_urlencoded::byte_serialize(word.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A severity as a person typed it.
pub(super) fn severity(word: &str) -> Result<crate::model::Severity, Problem> {
    serde_json::from_value(serde_json::Value::from(word)).map_err(|error| {
        let why = refuse::in_words(&format!("severity: {error}"));
        refuse::bad(format!("the query is not what this route takes: {why}"), LIST_HINT)
    })
}

const LIST_HINT: &str =
    "lists take open, limit, cursor, after, incident, run, kind, state, severity, node, rule and since";

/// What a route of the API acts on, as far as clusters go; nothing for one that is not in the table.
pub(super) fn acts_on(method: &str, path: &str) -> ActsOn {
    let row = ACTS_ON.iter().find(|(verb, at, _)| verb.eq_ignore_ascii_case(method) && *at == path);
    row.map_or(ActsOn::Nothing, |(_, _, acts_on)| *acts_on)
}

/// The right that a route of the API needs.
pub(super) fn right_of(method: &str, path: &str) -> Right {
    right_for(method, path)
}

/// Method, path and right of every route.
pub(super) fn rights() -> &'static [(&'static str, &'static str, Right)] {
    RIGHTS
}

/// The OpenAPI document of every route.
pub(super) fn document() -> &'static serde_json::Value {
    spec::document()
}

/// 201 with what was made.
struct CreatedJson<T>(T);

impl<T: Serialize> IntoResponse for CreatedJson<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

/// A caller who has the right for the route that was matched.
struct AuthorizedCaller(Caller);

impl FromRequestParts<App> for AuthorizedCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let path = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        caller.need(right_for(parts.method.as_str(), path))?;
        Ok(AuthorizedCaller(caller))
    }
}

/// 403 unless this route is open to the caller: for checks before a request is sent there.
pub(super) fn may(caller: &Caller, method: &str, route: &str) -> Result<(), Problem> {
    caller.need(right_for(method, &format!("/api/v1/{route}")))
}

/// A route that is not in the table is for admins alone: a slip here locks out, it does not let in.
fn right_for(method: &str, path: &str) -> Right {
    let method = if method == "HEAD" { "GET" } else { method };
    let row = RIGHTS.iter().find(|(verb, at, _)| verb.eq_ignore_ascii_case(method) && *at == path);
    row.map_or(Right::Administer, |(_, _, right)| *right)
}

/// Whether a route reads data for auditors only.
pub(super) fn is_audit(method: &str, path: &str) -> bool {
    let method = if method == "HEAD" { "GET" } else { method };
    RIGHTS.iter().any(|(verb, at, right)| *right == Right::Audit && *at == path && verb.eq_ignore_ascii_case(method))
}

/// A JSON body within its bound, refused in words.
struct JsonBody<T>(T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let bound = crate::limits::API_BODY_BYTES;
        let hint = || format!("send at most {bound} bytes of JSON");
        let reading = axum::body::Bytes::from_request(request, app);
        let bytes = match tokio::time::timeout(app.pace.body, reading).await {
            Ok(read) => {
                read.map_err(|rejection| refuse::with(rejection.status(), "the body could not be read", hint()))?
            }
            Err(_) => {
                return Err(refuse::with(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time", hint()));
            }
        };
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        // A list would be read as the members in their order.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(refuse::bad(
                "the body is not a JSON object",
                "send an object with the keys that this route takes",
            ));
        }
        let value = serde_json::from_slice(text).map_err(|error| {
            refuse::bad(
                format!("the body does not match this route's schema: {}", refuse::in_words(&error.to_string())),
                "send a JSON object with the keys that this route takes; `nightshift <command> --help` explains them",
            )
        })?;
        Ok(JsonBody(value))
    }
}

/// The query of the URL, refused in words.
struct QueryParams<T>(T);

impl<T: DeserializeOwned> FromRequestParts<App> for QueryParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(value)) => Ok(QueryParams(value)),
            Err(error) => {
                let why = refuse::in_words(&error.body_text());
                Err(refuse::bad(format!("the query does not match this route's parameters: {why}"), LIST_HINT))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_a_get_and_everything_else_needs_another_right() {
        for (method, path, right) in RIGHTS {
            // A plan changes nothing, but makes us read the world, as often as it is requested.
            assert_eq!(*method == "get", matches!(right, Right::Read | Right::Audit), "{method} {path}");
        }
    }

    #[test]
    fn whatever_is_written_stays_one_segment() {
        for (word, expect) in [
            ("i3/../../runs", "i3%2F..%2F..%2Fruns"),
            ("x?open=true&y", "x%3Fopen%3Dtrue%26y"),
            ("gpu 3+4", "gpu%203%2B4"),
        ] {
            assert_eq!(segment(word), expect);
        }
    }

    #[test]
    fn a_route_that_is_not_in_the_table_is_for_admins() {
        assert_eq!(right_for("GET", "/api/v1/runs"), Right::Read);
        assert_eq!(right_for("HEAD", "/api/v1/runs"), Right::Read);
        assert_eq!(right_for("POST", "/api/v1/runs"), Right::Operate);
        assert_eq!(right_for("POST", "/api/v1/status"), Right::Administer);
        assert_eq!(right_for("GET", ""), Right::Administer);
    }
}
