//! One slice of one run: from where it stands until it waits, asks, is held, or ends.
//!
//! The heart: *open step? perform it; else advance; Call → begin, perform, end; Done → finish; Broken → stuck.*
//! Invariant: every path out of a slice has left the run parked, asking, held or final in the store.

use super::Texts;
use crate::actions::{self, Action, Performed};
use crate::engine::evaluate::{self, For};
use crate::engine::{Parts, plan};
use crate::limits;
use crate::model::{
    Call, Effect, EpisodeState, Failure, FailureKind, Mode, Outcome, Plan, PlanEnd, Reach, Reason, ReasonCode, Run,
    RunId, RunState, Span, Step, UndoPolicy,
};
use crate::policy::{Facts, Proposal, backoff};
use crate::script::{Runbook, Turn};
use crate::store::{Begun, Claimed, Filter, NewApproval, StoreError};
use crate::telemetry::{Ended, Phase, Settled};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Slice<'a> {
    parts: &'a Parts,
    texts: &'a Texts,
    id: RunId,
}

/// Whether the slice goes on.
enum Next {
    Go,
    Rest,
}

/// What the run wants to do next.
enum Want {
    Begin { call: Call, undoes: Option<u32> },
    End(RunState),
    Unwind(String),
}

impl<'a> Slice<'a> {
    pub(super) fn new(parts: &'a Parts, texts: &'a Texts, id: RunId) -> Slice<'a> {
        Slice { parts, texts, id }
    }

    pub(super) async fn go(&self) -> Result<(), StoreError> {
        let Some(mut claimed) = self.parts.store.claim(self.id, self.now()).await? else { return Ok(()) };
        let Some(runbook) = self.texts.find(&claimed.run.runbook).await? else {
            let text = format!("the text of runbook {} is not kept", claimed.run.runbook.name);
            return self.stuck(&claimed.run, ReasonCode::RunbookMissing, text).await;
        };
        if self.before_acting(&claimed, &runbook).await? {
            return Ok(());
        }
        loop {
            let open = claimed.journal.last().filter(|step| step.outcome.is_none()).cloned();
            let next = match open {
                Some(step) => self.settle(&mut claimed, step).await?,
                None => match self.want(&claimed, &runbook).await {
                    Want::Begin { call, undoes } => self.begin(&mut claimed, &runbook, call, undoes).await?,
                    Want::Unwind(why) => {
                        self.parts.store.unwind(self.id, claimed.run.epoch, why.clone(), self.now()).await?;
                        claimed.run.unwinding = Some(why);
                        Next::Go
                    }
                    Want::End(state) => {
                        self.parts.metrics.run_ended(state.name());
                        self.parts.store.finish(self.id, claimed.run.epoch, state, self.now()).await?;
                        self.parts.nudge.nudge();
                        Next::Rest
                    }
                },
            };
            if matches!(next, Next::Rest) {
                return Ok(());
            }
        }
    }

    /// Modes that plan, the question of a run in mode approve, and an episode that ended meanwhile. True: rest.
    async fn before_acting(&self, claimed: &Claimed, runbook: &Arc<Runbook>) -> Result<bool, StoreError> {
        let run = &claimed.run;
        if !claimed.journal.is_empty() || run.unwinding.is_some() {
            return Ok(false);
        }
        if self.episode_is_over(run).await? {
            let text = "the complaint ended before anything was done";
            let reason = Reason::new(ReasonCode::EpisodeOver, text);
            self.parts.store.finish(self.id, run.epoch, RunState::Denied { reason }, self.now()).await?;
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
                // A plan that changes nothing needs no leave: it only reads and tells.
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

    async fn episode_is_over(&self, run: &Run) -> Result<bool, StoreError> {
        let Some(episode) = run.episode else { return Ok(false) };
        let filter = Filter { run: Some(run.id), limit: 1, ..Filter::default() };
        let episodes = self.parts.store.episodes(filter).await?;
        Ok(episodes.iter().any(|own| own.id == episode && own.state != EpisodeState::Open))
    }

    async fn want(&self, claimed: &Claimed, runbook: &Arc<Runbook>) -> Want {
        if let Some(why) = &claimed.run.unwinding {
            return self.want_undo(claimed, why);
        }
        let journal: Vec<Step> = claimed.journal.iter().filter(|step| step.undoes.is_none()).cloned().collect();
        match evaluate::advance(runbook, &claimed.run.input, journal, For::Real).await {
            Turn::Call(call) => Want::Begin { call, undoes: None },
            Turn::Done(_) => Want::End(RunState::Done),
            Turn::Stopped(why) => Want::End(RunState::Stopped { why }),
            Turn::Failed(why) => after_failure(claimed, runbook, why),
            Turn::Broken(reason) => Want::End(RunState::Stuck { reason }),
        }
    }

    /// The newest successful step that is not taken back yet, whose action knows how.
    fn want_undo(&self, claimed: &Claimed, why: &str) -> Want {
        let undone = |no: u32| claimed.journal.iter().any(|step| step.undoes == Some(no));
        if let Some(failed) = claimed.journal.iter().find(|step| step.undoes.is_some() && !succeeded(step)) {
            let text = format!("taking back failed at `{}`, after: {why}", failed.call);
            return Want::End(RunState::Stuck { reason: Reason::new(ReasonCode::UndoFailed, text) });
        }
        for step in claimed.journal.iter().rev().filter(|step| step.undoes.is_none() && succeeded(step)) {
            let call = actions::find(&step.call.action).and_then(|action| action.undo(step));
            if let Some(call) = call
                && !undone(step.no)
            {
                return Want::Begin { call, undoes: Some(step.no) };
            }
        }
        let undone = claimed.journal.iter().any(|step| step.undoes.is_some());
        Want::End(RunState::Failed { why: why.to_owned(), undone })
    }

    async fn begin(
        &self,
        claimed: &mut Claimed,
        runbook: &Arc<Runbook>,
        call: Call,
        undoes: Option<u32>,
    ) -> Result<Next, StoreError> {
        let Some(action) = actions::find(&call.action) else {
            let text = format!("there is no action `{}` in this program", call.action);
            self.stuck(&claimed.run, ReasonCode::ScriptBroken, text).await?;
            return Ok(Next::Rest);
        };
        let proposal = match self.propose(&claimed.run, action, call, undoes).await {
            Ok(proposal) => proposal,
            Err(why) => return self.wait_for_target(&claimed.run, why).await,
        };
        let limits = Arc::new(self.parts.config.guards.clone());
        let call = proposal.call.clone();
        match self.parts.store.begin(proposal, limits, self.now()).await? {
            Begun::Step(step) => {
                claimed.journal.push(step.clone());
                self.perform(claimed, action, step).await
            }
            Begun::Held { reason, .. } => {
                self.parts.metrics.action_refused(reason.code);
                Ok(Next::Rest)
            }
            Begun::Denied { reason } => {
                self.parts.metrics.action_refused(reason.code);
                self.denied(claimed, runbook, &call, reason).await
            }
        }
    }

    /// Reads what the guards and the witness need. An error is a target that does not answer.
    async fn propose(
        &self,
        run: &Run,
        action: &dyn Action,
        call: Call,
        undoes: Option<u32>,
    ) -> Result<Proposal, String> {
        let spec = action.spec();
        let mut target = action.target(&call);
        let cluster = || run.subject.cluster.clone().unwrap_or_else(|| self.parts.world.default_cluster.clone());
        target.cluster = Some(target.cluster.unwrap_or_else(cluster)).filter(|name| !name.is_empty());
        let (facts, carry) = if spec.reach > Reach::None {
            let (facts, witness) =
                tokio::join!(self.parts.world.facts(&target), action.witness(&self.parts.world, &call));
            let witness = match witness {
                Ok(witness) => witness,
                Err(error) if error.is_transient() => return Err(error.to_string()),
                // What is not there cannot be witnessed; `perform` will say so as an outcome.
                Err(_) => Value::Null,
            };
            (facts, witness)
        } else {
            (Facts::default(), Value::Null)
        };
        Ok(Proposal {
            run: run.id,
            epoch: run.epoch,
            call,
            effect: spec.effect,
            reach: spec.reach,
            disruptive: spec.disruptive,
            target,
            undoes,
            deadline: self.now() + spec.deadline.0,
            carry,
            facts,
        })
    }

    async fn wait_for_target(&self, run: &Run, why: String) -> Result<Next, StoreError> {
        let reason = Reason::new(ReasonCode::TargetUnavailable, why);
        let wake = self.now() + limits::HOLD_RECHECK.0;
        self.parts.metrics.action_refused(reason.code);
        self.parts.store.park(self.id, run.epoch, None, RunState::Held { reason }, wake, self.now()).await?;
        Ok(Next::Rest)
    }

    async fn denied(
        &self,
        claimed: &mut Claimed,
        runbook: &Arc<Runbook>,
        call: &Call,
        reason: Reason,
    ) -> Result<Next, StoreError> {
        let run = &claimed.run;
        if run.unwinding.is_some() {
            let text = format!("taking back `{call}` was denied: {reason}");
            self.stuck(run, ReasonCode::UndoFailed, text).await?;
            return Ok(Next::Rest);
        }
        if reason.code == ReasonCode::NotInPlan && run.mode == Mode::Approve {
            let journal: Vec<Step> = claimed.journal.iter().filter(|step| step.undoes.is_none()).cloned().collect();
            let planned = plan::plan(self.parts, runbook, &run.input, &journal).await;
            self.parts.store.planned(self.id, run.epoch, planned.clone(), self.now()).await?;
            self.ask_for_plan(run, runbook, planned).await?;
            return Ok(Next::Rest);
        }
        if acted(claimed)
            && let Want::Unwind(why) = after_failure(claimed, runbook, format!("`{call}` was denied: {reason}"))
        {
            self.parts.store.unwind(self.id, run.epoch, why.clone(), self.now()).await?;
            claimed.run.unwinding = Some(why);
            return Ok(Next::Go);
        }
        self.parts.store.finish(self.id, run.epoch, RunState::Denied { reason }, self.now()).await?;
        self.parts.nudge.nudge();
        Ok(Next::Rest)
    }

    async fn ask_for_plan(&self, run: &Run, runbook: &Arc<Runbook>, planned: Plan) -> Result<(), StoreError> {
        let question = match &planned.end {
            PlanEnd::Done | PlanEnd::Stopped(_) => format!("{} on {}?", runbook.header.title, run.subject),
            PlanEnd::Failed(why) => format!("{} on {}? It would fail: {why}", runbook.header.title, run.subject),
            PlanEnd::Cut(reason) => {
                format!("{} on {}? Only the beginning is known: {reason}", runbook.header.title, run.subject)
            }
        };
        let rules = self.parts.catalog.current();
        let rule = run.rule.as_deref().and_then(|name| rules.rules.rule(name));
        let within = rule.map_or(limits::APPROVAL_EXPIRY, |rule| rule.approve_within);
        let mut approvers = runbook.header.approvers.clone();
        approvers.extend(rule.into_iter().flat_map(|rule| rule.approvers.iter().cloned()));
        let question = NewApproval {
            question,
            plan_hash: planned.hash.clone(),
            plan: Some(planned),
            step: None,
            approvers,
            expires_at: self.now() + within.0,
        };
        self.parts.store.ask(self.id, run.epoch, question, self.now()).await?;
        self.parts.nudge.nudge();
        Ok(())
    }

    /// A step that was begun and not ended: parked on purpose, or left open by a crash.
    async fn settle(&self, claimed: &mut Claimed, step: Step) -> Result<Next, StoreError> {
        let Some(action) = actions::find(&step.call.action) else {
            let text = format!("the open step `{}` names an action that this program does not have", step.call);
            self.stuck(&claimed.run, ReasonCode::InDoubt, text).await?;
            return Ok(Next::Rest);
        };
        if matches!(claimed.run.state, RunState::Waiting { .. }) {
            return self.perform(claimed, action, step).await;
        }
        self.parts.metrics.ambiguous(step.effect, settled_by(step.effect));
        match step.effect {
            Effect::Blind => {
                let text =
                    format!("`{}` was begun and its answer is not known; it cannot be asked or repeated", step.call);
                self.stuck(&claimed.run, ReasonCode::InDoubt, text).await?;
                Ok(Next::Rest)
            }
            // Only after its deadline is the old attempt surely over, so only then does asking tell the truth.
            Effect::Probed if self.now() < step.deadline => {
                let why = format!("waiting until the attempt that a crash cut off is surely over: {}", step.call);
                let state = RunState::Waiting { why };
                self.parts.store.park(self.id, claimed.run.epoch, None, state, step.deadline, self.now()).await?;
                Ok(Next::Rest)
            }
            _ => {
                let deadline = self.now() + action.spec().deadline.0;
                let step = self.parts.store.attempt(self.id, claimed.run.epoch, step.no, deadline).await?;
                self.perform(claimed, action, step).await
            }
        }
    }

    async fn perform(&self, claimed: &mut Claimed, action: &dyn Action, step: Step) -> Result<Next, StoreError> {
        if step.call.action == "approve" {
            return self.ask_for_step(&claimed.run, &step).await;
        }
        let spec = action.spec();
        let began = std::time::Instant::now();
        let answer = tokio::time::timeout(spec.deadline.0, action.perform(&self.parts.world, &step)).await;
        self.parts.metrics.step(Phase::Perform, began.elapsed());
        let performed = answer
            .unwrap_or_else(|_| Performed::Retry { why: format!("no answer within {}", spec.deadline), after: None });
        match performed {
            Performed::Done(outcome) => self.end(claimed, step, outcome, Vec::new()).await,
            Performed::Tell(outcome, tell) => self.end(claimed, step, outcome, tell).await,
            Performed::Again { after, why, carry } => {
                let wake = self.now() + after.max(limits::AGAIN_MIN);
                let state = RunState::Waiting { why };
                let carry = Some((step.no, carry));
                self.parts.store.park(self.id, claimed.run.epoch, carry, state, wake, self.now()).await?;
                Ok(Next::Rest)
            }
            Performed::Retry { why, after } => self.retry(claimed, step, spec.deadline, why, after).await,
        }
    }

    async fn retry(
        &self,
        claimed: &mut Claimed,
        step: Step,
        deadline: Span,
        why: String,
        after: Option<Duration>,
    ) -> Result<Next, StoreError> {
        if step.effect == Effect::Blind || step.attempt >= limits::STEP_ATTEMPTS {
            let text = format!("{why} (after {} attempts)", step.attempt);
            let outcome = Outcome::Failed(Failure::new(FailureKind::Unavailable, text));
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
        Ok(Next::Rest)
    }

    async fn end(
        &self,
        claimed: &mut Claimed,
        mut step: Step,
        outcome: Outcome,
        tell: Vec<(String, String)>,
    ) -> Result<Next, StoreError> {
        let outcome = within_bounds(outcome);
        self.parts
            .metrics
            .effect(step.effect, if matches!(outcome, Outcome::Ok(_)) { Ended::Ok } else { Ended::Failed });
        let told = !tell.is_empty();
        self.parts.store.end(self.id, claimed.run.epoch, step.no, outcome.clone(), tell, self.now()).await?;
        if told {
            self.parts.nudge.nudge();
        }
        step.outcome = Some(outcome);
        if let Some(last) = claimed.journal.last_mut() {
            *last = step;
        }
        Ok(Next::Go)
    }

    /// `approve(…)` in a runbook: the answer ends the step; a crash in between asks once, not twice.
    async fn ask_for_step(&self, run: &Run, step: &Step) -> Result<Next, StoreError> {
        let filter = Filter { run: Some(self.id), limit: limits::READ_LIMIT, ..Filter::default() };
        let asked = self.parts.store.approvals(filter).await?;
        if let Some(open) = asked.iter().find(|approval| approval.step == Some(step.no)) {
            let state = RunState::Asking { approval: open.id };
            self.parts.store.park(self.id, run.epoch, None, state, open.expires_at, self.now()).await?;
            return Ok(Next::Rest);
        }
        let within = step.call.text("within").parse().unwrap_or(limits::APPROVAL_EXPIRY);
        let question = NewApproval {
            question: step.call.text("question").to_owned(),
            plan: None,
            plan_hash: step.key(),
            step: Some(step.no),
            approvers: Vec::new(),
            expires_at: self.now() + within.0,
        };
        self.parts.store.ask(self.id, run.epoch, question, self.now()).await?;
        self.parts.nudge.nudge();
        Ok(Next::Rest)
    }

    async fn stuck(&self, run: &Run, code: ReasonCode, text: String) -> Result<(), StoreError> {
        let reason = Reason::new(code, text);
        self.parts.store.finish(self.id, run.epoch, RunState::Stuck { reason }, self.now()).await?;
        self.parts.nudge.nudge();
        Ok(())
    }

    fn now(&self) -> crate::model::Time {
        self.parts.clock.now()
    }
}

fn succeeded(step: &Step) -> bool {
    matches!(step.outcome, Some(Outcome::Ok(_)))
}

fn settled_by(effect: Effect) -> Settled {
    match effect {
        Effect::Blind => Settled::Asked,
        Effect::Witnessed | Effect::Probed => Settled::Witness,
        Effect::Read | Effect::Converge | Effect::Keyed => Settled::Again,
    }
}

fn acted(claimed: &Claimed) -> bool {
    claimed.journal.iter().any(|step| step.effect != Effect::Read && succeeded(step))
}

fn after_failure(claimed: &Claimed, runbook: &Runbook, why: String) -> Want {
    let undoable = |step: &Step| actions::find(&step.call.action).is_some_and(|action| action.undo(step).is_some());
    let has_something = claimed.journal.iter().any(|step| succeeded(step) && undoable(step));
    if runbook.header.undo == UndoPolicy::OnFailure && has_something {
        Want::Unwind(why)
    } else {
        Want::End(RunState::Failed { why, undone: false })
    }
}

/// An answer that is too large to keep is a failure that says so; cutting it would make replay lie.
fn within_bounds(outcome: Outcome) -> Outcome {
    let size = serde_json::to_vec(&outcome).map_or(0, |bytes| bytes.len());
    if size <= limits::OUTCOME_BYTES {
        return outcome;
    }
    let text =
        format!("the answer has {size} bytes, more than the {} that are kept; ask for less", limits::OUTCOME_BYTES);
    Outcome::Failed(Failure::new(FailureKind::Invalid, text))
}
