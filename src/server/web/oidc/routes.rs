//! The two ends of a sign-in with a provider: leaving for it, and coming back with a code.
//!
//! Invariant: who comes back without the ticket of this browser is a stranger, whatever code they bring.

use super::super::cookie::Cookie;
use super::super::session::SessionUser;
use super::super::{pages, sign, visitor};
use super::ticket::{self, SignInTicket};
use super::who::{self, RefusalClaims, SignInResult};
use super::{AGAIN, OidcIdentity, OidcProvider, SignInFailure};
use crate::limits;
use crate::model::Right;
use crate::notifiers::one_line;
use crate::server::{App, Problem};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

pub(in crate::server::web) async fn begin(
    State(app): State<App>,
    headers: HeaderMap,
    Query(asked): Query<sign::SignInQuery>,
) -> Response {
    let Some(provider) = provider(&app) else { return no_provider(&app) };
    let to = Some(sign::path(&asked.to)).filter(|to| to.len() <= limits::WEB_PATH_CHARS).unwrap_or("/");
    match provider.begin(&app, to, asked.other.is_some()).await {
        Ok((url, state, ticket)) => {
            let place = &app.web.place;
            let mut response = Redirect::to(url.as_str()).into_response();
            set(&mut response, &Cookie::sign_in(&state).set(place, &ticket));
            for old in too_many(&app, provider, &headers) {
                set(&mut response, &old.unset(place));
            }
            response
        }
        Err(failure) => failed(&app, failure, to),
    }
}

/// The sign-ins of this browser that make room for one more: those that are void, then the oldest.
fn too_many(app: &App, provider: &OidcProvider, headers: &HeaderMap) -> Vec<Cookie> {
    let now = app.parts.clock.now();
    let begun = Cookie::sign_ins(&app.web.place, headers);
    let mut begun: Vec<_> =
        begun.into_iter().map(|(cookie, ticket)| (provider.tickets.until(&ticket, now), cookie)).collect();
    begun.sort_by_key(|(until, _)| *until);
    let void = begun.iter().filter(|(until, _)| until.is_none()).count();
    let more = (begun.len() + 1).saturating_sub(limits::OIDC_TABS).max(void);
    begun.into_iter().take(more).map(|(_, cookie)| cookie).collect()
}

