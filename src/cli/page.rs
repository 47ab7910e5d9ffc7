//! How a story, a plan and a state look in a terminal; shared by `show`, `simulate`, `run` and `approve`.
//!
//! Invariant: everything that came from outside goes through `clean`.

use super::invocation::{Invocation, TextStyle, clean};
use super::stop::CliError;
use crate::engine::story;
use crate::limits::NAMES_SHOWN;
use crate::model::{
    EffectClass, ImpactScope, Incident, IncidentState, Outcome, Plan, PlanEnd, PlannedCall, PreflightDecision, Run,
    RunState, Severity, Span, Subject, Time, TimelineEntry,
};
use serde_json::Value;
use std::time::Duration;

/// Widest line of text from outside.
const WIDE: usize = 400;

pub(super) fn text(text: &str) -> String {
    clean(text, WIDE)
}

pub(super) fn subject(subject: &Subject) -> String {
    clean(&subject.to_string(), WIDE)
}

/// `02:14:07` in the zone of the invocation; with the date where it is not the day of `beside`.
fn clock(invocation: &Invocation, at: Time, beside: Time) -> String {
    without_day(&invocation.format(at, "%Y-%m-%d %H:%M:%S"), &invocation.format(beside, "%Y-%m-%d"))
}

fn without_day(full: &str, day: &str) -> String {
    match full.strip_prefix(day) {
        Some(time) => time.trim_start().to_owned(),
        None => full.to_owned(),
    }
}

/// `+0s`, `+1m 20s`: since the story's beginning, in the two largest units.
fn offset(start: Time, at: Time) -> String {
    let seconds = (at.as_second() - start.as_second()).max(0).unsigned_abs();
    let rounded = match seconds {
        0..3_600 => seconds,
        3_600..86_400 => seconds / 60 * 60,
        _ => seconds / 3_600 * 3_600,
    };
    format!("+{}", Span(Duration::from_secs(rounded)))
}

/// The lines of a timeline: time, offset, text. Continuation lines are aligned under the text.
pub(super) fn timeline(invocation: &Invocation, story: &[TimelineEntry]) -> Result<(), CliError> {
    let Some(first) = story.first() else {
        return invocation.line("  no entries");
    };
    let rows: Vec<(String, String, &TimelineEntry)> =
        story.iter().map(|line| (clock(invocation, line.at, first.at), offset(first.at, line.at), line)).collect();
    let times = rows.iter().map(|row| row.0.len()).max().unwrap_or_default();
    let offsets = rows.iter().map(|row| row.1.len()).max().unwrap_or_default();
    // The zone stands once, above the times.
    let zone = format!("  {:>times$}", invocation.format(first.at, "%Z"));
    invocation.line(&invocation.paint(TextStyle::Dim, &zone))?;
    for (time, offset, line) in rows {
        let lead = format!("  {time:>times$}  {}  ", invocation.paint(TextStyle::Dim, &format!("{offset:>offsets$}")));
        let indent = " ".repeat(2 + times + 2 + offsets + 2);
        let paint = if line.headline { TextStyle::Strong } else { TextStyle::Dim };
        for (at, part) in line.text.lines().enumerate() {
            let part = text(part);
            let part = if line.headline && at == 0 { invocation.paint(paint, &part) } else { part };
            invocation.line(&format!("{}{part}", if at == 0 { &lead } else { &indent }))?;
        }
    }
    Ok(())
}

/// A run's state as a word with a colour.
pub(super) fn state(invocation: &Invocation, state: &RunState) -> String {
    let paint = match state {
        RunState::Done => TextStyle::Good,
        RunState::Failed { .. } | RunState::Stuck { .. } => TextStyle::Bad,
        RunState::Held { .. } | RunState::Asking { .. } | RunState::Denied { .. } | RunState::Stopped { .. } => {
            TextStyle::Odd
        }
        RunState::Ready | RunState::Waiting { .. } | RunState::Planned => TextStyle::Strong,
    };
    invocation.paint(paint, &state.words())
}

pub(super) fn severity(invocation: &Invocation, severity: Severity) -> String {
    let paint = match severity {
        Severity::Critical | Severity::Error => TextStyle::Bad,
        Severity::Warning => TextStyle::Odd,
        Severity::Info => TextStyle::Dim,
    };
    invocation.paint(paint, &severity.to_string())
}

pub(super) fn incident_state(state: IncidentState) -> &'static str {
    match state {
        IncidentState::Open => "open",
        IncidentState::Acknowledged => "acknowledged",
        IncidentState::Resolved => "resolved",
    }
}

/// Its state, or when it closes while nothing of it fires: `recovering, closes 03:12 UTC`.
pub(super) fn standing(incident: &Incident) -> String {
    incident.recovery().unwrap_or_else(|| incident_state(incident.state).to_owned())
}

