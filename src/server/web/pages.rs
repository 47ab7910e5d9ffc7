//! The frame of every page, and the two that need no data: signing in, and a refusal.
//!
//! Invariant: text gets into a page through `maud`'s escaping or not at all; a page refers to no other host.

pub(super) mod guards;
pub(super) mod home;
pub(super) mod incident;
pub(super) mod incidents;
pub(super) mod run;
pub(super) mod why;
mod words;

use super::visitor::Visitor;
use crate::model::Role;
use crate::server::{App, Caller, Problem};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use words::plain;

/// A page for a signed-in user; `said` is why their last act does not count.
pub(super) async fn show(app: &App, visitor: &Visitor, said: Option<&Problem>, title: &str, body: Markup) -> Response {
    let caller = &visitor.caller;
    let now = app.parts.clock.now();
    let banner = banner(app).await;
    let frame = html! {
        (banner)
        header {
            a.brand href="/" { "Nightshift" }
            span.install { (plain(&app.parts.config.install)) }
            nav aria-label="Pages" {
                a href="/" { "Home" } " " a href="/incidents" { "Incidents" } " " a href="/guards" { "Guards" }
            }
            span.live id="live" data-at=(now) { "as of " (words::moment(now)) }
            form.who method="post" action="/logout" {
                (csrf(visitor))
                span { (plain(&visitor.shown)) " · " (role(caller)) }
                button.quiet type="submit" { "Sign out" }
            }
        }
        main id="main" {
            @if let Some(problem) = said { (refusal(problem)) }
            (body)
        }
    };
    let status = said.map_or(StatusCode::OK, |problem| problem.status);
    page(status, title, true, frame)
}

/// The freezes and switches that stop automation now: at the top of every page, and it stays there when the page is
/// scrolled.
async fn banner(app: &App) -> Markup {
    let stopped = app.parts.world.stopped();
    let freezes = app.parts.store.freezes().await;
    html! {
        div id="banner" {
            @if let Some(why) = &stopped { p role="alert" { strong { "Everything is stopped" } ": " (plain(why)) } }
            @match &freezes {
                Ok(freezes) => @for freeze in freezes {
                    p role="alert" {
                        strong { "Frozen: " (plain(&freeze.scope)) } " by " (plain(&freeze.by)) " " (freeze.lasts()) ": " (plain(&freeze.why))
                        @if let Some(by) = &freeze.release_by {
                            " " strong { "Release requested by " (plain(by)) "; a second person must confirm." }
                        }
                        " " span.back { "To release: " code { (plain(&freeze.way_back())) } }
                    }
                },
                Err(error) => p role="alert" { "Whether automation is frozen could not be read: " (plain(&error.to_string())) },
            }
        }
    }
}

/// Their rights, in a word: the narrower of the credential's and the user's role.
fn role(caller: &Caller) -> Role {
    let own = caller.person.as_ref().map(|grant| grant.role);
    own.filter(|own| own.within(caller.grant.role)).unwrap_or(caller.grant.role)
}

/// A refusal as a page of its own.
pub(super) async fn problem(app: &App, visitor: &Visitor, problem: &Problem) -> Response {
    let back = html! { p { a href="/" { "To the home page" } } };
    show(app, visitor, Some(problem), "Refused", back).await
}

/// A page that is not there, for a browser: no data, and the same for who has signed in and who has not.
pub(super) fn missing(path: &str) -> Response {
    let frame = html! {
        header { a.brand href="/" { "Nightshift" } }
        main id="main" class="narrow" {
            h1 { "Page not found" }
            p { "There is no page at " code { (plain(path)) } "." }
            p { a href="/" { "Home" } " · " a href="/incidents" { "Incidents" } " · " a href="/guards" { "Guards" } }
        }
    };
    page(StatusCode::NOT_FOUND, "Page not found", false, frame)
}

/// Where users sign in: no data, not even the name of the installation.
pub(super) fn sign_in(app: &App, to: &str, said: Option<&Problem>) -> Response {
    way_in(app, to, said, said.is_some())
}

/// The same for who has just signed out, and may not be the next one at this screen.
pub(super) fn signed_out(app: &App) -> Response {
    way_in(app, "/", None, true)
}

/// `other`: also as another user than the one whose session the provider has.
fn way_in(app: &App, to: &str, said: Option<&Problem>, other: bool) -> Response {
    let out = other && said.is_none();
    let frame = html! {
        header { span.brand { "Nightshift" } }
        main id="main" class="narrow" {
            h1 { @if out { "Signed out" } @else { "Sign in" } }
            @if let Some(problem) = said { (refusal(problem)) }
            @if let Some(provider) = &app.web.provider {
                @if out {
                    p { "Your session at the identity provider continues: on a shared screen, end it there too." }
                    @if provider.end_session().is_some() {
                        p { a.button href="/login/provider/end" { "Sign out at the identity provider" } }
                    }
                }
                p { a.button href=(format!("/login/provider?to={to}")) { "Sign in with your organisation" } }
                @if other { p { a href=(format!("/login/provider?to={to}&other=1")) { "Sign in as another user" } } }
                details open[said.is_some_and(|problem| problem.status == StatusCode::BAD_GATEWAY)] {
                    summary { "With a token" } (token_form(to))
                }
            } @else { (token_form(to)) }
        }
    };
    page(said.map_or(StatusCode::OK, |problem| problem.status), "Sign in", false, frame)
}

fn token_form(to: &str) -> Markup {
    html! {
        form.card method="post" action="/login" {
            input type="hidden" name="to" value=(to);
            label for="token" { "Token" }
            input id="token" name="token" type="password" autocomplete="current-password" required;
            button type="submit" { "Sign in with a token" }
            p.dim { "One of " code { "server.tokens" } ", or of " code { "nightshift tokens make" } "; on the engine's own machine, the one in " code { "data/token" } "." }
        }
    }
}

/// A field of every form: only our own pages have its value.
fn csrf(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="csrf" value=(visitor.csrf); }
}

fn refusal(problem: &Problem) -> Markup {
    html! {
        div.refusal role="alert" {
            strong { (plain(&problem.error)) }
            p { (plain(&problem.hint)) }
        }
    }
}

fn page(status: StatusCode, title: &str, live: bool, frame: Markup) -> Response {
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (plain(title)) " · Nightshift" }
                link rel="icon" type="image/svg+xml" href="/web/icon.svg";
                link rel="stylesheet" href="/web/style.css";
                @if live { script src="/web/live.js" defer {} }
            }
            body { (frame) }
        }
    };
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
    (status, kind, text.into_string()).into_response()
}
