//! The agent inside the engine: the same door, without a network.
//!
//! Invariant: its reports take the way of every other agent's, for the one node that this process runs on.

use super::routes;
use super::who::AgentCaller;
use crate::agent::{EngineLink, LinkError};
use crate::model::{AgentCommand, AgentName, AgentStatus, CommandReport, FindingAck, FindingBatch};
use crate::server::{App, Problem};
use crate::store::{AgentProof, NewAgent};

/// The link of the agent that runs in the engine's own process.
pub struct InProcessLink {
    app: App,
    speaker: AgentCaller,
}

impl InProcessLink {
    /// The link of the agent of this node, in the default cluster.
    pub fn new(app: App, node: &str) -> InProcessLink {
        let name = AgentName::new(&app.parts.world.default_cluster, node);
        let agent = NewAgent { name, how: AgentProof::Inside, family: String::new(), generation: 0 };
        InProcessLink { app, speaker: AgentCaller { agent } }
    }
}

#[async_trait::async_trait]
impl EngineLink for InProcessLink {
    async fn report(&self, reports: &FindingBatch) -> Result<FindingAck, LinkError> {
        let away = |problem: Problem| LinkError::Away(problem.error);
        routes::take(&self.app, &self.speaker, reports.clone()).await.map_err(away)
    }

    async fn poll(&self, standing: &AgentStatus) -> Result<Vec<AgentCommand>, LinkError> {
        let refused = |problem: Problem| LinkError::Refused(problem.error);
        routes::hand_over(&self.app, &self.speaker, standing.clone()).await.map_err(refused)
    }

    async fn answer(&self, answered: &CommandReport) -> Result<bool, LinkError> {
        let agents = &self.app.parts.world.agents;
        Ok(agents.answered(&self.speaker.agent.name, &answered.key, answered.answer.clone()))
    }
}
