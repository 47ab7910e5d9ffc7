//! What the engine asks of an agent, and what it answers.
//!
//! Invariant: a command is known by run and step for ever; the same one again is never done twice.

use super::{Outcome, RunId, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One verb for one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    pub run: RunId,
    pub step: u32,
    /// The engine's epoch; an agent refuses one that is older than the newest it has seen.
    pub epoch: i64,
    /// A name of the closed list: `gpu::reset`.
    pub verb: String,
    pub args: Map<String, Value>,
    /// Not begun after this.
    pub deadline: Time,
}

impl Command {
    /// What the agent remembers on disk.
    pub fn key(&self) -> String {
        key(self.run, self.step)
    }
}

pub(super) fn key(run: RunId, step: u32) -> String {
    format!("{run}/{step}")
}

/// What became of a command so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Answer {
    /// For good or ill; never changes again.
    Ended { outcome: Outcome },
    /// Under way, with what a person may see of it.
    Working { why: String, progress: Value },
}
