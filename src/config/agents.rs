//! How the engine listens for agents.
//!
//! Invariant: without `listen` no port is opened for them.

use crate::model::Span;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The engine's door for agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AgentsConfig {
    /// TLS 1.3, for agents alone: `0.0.0.0:7677`. Left out: no such door; agents with tokens may use `server.listen`.
    pub listen: Option<SocketAddr>,
    /// The names and addresses by which agents reach it, for its certificate.
    pub names: Vec<String>,
    /// A certificate of one's own for the door, PEM; left out: one of our own authority, made at each start.
    pub cert_file: Option<PathBuf>,
    /// The key of `cert_file`, PEM.
    pub key_file: Option<PathBuf>,
    /// ServiceAccounts whose pods may report for their node: `namespace/name`. Empty: none.
    pub service_accounts: Vec<String>,
    /// The audience of a projected token.
    pub audience: String,
    /// An agent that is silent for so long is an incident.
    pub silent_after: Span,
}

impl Default for AgentsConfig {
    fn default() -> Self {
        AgentsConfig {
            listen: None,
            names: Vec::new(),
            cert_file: None,
            key_file: None,
            service_accounts: Vec::new(),
            audience: "nightshift".to_owned(),
            silent_after: Span::minutes(2),
        }
    }
}
