//! What only a GPU node can do; used by the agent alone. Each verb of the closed list is one line in `VERBS`.
//!
//! Invariant: nothing here speaks to the engine or decides; a verb does what it is asked, or says why not.

mod faults;
mod join;
mod kmsg;
mod report;

pub use faults::{Faults, MemoryError};
pub use join::{Join, Names, Open};
pub use kmsg::{KMSG, KernelLog, KmsgError, Pass, boot_id, follow, read_bytes};
pub use report::{Report, Seen, recovery_finding, xid_finding};

use crate::model::{Answer, Command};
use serde_json::Value;

/// The node as its verbs see it.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The node's name, as Kubernetes or the configuration knows it.
    pub name: String,
}

/// Something that an agent can do. Effects are the action's matter; a verb must be right when called again for one
/// command whose answer was lost.
#[async_trait::async_trait]
pub trait Verb: Send + Sync {
    /// As in the catalog of actions: `gpu::reset`.
    fn name(&self) -> &'static str;

    /// Does it; `progress` takes what a person may see meanwhile.
    async fn perform(&self, machine: &Machine, command: &Command, progress: &(dyn Fn(Value) + Sync)) -> Answer;
}

/// One line a verb, in alphabetic order of their names.
static VERBS: [&dyn Verb; 0] = [];

/// The verb of that name.
pub fn find(name: &str) -> Option<&'static dyn Verb> {
    VERBS.iter().find(|verb| verb.name() == name).copied()
}
