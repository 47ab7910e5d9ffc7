//! The present state of an incident, in one or two sentences that follow its title: waits, holds, work left to users.
//!
//! Invariant: each state has words, and they include whether a user is needed.

use crate::engine::story;
use crate::limits::STORY_LINE_CHARS;
use crate::model::{
    AttentionKind, AttentionReason, Entry, EntryKind, Incident, IncidentState, Mode, PendingApproval, PlanSuggestion,
    Run, RunState,
};
use crate::notifiers::{one_line, suggested};

/// The input of the sentence.
pub(super) struct StatusLineInput<'a> {
    pub incident: &'a Incident,
    /// Runs that are not over.
    pub open: &'a [Run],
    pub asks: &'a [PendingApproval],
    pub suggestions: &'a [PlanSuggestion],
    pub needs: &'a [AttentionReason],
    /// Of the incident, in ascending order.
    pub entries: &'a [Entry],
}

impl StatusLineInput<'_> {
    /// The sentences, as one line of bounded length.
    pub fn words(&self) -> String {
        one_line(&self.sentences(), 2 * STORY_LINE_CHARS)
    }

    fn sentences(&self) -> String {
        if self.incident.state == IncidentState::Resolved {
            return self.resolved();
        }
        if let Some(ask) = self.asks.first() {
            let asked = match ask.brief.as_str() {
                "" => format!("Waiting for an answer: {}", ask.question),
                brief => format!("Waiting for your OK to {brief}"),
            };
            return match self.asks.len() - 1 {
                0 => sentence(&asked),
                more => format!("{} {more} more waiting.", sentence(&asked)),
            };
        }
        if let Some(hands) = self.hands() {
            return hands;
        }
        if let Some(run) = self.open.iter().max_by_key(|run| (is_held(run), run.id)) {
            return at_work(run);
        }
        if let Some(until) = self.incident.resolves_at {
            let until = until.strftime("%H:%M UTC");
            return format!("Its alerts have ended; it closes at {until} unless one fires again.");
        }
        if let Some(suggestion) = self.suggestions.last() {
            return suggested(suggestion);
        }
        let key = self.incident.key.as_str();
        if let Some(scope) = key.strip_prefix("freeze/") {
            let scope = if scope == "all" { String::new() } else { format!(" --scope {scope}") };
            return format!("No new step starts until it is released: nightshift unfreeze{scope} --why '…'");
        }
        if key.starts_with("break-glass/") {
            return "Review it: nightshift tokens".to_owned();
        }
        self.ended().unwrap_or_else(|| match &self.incident.acknowledged_by {
            Some(by) => format!("{by} is looking into it. There is no automation for this."),
            None => "There is no automation for this; an operator must look into it.".to_owned(),
        })
    }

    fn resolved(&self) -> String {
        let why = self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::IncidentResolved { why } => Some(why.as_str()),
            _ => None,
        });
        let why = why.filter(|why| !why.is_empty());
        let resolved = match why {
            Some(why) if starts_with_word(why, "Resolved") => sentence(why),
            Some(why) => sentence(&format!("Resolved: {why}")),
            None => "Resolved.".to_owned(),
        };
        match self.open.last() {
            Some(run) => format!("{resolved} {}", sentence(&story::run_words(&name(run), &run.state))),
            None => resolved,
        }
    }

    /// The work left to users, where the last run gave up and none is active.
    pub fn hands(&self) -> Option<String> {
        if self.incident.state == IncidentState::Resolved || !self.open.is_empty() {
            return None;
        }
        // A later run of another rule does not finish the work that this one left.
        let left =
            self.needs.iter().find(|need| need.kind != AttentionKind::Approval && need.kind != AttentionKind::Held)?;
        let (run, state) = self.end_of(left.run)?;
        let name = self.runbook(run);
        Some(match state {
            RunState::Stopped { why } => match story::over_to_you(why) {
                Some(what) => sentence(&format!("Automation is done, over to you: {what}")),
                None => sentence(&format!("{name} stopped, over to you: {why}")),
            },
            RunState::Failed { .. } | RunState::Stuck { .. } => {
                format!("{} Over to you.", sentence(&story::run_words(&name, state)))
            }
            _ => return None,
        })
    }

    /// The last run that ended without being a plan alone.
    fn ended(&self) -> Option<String> {
        let (run, state) = self.last_end()?;
        let name = self.runbook(run);
        Some(match state {
            RunState::Done => format!("{name} is done; the alert still fires."),
            RunState::Denied { reason } => sentence(&format!("No action taken: {}", reason.text)),
            state => sentence(&story::run_words(&name, state)),
        })
    }

    fn last_end(&self) -> Option<(Option<crate::model::RunId>, &RunState)> {
        self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::RunEnded { state } if *state != RunState::Planned => Some((entry.about.run, state)),
            _ => None,
        })
    }

    fn end_of(&self, run: crate::model::RunId) -> Option<(Option<crate::model::RunId>, &RunState)> {
        self.entries.iter().rev().find_map(|entry| match &entry.kind {
            EntryKind::RunEnded { state } if entry.about.run == Some(run) => Some((entry.about.run, state)),
            _ => None,
        })
    }

    fn runbook(&self, run: Option<crate::model::RunId>) -> String {
        let created = self.entries.iter().find_map(|entry| match &entry.kind {
            EntryKind::RunCreated { runbook, .. } if entry.about.run == run => Some(runbook.name.as_str()),
            _ => None,
        });
        match (created, run) {
            (Some(runbook), Some(run)) => format!("{runbook} ({run})"),
            (_, Some(run)) => run.to_string(),
            (_, None) => "The run".to_owned(),
        }
    }
}

fn at_work(run: &Run) -> String {
    let name = name(run);
    match &run.state {
        RunState::Held { reason } => sentence(&format!("On hold: {}", reason.text)),
        RunState::Ready if run.mode <= Mode::Suggest => format!("{name} is running its preflight."),
        RunState::Ready if run.mode == Mode::Approve && run.approved.is_none() => {
            format!("{name} is making a plan for your approval.")
        }
        state => sentence(&story::run_words(&name, state)),
    }
}

fn is_held(run: &Run) -> bool {
    matches!(run.state, RunState::Held { .. })
}

fn name(run: &Run) -> String {
    format!("{} ({})", run.runbook.name, run.id)
}

fn starts_with_word(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// With one full stop.
fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '?', '!', '…']) { text.to_owned() } else { format!("{text}.") }
}
