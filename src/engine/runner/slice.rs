//! One turn of one run: from its present state until it waits, requests approval, is held, or ends.
//!
//! The heart: *open step? perform it; else advance; Call → begin, perform, end; Done → finish; Broken → stuck.*
//! Invariant: every path out of a slice has left the run parked, asking, held or final in the store.

use super::RunbookCache;
use crate::actions::{self, Action};
use crate::engine::evaluate::{self, EvaluationPurpose};
use crate::engine::silences::SilenceCache;
use crate::engine::{EngineParts, plan, propose};
use crate::limits;
use crate::model::{
    ActionCall, EffectClass, ImpactScope, Mode, Outcome, Reason, ReasonCode, Run, RunId, RunState, Step, Time,
    UndoPolicy,
};
use crate::planted::planted;
use crate::policy::StepProposal;
use crate::script::{Runbook, ScriptTurn};
use crate::store::{BeginOutcome, ClaimedRun, StoreError};
use crate::telemetry::Phase;
use crate::world::World;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod ask;
mod braked;
mod open;
mod still;
mod stop;

pub(super) use braked::BrakedRuns;

pub(super) struct RunTurn<'a> {
    parts: &'a EngineParts,
    texts: &'a RunbookCache,
    silences: &'a SilenceCache,
    braked: &'a BrakedRuns,
    id: RunId,
}

/// Whether the slice goes on.
enum TurnFlow {
    Go,
    Rest,
}

/// The run's next act.
enum RunIntent {
    Begin {
        call: ActionCall,
        undoes: Option<u32>,
    },
    End(RunState),
    Unwind(String),
    /// The turn was braked: once more, later.
    TurnAgain(Reason),
}

