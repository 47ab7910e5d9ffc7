//! The guards' predicted decisions on each step of a plan: nothing is reserved, nothing begins.
//!
//! Invariant: the guards themselves decide, over the same facts and levels as for a step.

use super::{EngineParts, propose};
use crate::actions;
use crate::limits;
use crate::model::{
    EffectClass, ImpactScope, Mode, Plan, PlannedCall, PreflightDecision, Run, RunId, RunInput, RunState, Subject,
};
use crate::script::Runbook;
use crate::store::{PreflightRun, StoreError};
use std::sync::Arc;

/// The decisions on each call that acts, as long as there are not too many; actions that are off are marked in the
/// plan.
///
/// # Errors
///
/// Fails when the store cannot be read.
pub async fn foretell(
    parts: &EngineParts,
    runbook: &Runbook,
    input: &RunInput,
    subject: &Subject,
    plan: &Plan,
) -> Result<Vec<PreflightDecision>, StoreError> {
    foretell_run(parts, runbook, prospect(parts, runbook, input, subject, plan), plan).await
}

/// The same for a run that requests approval of this plan: the decisions if it were approved now.
pub(super) async fn foretell_run(
    parts: &EngineParts,
    runbook: &Runbook,
    run: Run,
    plan: &Plan,
) -> Result<Vec<PreflightDecision>, StoreError> {
    let run = Run { state: RunState::Ready, approved: Some(plan.clone()), ..run };
    let acts = |planned: &PlannedCall| planned.effect != EffectClass::Read && planned.reach > ImpactScope::None;
    let (mut calls, mut proposals) = (Vec::new(), Vec::new());
    for (at, planned) in plan.calls.iter().enumerate().filter(|(_, planned)| acts(planned)).take(limits::FORETOLD_CALLS)
    {
        let Some(action) = actions::find(&planned.call.action) else { continue };
        if !parts.config.actions.lets(&planned.call.action) {
            continue;
        }
        let mut proposal = propose::proposal(parts, &run, action, planned.call.clone(), None);
        // No alert is behind it, so none is silenced.
        proposal.facts = propose::facts(parts, &parts.world, &run, action, &proposal, std::future::ready(None)).await;
        calls.push(at);
        proposals.push(proposal);
    }
    let prospect = PreflightRun { run, reach: runbook.header.reach, proposals };
    let limits = Arc::new(parts.config.guards.clone());
    let verdicts = parts.store.foretell(prospect, limits, parts.clock.now()).await?;
    Ok(calls.into_iter().zip(verdicts).map(|(call, verdict)| PreflightDecision { call, verdict }).collect())
}

/// A run as a user would start it now, with a yes to its plan. The store gives it the number that comes next.
fn prospect(parts: &EngineParts, runbook: &Runbook, input: &RunInput, subject: &Subject, plan: &Plan) -> Run {
    Run {
        id: RunId(0),
        rule: None,
        incident: None,
        episode: None,
        runbook: runbook.pin.clone(),
        input: input.clone(),
        subject: subject.clone(),
        mode: Mode::Auto.min(parts.config.mode_ceiling),
        state: RunState::Ready,
        wake_at: None,
        epoch: 0,
        approved: Some(plan.clone()),
        unwinding: None,
        created_at: parts.clock.now(),
        ended_at: None,
        requested_by: String::new(),
        posted_by: None,
    }
}
