//! Silences: an alert silenced at Alertmanager is being handled by a user, so automation is held meanwhile.
//!
//! Invariant: held, not denied, until the silence ends; whether there is one and could not be read is a hold too.

use crate::limits;
use crate::model::{GuardDecision, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    if !asked.acts() || asked.undoes() || asked.gives_back() {
        return None;
    }
    let why = asked.proposal.facts.silenced.as_ref()?;
    asked.hold(ReasonCode::Silenced, limits::HOLD_RECHECK, why.clone())
}
