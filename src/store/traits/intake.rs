//! Events in: from sources, and from agents that number their reports.
//!
//! Invariant: a batch is decided and stored in one transaction, or not at all.

use crate::store::{EventBatch, IntakeResult, NumberedBatch, StoreError};

#[async_trait::async_trait]
pub trait Intake: Send + Sync + 'static {
    /// Decides and stores a batch; returns the counts of its events, and the runs that it started.
    ///
    /// # Errors
    /// `Busy` where the writer's queue or the disk is full: the sender keeps the batch and sends it again. `Refused` where an
    /// event cannot be written as JSON.
    async fn intake(&self, batch: EventBatch) -> Result<IntakeResult, StoreError>;

    /// Stores the findings of an agent. Those at or below the agent's mark change nothing, and a hole in the numbers is
    /// recorded as a gap. Returns the number up to which everything is durable, and the counts.
    ///
    /// # Errors
    /// As `intake`.
    async fn intake_reports(&self, numbered: NumberedBatch) -> Result<(u64, IntakeResult), StoreError>;
}
