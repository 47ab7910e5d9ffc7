//! Mode: a rule that only looks must not act.
//!
//! Invariant: in observe and suggest only reads begin, and steps that undo or release an earlier step's change: a rule
//! that was demoted in the middle must not leave things half done.

use crate::model::{GuardDecision, Mode, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    let passes = asked.undoes() || (asked.gives_back() && asked.levels.acted);
    if asked.reads() || asked.levels.mode >= Mode::Approve || passes {
        return None;
    }
    let why = match &asked.levels.rule {
        Some(rule) => format!("; `nightshift why rule:{rule}` shows since when"),
        None => String::new(),
    };
    let text = format!(
        "{} changes something, and the mode is {} now: only reads may start{why}",
        asked.proposal.call.action, asked.levels.mode
    );
    asked.deny(ReasonCode::Mode, text)
}
