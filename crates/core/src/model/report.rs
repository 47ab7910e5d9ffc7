//! Reports from an agent to its engine: numbered findings, and the agent's own state.
//!
//! Invariant: a report is identified by node, boot, spool and number; the node is never read from here, but from the
//! sender.

use super::{AgentCommand, CommandStatus, Finding};
use serde::{Deserialize, Serialize};

/// One finding with its number. Numbers of one spool follow each other from 1; a missing one is a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NumberedFinding {
    pub no: u64,
    pub finding: Finding,
}

/// The state of an agent; sent with each of its requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct AgentStatus {
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
pub struct FindingBatch {
    pub standing: AgentStatus,
    pub reports: Vec<NumberedFinding>,
}

/// What the engine has made durable: everything up to this number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FindingAck {
    pub upto: u64,
}

/// The answer to a poll.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CommandBatch {
    pub commands: Vec<AgentCommand>,
}

/// The status of one command, as its agent reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandReport {
    /// `Command::key`.
    pub key: String,
    pub answer: CommandStatus,
}
