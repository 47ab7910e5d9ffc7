//! What is due, and what came of delivering it.
//!
//! Invariant: a message that was not reported as delivered, refused or unneeded stays due.

use crate::model::{IncidentId, Time};
use crate::store::{DeliveryOutcome, DueWork, StoreError};

#[async_trait::async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// The runs and messages that are due, at most `limit` of each, and the earliest moment at which something more becomes due.
    async fn due(&self, now: Time, limit: usize) -> Result<DueWork, StoreError>;

    /// Records the state of a message: about to be sent, delivered, to be tried again, refused.
    ///
    /// # Errors
    /// `NotFound` where the channel has no message of that incident.
    async fn receipted(
        &self,
        channel: &str,
        incident: IncidentId,
        what: DeliveryOutcome,
        now: Time,
    ) -> Result<(), StoreError>;
}
