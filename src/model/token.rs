//! A token that was made here, as everybody may see it: its text is kept nowhere.
//!
//! Invariant: it ends by itself.

use super::{Grant, IncidentId, Time, TokenId};
use serde::{Deserialize, Serialize};

/// The name of this machine's own token.
pub const LOCAL: &str = "local";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    pub id: TokenId,
    /// Who comes with it, or one of the `tokens:` of a person.
    pub name: String,
    #[serde(flatten)]
    pub grant: Grant,
    /// For role `source`: where it may post.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sources: Vec<String>,
    /// The person whose it was when it was made: it opens nothing once they are gone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub person: Option<String>,
    pub made_by: String,
    /// Who is behind it in the end, whatever tokens made it; none: it is a person's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<String>,
    /// The token by which it was made: it is revoked with it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub made_with: Option<TokenId>,
    pub made_at: Time,
    pub expires_at: Time,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revoked_at: Option<Time>,
    /// To the hour.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used_at: Option<Time>,
    /// Why the glass was broken; an ordinary token has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub break_glass: Option<BreakGlass>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlass {
    pub why: String,
    /// What tells everybody.
    pub incident: IncidentId,
}

impl ApiToken {
    pub fn opens(&self, now: Time) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}
