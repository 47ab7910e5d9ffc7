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
    /// Listener for agents only, TLS 1.3: `0.0.0.0:7677`. Left out: none; agents with tokens may use `server.listen`.
    pub listen: Option<SocketAddr>,
    /// Names and addresses of the listener, for its certificate.
    pub names: Vec<String>,
    /// Your own certificate for the listener, PEM; left out: one of our own CA, created at each start.
    pub cert_file: Option<PathBuf>,
    /// The key of `cert_file`, PEM.
    pub key_file: Option<PathBuf>,
    /// ServiceAccounts whose pods may report for their node: `namespace/name`. Empty: none.
    pub service_accounts: Vec<String>,
    /// Required audience of a projected token.
    pub audience: String,
    /// An agent silent for this long opens an incident.
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
