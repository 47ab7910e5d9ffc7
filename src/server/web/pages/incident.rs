//! The page of an incident: the unhealthy objects, their alerts, the acts on them, and the users who acted.
//!
//! Invariant: labels and annotations are shown as the source wrote them, and as nothing but text.

use super::csrf;
use super::words::{frozen, moment, outside, plain, planned, severity, since, story, ticked, to_run};
use crate::api::{GuardLevels, IncidentDetail};
use crate::engine::alert_links;
use crate::engine::story::run_words;
use crate::limits;
use crate::model::{Approval, ApprovalState, Episode, EpisodeState, Right, Time};
use crate::server::web::read::segment;
use crate::server::web::visitor::Visitor;
use maud::{Markup, html};

/// The data of an incident's page.
pub struct Story {
    pub detail: IncidentDetail,
    /// The state of the guards: freezes.
    pub guards: GuardLevels,
}

/// The page's content.
pub fn body(story: &Story, visitor: &Visitor, now: Time) -> Markup {
    let incident = &story.detail.incident;
    html! {
        h1 { (incident.id) " " (plain(&incident.title)) }
        p {
            (severity(incident.severity)) " " (plain(&incident.subject.words())) " · opened " (since(incident.opened_at, now))
            @if let Some(at) = incident.closed_at { " · resolved " (since(at, now)) } @else { " · " (incident.firing) " firing" }
            @if let Some(recovery) = incident.recovery() { " · " (recovery) }
        }
        @if let Some(by) = &incident.acknowledged_by { p { "Acknowledged by " (plain(by)) } }
        @if let Some(owner) = &incident.owner { p { "Owner: " (plain(owner)) } }
        @for approval in story.detail.approvals.iter().filter(|approval| approval.state == ApprovalState::Open) {
            (question(approval, story, now))
        }
        (links(&story.detail.episodes))
        @if incident.closed_at.is_none() && incident.acknowledged_by.is_none() && visitor.caller.need(Right::Respond).is_ok() {
            form method="post" action=(format!("/web/incidents/{}/ack", incident.id)) {
                (csrf(visitor))
                button type="submit" { "Acknowledge" }
            }
        }
        section aria-labelledby="story" {
            h2 id="story" { "Timeline" }
            (self::story(&story.detail.story))
            p { a href=(format!("/why/{}", segment(&incident.id.to_string()))) { "Why was this done, or not?" } }
        }
        section aria-labelledby="runs" {
            h2 id="runs" { "Runs" }
            @if story.detail.runs.is_empty() { p.dim { "None." } }
            ul.list {
                @for run in story.detail.runs.iter().take(limits::WEB_ROWS) {
                    li {
                        a href=(to_run(run.id)) { (run.id) " " (plain(&run.runbook.name)) }
                        div.dim { (ticked(&run_words(&run.runbook.name, &run.state))) " · mode " (run.mode) " · " (since(run.created_at, now)) }
                    }
                }
            }
        }
        section aria-labelledby="said" {
            h2 id="said" { "Alerts" }
            @for episode in story.detail.episodes.iter().take(limits::HEADLINES) { (said(episode, now)) }
            @if story.detail.episodes.len() > limits::HEADLINES {
                p.dim { "and " (story.detail.episodes.len() - limits::HEADLINES) " more: nightshift show " (incident.id) }
            }
        }
    }
}

/// An open approval request with its steps, their cost, the guards that would hold them, and the way to the buttons.
fn question(approval: &Approval, story: &Story, now: Time) -> Markup {
    let run = story.detail.runs.iter().find(|run| run.id == approval.run);
    let rule = run.and_then(|run| run.rule.as_deref());
    html! {
        div.card.ask {
            p { strong { (approval.id) ": " (plain(&approval.question)) } }
            @if let Some(plan) = &approval.plan { (planned(plan, &approval.foretold)) }
            p { "Expires " (moment(approval.expires_at)) " (" (since(approval.expires_at, now)) "); without an answer it counts as denied." }
            @if let Some(frozen) = frozen(&story.guards, rule, story.detail.incident.subject.cluster.as_deref(), now) { (frozen) }
            p { a.button href=(format!("{}#{}", to_run(approval.run), approval.id)) { "Review and decide" } }
        }
    }
}

/// Runbook, dashboards and the source of the alerts.
fn links(episodes: &[Episode]) -> Markup {
    let events: Vec<_> = episodes.iter().map(|episode| &episode.event).collect();
    let links = alert_links(&events);
    html! {
        @if !links.is_empty() {
            p { @for (at, link) in links.iter().enumerate() {
                @if at > 0 { " · " }
                a href=(link.url) rel="noopener noreferrer nofollow" { (link.label) }
            } }
        }
    }
}

fn said(episode: &Episode, now: Time) -> Markup {
    let event = &episode.event;
    let state = match episode.state {
        EpisodeState::Open => "firing",
        EpisodeState::Resolved => "resolved",
        EpisodeState::Stale => "stale: the source stopped reporting",
    };
    html! {
        details.card id=(format!("said-{}", episode.id)) {
            summary { (plain(event.name())) " " span.dim { (plain(&event.source)) " · " (state) " · received " @if episode.seen == 1 { "once, " } @else { (episode.seen) " times, last " }
                (since(episode.last_seen, now)) } }
            p { (plain(&event.summary)) }
            @if !event.url.is_empty() { p { (outside(&event.url)) } }
            dl {
                @for (name, value) in event.labels.iter().chain(event.annotations.iter()).take(limits::WEB_ROWS) {
                    dt { (plain(name)) } dd { (outside(value)) }
                }
            }
        }
    }
}
