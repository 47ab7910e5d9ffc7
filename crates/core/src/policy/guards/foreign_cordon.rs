//! A foreign cordon: another user or tool works on that node, so automation keeps away from it.
//!
//! Invariant: we never drain, disturb or give back a node that another owner took out of service.

use crate::model::{GuardDecision, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    let who = asked.proposal.facts.foreign_cordon.as_ref()?;
    if !asked.acts() || !(asked.proposal.disruptive || asked.schedules()) {
        return None;
    }
    let target = &asked.proposal.target;
    let text = format!(
        "{} was cordoned by {who}, not by this run: {} is left alone",
        target.words(),
        asked.proposal.call.action
    );
    asked.deny(ReasonCode::ForeignCordon, text)
}
