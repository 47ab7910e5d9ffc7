//! Which agent: nodes of two clusters may bear one name.
//!
//! Invariant: an agent that names no cluster is another one than an agent that names one, on a node of the same name.

use serde::{Deserialize, Serialize};

/// A node's agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AgentName {
    /// Empty where there is no cluster, or the agent names none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    pub node: String,
}

impl AgentName {
    /// The agent of this node in this cluster; an empty cluster stands for a machine without Kubernetes.
    pub fn new(cluster: &str, node: &str) -> AgentName {
        AgentName { cluster: cluster.to_owned(), node: node.to_owned() }
    }

    /// For keys: `gpu-1`, `eu-1/gpu-1`. Neither part can hold a slash.
    pub fn key(&self) -> String {
        if self.cluster.is_empty() { self.node.clone() } else { format!("{}/{}", self.cluster, self.node) }
    }
}

impl From<&str> for AgentName {
    fn from(node: &str) -> AgentName {
        AgentName::new("", node)
    }
}

impl From<&AgentName> for AgentName {
    fn from(name: &AgentName) -> AgentName {
        name.clone()
    }
}

impl std::fmt::Display for AgentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.cluster.as_str() {
            "" => write!(f, "{}", self.node),
            cluster => write!(f, "{} of cluster {cluster}", self.node),
        }
    }
}
