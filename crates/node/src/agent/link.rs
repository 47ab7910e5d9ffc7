//! The way to the engine, as the agent sees it: over HTTP, or inside one process.
//!
//! Invariant: `report` returns only what is durable at the engine.

use crate::model::{Answered, Command, Reports, Standing, Taken};

/// Why the engine did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Away, or busy: the same again will do.
    #[error("the engine is not reached: {0}")]
    Away(String),
    /// It does not know us, or not any more: a person must look; asking on does no harm.
    #[error("the engine refuses this agent: {0}")]
    Refused(String),
}

#[async_trait::async_trait]
pub trait Link: Send + Sync {
    async fn report(&self, reports: &Reports) -> Result<Taken, LinkError>;
    /// Waits at the engine until there is a command, or for a while.
    async fn poll(&self, standing: &Standing) -> Result<Vec<Command>, LinkError>;
    /// Returns whether anybody still waits for the command: no says that its run was cancelled.
    async fn answer(&self, answered: &Answered) -> Result<bool, LinkError>;
}
