//! A signed-in user, for the length of one request; and a form of theirs.
//!
//! Invariant: without a session that lives and a role that holds now there is no `Visitor`; without our origin and the
//! session's own token there is no `Posted`.

use super::cookie::SESSION;
use super::session::{SessionUser, WebSession};
use super::{oidc, pages, sign};
use crate::limits;
use crate::model::{Right, short_name};
use crate::server::auth::made;
use crate::server::{App, Caller, Problem, body, seats};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;
use url::Url;

/// Set by the script that keeps a page fresh.
const LIVE: &str = "x-nightshift-live";

pub(super) struct Visitor {
    pub caller: Caller,
    /// Their name on their own pages.
    pub shown: String,
    pub csrf: String,
    /// The value of the cookie, to end the session.
    pub session: String,
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Visitor, Response> {
        match find(app, &parts.headers).await {
            Ok(Some(visitor)) => {
                seats::proven(&parts.extensions);
                return Ok(visitor);
            }
            Ok(None) => {}
            Err(problem) => return Err(pages::sign_in(app, "/", Some(&problem))),
        }
        if parts.headers.contains_key(LIVE) {
            return Err(StatusCode::UNAUTHORIZED.into_response());
        }
        if parts.method == Method::GET || parts.method == Method::HEAD {
            return Err(sign::first(parts.uri.path()));
        }
        let problem =
            Problem::new(StatusCode::UNAUTHORIZED, "you are not signed in any more", "sign in, then decide again");
        Err(pages::sign_in(app, &came_from(&parts.headers), Some(&problem)))
    }
}

/// The page of ours with the form that was sent, from the browser's header; it decides only where to go after a
/// sign-in.
fn came_from(headers: &HeaderMap) -> String {
    let referrer = headers.get(header::REFERER).and_then(|value| Url::parse(value.to_str().ok()?).ok());
    referrer.map_or_else(|| "/".to_owned(), |url| sign::path(url.path()).to_owned())
}

/// The sender's session; an error where it cannot be read now, which ends no session.
pub(super) async fn find(app: &App, headers: &HeaderMap) -> Result<Option<Visitor>, Problem> {
    let by_hand = !headers.contains_key(LIVE);
    let living = |name: String| Some((app.web.sessions.find(&name, app.parts.clock.now(), by_hand)?, name));
    let mut found = SESSION.all(&app.web.place, headers).into_iter().filter_map(living);
    // One that is void was put there from elsewhere and hides nothing; with two that live it is open who this is.
    let (Some((session, name)), None) = (found.next(), found.next()) else { return Ok(None) };
    let WebSession { who, csrf, .. } = session;
    match caller(app, &who).await? {
        Some(caller) => {
            let shown = match &who {
                SessionUser::Person(_) => short_name(&caller.name).to_owned(),
                SessionUser::Token(_) => caller.name.clone(),
            };
            Ok(Some(Visitor { caller, shown, csrf, session: name }))
        }
        None => {
            // Their token or role was taken away.
            app.web.sessions.end(&name);
            Ok(None)
        }
    }
}

/// A user's present rights; none where they have no entry (any more). Machines do not look at pages.
pub(super) async fn caller(app: &App, who: &SessionUser) -> Result<Option<Caller>, Problem> {
    let caller = match who {
        SessionUser::Person(identity) => match oidc::standing(app, identity, false).await? {
            oidc::SignInResult::In(caller) => Some(*caller),
            _ => None,
        },
        SessionUser::Token(hash) => match app.roster.now().caller_by_hash(hash) {
            Some(caller) => Some(caller),
            None => {
                match made::by_hash(app, &hex::encode(hash)).await {
                    // Revoked or expired.
                    Err(problem) if problem.status == StatusCode::UNAUTHORIZED => None,
                    told => told?,
                }
            }
        },
    };
    Ok(caller.filter(|caller| caller.may(Right::Read)))
}

/// A form that our own page sent in this session.
pub(super) struct PostedForm {
    pub visitor: Visitor,
    pub fields: FormFields,
}

impl FromRequest<App> for PostedForm {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<PostedForm, Response> {
        let (mut parts, body) = request.into_parts();
        app.web.place.check(&parts.headers).map_err(|problem| refused(app, &problem))?;
        let visitor = Visitor::from_request_parts(&mut parts, app).await?;
        let held = body::form(app, &parts.headers, body).await.map_err(|problem| refused(app, &problem))?;
        let fields = FormFields::of(&held.bytes).map_err(|problem| refused(app, &problem))?;
        if !bool::from(fields.get("csrf").as_bytes().ct_eq(visitor.csrf.as_bytes())) {
            let error = "this form belongs to another session";
            let hint = "reload the page, then decide again";
            let problem = Problem::new(StatusCode::FORBIDDEN, error, hint);
            return Err(pages::problem(app, &visitor, &problem).await);
        }
        Ok(PostedForm { visitor, fields })
    }
}

/// The fields of a form, each name once.
pub(super) struct FormFields(BTreeMap<String, String>);

impl FormFields {
    /// The form with which a stranger signs in: small, and soon over.
    ///
    /// # Errors
    ///
    /// Fails with the refusal as a page when the body is too large, too slow, or no form.
    pub async fn of_sign_in(request: Request, app: &App) -> Result<FormFields, Response> {
        let (parts, body) = request.into_parts();
        let bound = body::BodyBound::new(body::UnprovenSender::SignIn, limits::SIGN_IN_BYTES);
        let held = body::unproved(app, &parts.headers, body, bound).await;
        held.and_then(|held| FormFields::of(&held.bytes)).map_err(|problem| refused(app, &problem))
    }

    fn of(form: &[u8]) -> Result<FormFields, Problem> {
        let mut fields = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(form) {
            if fields.insert(name.into_owned(), value.into_owned()).is_some() {
                let error = "a field stands twice in the form";
                return Err(Problem::new(StatusCode::BAD_REQUEST, error, "send the form again"));
            }
        }
        Ok(FormFields(fields))
    }

    /// The field's value; empty where it was left out.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// A refusal to an unknown caller.
pub(super) fn refused(app: &App, problem: &Problem) -> Response {
    app.parts.metrics.auth_failed();
    pages::sign_in(app, "/", Some(problem))
}
