//! Tripped breakers: something went wrong so often, or in so many places, that a person must look before more is tried.
//!
//! Invariant: only a person resets one; undo, giving back, and a run that has acted already pass.

use crate::limits;
use crate::model::{Breaker, ReasonCode, Verdict};
use crate::policy::admit::Asked;

pub(super) fn check(asked: &Asked<'_>) -> Option<Verdict> {
    if !asked.acts() || asked.undoes() || asked.gives_back() || asked.levels.acted {
        return None;
    }
    let Breaker { scope, why, since } = asked.levels.breakers.first()?;
    let text = format!(
        "breaker {scope} has tripped at {}: {why}. A person resets it: `nightshift guards reset {scope} --why …`",
        since.strftime("%Y-%m-%d %H:%M UTC")
    );
    asked.hold(ReasonCode::BreakerTripped, limits::HOLD_RECHECK, text)
}
