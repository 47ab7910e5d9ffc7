//! Cooldown with doubling, and a cap on attempts: the same remedy over and over does not heal.
//!
//! Invariant: checked once, when a run is about to act for the first time; within 24 hours no more attempts than the
//! cap.

use crate::limits;
use crate::model::{GuardDecision, ReasonCode, Span, Time};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    let levels = asked.levels;
    if !asked.acts() || asked.undoes() || levels.acted {
        return None;
    }
    let window = Span(limits::ATTEMPTS_WINDOW.0);
    // An attempt in the future means that a clock jumped back: it counts.
    let recent: Vec<Time> =
        levels.attempts.iter().copied().filter(|attempt| after(*attempt, window) > asked.now).collect();
    let last = *recent.iter().max()?;
    let (made, cap) = (recent.len(), levels.attempts_max);
    let uncapped = cap == 0 && levels.rule.is_none();
    if !uncapped && made >= cap as usize {
        let text = format!(
            "this runbook has acted {made} times on {} within {window} (last at {}); the limit is {cap}: it \
             does not help, so an operator must look into it",
            asked.proposal.target.words(),
            minute(last)
        );
        return asked.deny(ReasonCode::AttemptsUsedUp, text);
    }
    let doublings = u32::try_from(made - 1).unwrap_or(u32::MAX).min(31);
    let wait = Span(levels.cooldown.0.saturating_mul(1 << doublings).min(window.0));
    // Counted from now at most, so that a clock that jumped cannot hold it for years.
    let until = after(last, wait).min(after(asked.now, wait));
    if asked.now >= until {
        return None;
    }
    let text = format!(
        "this runbook acted on {} at {}; attempt {} of {} waits {wait} after it, until {}",
        asked.proposal.target.words(),
        minute(last),
        made + 1,
        if uncapped { "any number".to_owned() } else { cap.to_string() },
        minute(until),
    );
    Some(GuardDecision::Hold { reason: crate::model::Reason::new(ReasonCode::Cooldown, text), until })
}

fn minute(at: Time) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn after(time: Time, span: Span) -> Time {
    time.checked_add(span.0).unwrap_or(Time::MAX)
}
