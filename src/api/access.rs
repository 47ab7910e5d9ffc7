//! Tokens, break-glass access and sessions.
//!
//! Invariant: the text of a token is in the answer to who made it and nowhere else; no ID of a session is in an answer.

use crate::model::{ApiToken, Role, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TokenList {
    pub tokens: Vec<TokenStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TokenStatus {
    /// The token without its `person`, which stands below as it is now.
    #[serde(flatten)]
    pub token: ApiToken,
    pub state: TokenState,
    /// The person under `people` who has this token's name; null: none.
    pub person: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    Good,
    Expired,
    Revoked,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    pub name: String,
    pub role: Role,
    /// A duration: `30d`.
    pub expires: String,
    /// Left out: every cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<Vec<String>>,
    /// For role `source`: the sources it may post to.
    #[serde(default)]
    pub sources: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TokenMade {
    /// The text of the token; it is not kept.
    pub token: String,
    pub made: ApiToken,
    pub person: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TokensRevoked {
    pub revoked: Option<ApiToken>,
    /// Tokens that were made with it, which end with it.
    pub made_by_it: Vec<ApiToken>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassRequest {
    pub reason: String,
    /// A duration of at most `1h`; left out: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// The name that the user gives; it proves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct BreakGlassMade {
    pub token: String,
    pub made: ApiToken,
    /// Channels that are notified.
    pub told: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SessionList {
    pub sessions: Vec<SessionSummary>,
}

/// A session of the pages, without its ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionSummary {
    pub name: String,
    /// The auth method.
    pub by: String,
    pub since: Time,
    pub used: Time,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// A person, the mail of a sign-in, or `oidc:SUBJECT`.
    pub name: String,
    pub why: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SessionsEndedAnswer {
    /// How many.
    pub ended: u64,
    pub of: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SubjectsUnlinkedAnswer {
    pub unlinked: String,
}
