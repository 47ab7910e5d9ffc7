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
mod ladder;
mod read;
mod refuse;
mod sessions;
mod tokens;
mod why;

use super::App;
use super::access::ActsOn;
use super::{Caller, Problem, witness};
use crate::model::Right;
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, MatchedPath, Query, Request};
use axum::routing::{get, post};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

/// Not in the table of roles: no role opens it, but this machine's own token.
pub(super) const BREAK_GLASS: &str = "/api/v1/break-glass";

macro_rules! table {
    ($($method:ident $path:literal $right:ident $acts_on:ident $handler:path;)*) => {
        /// Every route of the API, to be merged into the server's router.
        pub fn routes(app: &App) -> Router<App> {
            Router::new()
                $(.route($path, $method($handler)))*
                .route(BREAK_GLASS, post(tokens::break_glass))
                .route_layer(axum::middleware::from_fn_with_state(app.clone(), witness::watch))
                .layer(DefaultBodyLimit::max(crate::limits::API_BODY_BYTES))
        }

        /// Method, path and the right that it needs.
        const RIGHTS: &[(&str, &str, Right)] = &[$((stringify!($method), $path, Right::$right)),*];

        /// What each route acts on, as far as clusters go.
        const ACTS_ON: &[(&str, &str, ActsOn)] = &[$((stringify!($method), $path, ActsOn::$acts_on)),*];
    };
}

table! {
    get  "/api/v1/status" Read Nothing read::status;
    get  "/api/v1/incidents" Read Nothing read::incidents;
    get  "/api/v1/incidents/{id}" Read Nothing read::incident;
    post "/api/v1/incidents/{id}/ack" Respond Object act::acknowledge;
    post "/api/v1/incidents/{id}/assign" Respond Object incidents::assign;
    post "/api/v1/incidents/{id}/silence" Respond Object incidents::silence;
    post "/api/v1/incidents/{id}/resolve" Operate Object incidents::resolve;
    get  "/api/v1/runs" Read Nothing read::runs;
    post "/api/v1/runs" Operate Object act::start;
    get  "/api/v1/runs/{id}" Read Nothing read::run;
    post "/api/v1/runs/{id}/cancel" Operate Object act::cancel;
    get  "/api/v1/runbooks" Read Nothing read::runbooks;
    post "/api/v1/runs/{id}/judge" Respond Object ladder::judge;
    get  "/api/v1/rules" Read Nothing read::rules;
    get  "/api/v1/rules/{rule}/scorecard" Read Nothing ladder::scorecard;
    post "/api/v1/rules/{rule}/promote" Operate AllClusters ladder::promote;
    post "/api/v1/rules/{rule}/demote" Respond AllClusters ladder::demote;
    get  "/api/v1/scorecards" Read Nothing ladder::scorecards;
    post "/api/v1/simulate" Check Nothing act::simulate;
    get  "/api/v1/approvals" Read Nothing read::approvals;
    get  "/api/v1/approvals/{id}" Read Nothing read::approval;
    post "/api/v1/approvals/{id}" Approve Object act::decide;
    get  "/api/v1/entries" Read Nothing read::entries;
    get  "/api/v1/why" Read Nothing why::why;
    get  "/api/v1/guards" Read Nothing read::guards;
    post "/api/v1/breakers/reset" Operate Named act::reset_breaker;
    get  "/api/v1/freezes" Read Nothing read::freezes;
    post "/api/v1/freezes" Respond Named act::freeze;
    post "/api/v1/unfreeze" Operate Named act::unfreeze;
    get  "/api/v1/agents" Read Nothing agents::list;
    post "/api/v1/agents/join-tokens" Administer Named agents::join_token;
    post "/api/v1/agents/{node}/remove" Administer Named agents::remove;
    get  "/api/v1/channels" Read Nothing channels::list;
    post "/api/v1/channels/{name}/test" Operate AllClusters channels::test;
    get  "/api/v1/audit/checkpoints" Audit Nothing audit::checkpoints;
    get  "/api/v1/audit/proof/{no}" Audit Nothing audit::proof;
    get  "/api/v1/audit/raw" Audit Nothing audit::raw;
    get  "/api/v1/tokens" Audit Nothing tokens::list;
    post "/api/v1/tokens" Administer Named tokens::make;
    post "/api/v1/tokens/{id}/revoke" Own Token tokens::revoke;
    get  "/api/v1/sessions" Audit Nothing sessions::list;
    post "/api/v1/sessions/end" Administer AllClusters sessions::end;
    post "/api/v1/sessions/unlink" Administer AllClusters sessions::unlink;
    post "/api/v1/audit/redact" Administer AllClusters act::redact;
}

pub(super) use ladder::places;
pub(super) use refuse::store as store_problem;

/// The API called from inside, in the name of a caller that a signature has identified.
pub(super) async fn ask(
    app: &App,
    caller: Caller,
    method: &str,
    path: String,
    body: serde_json::Value,
) -> Result<serde_json::Value, Problem> {
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(format!("/api/v1/{path}")).body(axum::body::Body::from(bytes));
    let mut request = request.map_err(|_| refuse::bad("invalid name", "use letters, digits, `-` and `.`"))?;
    request.extensions_mut().insert(caller);
    let answer = routes(app).with_state(app.clone()).oneshot(request).await.unwrap_or_else(|never| match never {});
    let status = answer.status();
    let bytes = axum::body::to_bytes(answer.into_body(), crate::limits::CLIENT_BODY_BYTES).await;
    let value: serde_json::Value = bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    if status.is_success() {
        return Ok(value);
    }
    let text = |name: &str| value[name].as_str().unwrap_or("no such thing").to_owned();
    Err(Problem::new(status, text("error"), text("hint")))
}

/// One segment of a path or one value of a query, escaped.
pub(super) fn segment(word: &str) -> String {
    // A blank becomes `+`, which means a blank in a query alone; a plus itself is written otherwise.
    url::form_urlencoded::byte_serialize(word.as_bytes()).collect::<String>().replace('+', "%20")
}

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

/// A caller who has the right for the route that was matched.
struct Allowed(Caller);

impl FromRequestParts<App> for Allowed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let path = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        caller.need(right_for(parts.method.as_str(), path))?;
        Ok(Allowed(caller))
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
    RIGHTS.iter().any(|(verb, at, right)| *right == Right::Audit && *at == path && verb.eq_ignore_ascii_case(method))
}

/// A JSON body within its bound, refused in words.
struct Body<T>(T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
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
        let value = serde_json::from_slice(text).map_err(|error| {
            refuse::bad(
                format!("the body does not match this route's schema: {}", refuse::in_words(&error.to_string())),
                "send a JSON object with the keys that this route takes; `nightshift <command> --help` explains them",
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
                let why = refuse::in_words(&error.body_text());
                Err(refuse::bad(
                    format!("the query does not match this route's parameters: {why}"),
                    "lists take open, limit, after, incident, run, kind, state, severity, node, rule and since",
                ))
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
