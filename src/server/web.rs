//! Pages for users: made by the server, complete without scripts, in the name of a signed-in user.
//!
//! Invariant: a page holds data only for a `Visitor`, whose role is looked up in this very request; nothing changes by GET.

mod act;
mod cookie;
mod oidc;
mod origin;
mod pages;
mod read;
mod session;
mod sign;
mod visitor;

pub use oidc::{Provider, look as look_at_provider};

use super::App;
use crate::config::Server;
use crate::limits;
use crate::model::Time;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

/// The pages' state between two requests: their address, and the sessions. The latter in memory alone, so that a
/// restart ends every session and none can be read from the database.
pub struct Front {
    place: origin::Place,
    sessions: session::Sessions,
    provider: Option<Provider>,
}

impl Front {
    /// The pages at the configured address, without a session.
    pub fn new(server: &Server, provider: Option<Provider>) -> Front {
        Front { place: origin::Place::of(server), sessions: session::Sessions::default(), provider }
    }

    /// Who is signed in now.
    pub(super) fn signed_in(&self, now: Time) -> Vec<crate::api::SessionSummary> {
        self.sessions.list(now)
    }

    /// Ends the sessions of this name, subject or mail; how many there were.
    pub(super) fn end_sessions(&self, who: &str, now: Time) -> u64 {
        self.sessions.end_of(who, now)
    }

    /// Whether browsers reach the pages by TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.place.secure
    }

    /// From now on we show the provider this secret; whether it is another one.
    pub(super) fn renew(&self, secret: Option<String>) -> bool {
        self.provider.as_ref().is_some_and(|provider| provider.renew(secret))
    }
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(read::home))
        .route("/incidents", get(read::incidents))
        .route("/incidents/{id}", get(read::incident))
        .route("/guards", get(read::guards))
        .route("/runs/{id}", get(read::run))
        .route("/why/{subject}", get(read::why))
        .route("/login", get(sign::page).post(sign::with_token))
        .route("/login/provider", get(oidc::begin))
        .route("/login/callback", get(oidc::callback))
        .route("/login/provider/end", get(oidc::end))
        .route("/logout", post(sign::out))
        .route("/web/approvals/{id}", post(act::decide))
        .route("/web/runs/{id}/judge", post(act::judge))
        .route("/web/incidents/{id}/ack", post(act::acknowledge))
        .route("/web/freezes", post(act::freeze))
        .route("/web/unfreeze", post(act::unfreeze))
        .route("/web/style.css", get(style))
        .route("/web/live.js", get(script))
        .route("/web/icon.svg", get(icon))
        .layer(DefaultBodyLimit::max(limits::API_BODY_BYTES))
        .layer(axum::middleware::from_fn(policy))
}

/// Whether the client is a browser, which is to get a page and no JSON.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|part| part.split(';').next().is_some_and(|kind| kind.trim() == "text/html"))
}

/// The answer to a browser that looks for a page that is not there.
pub(super) fn no_such_page(path: &str) -> Response {
    let path: String = path.chars().take(limits::WEB_PATH_CHARS).collect();
    with_policy(pages::missing(&path))
}

/// The rights of a page in a browser: load our own style and script, connect to us, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

async fn policy(request: Request, next: Next) -> Response {
    with_policy(next.run(request).await)
}

fn with_policy(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("web/style.css")).into_response()
}

async fn icon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml")], include_str!("web/icon.svg")).into_response()
}

async fn script() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("web/live.js")).into_response()
}
