//! A user's uncordon in the middle of a run: releasing a node that the run took means "leave it alone".
//!
//! Invariant: once a node that the run cordoned no longer bears its cordon, the run does nothing more to it but undo
//! its own changes.

use crate::model::{GuardDecision, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    // A fact that was not read is not known to have changed; a target that does not answer is held by another guard.
    let taken_back = asked.levels.cordoned && asked.proposal.facts.our_cordon == Some(false);
    if !taken_back || asked.undoes() || !asked.acts() {
        return None;
    }
    let node = asked.proposal.target.node.as_deref().unwrap_or_default();
    let text = format!(
        "node {node} was cordoned by this run and has been uncordoned by another user since: {} is not done",
        asked.proposal.call.action
    );
    asked.deny(ReasonCode::GivenBack, text)
}
