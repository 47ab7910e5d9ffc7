//! A token that was made here, without its text, which is kept nowhere.
//!
//! Invariant: it ends by itself.

use super::{IncidentId, RoleGrant, Time, TokenId};
use serde::{Deserialize, Serialize};

/// The name of this machine's own token.
pub const LOCAL: &str = "local";

/// Who a name in the ledger stands for where users are counted or compared: `local:root (uid 0)` is this machine's own
/// token, whatever user the command line named, and `bob@example.com (oidc:SUBJECT)` is that subject, whatever mail it has
/// today. Names of users and tokens have no colon.
pub fn identity(name: &str) -> &str {
    match name.strip_prefix(LOCAL) {
        Some(rest) if rest.starts_with(':') => return LOCAL,
        _ => {}
    }
    // The first one: the text before it has no space and no parenthesis of its own, a subject may have both.
    match name.find(SHOWN).zip(name.strip_suffix(')')) {
        Some((at, without)) if is_shown(&name[..at]) => &without[at + 2..],
        _ => name,
    }
}

fn is_shown(text: &str) -> bool {
    let word = text.strip_prefix(USER).unwrap_or(text);
    !word.is_empty() && !word.contains([' ', '(', ':'])
}

/// How the name of a user begins who has no entry in the configuration: the subject of the identity provider follows.
const OIDC: &str = "oidc:";
const SHOWN: &str = " (oidc:";
const USER: &str = "user ";

/// The name of a subject of the identity provider that no entry of `people` stands for: the same for each subject for
/// ever, and no name that a user or a token can have.
pub fn subject_name(subject: &str) -> String {
    format!("{OIDC}{}", subject.escape_debug())
}

/// The same with the user's known name: a verified mail address, or the user name at the provider. `identity` removes
/// it again; a name that could not be removed is left out.
pub fn shown_subject(subject: &str, mail: Option<&str>, user: Option<&str>) -> String {
    let name = subject_name(subject);
    let plain = |text: &&str| {
        let good =
            |c: char| c.is_alphanumeric() || matches!(c, '@' | '.' | '-' | '_' | '+' | '\'' | '#' | '%' | '=' | '/');
        (1..=100).contains(&text.chars().count()) && text.chars().all(good)
    };
    match (mail.filter(|mail| plain(mail) && mail.contains('@')), user.filter(plain)) {
        (Some(mail), _) => format!("{mail} ({name})"),
        // Not verified: it is marked, so that it is not taken for an entry of `people`.
        (None, Some(user)) => format!("{USER}{user} ({name})"),
        (None, None) => name,
    }
}

/// The user's known name, without the subject behind it.
pub fn short_name(name: &str) -> &str {
    let identity = identity(name);
    let before = name.len() - identity.len();
    if identity.starts_with(OIDC) && before > 3 { &name[..before - 3] } else { name }
}

/// How an act with this machine's own token is recorded: with the user that the command line named, which proves nothing.
/// None where that is no user: then it stays `local`.
pub fn local_user(said: &str) -> Option<String> {
    let numbered = |uid: &str| !uid.is_empty() && uid.len() <= 10 && uid.chars().all(|c| c.is_ascii_digit());
    if let Some(uid) = said.strip_prefix("uid ") {
        // In a container there is often no name.
        return numbered(uid).then(|| format!("{LOCAL}:uid {uid}"));
    }
    let (user, uid) = said.strip_suffix(')')?.split_once(" (uid ")?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '$');
    let named = !user.is_empty() && user.len() <= 32 && user.chars().all(good);
    (named && numbered(uid)).then(|| format!("{LOCAL}:{user} (uid {uid})"))
}

/// An API token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ApiToken {
    pub id: TokenId,
    /// Who comes with it, or one of the `tokens:` of a user.
    pub name: String,
    #[serde(flatten)]
    pub grant: RoleGrant,
    /// For role `source`: where it may post.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sources: Vec<String>,
    /// The user whose it was when it was made: it opens nothing once they are gone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub person: Option<String>,
    pub made_by: String,
    /// Who is behind it in the end, whatever tokens made it; none: it is a user's own.
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

/// The break-glass access that a token gives: its reason and its incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BreakGlass {
    pub why: String,
    /// The incident that notifies everyone of it.
    pub incident: IncidentId,
}

impl ApiToken {
    /// Whether the token is in force: not revoked, and not yet expired at `now`.
    pub fn opens(&self, now: Time) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_person_whatever_mail_or_user_name_is_shown_with_it() {
        let mails = [Some("bob@example.com"), Some("bob.married@example.com"), None];
        for subject in ["00u1", "x (oidc:victim)", "a)", "local"] {
            for (mail, user) in mails.into_iter().zip([None, Some("bob"), Some("bob")]) {
                let shown = shown_subject(subject, mail, user);
                assert_eq!(identity(&shown), subject_name(subject), "{shown}");
            }
            assert_eq!(identity(&subject_name(subject)), subject_name(subject));
        }
        assert_eq!(shown_subject("s", Some("bob@example.com"), None), "bob@example.com (oidc:s)");
        assert_eq!(shown_subject("s", None, Some("bob")), "user bob (oidc:s)");
        for odd in ["a (oidc:ann)@x", "a@x\n", "", "ann", "a b@x"] {
            assert_eq!(shown_subject("s", Some(odd), None), "oidc:s", "{odd:?}");
        }
        assert_eq!(
            [short_name("bob@x (oidc:s)"), short_name("user bob (oidc:s)"), short_name("oidc:s"), short_name("ann")],
            ["bob@x", "user bob", "oidc:s", "ann"]
        );
        // A name that says so itself is none of a subject.
        for name in ["break-glass (x (oidc:s)", "ann", "local:eve (oidc:s)"] {
            assert_ne!(identity(name), "oidc:s", "{name}");
        }
    }

    #[test]
    fn whatever_user_is_named_this_machines_token_is_one_person() {
        let root = local_user("root (uid 0)").unwrap();
        assert_eq!(root, "local:root (uid 0)");
        assert_eq!(
            [identity(&root), identity("local:eve"), identity("local"), identity("ann")],
            [LOCAL, LOCAL, LOCAL, "ann"]
        );
        assert_eq!(identity("localhost"), "localhost");
        assert_eq!(local_user("uid 0").as_deref(), Some("local:uid 0"), "without a name the number is left");
        assert_eq!(identity("local:uid 0"), LOCAL);
        for wrong in [
            "root",
            "uid",
            "uid ",
            "uid x",
            "uid 0 (uid 1)",
            "uid 12345678901",
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
