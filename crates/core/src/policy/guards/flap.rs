//! Flap hold: an alert that comes and goes is no ground to act on.
//!
//! Invariant: checked before a run acts for the first time; held until the alert was steady for the whole window.

use crate::limits;
use crate::model::{GuardDecision, Reason, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    let levels = asked.levels;
    if !asked.acts() || asked.undoes() || levels.acted || levels.came_back < limits::FLAPS {
        return None;
    }
    let window = limits::FLAP_WINDOW;
    let last = levels.came_back_at?.min(asked.now);
    let until = last.checked_add(window.0).unwrap_or(asked.now);
    let text = format!(
        "this alert flapped {} times within {window}; it must be steady for {window} first (until {})",
        levels.came_back,
        until.strftime("%H:%M UTC")
    );
    Some(GuardDecision::Hold { reason: Reason::new(ReasonCode::Flapping, text), until })
}
