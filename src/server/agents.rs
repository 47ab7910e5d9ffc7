//! The agents' listener: reports in, commands out, and the node that each agent may report for.
//!
//! Invariant: a request is about the node that its token or certificate names, whatever its body names; a number is
//! acknowledged only after its commit.

mod authority;
mod inside;
mod people;
mod routes;
mod tls;
mod who;

pub use authority::AgentAuthority;
pub use inside::InProcessLink;
pub use people::{join_token, list, remove, scoped};
pub use routes::{join_route, routes};
pub use tls::{listen, serve};
pub use who::{AgentCertificate, PeerCertificate};

use crate::limits;
use crate::model::{AgentName, Time};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// The state of the agents' listener.
#[derive(Default)]
pub struct AgentEndpoint {
    /// Signs agents' certificates; none where no listener for agents is configured.
    pub(super) authority: Option<Arc<AgentAuthority>>,
    reviews: who::TokenReviewCache,
    /// When each agent was last written to the store.
    written: Mutex<HashMap<AgentName, Time>>,
    /// When it was last logged of an agent that an older certificate of it was shown.
    older: Mutex<HashMap<AgentName, Time>>,
    joins: JoinLimits,
}

/// Places for requests to join: of those that are being read, and of those whose token is looked at.
struct JoinLimits {
    bodies: Arc<Semaphore>,
    tokens: Arc<Semaphore>,
}

impl Default for JoinLimits {
    fn default() -> Self {
        JoinLimits {
            bodies: Arc::new(Semaphore::new(limits::AGENT_STRANGERS / 2)),
            tokens: Arc::new(Semaphore::new(limits::AGENT_JOINS_AT_ONCE)),
        }
    }
}

impl AgentEndpoint {
    /// A listener with this authority; without one no agent can join here.
    pub fn new(authority: Option<Arc<AgentAuthority>>) -> AgentEndpoint {
        AgentEndpoint { authority, ..AgentEndpoint::default() }
    }
}
