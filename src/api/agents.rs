//! Agents: the list, join tokens, removal.
//!
//! Invariant: the text of a join token is in the answer to who made it and nowhere else.

use crate::model::{Span, Standing, Time};
use crate::store::AgentProof;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AgentList {
    pub agents: Vec<AgentSummary>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AgentSummary {
    pub node: String,
    /// Empty for a fleet without a name.
    pub cluster: String,
    /// How it proves its identity.
    pub how: AgentProof,
    pub connected: bool,
    pub seen_at: Time,
    pub since: Time,
    /// Commands that it has received and not finished.
    pub commands: u64,
    pub standing: Standing,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// Only for the agent of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only for an agent of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Span>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct JoinTokenMade {
    pub token: String,
    pub expires_at: Time,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentRemoval {
    #[serde(default)]
    pub why: String,
    /// Needed where agents of several clusters have the node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AgentRemoved {
    pub removed: String,
    pub cluster: String,
}
