//! A token that was made here, as everybody may see it: its text is kept nowhere.
//!
//! Invariant: it ends by itself.

use super::{Grant, IncidentId, Time, TokenId};
use serde::{Deserialize, Serialize};

/// The name of this machine's own token.
pub const LOCAL: &str = "local";

/// Who a name in the ledger stands for where persons are counted or compared: `local:root (uid 0)` is this machine's own
/// token, whatever user the command line named. Names of people and tokens have no colon.
pub fn identity(name: &str) -> &str {
    match name.strip_prefix(LOCAL) {
        Some(rest) if rest.starts_with(':') => LOCAL,
        _ => name,
    }
}

/// How an act with this machine's own token is recorded: with the user that the command line named, which proves nothing.
/// None where that is no user: then it stays `local`.
pub fn local_user(said: &str) -> Option<String> {
    let (user, uid) = said.strip_suffix(')')?.split_once(" (uid ")?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '$');
    let named = !user.is_empty() && user.len() <= 32 && user.chars().all(good);
    let numbered = !uid.is_empty() && uid.len() <= 10 && uid.chars().all(|c| c.is_ascii_digit());
    (named && numbered).then(|| format!("{LOCAL}:{user} (uid {uid})"))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_user_is_named_this_machines_token_is_one_person() {
        let root = local_user("root (uid 0)").unwrap();
        assert_eq!(root, "local:root (uid 0)");
        assert_eq!(
            [identity(&root), identity("local:eve"), identity("local"), identity("ann")],
            [LOCAL, LOCAL, LOCAL, "ann"]
        );
        assert_eq!(identity("localhost"), "localhost");
        for wrong in [
            "root",
            "",
            " (uid 0)",
            "a b (uid 0)",
            "root (uid x)",
            "root (uid )",
            "ann\u{202e} (uid 1)",
            "a: b (uid 1)",
        ] {
            assert_eq!(local_user(wrong), None, "{wrong}");
        }
        assert_eq!(local_user(&format!("{} (uid 1)", "x".repeat(33))), None);
    }
}
