//! Rules: their files, statistics, reviews, and moves between modes.
//!
//! Invariant: a scorecard is of the rule's present content; an edited rule starts anew.

use crate::model::{Mode, Rule, RunId, Scorecard, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RuleList {
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ScorecardAnswer {
    pub scorecard: Scorecard,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ScorecardList {
    pub scorecards: Vec<Scorecard>,
}

/// A rule whose mode is not that of its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MovedRule {
    pub rule: String,
    pub mode: Mode,
    /// The mode that its file has.
    pub file: Mode,
    pub by: String,
    pub why: String,
    pub at: Time,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// Left out: the next mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Mode>,
    #[serde(default)]
    pub why: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeRequest {
    /// `right` or `wrong`.
    pub verdict: String,
    #[serde(default)]
    pub why: String,
    /// Only if no one has reviewed the run before.
    #[serde(default)]
    pub first: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct JudgeAnswer {
    pub run: RunId,
    /// `right` or `wrong`.
    pub verdict: String,
    pub by: String,
    /// Empty for a run by hand.
    pub rule: String,
    /// Null where the rule is not in force any more.
    pub scorecard: Option<Scorecard>,
}
