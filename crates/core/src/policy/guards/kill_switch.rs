//! The kill switch: a freeze of everything, a cluster or a rule.
//!
//! Invariant: it holds undo too, and a scope that cannot be distinguished from ours counts as ours.

use crate::limits;
use crate::model::{Freeze, GuardDecision, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    if !asked.acts() {
        return None;
    }
    if let Some(why) = &asked.proposal.facts.stopped {
        return asked.hold(ReasonCode::Frozen, limits::HOLD_RECHECK, format!("everything is stopped: {why}"));
    }
    let (freeze, doubt) =
        asked.levels.freezes.iter().find_map(|freeze| covers(freeze, asked).map(|doubt| (freeze, doubt)))?;
    let Freeze { scope, by, why, since, .. } = freeze;
    let what = match scope.split_once(':') {
        Some((kind, name)) => format!("{kind} {name}"),
        None if scope == "all" => "everything".to_owned(),
        None => scope.clone(),
    };
    let since = since.strftime("%Y-%m-%d %H:%M UTC");
    // One whose end has come holds until the store has written that down.
    let until = freeze.until.map(|_| format!(" {}", freeze.lasts())).unwrap_or_default();
    let text = format!("{what} is frozen by {by} since {since}{until}: {why}{doubt}");
    asked.hold(ReasonCode::Frozen, limits::HOLD_RECHECK, text)
}

/// Whether a freeze covers the step, with a word about any doubt.
fn covers(freeze: &Freeze, asked: &GuardCheck<'_>) -> Option<&'static str> {
    if freeze.scope == "all" {
        return Some("");
    }
    if let Some(cluster) = freeze.scope.strip_prefix("cluster:") {
        return match asked.proposal.target.cluster.as_deref() {
            Some(ours) => (ours == cluster).then_some(""),
            None => Some(" (the step does not name its cluster, so it may be this one)"),
        };
    }
    if let Some(rule) = freeze.scope.strip_prefix("rule:") {
        return (asked.levels.rule.as_deref() == Some(rule)).then_some("");
    }
    Some(" (an unknown scope stops everything)")
}