fn set(response: &mut Response, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

/// The provider's response.
#[derive(Deserialize)]
pub(in crate::server::web) struct CallbackQuery {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    error_description: Option<String>,
}

pub(in crate::server::web) async fn callback(
    State(app): State<App>,
    headers: HeaderMap,
    Query(back): Query<CallbackQuery>,
) -> Response {
    let Some(provider) = provider(&app) else { return no_provider(&app) };
    let now = app.parts.clock.now();
    let cookie = Cookie::sign_in(&back.state);
    let sealed = cookie.all(&app.web.place, &headers);
    let Some(ticket) = sealed.iter().find_map(|sealed| provider.tickets.open(sealed, &back.state, now)) else {
        return void(&app, &headers, &back.state).await;
    };
    let mut response = match ended(&app, provider, &headers, &ticket, back).await {
        Some(response) => response,
        None => void(&app, &headers, &ticket.state).await,
    };
    // This sign-in is over; those of other tabs are not.
    set(&mut response, &cookie.unset(&app.web.place));
    response
}

/// A sign-in whose ticket is not there (any more). A user who has signed in meanwhile, in another tab, goes to the
/// requested page.
async fn void(app: &App, headers: &HeaderMap, state: &str) -> Response {
    let wish = ticket::wish(state).unwrap_or_default();
    let to = sign::path(&wish);
    if let Ok(Some(_)) = visitor::find(app, headers).await {
        return Redirect::to(to).into_response();
    }
    let why = "this sign-in was not started in this browser, has been used, or is more than ten minutes old";
    let hint = "sign in again (below)".to_owned();
    failed(app, SignInFailure { status: StatusCode::BAD_REQUEST, why: why.to_owned(), hint }, to)
}

/// None: the ticket was used before.
async fn ended(
    app: &App,
    provider: &OidcProvider,
    headers: &HeaderMap,
    ticket: &SignInTicket,
    back: CallbackQuery,
) -> Option<Response> {
    let now = app.parts.clock.now();
    if back.iss.as_ref().is_some_and(|iss| *iss != provider.config.issuer) {
        let why = "this answer is from another provider".to_owned();
        let failure = SignInFailure { status: StatusCode::BAD_REQUEST, why, hint: AGAIN.to_owned() };
        return Some(failed(app, failure, &ticket.to));
    }
    if let Some(error) = back.error {
        return Some(failed(app, provider.not_signed_in(&error, back.error_description.as_deref()), &ticket.to));
    }
    if !provider.tickets.may_try(ticket, now) {
        return None;
    }
    let (identity, told) = match provider.identify(app, ticket, back.code).await {
        Ok(found) => found,
        Err(failure) => return Some(failed(app, failure, &ticket.to)),
    };
    if !provider.tickets.end(ticket, now) {
        return None;
    }
    let standing = match who::standing(app, &identity, true).await {
        Ok(SignInResult::In(caller)) if caller.may(Right::Read) => {
            return Some(sign::enter(app, headers, SessionUser::Person(identity), &caller, &ticket.to));
        }
        Ok(standing) => standing,
        Err(problem) => return Some(pages::sign_in(app, &ticket.to, Some(&problem))),
    };
    Some(denied(app, provider, &identity, &told, &standing, &ticket.to))
}

fn denied(
    app: &App,
    provider: &OidcProvider,
    identity: &OidcIdentity,
    told: &RefusalClaims,
    standing: &SignInResult,
    to: &str,
) -> Response {
    app.parts.metrics.auth_failed();
    let subject = one_line(&identity.subject, limits::OIDC_SUBJECT_BYTES);
    let mail = identity.verified_mail.as_ref().or(told.unverified_mail.as_ref());
    let mail = mail.map(|mail| one_line(mail, limits::OIDC_SUBJECT_BYTES)).unwrap_or_default();
    let groups = told.groups.iter().flatten().take(limits::OIDC_GROUPS_SHOWN);
    let first: Vec<String> = groups.map(|group| one_line(group, limits::OIDC_WORDS)).collect();
    let count = told.groups.as_ref().map_or_else(|| "claim absent".to_owned(), |groups| groups.len().to_string());
    let (error, hint) = who::refusal(app, &provider.config, identity, told, standing);
    tracing::warn!(
        issuer = %provider.config.issuer,
        %subject,
        %mail,
        mail_verified = identity.verified_mail.is_some(),
        groups = %count,
        first_groups = %first.join(", "),
        why = %hint,
        "sign-in denied: no role for this user"
    );
    pages::sign_in(app, to, Some(&Problem::new(StatusCode::FORBIDDEN, error, hint)))
}

/// Ends the provider's own session, at the provider, where it has an endpoint for it.
pub(in crate::server::web) async fn end(State(app): State<App>) -> Response {
    match provider(&app).and_then(OidcProvider::end_session) {
        Some(url) => Redirect::to(url.as_str()).into_response(),
        None => {
            let problem = Problem::not_found("the provider publishes no sign-out address", "sign out there");
            pages::sign_in(&app, "/", Some(&problem))
        }
    }
}

fn provider(app: &App) -> Option<&OidcProvider> {
    app.web.provider.as_ref()
}

fn no_provider(app: &App) -> Response {
    let hint = "add `server.oidc` to nightshift.yaml, or sign in with a token";
    pages::sign_in(app, "/", Some(&Problem::not_found("there is no identity provider here", hint)))
}

fn failed(app: &App, failure: SignInFailure, to: &str) -> Response {
    let SignInFailure { status, why, hint } = failure;
    app.parts.metrics.auth_failed();
    tracing::warn!(%why, %hint, "sign-in failed");
    pages::sign_in(app, to, Some(&Problem::new(status, why, hint)))
}
