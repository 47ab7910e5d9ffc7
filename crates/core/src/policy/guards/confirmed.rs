//! Still true, and at a time when it may be done: the second signal of the rule, and the windows of the calendar.
//!
//! Invariant: an act waits for a signal that confirms it; taking back waits for neither.

use crate::limits;
use crate::model::{GuardDecision, Reason, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    if !asked.acts() || asked.undoes() || asked.gives_back() {
        return None;
    }
    let facts = &asked.proposal.facts;
    if let Some(closed) = &facts.closed {
        let text = format!("{} until {}", closed.why, closed.until.strftime("%Y-%m-%d %H:%M UTC"));
        let recheck = asked.now.checked_add(limits::HOLD_RECHECK.0).unwrap_or(asked.now);
        let until = closed.until.max(recheck);
        return Some(GuardDecision::Hold { reason: Reason::new(ReasonCode::Window, text), until });
    }
    let why = facts.unconfirmed.as_ref()?;
    let text = format!("a second signal does not confirm the alert: {why}");
    asked.hold(ReasonCode::NotConfirmed, limits::HOLD_RECHECK, text)
}
