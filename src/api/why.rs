//! The explanation of action and inaction.
//!
//! Invariant: a line without an entry speaks of the rules as they are now, and has the outcome `now`.

use crate::model::{EntryNo, IncidentId, RunId, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyQuery {
    /// A run (`r17`), an incident (`i3`), an alert's name or fingerprint, a node or any other part of a subject, a rule, or
    /// a scope.
    pub subject: String,
}

/// Blocks of lines, the newest block first; within a block the oldest line first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    pub subject: String,
    pub blocks: Vec<ExplanationBlock>,
}

/// One event, run or scope.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ExplanationBlock {
    pub title: String,
    pub at: Time,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub incident: Option<IncidentId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run: Option<RunId>,
    pub lines: Vec<ExplanationLine>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ExplanationLine {
    /// The entry that proves it; absent for a line about the rules as they are now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub no: Option<EntryNo>,
    pub what: ExplainedOutcome,
    pub text: String,
    /// The reason's code, for `nightshift why --explain`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
}

/// Whether it was done, was not done, was decided, or holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExplainedOutcome {
    #[serde(rename = "did")]
    Did,
    #[serde(rename = "did not")]
    DidNot,
    #[serde(rename = "decided")]
    Decided,
    #[serde(rename = "now")]
    Now,
}

impl ExplainedOutcome {
    /// The word in JSON, on pages and in the terminal.
    pub fn word(self) -> &'static str {
        match self {
            ExplainedOutcome::Did => "did",
            ExplainedOutcome::DidNot => "did not",
            ExplainedOutcome::Decided => "decided",
            ExplainedOutcome::Now => "now",
        }
    }
}
