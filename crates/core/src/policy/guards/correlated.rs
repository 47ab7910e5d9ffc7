//! Many nodes with one symptom at once: then it is not the nodes, and treating them one by one makes it worse.
//!
//! Invariant: checked before a run acts for the first time; a refusal trips a breaker that only a user resets.

use crate::limits;
use crate::model::{GuardDecision, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    let levels = asked.levels;
    if !asked.acts() || asked.undoes() || levels.acted {
        return None;
    }
    let rule = levels.rule.as_deref()?;
    let total = asked.proposal.facts.nodes_total.filter(|total| *total > 0)?;
    let limit = asked.limits.correlated_limit(total)?;
    if levels.symptom_nodes < limit {
        return None;
    }
    let text = format!(
        "rule {rule} matched {} of {total} nodes within {}; from {limit} nodes on, a shared cause is likely: check the \
         network, power, the driver, or a recent release",
        levels.symptom_nodes,
        limits::SYMPTOM_WINDOW
    );
    asked.hold(ReasonCode::Correlated, limits::HOLD_RECHECK, text)
}
