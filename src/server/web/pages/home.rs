//! The first page: pending requests, open incidents, runs, the state of the guards.
//!
//! Invariant: pending requests stand before everything else.

use super::csrf;
use super::words::{guards, plain, planned, severity, since, ticked, to_incident, to_run};
use crate::api::{EngineStatus, GuardLevels};
use crate::engine::story::run_words;
use crate::model::{Approval, Incident, Right, Run, RunState, Time};
use crate::server::web::visitor::Visitor;
use maud::{Markup, html};

/// The data of the first page.
pub struct Home {
    pub status: EngineStatus,
    pub guards: GuardLevels,
    pub approvals: Vec<Approval>,
    pub incidents: Vec<Incident>,
    pub runs: Vec<Run>,
}

/// The page's content.
pub fn body(home: &Home, visitor: &Visitor, now: Time) -> Markup {
    html! {
        h1 { "Now" }
        section aria-labelledby="asks" {
            h2 id="asks" { "Waiting for an answer" }
            @if home.approvals.is_empty() { p.dim { "No open questions." } }
            @for approval in &home.approvals { (question(approval, home, now)) }
        }
        section aria-labelledby="incidents" {
            h2 id="incidents" { "Open incidents" }
            @if home.incidents.is_empty() { p.dim { "No open incidents." } }
            ul.list { @for incident in worst_first(&home.incidents) { (row(incident, &since(incident.opened_at, now))) } }
        }
        @let under_way: Vec<&Run> = home.runs.iter().filter(|run| !matches!(run.state, RunState::Asking { .. })).collect();
        @if !under_way.is_empty() {
            section aria-labelledby="runs" {
                h2 id="runs" { "Under way" }
                ul.list {
                    @for run in under_way {
                        li {
                            a href=(to_run(run.id)) { (run.id) " " (plain(&run.runbook.name)) }
                            " " (plain(&run.subject.words()))
                            div.dim { (ticked(&run_words(&run.runbook.name, &run.state))) " · " (since(run.created_at, now)) }
                        }
                    }
                }
            }
        }
        section aria-labelledby="guards" {
            h2 id="guards" { "Guards" }
            (guards(&home.guards, now))
            @if visitor.caller.need(Right::Respond).is_ok() { (brake(home, visitor)) }
        }
        p.dim { "Version " (plain(&home.status.version)) " · " (home.status.rules) " rules · "
            (home.status.runbooks) " runbooks · ledger of " (home.status.entries) " entries" }
    }
}

fn question(approval: &Approval, home: &Home, now: Time) -> Markup {
    let run = home.runs.iter().find(|run| run.id == approval.run);
    let page = format!("{}#{}", to_run(approval.run), approval.id);
    html! {
        article.card.ask {
            h3 { a href=(page) { (approval.id) " " @if let Some(run) = run { (plain(&run.runbook.name)) } @else { (approval.run) } } }
            @if let Some(run) = run { p { (plain(&run.subject.words())) } }
            p { (plain(&approval.question)) }
            @if let Some(plan) = &approval.plan { (planned(plan, &approval.foretold)) }
            p.dim { "Expires " (since(approval.expires_at, now)) "; without an answer it counts as denied"
                @if approval.needed > 1 { " · approved by " (approval.given.len()) " of " (approval.needed) " people" } }
            a.button href=(page) { "Review and decide" }
        }
    }
}

fn worst_first(incidents: &[Incident]) -> Vec<&Incident> {
    let mut sorted: Vec<&Incident> = incidents.iter().collect();
    sorted.sort_by_key(|incident| std::cmp::Reverse((incident.severity, incident.opened_at)));
    sorted
}

/// One incident of a list; `when` is the list's text about its time.
pub fn row(incident: &Incident, when: &Markup) -> Markup {
    html! {
        li {
            (severity(incident.severity))
            " " a href=(to_incident(incident.id)) { (incident.id) " " (plain(&incident.title)) }
            div.dim {
                (when) " · " (incident.firing) " firing"
                @if let Some(recovery) = incident.recovery() { " · " (recovery) }
                @if let Some(by) = &incident.acknowledged_by { " · acknowledged by " (plain(by)) }
                @if let Some(owner) = &incident.owner { " · owner " (plain(owner)) }
            }
        }
    }
}

/// Stop everything, or let it go on.
fn brake(home: &Home, visitor: &Visitor) -> Markup {
    let freezes = &home.guards.freezes;
    html! {
        details id="brake" {
            summary { "Freeze" @if !freezes.is_empty() { " or release" } }
            form.card method="post" action="/web/freezes" {
                (csrf(visitor))
                label for="scope" { "Scope:  " code { "all" } ", " code { "cluster:NAME" } " or " code { "rule:NAME" } }
                input id="scope" name="scope" value="all" required maxlength="200";
                label for="why-freeze" { "Why" }
                input id="why-freeze" name="why" required maxlength="500";
                label for="for-freeze" { "For how long (30m, 2h); empty: until it is released" }
                input id="for-freeze" name="for" maxlength="20" autocomplete="off";
                button.danger type="submit" { "Freeze: start no new steps" }
            }
            @for freeze in freezes {
                @let scope = plain(&freeze.scope);
                form.card method="post" action="/web/unfreeze" {
                    @if let Some(by) = &freeze.release_by {
                        p { "Release requested by " strong { (plain(by)) } "; a second person must confirm." }
                    }
                    (csrf(visitor))
                    input type="hidden" name="scope" value=(scope);
                    label { "Why " strong { (scope) } " is released"
                        input name="why" required maxlength="500"; }
                    button type="submit" { "Release " (scope) }
                }
            }
        }
    }
}
