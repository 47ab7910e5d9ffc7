//! Events in: from sources, and from agents that number their reports.
//!
//! Invariant: a batch is decided and stored in one transaction, or not at all.

use crate::store::{EventBatch, IntakeResult, NumberedBatch, StoreError};
use std::collections::{BTreeMap, BTreeSet};

#[async_trait::async_trait]
pub trait Intake: Send + Sync + 'static {
    /// Decides and stores a batch; returns the counts of its events, and the runs that it started.
    ///
    /// # Errors
    /// `Busy` where the writer's queue or the disk is full: the sender keeps the batch and sends it again. `Refused` where an
    /// event cannot be written as JSON.
    async fn intake(&self, batch: EventBatch) -> Result<IntakeResult, StoreError>;

    /// Evaluates rules that are new or were changed for alerts that are open already; the other rules of the batch, and alerts that
    /// are not open, are left alone. A rule that has had its run for an alert starts no second one. Returns what was started.
    ///
    /// # Errors
    /// As `intake`.
    async fn reconsider(&self, batch: EventBatch, changed: BTreeSet<String>) -> Result<IntakeResult, StoreError>;

    /// The rules that open alerts were evaluated against, by name with a hash of each; none before the first time.
    async fn applied_rules(&self) -> Result<Option<BTreeMap<String, String>>, StoreError>;

    /// Open alerts were evaluated against these rules, and no others.
    async fn apply_rules(&self, rules: BTreeMap<String, String>) -> Result<(), StoreError>;

    /// Stores the findings of an agent. Those at or below the agent's mark change nothing, and a hole in the numbers is
    /// recorded as a gap. Returns the number up to which everything is durable, and the counts.
    ///
    /// # Errors
    /// As `intake`.
    async fn intake_reports(&self, numbered: NumberedBatch) -> Result<(u64, IntakeResult), StoreError>;
}
