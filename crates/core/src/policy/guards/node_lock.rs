//! One run at a time takes a node apart.
//!
//! Invariant: while a run holds a node, no other run disturbs it or changes whether it is scheduled.

use crate::limits;
use crate::model::{GuardDecision, ReasonCode};
use crate::planted::planted;
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    let holder = asked.levels.node_holder?;
    if planted("node-lock-not-asked") {
        return None;
    }
    if !asked.acts() || holder == asked.proposal.run || !(asked.proposal.disruptive || asked.schedules()) {
        return None;
    }
    let node = asked.proposal.target.node.as_deref().unwrap_or("the target's node");
    let text = format!("{holder} works on {node} already: one disruptive run per node at a time");
    asked.hold(ReasonCode::NodeBusy, limits::HOLD_RECHECK, text)
}
