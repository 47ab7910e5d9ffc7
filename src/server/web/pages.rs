//! The frame of every page, and the two that need no data: signing in, and a refusal.
//!
//! Invariant: text gets into a page through `maud`'s escaping or not at all; a page refers to no other host.

pub(super) mod home;
pub(super) mod incident;
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

/// A page for somebody who has signed in; `said` is why what they just did does not count.
pub(super) fn show(app: &App, visitor: &Visitor, said: Option<&Problem>, title: &str, body: Markup) -> Response {
    let caller = &visitor.caller;
    let frame = html! {
        header {
            a.brand href="/" { "Nightshift" }
            span.install { (plain(&app.parts.config.install)) }
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

/// What they may, in a word: the narrower of what the way in gives and what the person has.
fn role(caller: &Caller) -> Role {
    let own = caller.person.as_ref().map(|grant| grant.role);
    own.filter(|own| own.within(caller.grant.role)).unwrap_or(caller.grant.role)
}

/// A refusal as a page of its own.
pub(super) fn problem(app: &App, visitor: &Visitor, problem: &Problem) -> Response {
    let back = html! { p { a href="/" { "To what is going on now" } } };
    show(app, visitor, Some(problem), "Refused", back)
}

/// Where people sign in: no data, not even the name of the installation.
pub(super) fn sign_in(app: &App, to: &str, said: Option<&Problem>) -> Response {
    let frame = html! {
        header { span.brand { "Nightshift" } }
        main id="main" class="narrow" {
            h1 { "Sign in" }
            @if let Some(problem) = said { (refusal(problem)) }
            @if app.web.provider.is_some() {
                p { a.button href=(format!("/login/provider?to={to}")) { "Sign in with your organisation" } }
                details { summary { "With a token" } (token_form(to)) }
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

/// What stands in every form: only our own pages know it.
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
                link rel="stylesheet" href="/web/style.css";
                @if live { script src="/web/live.js" defer {} }
            }
            body { (frame) }
        }
    };
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
    (status, kind, text.into_string()).into_response()
}
