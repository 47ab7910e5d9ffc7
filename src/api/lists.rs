//! Queries of lists.
//!
//! Invariant: every list is bounded, whatever `limit` says.

use crate::model::{IncidentId, RunId, Severity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What every list takes. A filter that a list does not have is refused: `severity` is of incidents, `kind` of entries.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListQuery {
    /// Only incidents, runs or approvals that are open.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// At most so many rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Rows with a greater number, ascending; otherwise the newest come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// The `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// One kind of entry, such as `step_denied`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// One state of incidents, runs or approvals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Incidents of this severity or a higher one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Only about this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only of this rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// A time, or a duration before now: `2h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// A page of raw entries or checkpoints.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PageQuery {
    /// Rows after this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// At most so many rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}
