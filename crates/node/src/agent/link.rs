//! The way to the engine, as the agent sees it: over HTTP, or inside one process.
//!
//! Invariant: `report` returns only numbers that are durable at the engine.

use crate::model::{AgentCommand, AgentStatus, CommandReport, FindingAck, FindingBatch};

/// Why the engine did not answer as requested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Away, or busy: the same again will do.
    #[error("the engine is not reached: {0}")]
    Away(String),
    /// The engine does not accept this agent, or not any more: a user must look; further requests do no harm.
    #[error("the engine refuses this agent: {0}")]
    Refused(String),
}

/// The agent's requests to the engine.
///
/// # Errors
///
/// Each fails with [`LinkError::Away`] while the engine is not reached or busy, and with [`LinkError::Refused`] where it
/// does not accept this agent.
#[async_trait::async_trait]
pub trait EngineLink: Send + Sync {
    /// Delivers findings; returns the number up to which the engine has made them durable.
    async fn report(&self, reports: &FindingBatch) -> Result<FindingAck, LinkError>;
    /// Waits at the engine until there is a command, or for a while.
    async fn poll(&self, standing: &AgentStatus) -> Result<Vec<AgentCommand>, LinkError>;
    /// Returns whether a step still waits for the command: false means that its run was cancelled.
    async fn answer(&self, answered: &CommandReport) -> Result<bool, LinkError>;
}