/// Why a run is in its state, and the commands that apply to it.
pub(super) fn stands(invocation: &Invocation, run: &Run) -> Vec<String> {
    let explain = |code: &str| format!("nightshift why --explain {code}");
    let again = run.wake_at.map(|at| format!(", checked again at {}", invocation.soon(at))).unwrap_or_default();
    match &run.state {
        RunState::Ready => vec!["continues at the engine's next turn".to_owned()],
        RunState::Waiting { why } => vec![format!("waits: {}{again}", text(why))],
        RunState::Held { reason } => {
            vec![format!("held by a guard: {}{again}", text(&reason.text)), explain(reason.code.name())]
        }
        RunState::Asking { approval } => vec![
            format!(
                "waits for approval{}",
                run.wake_at
                    .map(|at| format!("; expires {}, without an answer it counts as denied", invocation.soon(at)))
                    .unwrap_or_default()
            ),
            format!("nightshift approve {approval}"),
            format!("nightshift deny {approval} --why '…'"),
        ],
        RunState::Done => vec!["done".to_owned()],
        RunState::Planned => vec![format!("planned only, because its mode is {}: no action taken", run.mode)],
        RunState::Stopped { why } => vec![match story::over_to_you(why) {
            Some(what) => format!("done, over to you: {}", text(what)),
            None => format!("stopped itself, on purpose: {}", text(why)),
        }],
        RunState::Failed { why, undone } => {
            let undone = if *undone { "its steps were undone" } else { "its steps were left in place" };
            vec![format!("failed: {}; {undone}", text(why)), format!("nightshift why {}", run.id)]
        }
        RunState::Stuck { reason } => {
            vec![format!("stuck, needs an operator: {}", text(&reason.text)), explain(reason.code.name())]
        }
        RunState::Denied { reason } => {
            let words = text(&run.state.words());
            vec![format!("{words}: {}", text(&reason.text)), explain(reason.code.name())]
        }
    }
}

/// `1 run`, `2 runs`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The calls of a plan in words, those that change something marked; results that were read or predicted stand beneath.
pub(super) fn plan(invocation: &Invocation, plan: &Plan) -> Result<(), CliError> {
    plan_now(invocation, plan, &[])
}

/// The same with the guards' predicted decisions.
pub(super) fn plan_now(invocation: &Invocation, plan: &Plan, guards: &[PreflightDecision]) -> Result<(), CliError> {
    let changes = |planned: &PlannedCall| planned.reach > ImpactScope::None;
    for (at, planned) in plan.calls.iter().enumerate() {
        let words = match planned.effect {
            EffectClass::Read => planned.call.to_string(),
            _ => story::planned_words(&planned.call, &planned.target),
        };
        let words = if changes(planned) { invocation.paint(TextStyle::Strong, &text(&words)) } else { text(&words) };
        invocation.line(&format!("  {:>2} {} {words}", at + 1, if changes(planned) { "*" } else { " " }))?;
        if let Some(foretold) = foretold(planned) {
            invocation.line(&format!("       {}", invocation.paint(TextStyle::Dim, &format!("→ {foretold}"))))?;
        }
        if let Some(words) = guards.iter().find(|guard| guard.call == at).and_then(PreflightDecision::words) {
            invocation.line(&format!("       {}", invocation.paint(TextStyle::Odd, &format!("! {}", text(&words)))))?;
        }
    }
    let end = match &plan.end {
        PlanEnd::Done => "then it would be done".to_owned(),
        PlanEnd::Stopped(why) => format!("then it would stop itself: {}", text(why)),
        PlanEnd::Failed(why) => format!("then it would fail: {}", text(why)),
        PlanEnd::Cut(reason) => format!("and more: {}", text(&reason.text)),
    };
    let marked = match plan.calls.iter().filter(|planned| changes(planned)).count() {
        0 => "no changes".to_owned(),
        1 => "1 of them changes something (*)".to_owned(),
        many => format!("{many} of them change something (*)"),
    };
    invocation.line(&format!("  {}, {marked}; {end}", count(plan.calls.len(), "call")))
}

/// The result of a planned call, read or predicted, where it is more than the call itself.
fn foretold(planned: &PlannedCall) -> Option<String> {
    match &planned.predicted {
        Outcome::Failed(failure) => Some(format!("would fail, {}: {}", failure.kind.name(), text(&failure.message))),
        Outcome::Ok(value) if planned.effect == EffectClass::Read => seen(value),
        Outcome::Ok(_) => story::predicted(planned).map(|words| text(&words)),
    }
}

/// The result of a read, in words; none where there is none.
fn seen(value: &Value) -> Option<String> {
    let short = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => count(items.len(), "item"),
        Value::Object(fields) => count(fields.len(), "field"),
        other => other.to_string(),
    };
    Some(match value {
        Value::Null => return None,
        Value::Array(items) => {
            let named = |item: &Value| ["pod", "name"].iter().find_map(|key| item[*key].as_str().map(str::to_owned));
            let names: Vec<String> =
                items.iter().take(NAMES_SHOWN).map(|item| named(item).unwrap_or(short(item))).collect();
            let more = if items.len() > NAMES_SHOWN { ", …" } else { "" };
            match names.is_empty() {
                true => "none".to_owned(),
                false => clean(&format!("{}: {}{more}", items.len(), names.join(", ")), 160),
            }
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", short(value))).collect();
            clean(&fields.join(" "), 160)
        }
        other => clean(&short(other), 160),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_shows_its_day_only_where_that_changed() {
        assert_eq!(without_day("2026-11-23 02:14:07", "2026-11-23"), "02:14:07");
        assert_eq!(without_day("2026-11-24 00:00:01", "2026-11-23"), "2026-11-24 00:00:01");
    }

    #[test]
    fn an_offset_keeps_the_two_largest_units() {
        let start = Time::UNIX_EPOCH;
        let after = |seconds: i64| offset(start, Time::from_second(seconds).unwrap());
        assert_eq!([after(0), after(80), after(3_725), after(90_061)], ["+0s", "+1m 20s", "+1h 2m", "+1d 1h"]);
    }
}
