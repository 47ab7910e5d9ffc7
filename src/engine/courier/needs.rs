//! Why users are needed: questions, runs that gave up, runs that a guard has held for long. And how long a first page waits
//! for the question that it should carry.
//!
//! Invariant: pure; a need has the same key for as long as it holds, and a first page never waits beyond `FIRST_PAGE_WAIT`
//! from the creation of the run whose plan it waits for.

use crate::engine::story::moment;
use crate::limits::{FIRST_PAGE_WAIT, HELD_LONG, NEEDS, STORY_LINE_CHARS};
use crate::model::{
    AttentionKind, AttentionReason, Entry, EntryKind, Incident, IncidentState, Mode, PendingApproval, ReasonCode, Run,
    RunId, RunState, Time,
};
use crate::notifiers::one_line;
use std::collections::HashMap;

/// The store's records of one incident: its unfinished runs, and its entries in ascending order.
pub(super) struct IncidentRecords<'a> {
    pub incident: &'a Incident,
    pub asks: &'a [PendingApproval],
    pub open: &'a [Run],
    pub entries: &'a [Entry],
    /// The public address, for links.
    pub url: Option<&'a str>,
}

/// Questions first, then runs that gave up, the latest first, then held runs.
pub(super) fn needs(facts: &IncidentRecords<'_>, now: Time) -> Vec<AttentionReason> {
    if facts.incident.state == IncidentState::Resolved {
        return Vec::new();
    }
    let mut needs: Vec<AttentionReason> = questions(facts).chain(gave_up(facts)).chain(held(facts, now)).collect();
    needs.truncate(NEEDS);
    needs
}

fn need(facts: &IncidentRecords<'_>, kind: AttentionKind, key: String, run: RunId, text: &str) -> AttentionReason {
    let link = facts.url.map(|url| format!("{url}/runs/{run}"));
    AttentionReason { kind, key, run, text: one_line(text, STORY_LINE_CHARS), link }
}

fn questions<'a>(facts: &'a IncidentRecords<'_>) -> impl Iterator<Item = AttentionReason> + 'a {
    facts.open.iter().filter_map(move |run| {
        let RunState::Asking { approval } = run.state else { return None };
        let ask = facts.asks.iter().find(|ask| ask.approval == approval)?;
        let text = format!("{} waits for an answer: {}", name(run), ask.question);
        Some(need(facts, AttentionKind::Approval, approval.to_string(), run.id, &text))
    })
}

/// Runs that ended and left the rest to users, unless a later run does the same work again.
fn gave_up(facts: &IncidentRecords<'_>) -> Vec<AttentionReason> {
    /// The key by which two runs are the same work: the rule, or the runbook of a run by hand, and the subject.
    type WorkKey<'w> = (&'w str, String);
    let mut work: HashMap<RunId, (WorkKey<'_>, &str)> = HashMap::new();
    let mut left: Vec<(WorkKey<'_>, AttentionReason)> = Vec::new();
    for entry in facts.entries {
        let Some(run) = entry.about.run else { continue };
        match &entry.kind {
            EntryKind::RunCreated { runbook, rule, subject, .. } => {
                let this = (rule.as_deref().unwrap_or(&runbook.name), subject.to_string());
                left.retain(|(before, _)| *before != this);
                work.insert(run, (this, &runbook.name));
            }
            EntryKind::RunEnded { state } => {
                // A run's beginning may stand under another number: its incident became part of a group.
                let (this, runbook) = work.get(&run).cloned().unwrap_or_else(|| (("", run.to_string()), "a run"));
                let (kind, word, why) = match state {
                    RunState::Stuck { reason } => (AttentionKind::Stuck, "is stuck", reason.to_string()),
                    RunState::Failed { why, .. } => (AttentionKind::Failed, "failed", why.clone()),
                    RunState::Stopped { why } => (AttentionKind::Stopped, "stopped", why.clone()),
                    _ => continue,
                };
                let text = format!("{runbook} ({run}) {word}: {why}");
                left.push((this, need(facts, kind, format!("{run} {}", state.name()), run, &text)));
            }
            _ => {}
        }
    }
    left.into_iter().rev().map(|(_, need)| need).collect()
}

fn held<'a>(facts: &'a IncidentRecords<'_>, now: Time) -> impl Iterator<Item = AttentionReason> + 'a {
    facts.open.iter().filter_map(move |run| {
        let RunState::Held { reason } = &run.state else { return None };
        let of_run = facts.entries.iter().rev().filter(|entry| entry.about.run == Some(run.id));
        let first = of_run.take_while(|entry| matches!(entry.kind, EntryKind::StepHeld { .. })).last();
        let since = first.map_or(run.created_at, |entry| entry.at);
        // A breaker opens again by a user alone.
        if reason.code != ReasonCode::BreakerTripped && since + HELD_LONG > now {
            return None;
        }
        let text = format!("{} has been on hold since {}: {reason}", name(run), moment(since, now));
        Some(need(facts, AttentionKind::Held, format!("{} held", run.id), run.id, &text))
    })
}

fn name(run: &Run) -> String {
    format!("{} ({})", run.runbook.name, run.id)
}

/// Until when a first page waits for a plan that is being made; none: there is none to wait for, or the question is there.
pub(super) fn awaited_plan(open: &[Run], entries: &[Entry]) -> Option<Time> {
    let planned = |run: &Run| {
        let is_plan = |kind: &EntryKind| matches!(kind, EntryKind::RunPlanned { .. } | EntryKind::ApprovalAsked { .. });
        entries.iter().any(|entry| entry.about.run == Some(run.id) && is_plan(&entry.kind))
    };
    let asking: Vec<&Run> = open.iter().filter(|run| run.mode == Mode::Approve && run.approved.is_none()).collect();
    if asking.iter().any(|run| planned(run)) {
        return None;
    }
    let planning = asking.iter().filter(|run| run.state == RunState::Ready && run.unwinding.is_none());
    planning.map(|run| run.created_at + FIRST_PAGE_WAIT).min()
}
