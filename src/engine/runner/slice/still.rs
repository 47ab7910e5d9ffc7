//! After a hold: does the runbook, with fresh reads, still come to the step that was held?
//!
//! Invariant: nothing is recorded of these reads; a run that has changed something is not checked.

use super::{RunTurn, TurnFlow};
use crate::actions::{self, Action};
use crate::engine::plan;
use crate::model::{
    ActionCall, ApprovalNeed, EffectClass, GuardDecision, ImpactScope, PlanEnd, PlannedCall, Reason, ReasonCode, Run,
    RunState, Step,
};
use crate::policy::{GuardLimits, StepProposal};
use crate::script::Runbook;
use crate::store::{ClaimedRun, PreflightRun, StoreError};
use std::sync::Arc;

/// A guard held the run, or it waited for the answer to a question of its own, and it has changed nothing yet: its reads
/// are as old as that.
pub(super) fn may_be_out_of_date(claimed: &ClaimedRun) -> bool {
    let changes = |step: &Step| {
        step.effect != EffectClass::Read
            && actions::find(&step.call.action).is_none_or(|action| action.spec().reach > ImpactScope::None)
    };
    let asks = |step: &Step| {
        actions::find(&step.call.action).is_some_and(|action| action.spec().approval == ApprovalNeed::Requests)
    };
    let asked = || claimed.journal.iter().any(asks);
    (claimed.held || asked()) && !claimed.journal.iter().any(changes)
}

impl RunTurn<'_> {
    /// Whether the guards would let the step begin now: a run that stays on hold needs no fresh reads, and a thousand of them
    /// would read the cluster at each recheck.
    pub(super) async fn would_begin(
        &self,
        claimed: &ClaimedRun,
        runbook: &Runbook,
        proposal: &StepProposal,
        limits: &Arc<GuardLimits>,
    ) -> Result<bool, StoreError> {
        let run = Run { state: RunState::Ready, ..claimed.run.clone() };
        let prospect = PreflightRun { run, reach: runbook.header.reach, proposals: vec![proposal.clone()] };
        let verdicts = self.parts.store.foretell(prospect, Arc::clone(limits), self.now()).await?;
        Ok(verdicts.iter().all(|verdict| matches!(verdict, GuardDecision::Allow)))
    }

    /// None: the step may be proposed. Else the run has ended as withdrawn, or waits because that could not be read.
    pub(super) async fn still_needed(
        &self,
        run: &Run,
        runbook: &Arc<Runbook>,
        action: &dyn Action,
        call: &ActionCall,
    ) -> Result<Option<TurnFlow>, StoreError> {
        let fresh = plan::plan(self.parts, runbook, &run.input, &[]).await;
        let target = action.target(call);
        let same = |planned: &PlannedCall| planned.call.action == call.action && planned.target == target;
        if fresh.calls.iter().any(same) {
            return Ok(None);
        }
        let other =
            fresh.calls.iter().find(|planned| planned.reach > ImpactScope::None && planned.effect != EffectClass::Read);
        let now = match (&fresh.end, other) {
            // Only its beginning is planned, so nothing stands against the step.
            (PlanEnd::Cut(_), _) => return Ok(None),
            (_, Some(other)) => format!("it would now call {}", other.call),
            (PlanEnd::Stopped(why), None) => format!("it stops itself: {why}"),
            (PlanEnd::Done, None) => "it has nothing to do".to_owned(),
            // An object that cannot be read now may be there again in a moment.
            (PlanEnd::Failed(why), None) => {
                let why = format!("whether {call} is still needed could not be read after the hold: {why}");
                return self.wait_for_target(run, why).await.map(Some);
            }
        };
        let text = format!("evaluated again after the hold, the runbook no longer calls {call}: {now}");
        let reason = Reason::new(ReasonCode::NoLongerNeeded, text);
        self.parts.metrics.action_refused(reason.code);
        self.parts.store.finish(self.id, run.epoch, RunState::Denied { reason }, self.now()).await?;
        self.parts.nudge.nudge();
        Ok(Some(TurnFlow::Rest))
    }
}
