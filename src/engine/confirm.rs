//! The guards' facts besides the target: a rule's second signal, and the windows of the calendar.
//!
//! Invariant: a signal that cannot be read confirms nothing; a value from a label enters a query as a quoted text alone.

use super::EngineParts;
use crate::config::{WindowKind, WindowRule};
use crate::model::{Run, Subject, Time};
use crate::planted::planted;
use crate::policy::{ClosedWindow, WorldFacts};
use crate::sources::cron;

/// Adds the facts from the run's rule and the calendar to a step's.
pub(super) async fn confirm(parts: &EngineParts, run: &Run, target: &Subject, facts: WorldFacts) -> WorldFacts {
    WorldFacts {
        unconfirmed: unconfirmed(parts, run).await,
        closed: closed(&parts.config.windows, run, target, parts.clock.now()),
        ..facts
    }
}

/// Why the rule's second signal does not confirm that the alert still holds; none where it does, or the rule has none.
async fn unconfirmed(parts: &EngineParts, run: &Run) -> Option<String> {
    let loaded = parts.catalog.current();
    let still = loaded.rules.rule(run.rule.as_deref()?)?.still.clone()?;
    let query = match fill(&still, &run.subject) {
        Ok(query) => query,
        Err(part) => return Some(format!("`confirm_query` uses the {part} of the alert, and the alert names none")),
    };
    let Some(prometheus) = &parts.world.prometheus else {
        return Some("no `prometheus` is configured".to_owned());
    };
    match prometheus.query(&query).await {
        Ok(samples) if samples.is_empty() && !planted("still-check-stale") => Some(format!("`{query}` has no result")),
        Ok(_) => None,
        Err(error) => Some(format!("`{query}`: {error}")),
    }
}

/// Puts parts of the subject where the query names them; the name of a part that is missing.
fn fill(query: &str, subject: &Subject) -> Result<String, String> {
    let mut filled = String::with_capacity(query.len() + 64);
    let mut pieces = query.split('$');
    filled.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(piece.len());
        let (name, rest) = piece.split_at(end);
        let value = subject.part(name).ok_or_else(|| name.to_owned())?;
        filled.push_str(&quoted(value));
        filled.push_str(rest);
    }
    Ok(filled)
}

/// A string literal of PromQL; whatever the value is, it stays one.
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// The window that forbids acting now, and until when.
fn closed(windows: &[WindowRule], run: &Run, target: &Subject, now: Time) -> Option<ClosedWindow> {
    windows.iter().filter(|window| covers(&window.scope, run, target)).find_map(|window| {
        // Checked with the configuration; one that cannot be followed forbids.
        let Ok(ticks) = cron::parse(&window.at) else {
            return Some(ClosedWindow { why: format!("window {} cannot be followed", window.name), until: now });
        };
        let begun = now.checked_sub(window.lasts.0).ok().and_then(|early| ticks.next_after(early));
        let inside = begun.filter(|begun| *begun <= now).map(|begun| begun + window.lasts.0);
        match (window.kind, inside) {
            (WindowKind::Hold, Some(until)) => {
                Some(ClosedWindow { why: format!("window {} holds all actions", window.name), until })
            }
            (WindowKind::Only, None) => {
                let until = ticks.next_after(now).unwrap_or(Time::MAX);
                Some(ClosedWindow { why: format!("actions are only for window {}", window.name), until })
            }
            (WindowKind::Hold, None) | (WindowKind::Only, Some(_)) => None,
        }
    })
}

fn covers(scope: &str, run: &Run, target: &Subject) -> bool {
    match scope.split_once(':') {
        Some(("cluster", name)) => target.cluster.as_deref() == Some(name),
        Some(("rule", name)) => run.rule.as_deref() == Some(name),
        // `all`, and unknown kinds: it holds everything rather than nothing.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mode, RunId, RunInput, RunState, RunbookPin, Schedule, Span};

    fn run() -> Run {
        Run {
            id: RunId(1),
            rule: Some("xid".to_owned()),
            incident: None,
            episode: None,
            runbook: RunbookPin { name: "r".to_owned(), hash: String::new() },
            input: RunInput::default(),
            subject: Subject::default(),
            mode: Mode::Auto,
            state: RunState::Ready,
            wake_at: None,
            epoch: 1,
            approved: None,
            unwinding: None,
            created_at: Time::UNIX_EPOCH,
            ended_at: None,
            requested_by: "rule".to_owned(),
            posted_by: None,
        }
    }

    fn window(kind: WindowKind, scope: &str) -> WindowRule {
        let at = Schedule { cron: "0 9 * * 1-5".to_owned(), zone: "Europe/Berlin".to_owned() };
        WindowRule { name: "office".to_owned(), kind, scope: scope.to_owned(), at, lasts: Span::minutes(540) }
    }

    fn check(kind: WindowKind, scope: &str, now: &str, expect: Option<&str>) {
        let target = Subject { cluster: Some("eu".to_owned()), ..Subject::node("gpu-1") };
        let found = closed(&[window(kind, scope)], &run(), &target, now.parse().unwrap());
        assert_eq!(found.map(|closed| closed.until.to_string()).as_deref(), expect, "{kind:?} {scope} {now}");
    }

    #[test]
    fn a_window_holds_inside_or_outside_and_follows_its_own_time_zone() {
        // Tuesday, in winter: 9:00 in Berlin is 8:00 UTC.
        check(WindowKind::Hold, "all", "2026-11-24T07:59:59Z", None);
        check(WindowKind::Hold, "all", "2026-11-24T08:00:00Z", Some("2026-11-24T17:00:00Z"));
        check(WindowKind::Hold, "all", "2026-11-24T16:59:59Z", Some("2026-11-24T17:00:00Z"));
        check(WindowKind::Hold, "all", "2026-11-24T17:00:00Z", None);
        check(WindowKind::Only, "all", "2026-11-24T12:00:00Z", None);
        check(WindowKind::Only, "all", "2026-11-27T17:00:00Z", Some("2026-11-30T08:00:00Z"));
        // In summer it is 7:00 UTC.
        check(WindowKind::Hold, "all", "2026-07-01T07:30:00Z", Some("2026-07-01T16:00:00Z"));
    }

    #[test]
    fn a_window_is_for_its_cluster_or_rule_and_an_unknown_scope_is_for_all() {
        let inside = "2026-11-24T08:00:00Z";
        for scope in ["cluster:eu", "rule:xid", "all", "galaxy:x"] {
            check(WindowKind::Hold, scope, inside, Some("2026-11-24T17:00:00Z"));
        }
        check(WindowKind::Hold, "cluster:us", inside, None);
        check(WindowKind::Hold, "rule:other", inside, None);
    }

    #[test]
    fn a_label_never_becomes_a_query() {
        let check = |node: &str, expect: &str| {
            assert_eq!(fill("up{node=$node} == 0", &Subject::node(node)).as_deref(), Ok(expect));
        };
        check("gpu-3", "up{node=\"gpu-3\"} == 0");
        check("x\"} or vector(1) #", "up{node=\"x\\\"} or vector(1) #\"} == 0");
        check("a\\\nb", "up{node=\"a\\\\\\nb\"} == 0");
        check("$gpu", "up{node=\"$gpu\"} == 0");
        assert_eq!(fill("x{gpu=$gpu}", &Subject::node("n")), Err("gpu".to_owned()));
    }
}
