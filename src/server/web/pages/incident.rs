//! The page of an incident: what is ill, what was said of it, what was done, by whom.
//!
//! Invariant: labels and annotations are shown as the source wrote them, and as nothing but text.

use super::csrf;
use super::words::{outside, plain, since, story, to_run};
use crate::engine::story::run_words;
use crate::limits;
use crate::model::{Approval, ApprovalState, Episode, EpisodeState, Incident, Right, Run, StoryLine, Time};
use crate::server::web::read::segment;
use crate::server::web::visitor::Visitor;
use maud::{Markup, html};

pub struct Story {
    pub incident: Incident,
    pub episodes: Vec<Episode>,
    pub runs: Vec<Run>,
    pub approvals: Vec<Approval>,
    pub story: Vec<StoryLine>,
}

pub fn body(story: &Story, visitor: &Visitor, now: Time) -> Markup {
    let incident = &story.incident;
    html! {
        h1 { (incident.id) " " (plain(&incident.title)) }
        p {
            span.mark { (incident.severity) } " " (plain(&incident.subject.to_string())) " · opened " (since(incident.opened_at, now))
            @if let Some(at) = incident.closed_at { " · over " (since(at, now)) } @else { " · " (incident.firing) " firing" }
            @if let Some(recovery) = incident.recovery() { " · " (recovery) }
        }
        @if let Some(by) = &incident.acknowledged_by { p { "Acknowledged by " (plain(by)) } }
        @if let Some(owner) = &incident.owner { p { "It is " (plain(owner)) "’s" } }
        @for approval in story.approvals.iter().filter(|approval| approval.state == ApprovalState::Open) {
            p.card.ask { a.button href=(format!("{}#{}", to_run(approval.run), approval.id)) { "Look and decide " (approval.id) } " "
                (plain(&approval.question)) }
        }
        @if incident.closed_at.is_none() && incident.acknowledged_by.is_none() && visitor.caller.need(Right::Respond).is_ok() {
            form method="post" action=(format!("/web/incidents/{}/ack", incident.id)) {
                (csrf(visitor))
                button type="submit" { "Acknowledge: I am looking at it" }
            }
        }
        section aria-labelledby="story" {
            h2 id="story" { "Story" }
            (self::story(&story.story))
            p { a href=(format!("/why/{}", segment(&incident.id.to_string()))) { "Why was this done, or not?" } }
        }
        section aria-labelledby="runs" {
            h2 id="runs" { "Runs" }
            @if story.runs.is_empty() { p.dim { "None." } }
            ul.list {
                @for run in story.runs.iter().take(limits::WEB_ROWS) {
                    li {
                        a href=(to_run(run.id)) { (run.id) " " (plain(&run.runbook.name)) }
                        div.dim { (plain(&run_words(&run.runbook.name, &run.state))) " · mode " (run.mode) " · " (since(run.created_at, now)) }
                    }
                }
            }
        }
        section aria-labelledby="said" {
            h2 id="said" { "What sources say" }
            @for episode in story.episodes.iter().take(limits::HEADLINES) { (said(episode, now)) }
            @if story.episodes.len() > limits::HEADLINES {
                p.dim { "and " (story.episodes.len() - limits::HEADLINES) " more: nightshift show " (incident.id) }
            }
        }
    }
}

fn said(episode: &Episode, now: Time) -> Markup {
    let event = &episode.event;
    let state = match episode.state {
        EpisodeState::Open => "firing",
        EpisodeState::Resolved => "resolved",
        EpisodeState::Stale => "stale: nobody knows",
    };
    html! {
        details.card id=(format!("said-{}", episode.id)) {
            summary { (plain(event.name())) " " span.dim { (plain(&event.source)) " · " (state) " · said " @if episode.seen == 1 { "once, " } @else { (episode.seen) " times, last " }
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
