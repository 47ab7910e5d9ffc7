//! Refusals: a status, the error, and its fix, as JSON.
//!
//! Invariant: a problem never repeats a client's text, except names that were checked or are escaped by JSON.

use super::App;
use crate::api::ProblemDetails;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// `application/problem+json` (RFC 9457) with a status; 503 carries `Retry-After`, 401 says which schemes are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    pub error: String,
    pub hint: String,
}

impl Problem {
    /// A problem with this status, the error, and a hint for its fix.
    pub fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem { status, error: error.into(), hint: hint.into() }
    }

    /// 503: come again. Alertmanager does so on its own; never 429, which it takes as final.
    pub fn busy(error: impl Into<String>) -> Problem {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error,
            "try again in a moment; Alertmanager retries automatically",
        )
    }

    /// A 404.
    pub fn not_found(error: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, error, hint)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let details = ProblemDetails {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.error.clone(),
            error: self.error.clone(),
            hint: self.hint.clone(),
        };
        let mut response = (self.status, Json(details)).into_response();
        if self.status == StatusCode::FORBIDDEN {
            // For the witness at the door.
            response.extensions_mut().insert(self.clone());
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"nightshift\", Basic realm=\"nightshift\""),
            );
        }
        response
    }
}

pub(super) async fn no_such_page(headers: HeaderMap, uri: Uri) -> Response {
    if super::web::wants_html(&headers) {
        return super::web::no_such_page(uri.path());
    }
    let path: String = uri.path().chars().take(200).collect();
    Problem::not_found(
        format!("there is no page at {path}"),
        "events go to POST /in/<kind>/<source>; the API is under /api/v1; health is at /healthz and /readyz",
    )
    .into_response()
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{path} does not take {method}"),
        "the Allow header lists the methods it takes",
    )
}

/// Where browsers reach us by TLS, they must come by TLS alone: for a year, and to this host alone, as its neighbors
/// are not ours to decide on.
pub(super) async fn require_tls(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if app.web.is_secure() {
        let year = HeaderValue::from_static("max-age=31536000");
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    response
}

/// Headers that every answer carries, so that no browser makes more of it than it is.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Not `no-referrer`: with that one a browser sends `Origin: null` along with our own forms. Others learn nothing either way.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}
