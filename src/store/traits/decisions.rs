//! Decisions of people and of time, and the figures that they rest on: modes of rules, breakers, budgets.
//!
//! Invariant: a decision and its ledger entry are one transaction.

use crate::model::{ApprovalId, Breaker, RuleLevel, RuleStats, Time};
use crate::policy::TakenReplica;
use crate::store::{ControlChange, DecisionOutcome, GuardCounts, StoreError};

#[async_trait::async_trait]
pub trait Decisions: Send + Sync + 'static {
    /// An answer to a question. Plan approvals set the run's `approved` and make it ready; step approvals end the step with
    /// `{"approved": true, "by": …}` or a refusal; a denied plan ends the run, after undoing what it has done.
    ///
    /// # Errors
    /// `NotFound`; `Refused` where `by` may not answer, has answered before, or started the run.
    async fn decide(
        &self,
        approval: ApprovalId,
        approved: bool,
        by: &str,
        why: &str,
        now: Time,
    ) -> Result<DecisionOutcome, StoreError>;

    /// Any other order of a person or a reconciler.
    ///
    /// # Errors
    /// `NotFound` where its object is not there; `Refused`, with the reason in words, where it may not be.
    async fn control(&self, control: ControlChange, now: Time) -> Result<(), StoreError>;

    /// Expires approvals, closes finished incidents, releases what ended runs held. Returns how much it changed.
    ///
    /// # Errors
    /// The first failure, after everything else that is due was tried.
    async fn tick(&self, now: Time) -> Result<u64, StoreError>;

    /// Whether two names in the ledger may be one person: they are the same, or one of them, or the maker of a token of that
    /// name, is behind both.
    async fn same_person(&self, one: &str, other: &str) -> Result<bool, StoreError>;

    /// The breakers that have tripped and were not reset, the longest first.
    async fn breakers(&self) -> Result<Vec<Breaker>, StoreError>;

    /// How far rules may go, where a move up or down has set it; the latest move first.
    async fn levels(&self) -> Result<Vec<RuleLevel>, StoreError>;

    /// The statistics of a rule with this content, as far as they count.
    async fn card(&self, rule: &str, content: &str) -> Result<RuleStats, StoreError>;

    /// The nodes that our runs took out within the last hour and day, and the rule that was started about most nodes lately.
    async fn pressure(&self, now: Time) -> Result<GuardCounts, StoreError>;

    /// The replicas that runs which are not over take away.
    async fn replicas_taken(&self) -> Result<Vec<TakenReplica>, StoreError>;
}
