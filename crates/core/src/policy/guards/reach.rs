//! Scope: a runbook does not exceed the scope in its header.
//!
//! Invariant: the header is the text that a reviewer read, so a call beyond it is denied, not held.

use crate::model::{GuardDecision, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    let (wants, declared) = (asked.proposal.reach, asked.levels.declared_reach);
    // Undo has at most the scope of the step that it undoes, and that one passed here.
    if !asked.acts() || asked.undoes() || wants <= declared {
        return None;
    }
    let text = format!(
        "{} affects {wants}, and the runbook's header declares `scope: {declared}`: change the header if that is intended",
        asked.proposal.call.action
    );
    asked.deny(ReasonCode::ReachExceeded, text)
}
