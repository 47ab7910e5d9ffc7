//! Whether the on-call is paged: only when automation gave up, is refused, needs a user, or takes too long.
//!
//! Invariant: pure, and in doubt it wakes; every silence has its reason.

use crate::model::{Incident, IncidentState, Run, RunState, Span, Time};
use std::collections::BTreeMap;

/// The action for a channel that waits for automation, about an incident without a message on it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageDecision {
    Now {
        why: String,
    },
    /// Looked at again when something happens, and paged at that time whatever happens.
    NotYet {
        why: String,
        until: Time,
    },
    /// No page is needed any more.
    Spared {
        why: String,
    },
}

/// `runs`: all of the incident's, in any order. `unknown`: a source fell silent, so that it is over is a guess.
/// `patience`: how long automation may work before the on-call is paged.
pub fn page(incident: &Incident, runs: &[Run], unknown: bool, patience: Span, now: Time) -> PageDecision {
    let latest = runs.iter().max_by_key(|run| run.id);
    match incident.state {
        IncidentState::Open => {}
        IncidentState::Acknowledged => return PageDecision::Spared { why: "it is acknowledged".to_owned() },
        IncidentState::Resolved => {
            if let Some(why) = runs.iter().filter(|run| matches!(run.state, RunState::Stuck { .. })).find_map(hands) {
                return PageDecision::Now { why };
            }
            if unknown {
                return PageDecision::Now { why: "its source stopped reporting, so its state is unknown".to_owned() };
            }
            let why = match latest {
                Some(run) if run.state == RunState::Done => format!("{} fixed it", name(run)),
                _ => "it resolved by itself before anyone was needed".to_owned(),
            };
            return PageDecision::Spared { why };
        }
    }
    if let Some(until) = incident.resolves_at {
        if let Some(why) = runs.iter().filter(|run| matches!(run.state, RunState::Stuck { .. })).find_map(hands) {
            return PageDecision::Now { why };
        }
        // Maintenance closes it within a second of that time.
        let until = until.max(now.checked_add(crate::limits::JANITOR_EVERY).unwrap_or(Time::MAX));
        return PageDecision::NotYet {
            why: "its alerts have ended; it closes unless one fires again".to_owned(),
            until,
        };
    }
    let acting = acting(runs);
    let Some(latest) = acting.first() else {
        return PageDecision::Now { why: "no runbook works on it".to_owned() };
    };
    // A question, or nodes that no other run may touch, need a user whatever came after.
    let in_need = runs.iter().rev().find(|run| matches!(run.state, RunState::Asking { .. } | RunState::Stuck { .. }));
    if let Some(why) = in_need.into_iter().chain(acting.iter().copied()).find_map(hands) {
        return PageDecision::Now { why };
    }
    let until = incident.opened_at.checked_add(patience.0).unwrap_or(Time::MAX);
    let name = name(latest);
    let how = match &latest.state {
        RunState::Done => format!("{name} is done; not yet verified as fixed"),
        RunState::Held { reason } => format!("{name} is held: {reason}"),
        RunState::Waiting { why } => format!("{name} is at work: {why}"),
        _ => format!("{name} is at work"),
    };
    if now < until {
        return PageDecision::NotYet { why: how, until };
    }
    PageDecision::Now { why: format!("it is still open after {patience}: {how}") }
}

/// The latest run on each subject of each rule, or of each runbook that was started by hand, the newest first: a run
/// that is done gives no evidence about another rule's work, or about another node. Runs that were only planned count
/// where no rule acts.
fn acting(runs: &[Run]) -> Vec<&Run> {
    let mut latest: BTreeMap<(Option<&str>, &str, String), &Run> = BTreeMap::new();
    for run in runs {
        let (rule, runbook) = match &run.rule {
            Some(rule) => (Some(rule.as_str()), ""),
            None => (None, run.runbook.name.as_str()),
        };
        let kept = latest.entry((rule, runbook, run.subject.to_string())).or_insert(run);
        if run.id > kept.id {
            *kept = run;
        }
    }
    let mut all: Vec<&Run> = latest.into_values().collect();
    all.sort_unstable_by_key(|run| std::cmp::Reverse(run.id));
    if all.iter().any(|run| run.state != RunState::Planned) {
        all.retain(|run| run.state != RunState::Planned);
    }
    all
}

/// Why automation will not end this without a user; none: it may.
fn hands(run: &Run) -> Option<String> {
    let name = name(run);
    Some(match &run.state {
        RunState::Ready | RunState::Waiting { .. } | RunState::Held { .. } | RunState::Done => return None,
        RunState::Asking { approval } => format!("{name} waits for an answer: {approval}"),
        RunState::Stopped { why } => format!("{name} stopped itself: {why}"),
        RunState::Failed { why, .. } => format!("{name} failed: {why}"),
        RunState::Stuck { reason } => format!("{name} is stuck: {reason}"),
        RunState::Planned => format!("{name} was only planned, in mode {}", run.mode),
        RunState::Denied { reason } => format!("{name} was not done: {reason}"),
    })
}

fn name(run: &Run) -> String {
    format!("{} ({})", run.runbook.name, run.id)
}

#[cfg(test)]
mod tests;
