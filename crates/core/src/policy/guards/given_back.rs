//! A person's uncordon in the middle: who gives back a node that this run took says "leave it".
//!
//! Invariant: a run does nothing more to a node that it cordoned and that no longer bears our cordon, but to take back
//! what it did.

use crate::model::{ReasonCode, Verdict};
use crate::policy::admit::Asked;

pub(super) fn check(asked: &Asked<'_>) -> Option<Verdict> {
    // What was not read is not known to have changed; a target that does not answer is another guard's to hold.
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
