//! Errors of the API, as RFC 9457 has them.
//!
//! Invariant: `detail` and `error` are the same text: the second is the name of before, kept for one release.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `application/problem+json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemDetails {
    /// A URI reference that names the kind of problem: `about:blank` means the status says it all.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The status in words.
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub status: u16,
    /// What happened.
    #[serde(default)]
    pub detail: String,
    /// The same as `detail`, for clients of before.
    #[serde(default)]
    pub error: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: String,
}
