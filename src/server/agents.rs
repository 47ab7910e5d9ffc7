//! The agents' door: reports in, commands out, and who may speak for which node.
//!
//! Invariant: a request is about the node that its token or certificate names, whatever its body says; a number is
//! acknowledged only after its commit.

mod authority;
mod inside;
mod people;
mod routes;
mod tls;
mod who;

pub use authority::Authority;
pub use inside::Inside;
pub use people::{Wanted, join_token, list, remove, scoped};
pub use routes::routes;
pub use tls::{listen, serve};
pub use who::Peer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// What the door remembers.
#[derive(Default)]
pub struct Door {
    /// Signs agents' certificates; none where no listener for agents is configured.
    pub(super) authority: Option<Arc<Authority>>,
    reviews: who::Reviews,
    /// When each agent was last written to the store.
    written: Mutex<HashMap<crate::model::AgentName, crate::model::Time>>,
}

impl Door {
    pub fn new(authority: Option<Arc<Authority>>) -> Door {
        Door { authority, ..Door::default() }
    }
}
