//! Runs and their journals: started, claimed, stepped, parked, ended; and the texts that they run.
//!
//! Invariant: every write of a run is conditional on its epoch: under an old one it changes nothing and returns `Fenced`.

use crate::model::{ApprovalId, CatalogFile, Outcome, Pin, Plan, Reach, Run, RunId, RunState, Step, Time, Verdict};
use crate::policy::{GuardLimits, Proposal};
use crate::store::{Begun, Claimed, NewApproval, NewRun, Prospect, StoreError};
use serde_json::Value;
use std::sync::Arc;

#[async_trait::async_trait]
pub trait RunJournal: Send + Sync + 'static {
    /// Creates a run that is due now; returns its number, or none where that tick of a schedule has its run already.
    async fn start(&self, run: NewRun) -> Result<Option<RunId>, StoreError>;

    /// Takes the run for this process; returns it with its journal, or none if it is final or gone. The state is the one it was
    /// found in: an open step of a run that was waiting or held was not on its way, that of a ready one may have been.
    async fn claim(&self, run: RunId, now: Time) -> Result<Option<Claimed>, StoreError>;

    /// Begins a step: guards, reservation, step and ledger entry, in one transaction. Returns the step, or why it is held or
    /// denied, which is in the ledger then.
    ///
    /// # Errors
    /// `Fenced`; `Refused` where a step is open, the run waits for an answer, or has as many steps as it may have.
    async fn begin(&self, proposal: Proposal, limits: Arc<GuardLimits>, now: Time) -> Result<Begun, StoreError>;

    /// Returns the verdicts that the guards would give to these steps now, each as if those before it had been made. Changes
    /// nothing.
    async fn foretell(
        &self,
        prospect: Prospect,
        limits: Arc<GuardLimits>,
        now: Time,
    ) -> Result<Vec<Verdict>, StoreError>;

    /// The open step is to be performed once more: weighs the guards that people can change meanwhile (the kill switch), in one
    /// transaction, and moves the step's deadline. Held: the step stays open and the run is parked.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` where there is no such step; `Refused` where it has its outcome.
    async fn again(
        &self,
        proposal: Proposal,
        step: u32,
        limits: Arc<GuardLimits>,
        now: Time,
    ) -> Result<Begun, StoreError>;

    /// The open step failed to be answered, or a crash left it open: counts the attempt and returns the step.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` where there is no such step; `Refused` where it has its outcome.
    async fn attempt(&self, run: RunId, epoch: i64, step: u32, deadline: Time) -> Result<Step, StoreError>;

    /// Parks the run in `state` until `wake_at`. `carry`: an open step, which stays open, and the place that it keeps.
    ///
    /// # Errors
    /// `Fenced`; `Refused` where the state is final or the run waits for an answer.
    async fn park(
        &self,
        run: RunId,
        epoch: i64,
        carry: Option<(u32, Value)>,
        state: RunState,
        wake_at: Time,
        now: Time,
    ) -> Result<(), StoreError>;

    /// Records the final outcome of a step, and the texts that the runbook sends to channels.
    ///
    /// # Errors
    /// `Fenced`; `Refused` where the step has its outcome, or this one has more than `limits::OUTCOME_BYTES`.
    async fn end(
        &self,
        run: RunId,
        epoch: i64,
        step: u32,
        outcome: Outcome,
        tell: Vec<(String, String)>,
        now: Time,
    ) -> Result<(), StoreError>;

    /// Records the plan (ledger entry `RunPlanned`).
    ///
    /// # Errors
    /// `Fenced`.
    async fn planned(&self, run: RunId, epoch: i64, plan: Plan, now: Time) -> Result<(), StoreError>;

    /// Puts a question to approvers and parks the run until they answer or it expires. An open question of the run is void from
    /// then on. Returns the number of the new one.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` or `Refused` where the question is about a step that is not open.
    async fn ask(&self, run: RunId, epoch: i64, question: NewApproval, now: Time) -> Result<ApprovalId, StoreError>;

    /// The runbook failed: from now on its steps are undone. The first reason stays.
    ///
    /// # Errors
    /// `Fenced`.
    async fn unwind(&self, run: RunId, epoch: i64, why: String) -> Result<(), StoreError>;

    /// Takes a run that was cancelled in the middle of a step, so that what the step left under way is stopped: returns the run
    /// and its open step. None: nothing is open, and it is not due any more.
    async fn abandoned(&self, run: RunId) -> Result<Option<(Run, Step)>, StoreError>;

    /// Such a run is due again then; without a time never, and its step stays open.
    ///
    /// # Errors
    /// `Fenced`.
    async fn look_again(&self, run: RunId, epoch: i64, at: Option<Time>) -> Result<(), StoreError>;

    /// The stored run cannot be read: it is parked with the reason, channels are notified, and it is not due any more. A
    /// cancellation lets its nodes go.
    async fn set_aside(&self, run: RunId, why: String, now: Time) -> Result<(), StoreError>;

    /// Writes the final state, and releases what the run held.
    ///
    /// # Errors
    /// `Fenced`; `Refused` where the state is not final.
    async fn finish(&self, run: RunId, epoch: i64, state: RunState, now: Time) -> Result<(), StoreError>;

    /// Keeps the text of a runbook under its hash, with the scope that its header declares.
    async fn pin(&self, pin: &Pin, text: &str, reach: Reach, now: Time) -> Result<(), StoreError>;

    /// The text that was kept under this hash; none where none was, or it was removed with the last run that needed it.
    async fn pinned(&self, hash: &str) -> Result<Option<String>, StoreError>;

    /// Keeps the files of the catalog in force, instead of those kept before.
    async fn keep_catalog(&self, files: Vec<CatalogFile>) -> Result<(), StoreError>;

    /// The files that were kept last, by path; none before the first catalog.
    async fn kept_catalog(&self) -> Result<Vec<CatalogFile>, StoreError>;
}
