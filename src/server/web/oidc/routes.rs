//! The two ends of a sign-in with a provider: leaving for it, and coming back with a code.
//!
//! Invariant: who comes back without the ticket of this browser is a stranger, whatever code they bring.

use super::super::cookie::SIGN_IN;
use super::super::session::Who;
use super::super::{pages, sign, visitor};
use super::Provider;
use crate::limits;
use crate::notifiers::one_line;
use crate::server::{App, Problem};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

pub(in crate::server::web) async fn begin(State(app): State<App>, Query(asked): Query<sign::Asked>) -> Response {
    let Some(provider) = provider(&app) else { return nobody(&app) };
    let to = sign::path(&asked.to);
    match provider.begin(&app, to).await {
        Ok((url, ticket)) => {
            let cookie = SIGN_IN.set(&app.web.place, &ticket);
            ([(header::SET_COOKIE, cookie)], Redirect::to(url.as_str())).into_response()
        }
        Err(why) => failed(&app, StatusCode::BAD_GATEWAY, why),
    }
}

/// What the provider sends back.
#[derive(Deserialize)]
pub(in crate::server::web) struct Back {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

pub(in crate::server::web) async fn callback(
    State(app): State<App>,
    headers: HeaderMap,
    Query(back): Query<Back>,
) -> Response {
    let Some(provider) = provider(&app) else { return nobody(&app) };
    let answer = ended(&app, provider, &headers, back).await;
    let gone = SIGN_IN.unset(&app.web.place);
    let (mut parts, body) = answer.into_parts();
    if let Ok(gone) = HeaderValue::from_str(&gone) {
        parts.headers.append(header::SET_COOKIE, gone);
    }
    Response::from_parts(parts, body)
}

async fn ended(app: &App, provider: &Provider, headers: &HeaderMap, back: Back) -> Response {
    let now = app.parts.clock.now();
    let sealed = SIGN_IN.of(&app.web.place, headers).unwrap_or_default();
    let void = || {
        let why = "this sign-in was not begun in this browser, has been used, or is more than ten minutes old";
        failed(app, StatusCode::BAD_REQUEST, why.to_owned())
    };
    let Some(ticket) = provider.tickets.open(&sealed, &back.state, now) else { return void() };
    if back.iss.as_ref().is_some_and(|iss| *iss != provider.config.issuer) {
        return failed(app, StatusCode::BAD_REQUEST, "this answer is from another provider".to_owned());
    }
    if let Some(error) = back.error {
        let word: String = error.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(40).collect();
        return failed(app, StatusCode::FORBIDDEN, format!("the provider did not sign you in: {word}"));
    }
    if !provider.tickets.may_try(&ticket, now) {
        return void();
    }
    let identity = match provider.identify(app, &ticket, back.code).await {
        Ok(identity) => identity,
        Err(why) => return failed(app, StatusCode::FORBIDDEN, why),
    };
    if !provider.tickets.end(&ticket, now) {
        return void();
    }
    let (issuer, subject) = (&provider.config.issuer, one_line(&identity.subject, limits::OIDC_SUBJECT_BYTES));
    let mail = identity.verified_mail.clone();
    let who = Who::Person(identity);
    match visitor::caller(app, &who).await {
        Ok(Some(_)) => return sign::enter(app, headers, who, &ticket.to),
        Ok(None) => {}
        Err(problem) => return pages::sign_in(app, &ticket.to, Some(&problem)),
    }
    app.parts.metrics.auth_failed();
    tracing::warn!(%issuer, %subject, "somebody whom the provider knows is not let in: they are nobody here");
    let known = mail.map(|mail| format!(" (mail {})", one_line(&mail, limits::OIDC_SUBJECT_BYTES))).unwrap_or_default();
    let error = format!("the provider knows you as `{subject}`{known}, but nobody gave you a role here");
    let hint = format!(
        "ask an administrator of Nightshift to add `oidc: {subject}` to your entry under `people`, or a group of yours to \
         `server.oidc.roles`; the issuer is {issuer}"
    );
    pages::sign_in(app, &ticket.to, Some(&Problem::new(StatusCode::FORBIDDEN, error, hint)))
}

fn provider(app: &App) -> Option<&Provider> {
    app.web.provider.as_ref()
}

fn nobody(app: &App) -> Response {
    let hint = "add `server.oidc` to nightshift.yaml, or sign in with a token";
    pages::sign_in(app, "/", Some(&Problem::not_found("there is no identity provider here", hint)))
}

fn failed(app: &App, status: StatusCode, why: String) -> Response {
    app.parts.metrics.auth_failed();
    tracing::warn!(%why, "a sign-in failed");
    pages::sign_in(app, "/", Some(&Problem::new(status, why, "sign in again; if it stays so, tell an administrator")))
}
