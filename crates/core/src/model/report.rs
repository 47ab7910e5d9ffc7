//! Reports from an agent to its engine: numbered findings, and the agent's own state.
//!
//! Invariant: a report is identified by node, boot, spool and number; the node is never read from here, but from the
//! sender.

use super::{Answer, Command, Finding};
use serde::{Deserialize, Serialize};

/// One finding with its number. Numbers of one spool follow each other from 1; a missing one is a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    pub no: u64,
    pub finding: Finding,
}

/// How an agent stands; sent with everything it says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Standing {
    pub version: String,
    /// The kernel's boot id.
    pub boot: String,
    /// A name that the spool was given when it was made: a spool that was lost begins again at 1, and is another one.
    pub spool: String,
    /// Findings that wait to be sent, and their bytes on disk.
    pub waiting: u64,
    pub bytes: u64,
    /// Findings that the spool had to drop since it was made.
    pub dropped: u64,
    /// In words, where something hinders the agent: a full disk, a kill file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

/// The body of one delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reports {
    pub standing: Standing,
    pub reports: Vec<Report>,
}

/// What the engine has made durable: everything up to this number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Taken {
    pub upto: u64,
}

/// The answer to a poll.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Commands {
    pub commands: Vec<Command>,
}

/// What an agent says of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    /// `Command::key`.
    pub key: String,
    pub answer: Answer,
}
