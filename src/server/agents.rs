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

pub use authority::Authority;
pub use inside::Inside;
pub use people::{join_token, list, remove, scoped};
pub use routes::{join_route, routes};
pub use tls::{listen, serve};
pub use who::{Peer, Shown};

use crate::limits;
use crate::model::{AgentName, Time};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// The state of the agents' listener.
#[derive(Default)]
pub struct Door {
    /// Signs agents' certificates; none where no listener for agents is configured.
    pub(super) authority: Option<Arc<Authority>>,
    reviews: who::Reviews,
    /// When each agent was last written to the store.
    written: Mutex<HashMap<AgentName, Time>>,
    /// When it was last logged of an agent that an older certificate of it was shown.
    older: Mutex<HashMap<AgentName, Time>>,
    joins: Joins,
}

/// Places for requests to join: of those that are being read, and of those whose token is looked at.
struct Joins {
    bodies: Arc<Semaphore>,
    tokens: Arc<Semaphore>,
}

impl Default for Joins {
    fn default() -> Self {
        Joins {
            bodies: Arc::new(Semaphore::new(limits::AGENT_STRANGERS / 2)),
            tokens: Arc::new(Semaphore::new(limits::AGENT_JOINS_AT_ONCE)),
        }
    }
}

impl Door {
    /// A listener with this authority; without one no agent can join here.
    pub fn new(authority: Option<Arc<Authority>>) -> Door {
        Door { authority, ..Door::default() }
    }
}
