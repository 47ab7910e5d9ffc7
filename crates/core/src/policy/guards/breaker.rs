//! Tripped breakers: something went wrong so often, or in so many places, that a user must look before more is tried.
//!
//! Invariant: only a user resets one; undo, giving back, and a run that has acted already pass.

use crate::limits;
use crate::model::{Breaker, GuardDecision, ReasonCode};
use crate::planted::planted;
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    let passes = asked.undoes() || asked.gives_back() || asked.levels.acted;
    if !asked.acts() || (passes && !planted("undo-blocked-by-a-breaker")) {
        return None;
    }
    let Breaker { scope, why, since } = asked.levels.breakers.first()?;
    let text = format!(
        "breaker {scope} has tripped at {}: {why}. Reset it with `nightshift guards reset {scope} --why …`",
        since.strftime("%Y-%m-%d %H:%M UTC")
    );
    asked.hold(ReasonCode::BreakerTripped, limits::HOLD_RECHECK, text)
}
