//! The open step: performed the first time, again after waiting, or settled after a crash.
//!
//! Invariant: before each performance its record is committed and the kill switch was checked; a non-idempotent step is
//! performed once.

use super::{RunTurn, TurnFlow};
use crate::actions::{self, Action, PerformResult};
use crate::engine::propose;
use crate::limits;
use crate::model::{
    ApprovalNeed, EffectClass, FailureKind, ImpactScope, Outcome, ReasonCode, Run, RunState, Span, Step, StepFailure,
};
use crate::planted::planted;
use crate::policy::backoff;
use crate::script::Runbook;
use crate::store::{BeginOutcome, ClaimedRun, StoreError};
use crate::telemetry::{Ended, Phase, Settled};
use crate::world::World;
use std::sync::Arc;
use std::time::Duration;

impl RunTurn<'_> {
    /// A step that was begun and not ended: parked on purpose, or left open by a crash.
    pub(super) async fn settle(
        &self,
        claimed: &mut ClaimedRun,
        runbook: &Runbook,
        step: Step,
    ) -> Result<TurnFlow, StoreError> {
        let Some(action) = actions::find(&step.call.action) else {
            let text = format!("the open step `{}` names an action that this program does not have", step.call);
            self.stuck(&claimed.run, ReasonCode::InDoubt, text).await?;
            return Ok(TurnFlow::Rest);
        };
        if matches!(claimed.run.state, RunState::Waiting { .. } | RunState::Held { .. }) {
            // Parked on purpose: nothing was on its way, so nothing is in doubt and no attempt is counted.
            return self.again(claimed, runbook, action, step).await;
        }
        self.parts.metrics.ambiguous(step.effect, settled_by(step.effect));
        match step.effect {
            EffectClass::Blind => self.in_doubt(&claimed.run, &step, "its answer is unknown").await,
            // Only after its deadline is the old attempt surely over, so only then does asking tell the truth.
            EffectClass::Probed if self.now() < step.deadline => {
                let why = format!("waiting until the attempt that a crash cut off is surely over: {}", step.call);
                let state = RunState::Waiting { why };
                self.parts.store.park(self.id, claimed.run.epoch, None, state, step.deadline, self.now()).await?;
                Ok(TurnFlow::Rest)
            }
            _ => {
                let deadline = self.now() + action.spec().deadline.0;
                let step = self.parts.store.attempt(self.id, claimed.run.epoch, step.no, deadline).await?;
                self.again(claimed, runbook, action, step).await
            }
        }
    }

    /// The step stays open, and users decide: whether a blind one happened is not guessed.
    async fn in_doubt(&self, run: &Run, step: &Step, what: &str) -> Result<TurnFlow, StoreError> {
        let text = format!("`{}` was started and {what}; its effect can be neither read nor repeated", step.call);
        self.stuck(run, ReasonCode::InDoubt, text).await?;
        Ok(TurnFlow::Rest)
    }

    /// Once more, if users have not stopped everything since: a drain evicts at each of its passes.
    async fn again(
        &self,
        claimed: &mut ClaimedRun,
        runbook: &Runbook,
        action: &dyn Action,
        step: Step,
    ) -> Result<TurnFlow, StoreError> {
        let proposal = propose::proposal(self.parts, &claimed.run, action, step.call.clone(), step.undoes);
        let limits = Arc::new(self.parts.config.guards.clone());
        match self.parts.store.again(proposal, step.no, limits, self.now()).await? {
            BeginOutcome::Step(step) => self.perform(claimed, runbook, action, step, &self.parts.world).await,
            BeginOutcome::Held { reason, .. } => {
                self.parts.metrics.action_refused(reason.code);
                Ok(TurnFlow::Rest)
            }
            BeginOutcome::Denied { reason } => {
                self.parts.metrics.action_refused(reason.code);
                let outcome = Outcome::Failed(StepFailure::new(FailureKind::Refused, reason.to_string()));
                self.end(claimed, step, outcome, Vec::new()).await
            }
        }
    }

    pub(super) async fn perform(
        &self,
        claimed: &mut ClaimedRun,
        runbook: &Runbook,
        action: &dyn Action,
        step: Step,
        world: &World,
    ) -> Result<TurnFlow, StoreError> {
        if action.spec().approval == ApprovalNeed::Requests {
            return self.ask_for_step(&claimed.run, runbook, &step).await;
        }
        // The last question before the effect: the write of the record took its time, and a blind step has no second chance.
        let asked = step.effect != EffectClass::Read && !planted("kill-switch-not-asked-before-the-effect");
        if asked && self.parts.world.stopped().is_some() && self.is_held(&claimed.run, action, &step).await? {
            return Ok(TurnFlow::Rest);
        }
        let spec = action.spec();
        let began = std::time::Instant::now();
        // And once more before each request: what an action reads first takes its time as well.
        let (world, gate) = if asked && spec.reach > ImpactScope::None {
            let (world, gate) = world.gated();
            (world, Some(gate))
        } else {
            (world.clone(), None)
        };
        let performing = tokio::time::timeout(spec.deadline.0, action.perform(&world, &step));
        let answer = tokio::select! {
            answer = performing => answer,
            stopped = self.stopped(&claimed.run, action, &step) => return match stopped? {
                // Cut off by now, so a store that is slow to write the reason down lets nothing through.
                true if !self.is_held(&claimed.run, action, &step).await? => Ok(TurnFlow::Go),
                _ => Ok(TurnFlow::Rest),
            },
        };
        self.parts.metrics.step(Phase::Perform, began.elapsed());
        let performed = answer.unwrap_or_else(|_| {
            let why = format!("no answer within {}", spec.deadline);
            if step.effect == EffectClass::Blind {
                PerformResult::InDoubt { why }
            } else {
                PerformResult::Retry { why, after: None }
            }
        });
        match performed {
            // Nothing was sent, so also a blind step has its chance still.
            PerformResult::Retry { why, .. } if gate.is_some_and(|gate| gate.was_closed()) => {
                if !self.is_held(&claimed.run, action, &step).await? {
                    self.wait(claimed, None, why, limits::AGAIN_MIN).await?;
                }
                Ok(TurnFlow::Rest)
            }
            performed => self.conclude(claimed, step, spec.deadline, performed).await,
        }
    }

    /// What an attempt came to.
    async fn conclude(
        &self,
        claimed: &mut ClaimedRun,
        step: Step,
        deadline: Span,
        performed: PerformResult,
    ) -> Result<TurnFlow, StoreError> {
        match performed {
            PerformResult::Done(outcome) => self.end(claimed, step, outcome, Vec::new()).await,
            PerformResult::Tell(outcome, tell) => self.end(claimed, step, outcome, tell).await,
            PerformResult::Again { after, why, carry } => {
                self.wait(claimed, Some((step.no, carry)), why, after.max(limits::AGAIN_MIN)).await?;
                Ok(TurnFlow::Rest)
            }
            PerformResult::Retry { why, after } => self.retry(claimed, step, deadline, why, after).await,
            PerformResult::InDoubt { why } => {
                self.parts.metrics.ambiguous(step.effect, settled_by(step.effect));
                self.in_doubt(&claimed.run, &step, &format!("its answer is unknown ({why})")).await
            }
        }
    }

    /// Parks the run, its step open, for that time.
    async fn wait(
        &self,
        claimed: &ClaimedRun,
        carry: Option<(u32, serde_json::Value)>,
        why: String,
        after: Duration,
    ) -> Result<(), StoreError> {
        let state = RunState::Waiting { why };
        self.parts.store.park(self.id, claimed.run.epoch, carry, state, self.now() + after, self.now()).await
    }

    /// Returns once a user has stopped the step, and its call is to be cut off, which its effect allows. Never returns
    /// for a call that must not be cut off. `true`: the run is still to be held; `false`: it is, its step open.
    async fn stopped(&self, run: &Run, action: &dyn Action, step: &Step) -> Result<bool, StoreError> {
        let spec = action.spec();
        let may_be_cut = matches!(step.effect, EffectClass::Converge | EffectClass::Keyed | EffectClass::Witnessed);
        if !may_be_cut || spec.reach == ImpactScope::None {
            return std::future::pending().await;
        }
        loop {
            self.parts.clock.sleep_for(limits::FREEZE_LOOK_EVERY).await;
            if self.parts.world.stopped().is_some() {
                return Ok(true);
            }
            if !self.parts.store.freezes().await?.is_empty() && self.is_held(run, action, step).await? {
                return Ok(false);
            }
        }
    }

    /// Whether users have stopped this step: then the run is parked with its reason, and the step is open and not under way.
    async fn is_held(&self, run: &Run, action: &dyn Action, step: &Step) -> Result<bool, StoreError> {
        let proposal = propose::proposal(self.parts, run, action, step.call.clone(), step.undoes);
        let limits = Arc::new(self.parts.config.guards.clone());
        let BeginOutcome::Held { reason, .. } = self.parts.store.again(proposal, step.no, limits, self.now()).await?
        else {
            return Ok(false);
        };
        self.parts.metrics.action_refused(reason.code);
        Ok(true)
    }

    async fn retry(
        &self,
        claimed: &mut ClaimedRun,
        step: Step,
        deadline: Span,
        why: String,
        after: Option<Duration>,
    ) -> Result<TurnFlow, StoreError> {
        if step.effect == EffectClass::Blind || step.attempt >= limits::STEP_ATTEMPTS {
            let text = format!("{why} (after {} attempts)", step.attempt);
            let outcome = Outcome::Failed(StepFailure::new(FailureKind::Unavailable, text));
            return self.end(claimed, step, outcome, Vec::new()).await;
        }
        let seed = (self.id.0 as u64) << 16 | u64::from(step.no);
        let wait = backoff(step.attempt, limits::BACKOFF_FIRST, limits::BACKOFF_MAX, seed);
        let wait = wait.max(after.unwrap_or_default()).min(limits::BACKOFF_MAX);
        let wake = self.now() + wait;
        let text = format!("attempt {} of `{}`: {why}", step.attempt, step.call);
        self.parts.store.attempt(self.id, claimed.run.epoch, step.no, wake + deadline.0).await?;
        let state = RunState::Waiting { why: text };
        self.parts.store.park(self.id, claimed.run.epoch, None, state, wake, self.now()).await?;
        Ok(TurnFlow::Rest)
    }

    async fn end(
        &self,
        claimed: &mut ClaimedRun,
        mut step: Step,
        outcome: Outcome,
        tell: Vec<(String, String)>,
    ) -> Result<TurnFlow, StoreError> {
        let outcome = within_bounds(outcome);
        self.parts
            .metrics
            .effect(step.effect, if matches!(outcome, Outcome::Ok(_)) { Ended::Ok } else { Ended::Failed });
        if let Some(action) = actions::find(&step.call.action) {
            action.measure(&self.parts.metrics, &step, &outcome);
        }
        let told = !tell.is_empty();
        let began = std::time::Instant::now();
        self.parts.store.end(self.id, claimed.run.epoch, step.no, outcome.clone(), tell, self.now()).await?;
        self.parts.metrics.step(Phase::End, began.elapsed());
        if told {
            self.parts.nudge.nudge();
        }
        step.outcome = Some(outcome);
        if let Some(last) = claimed.journal.last_mut() {
            *last = step;
        }
        Ok(TurnFlow::Go)
    }
}

fn settled_by(effect: EffectClass) -> Settled {
    match effect {
        EffectClass::Blind => Settled::Asked,
        EffectClass::Witnessed | EffectClass::Probed => Settled::Witness,
        EffectClass::Read | EffectClass::Converge | EffectClass::Keyed => Settled::Again,
    }
}

/// An answer that is too large to keep is a failure with that reason; a cut one would falsify the replay.
fn within_bounds(outcome: Outcome) -> Outcome {
    let size = serde_json::to_vec(&outcome).map_or(0, |bytes| bytes.len());
    if size <= limits::OUTCOME_BYTES {
        return outcome;
    }
    let text =
        format!("the answer has {size} bytes, more than the {} that are stored; request less", limits::OUTCOME_BYTES);
    Outcome::Failed(StepFailure::new(FailureKind::Invalid, text))
}
