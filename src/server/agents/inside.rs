//! The agent inside the engine: the same door, without a network.
//!
//! Invariant: its reports take the way of every other agent's, for the one node that this process runs on.

use super::routes;
use super::who::Speaker;
use crate::agent::{Link, LinkError};
use crate::model::{AgentName, Answered, Command, Reports, Standing, Taken};
use crate::server::{App, Problem};
use crate::store::{AgentProof, NewAgent};

/// The link of the agent that runs in the engine's own process.
pub struct Inside {
    app: App,
    speaker: Speaker,
}

impl Inside {
    /// The link of the agent of this node, in the default cluster.
    pub fn new(app: App, node: &str) -> Inside {
        let name = AgentName::new(&app.parts.world.default_cluster, node);
        let agent = NewAgent { name, how: AgentProof::Inside, family: String::new(), generation: 0 };
        Inside { app, speaker: Speaker { agent } }
    }
}

#[async_trait::async_trait]
impl Link for Inside {
    async fn report(&self, reports: &Reports) -> Result<Taken, LinkError> {
        let away = |problem: Problem| LinkError::Away(problem.error);
        routes::take(&self.app, &self.speaker, reports.clone()).await.map_err(away)
    }

    async fn poll(&self, standing: &Standing) -> Result<Vec<Command>, LinkError> {
        let refused = |problem: Problem| LinkError::Refused(problem.error);
        routes::hand_over(&self.app, &self.speaker, standing.clone()).await.map_err(refused)
    }

    async fn answer(&self, answered: &Answered) -> Result<bool, LinkError> {
        let agents = &self.app.parts.world.agents;
        Ok(agents.answered(&self.speaker.agent.name, &answered.key, answered.answer.clone()))
    }
}
