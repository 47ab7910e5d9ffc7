//! From an identity to what somebody may do here: an entry of `people`, else a group that the configuration names.
//!
//! Invariant: nobody is let in by default; an address of mail counts only where the provider says that it has verified it,
//! and only for whom `people` names by it: what the ledger calls somebody else is what never changes, their subject.

use crate::config::{OidcConfig, Role};
use crate::limits;
use crate::model::Grant;
use crate::notifiers::one_line;
use crate::server::auth::Way;
use crate::server::{App, Caller};
use serde_json::{Map, Value};

/// Who somebody is to the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server::web) struct Identity {
    pub subject: String,
    pub verified_mail: Option<String>,
    /// As they were when the person signed in.
    pub groups: Vec<String>,
}

impl Identity {
    /// `said`: claims of the token, then what the provider said besides; the former come first.
    pub fn of(config: &OidcConfig, subject: String, said: [Map<String, Value>; 2]) -> Identity {
        // Mail and whether it is verified belong together: both from the same place.
        let mail = said.iter().find_map(|claims| {
            let mail = claims.get("email")?.as_str()?;
            (claims.get("email_verified") == Some(&Value::Bool(true)) && mail.len() <= limits::OIDC_SUBJECT_BYTES)
                .then(|| mail.to_ascii_lowercase())
        });
        let groups = said.iter().find_map(|claims| claims.get(&config.groups_claim)).map(list).unwrap_or_default();
        // Only those that mean something here are kept.
        let groups = groups.into_iter().filter(|group| config.roles.contains_key(group)).collect();
        Identity { subject, verified_mail: mail, groups }
    }

    /// A name that no entry of `people` and no token can have: one for each subject, whatever mail they have today.
    fn name(&self) -> String {
        format!("oidc:{}", self.subject.escape_debug())
    }

    /// The same for people to read, in the caller's own pages.
    pub fn shown(&self, caller: &Caller) -> String {
        match &self.verified_mail {
            Some(mail) if caller.name == self.name() => {
                format!("{} ({})", one_line(mail, limits::OIDC_SUBJECT_BYTES), caller.name)
            }
            _ => caller.name.clone(),
        }
    }
}

/// What they may do now.
pub(in crate::server::web) fn caller(app: &App, identity: &Identity) -> Option<Caller> {
    if let Some(person) = app.roster.now().by_oidc(&identity.subject, identity.verified_mail.as_deref()) {
        return Some(Caller::of(person, Way::Web));
    }
    let roles = &app.parts.config.server.oidc.as_ref()?.roles;
    let given: Vec<Role> = identity.groups.iter().filter_map(|group| roles.get(group).copied()).collect();
    let role = WIDEST_FIRST.into_iter().find(|role| given.contains(role))?;
    Some(Caller::with(&identity.name(), Grant::everywhere(role), Way::Web))
}

/// Of several groups' roles the first of these holds.
const WIDEST_FIRST: [Role; 7] =
    [Role::Admin, Role::Operator, Role::Approver, Role::Responder, Role::Author, Role::Auditor, Role::Viewer];

fn list(claim: &Value) -> Vec<String> {
    match claim {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => {
            many.iter().filter_map(Value::as_str).take(limits::OIDC_GROUPS).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}