impl<'a> RunTurn<'a> {
    pub(super) fn new(
        parts: &'a EngineParts,
        texts: &'a RunbookCache,
        silences: &'a SilenceCache,
        braked: &'a BrakedRuns,
        id: RunId,
    ) -> RunTurn<'a> {
        RunTurn { parts, texts, silences, braked, id }
    }

    pub(super) async fn go(&self) -> Result<(), StoreError> {
        let Some(claimed) = self.parts.store.claim(self.id, self.now()).await? else { return self.stop().await };
        // Calls name no cluster: they mean the run's own, whatever the default one is.
        let world = self.parts.world.within(claimed.run.subject.cluster.as_deref());
        let parts = EngineParts { world, ..self.parts.clone() };
        RunTurn { parts: &parts, ..*self }.advance(claimed).await
    }

    async fn advance(&self, mut claimed: ClaimedRun) -> Result<(), StoreError> {
        let Some(runbook) = self.texts.find(&claimed.run.runbook).await? else {
            let text = format!("the text of runbook {} is not kept", claimed.run.runbook.name);
            return self.stuck(&claimed.run, ReasonCode::RunbookMissing, text).await;
        };
        self.measure(&claimed.run, claimed.journal.is_empty());
        if self.before_acting(&claimed, &runbook).await? {
            return Ok(());
        }
        loop {
            let open = claimed.journal.last().filter(|step| step.outcome.is_none()).cloned();
            let next = match open {
                Some(step) => self.settle(&mut claimed, &runbook, step).await?,
                None => match self.want(&claimed, &runbook).await {
                    RunIntent::Begin { call, undoes } => self.begin(&mut claimed, &runbook, call, undoes).await?,
                    RunIntent::Unwind(why) => {
                        self.parts.store.unwind(self.id, claimed.run.epoch, why.clone()).await?;
                        claimed.run.unwinding = Some(why);
                        TurnFlow::Go
                    }
                    RunIntent::End(state) => {
                        self.parts.store.finish(self.id, claimed.run.epoch, state, self.now()).await?;
                        self.parts.nudge.nudge();
                        TurnFlow::Rest
                    }
                    RunIntent::TurnAgain(reason) => self.turn_again(&claimed.run, reason).await?,
                },
            };
            if matches!(next, TurnFlow::Rest) {
                return Ok(());
            }
        }
    }

    /// How long the run waited for its first turn, or for this one beyond its time.
    fn measure(&self, run: &Run, fresh: bool) {
        let since =
            |time: Time| Duration::from_micros((self.now().as_microsecond() - time.as_microsecond()).max(0) as u64);
        match run.state {
            RunState::Ready if fresh && run.approved.is_none() && run.unwinding.is_none() => {
                self.parts.metrics.run_started(since(run.created_at));
            }
            RunState::Waiting { .. } | RunState::Held { .. } => {
                if let Some(wake) = run.wake_at {
                    self.parts.metrics.timer(since(wake));
                }
            }
            _ => {}
        }
    }

    /// Questions that wait, alerts that ended meanwhile, modes that plan. True: rest.
    async fn before_acting(&self, claimed: &ClaimedRun, runbook: &Arc<Runbook>) -> Result<bool, StoreError> {
        let run = &claimed.run;
        let asking = matches!(run.state, RunState::Asking { .. });
        let open = claimed.journal.last().is_some_and(|step| step.outcome.is_none());
        let only_read = claimed.journal.iter().all(|step| step.effect == EffectClass::Read);
        let idle = run.unwinding.is_none() && only_read && (asking || !open);
        if let Some(until) = claimed.kept.filter(|_| idle) {
            // It may be a flap: the question stays open, and planned or approved calls stand.
            if !asking {
                let text = format!(
                    "its alert has ended; the run continues if it fires again before {}",
                    until.strftime("%H:%M UTC")
                );
                let held = RunState::Held { reason: Reason::new(ReasonCode::EpisodeOver, text) };
                self.parts.store.park(self.id, run.epoch, None, held, until, self.now()).await?;
            }
            return Ok(true);
        }
        if claimed.moot && idle {
            let text = "the alert ended before anything was done";
            let reason = Reason::new(ReasonCode::EpisodeOver, text);
            self.parts.store.finish(self.id, run.epoch, RunState::Denied { reason }, self.now()).await?;
            self.parts.nudge.nudge();
            return Ok(true);
        }
        if asking {
            return Ok(true);
        }
        if !claimed.journal.is_empty() || run.unwinding.is_some() {
            return Ok(false);
        }
        if run.mode == Mode::Approve && run.approved.is_none() && self.rule_is_gone(run) {
            let text = format!(
                "rule {} was removed before an approval was requested",
                run.rule.as_deref().unwrap_or_default()
            );
            let reason = Reason::new(ReasonCode::NoRuleMatched, text);
            self.parts.store.finish(self.id, run.epoch, RunState::Denied { reason }, self.now()).await?;
            self.parts.nudge.nudge();
            return Ok(true);
        }
        match run.mode {
            Mode::Auto => Ok(false),
            Mode::Approve if run.approved.is_some() => Ok(false),
            Mode::Approve => {
                let planned = plan::plan(self.parts, runbook, &run.input, &[]).await;
                let changes = !plan::lines(&planned).is_empty();
                self.parts.store.planned(self.id, run.epoch, planned.clone(), self.now()).await?;
                if changes {
                    self.ask_for_plan(run, runbook, planned).await?;
                }
                // A plan that changes nothing needs no approval: it only reads and notifies.
                Ok(changes)
            }
            Mode::Observe | Mode::Suggest => {
                let planned = plan::plan(self.parts, runbook, &run.input, &[]).await;
                self.parts.store.planned(self.id, run.epoch, planned, self.now()).await?;
                self.parts.store.finish(self.id, run.epoch, RunState::Planned, self.now()).await?;
                self.parts.nudge.nudge();
                Ok(true)
            }
        }
    }

    /// Without its rule the approvers are unknown.
    fn rule_is_gone(&self, run: &Run) -> bool {
        let loaded = self.parts.catalog.current();
        run.rule.as_deref().is_some_and(|name| loaded.rules.rule(name).is_none())
    }

    async fn want(&self, claimed: &ClaimedRun, runbook: &Arc<Runbook>) -> RunIntent {
        if let Some(why) = &claimed.run.unwinding {
            return self.want_undo(claimed, runbook, why);
        }
        let journal: Vec<Step> = claimed.journal.iter().filter(|step| step.undoes.is_none()).cloned().collect();
        let began = Instant::now();
        let turn = evaluate::advance(runbook, &claimed.run.input, journal, EvaluationPurpose::Real).await;
        self.parts.metrics.step(Phase::Advance, began.elapsed());
        if !matches!(turn, ScriptTurn::Braked(_)) {
            self.braked.forget(self.id);
        }
        match turn {
            ScriptTurn::Braked(reason) => RunIntent::TurnAgain(reason),
            ScriptTurn::Call(call) => RunIntent::Begin { call, undoes: None },
            ScriptTurn::Done(_) => RunIntent::End(RunState::Done),
            ScriptTurn::Stopped(why) => RunIntent::End(RunState::Stopped { why }),
            ScriptTurn::Failed(why) => after_failure(claimed, runbook, why),
            ScriptTurn::Broken(reason) => {
                if reason.code == ReasonCode::Diverged {
                    self.parts.metrics.replay_mismatch();
                }
                RunIntent::End(RunState::Stuck { reason })
            }
        }
    }

    /// The newest successful step that is not undone yet, whose action has an undo.
    fn want_undo(&self, claimed: &ClaimedRun, runbook: &Runbook, why: &str) -> RunIntent {
        if runbook.header.undo == UndoPolicy::Never {
            return RunIntent::End(RunState::Failed { why: why.to_owned(), undone: false });
        }
        let undone = |no: u32| claimed.journal.iter().any(|step| step.undoes == Some(no));
        if let Some(failed) = claimed.journal.iter().find(|step| step.undoes.is_some() && !succeeded(step)) {
            let text = format!("taking back failed at `{}`, after: {why}", failed.call);
            return RunIntent::End(RunState::Stuck { reason: Reason::new(ReasonCode::UndoFailed, text) });
        }
        for step in claimed.journal.iter().rev().filter(|step| step.undoes.is_none()) {
            let call = actions::find(&step.call.action).and_then(|action| action.undo(step));
            if let Some(call) = call
                && !undone(step.no)
            {
                return RunIntent::Begin { call, undoes: Some(step.no) };
            }
        }
        let undone = claimed.journal.iter().any(|step| step.undoes.is_some());
        RunIntent::End(RunState::Failed { why: why.to_owned(), undone })
    }

    async fn begin(
        &self,
        claimed: &mut ClaimedRun,
        runbook: &Arc<Runbook>,
        call: ActionCall,
        undoes: Option<u32>,
    ) -> Result<TurnFlow, StoreError> {
        let Some(action) = actions::find(&call.action) else {
            let text = format!("there is no action `{}` in this program", call.action);
            self.stuck(&claimed.run, ReasonCode::ScriptBroken, text).await?;
            return Ok(TurnFlow::Rest);
        };
        if !self.parts.config.actions.lets(&call.action) {
            let text = format!("`{}` is off in this installation (`actions` in the configuration)", call.action);
            let reason = Reason::new(ReasonCode::ActionOff, text);
            self.parts.metrics.action_refused(reason.code);
            return self.denied(claimed, runbook, &call, reason).await;
        }
        if action.spec().reach > ImpactScope::None
            && action.needs_cluster()
            && let Err(error) = self.parts.world.kube(None)
        {
            // A node of that name may well exist in the default cluster, and is another node.
            let reason = Reason::new(ReasonCode::TargetUnavailable, error.to_string());
            return self.denied(claimed, runbook, &call, reason).await;
        }
        let acts =
            undoes.is_none() && action.spec().reach > ImpactScope::None && action.spec().effect != EffectClass::Read;
        let (proposal, world) = match self.propose(&claimed.run, action, call, undoes).await {
            Ok(read) => read,
            Err(why) => return self.wait_for_target(&claimed.run, why).await,
        };
        let limits = Arc::new(self.parts.config.guards.clone());
        let call = proposal.call.clone();
        if acts
            && still::may_be_out_of_date(claimed)
            && self.would_begin(claimed, runbook, &proposal, &limits).await?
            && let Some(next) = self.still_needed(&claimed.run, runbook, action, &call).await?
        {
            return Ok(next);
        }
        let mut proposal = proposal;
        if !planted("kill-switch-asked-first") {
            // All that was read above took its time: whether everything is stopped is read last.
            proposal.facts.stopped = self.parts.world.stopped();
        }
        let began = Instant::now();
        let begun = self.parts.store.begin(proposal, limits, self.now()).await?;
        self.parts.metrics.step(Phase::Begin, began.elapsed());
        match begun {
            BeginOutcome::Step(step) => {
                claimed.journal.push(step.clone());
                self.perform(claimed, runbook, action, step, &world.handing_on()).await
            }
            BeginOutcome::Held { reason, .. } => {
                self.parts.metrics.action_refused(reason.code);
                Ok(TurnFlow::Rest)
            }
            BeginOutcome::Denied { reason } => {
                self.parts.metrics.action_refused(reason.code);
                self.denied(claimed, runbook, &call, reason).await
            }
        }
    }

    /// Reads the facts for the guards and the precondition; with it the world in which they were read, for the first
    /// performance. An error is a target that does not answer.
    async fn propose(
        &self,
        run: &Run,
        action: &dyn Action,
        call: ActionCall,
        undoes: Option<u32>,
    ) -> Result<(StepProposal, World), String> {
        let mut proposal = propose::proposal(self.parts, run, action, call, undoes);
        let world = self.parts.world.noting();
        if proposal.reach > ImpactScope::None {
            let silenced = self.silences.about(self.parts, run);
            proposal.facts = propose::facts(self.parts, &world, run, action, &proposal, silenced).await;
            proposal.carry = match action.witness(&world, &proposal.call).await {
                Ok(witness) => witness,
                Err(error) if error.is_transient() => return Err(error.to_string()),
                // An object that does not exist has no precondition; `perform` will report it as an outcome.
                Err(_) => Value::Null,
            };
        }
        Ok((proposal, world))
    }

    async fn wait_for_target(&self, run: &Run, why: String) -> Result<TurnFlow, StoreError> {
        let reason = Reason::new(ReasonCode::TargetUnavailable, why);
        let wake = self.now() + limits::HOLD_RECHECK.0;
        self.parts.metrics.action_refused(reason.code);
        self.parts.store.park(self.id, run.epoch, None, RunState::Held { reason }, wake, self.now()).await?;
        Ok(TurnFlow::Rest)
    }

    async fn denied(
        &self,
        claimed: &mut ClaimedRun,
        runbook: &Arc<Runbook>,
        call: &ActionCall,
        reason: Reason,
    ) -> Result<TurnFlow, StoreError> {
        let run = &claimed.run;
        if run.unwinding.is_some() {
            let text = format!("taking back `{call}` was denied: {reason}");
            self.stuck(run, ReasonCode::UndoFailed, text).await?;
            return Ok(TurnFlow::Rest);
        }
        // In mode auto only a last resort is refused so.
        if matches!(reason.code, ReasonCode::NotInPlan | ReasonCode::NotApproved) && run.mode >= Mode::Approve {
            let journal: Vec<Step> = claimed.journal.iter().filter(|step| step.undoes.is_none()).cloned().collect();
            let planned = plan::plan(self.parts, runbook, &run.input, &journal).await;
            self.parts.store.planned(self.id, run.epoch, planned.clone(), self.now()).await?;
            self.ask_for_plan(run, runbook, planned).await?;
            return Ok(TurnFlow::Rest);
        }
        if acted(claimed)
            && let RunIntent::Unwind(why) = after_failure(claimed, runbook, format!("`{call}` was denied: {reason}"))
        {
            self.parts.store.unwind(self.id, run.epoch, why.clone()).await?;
            claimed.run.unwinding = Some(why);
            return Ok(TurnFlow::Go);
        }
        self.parts.store.finish(self.id, run.epoch, RunState::Denied { reason }, self.now()).await?;
        self.parts.nudge.nudge();
        Ok(TurnFlow::Rest)
    }

    async fn stuck(&self, run: &Run, code: ReasonCode, text: String) -> Result<(), StoreError> {
        let reason = Reason::new(code, text);
        self.parts.store.finish(self.id, run.epoch, RunState::Stuck { reason }, self.now()).await?;
        self.parts.nudge.nudge();
        Ok(())
    }

    fn now(&self) -> Time {
        self.parts.clock.now()
    }
}

fn succeeded(step: &Step) -> bool {
    matches!(step.outcome, Some(Outcome::Ok(_)))
}

fn acted(claimed: &ClaimedRun) -> bool {
    claimed.journal.iter().any(|step| step.effect != EffectClass::Read && succeeded(step))
}

fn after_failure(claimed: &ClaimedRun, runbook: &Runbook, why: String) -> RunIntent {
    let undoable = |step: &Step| actions::find(&step.call.action).is_some_and(|action| action.undo(step).is_some());
    let has_something = claimed.journal.iter().any(undoable);
    if runbook.header.undo == UndoPolicy::OnFailure && has_something {
        RunIntent::Unwind(why)
    } else {
        RunIntent::End(RunState::Failed { why, undone: false })
    }
}
