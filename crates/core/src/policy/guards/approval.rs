//! Approval: only acts that an approver has approved.
//!
//! Invariant: in mode approve an act is in the approved plan with the same arguments, or it takes back one that was; a last
//! resort is so in every mode.

use super::some_of;
use crate::model::{ApprovalNeed, EffectClass, GuardDecision, Mode, ReasonCode};
use crate::planted::planted;
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    let call = &asked.proposal.call;
    let asks = asked.levels.mode == Mode::Approve || asked.proposal.approval == ApprovalNeed::LastResort;
    if !asks || !asked.acts() || asked.undoes() {
        return None;
    }
    let Some(plan) = &asked.levels.approved else {
        return asked.deny(ReasonCode::NotApproved, format!("{call} requires an approved plan, and there is none"));
    };
    if plan.names(call) || planted("approval-not-bound-to-the-plan") {
        return None;
    }
    let planned: Vec<String> = plan
        .calls
        .iter()
        .filter(|planned| planned.effect != EffectClass::Read)
        .map(|planned| planned.call.to_string())
        .collect();
    let names = match planned.len() {
        0 => "no changes".to_owned(),
        _ => some_of(planned.iter().map(String::as_str)),
    };
    asked.deny(ReasonCode::NotInPlan, format!("{call} is not in the approved plan, which names {names}"))
}
