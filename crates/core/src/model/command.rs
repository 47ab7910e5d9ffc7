//! Commands from the engine to an agent, and the agent's answers.
//!
//! Invariant: a command is known by run, step and incarnation of the store for ever; the same one again is never done twice.

use super::{Outcome, RunId, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One verb for one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
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
    /// The incarnation of the store in which its step was begun; empty for steps from before there were any, and for
    /// questions that belong to no step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub incarnation: String,
}

impl Command {
    /// The key under which the agent stores the command on disk.
    pub fn key(&self) -> String {
        key(self.run, self.step, &self.incarnation)
    }
}

pub(super) fn key(run: RunId, step: u32, incarnation: &str) -> String {
    match incarnation {
        "" => format!("{run}/{step}"),
        _ => format!("{run}/{step}/{incarnation}"),
    }
}

/// What became of a command so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Answer {
    /// Done or failed; never changes again.
    Ended { outcome: Outcome },
    /// Under way, with its progress as users may see it.
    Working { why: String, progress: Value },
}
