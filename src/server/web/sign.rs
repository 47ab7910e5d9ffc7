//! Signing in with a token, and signing out.
//!
//! Invariant: a token is looked at only in a form of our own page, and leaves no trace but its hash in memory.

use super::cookie::SESSION;
use super::pages;
use super::session::SessionUser;
use super::visitor::{self, FormFields, PostedForm, refused};
use crate::limits;
use crate::notifiers::one_line;
use crate::server::auth::{digest, made};
use crate::server::{App, Caller, Problem};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct SignInQuery {
    #[serde(default)]
    pub to: String,
    /// As another user than the one whose session the provider has.
    #[serde(default)]
    pub other: Option<String>,
    /// They have just signed out.
    #[serde(default)]
    out: Option<String>,
}

pub(super) async fn page(State(app): State<App>, Query(asked): Query<SignInQuery>) -> Response {
    match asked.out {
        Some(_) => pages::signed_out(&app),
        None => pages::sign_in(&app, path(&asked.to), None),
    }
}

/// Redirects to the sign-in page, and after it to the requested page.
pub(super) fn first(to: &str) -> Response {
    Redirect::to(&format!("/login?to={}", path(to))).into_response()
}

/// A page of ours as a redirect's target, and never another site's address.
pub(super) fn path(to: &str) -> &str {
    let known = to.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').count() <= 2
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'.'))
    });
    if known && !to.starts_with("//") && !to.starts_with("/log") { to } else { "/" }
}

pub(super) async fn with_token(State(app): State<App>, request: Request) -> Response {
    let headers = request.headers().clone();
    if let Err(problem) = app.web.place.check(&headers) {
        return refused(&app, &problem);
    }
    let fields = match FormFields::of_sign_in(request, &app).await {
        Ok(fields) => fields,
        Err(refusal) => return refusal,
    };
    let to = path(fields.get("to"));
    let text = fields.get("token").trim();
    let hash = digest(text);
    // A text that is no token of the configuration and does not look like one that was made here is not looked up in
    // the store.
    let may_be_one = app.roster.now().caller_by_hash(&hash).is_some() || made::looks_like_one(text);
    let who = SessionUser::Token(hash);
    let told = if may_be_one { visitor::caller(&app, &who).await } else { Ok(None) };
    match told {
        Ok(Some(caller)) => enter(&app, &headers, who, &caller, to),
        Err(problem) => pages::sign_in(&app, to, Some(&problem)),
        Ok(None) => {
            app.parts.metrics.auth_failed();
            let hint = "use a token of `server.tokens`, or one that was made here and is in force; a token for a source opens no page";
            let problem = Problem::new(StatusCode::UNAUTHORIZED, "this token has no rights here", hint);
            pages::sign_in(&app, to, Some(&problem))
        }
    }
}

/// Begins a session with a name of its own; earlier ones of this browser end.
pub(super) fn enter(app: &App, headers: &HeaderMap, who: SessionUser, caller: &Caller, to: &str) -> Response {
    for before in SESSION.all(&app.web.place, headers) {
        app.web.sessions.end(&before);
    }
    let (user, by) = (one_line(&caller.name, limits::WITNESS_CHARS), caller.way.to_string());
    tracing::info!(%user, by = %one_line(&by, limits::WITNESS_CHARS), role = %caller.grant.role, "signed in");
    let name = app.web.sessions.begin(who, &caller.name, &by, app.parts.clock.now());
    let cookie = [(header::SET_COOKIE, SESSION.set(&app.web.place, &name))];
    (cookie, Redirect::to(to)).into_response()
}

pub(super) async fn out(State(app): State<App>, posted: PostedForm) -> Response {
    let ended = app.web.sessions.end(&posted.visitor.session);
    if let Some(session) = ended {
        let (user, by) =
            (one_line(&session.name, limits::WITNESS_CHARS), one_line(&session.way, limits::WITNESS_CHARS));
        tracing::info!(%user, %by, "signed out");
    }
    let cookie = [(header::SET_COOKIE, SESSION.unset(&app.web.place))];
    (cookie, Redirect::to("/login?out=1")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_one_goes_to_a_page_of_ours_alone() {
        for ours in ["/", "/incidents/i3", "/runs/r17", "/why/gpu-3.rack"] {
            assert_eq!(path(ours), ours);
        }
        for foreign in
            ["", "//evil.example", "/\\evil.example", "https://e.x", "/login", "/logout", "/a/b/c", "/?x", "/a\n"]
        {
            assert_eq!(path(foreign), "/", "{foreign}");
        }
    }
}
