//! From an identity to its rights here: an entry of `people`, else a group that the configuration names.
//!
//! Invariant: no user is let in by default; a subject that signed in as a user is that user from then on, whatever mail
//! it has, and a mail counts only where the provider has verified it.

use super::known;
use crate::config::{OidcConfig, PersonConfig, Role};
use crate::limits;
use crate::model::{RoleGrant, shown_subject};
use crate::notifiers::one_line;
use crate::planted::planted;
use crate::server::api::store_problem;
use crate::server::auth::AuthMethod;
use crate::server::{App, Caller, PrincipalSet, Problem};
use crate::store::{LinkOutcome, SubjectLink};
use crate::world::HttpClient;
use serde_json::{Map, Value};

/// A user's identity at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server::web) struct OidcIdentity {
    pub issuer: String,
    pub subject: String,
    pub verified_mail: Option<String>,
    /// The user name at the provider, which is not verified.
    user: Option<String>,
    /// As they were when the user signed in.
    groups: Vec<String>,
}

/// Further claims of the provider, to explain a refusal; not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusalClaims {
    pub unverified_mail: Option<String>,
    /// None: the claim is absent.
    pub groups: Option<Vec<String>>,
}

impl OidcIdentity {
    /// `said`: claims of the token, then further claims of the provider; the former come first.
    pub(super) fn of(
        config: &OidcConfig,
        roster: &PrincipalSet,
        subject: String,
        said: &[Map<String, Value>; 2],
    ) -> (OidcIdentity, RefusalClaims) {
        // Mail and whether it is verified belong together: both from the same place.
        let mails = said.iter().filter_map(|claims| {
            let mail = claims.get("email")?.as_str()?;
            let verified = claims.get("email_verified") == Some(&Value::Bool(true));
            (mail.len() <= limits::OIDC_SUBJECT_BYTES).then(|| (mail.to_ascii_lowercase(), verified))
        });
        let mails: Vec<(String, bool)> = mails.collect();
        let mail = |wanted: bool| mails.iter().find(|(_, verified)| *verified == wanted).map(|(mail, _)| mail.clone());
        let text = |name: &str| said.iter().find_map(|claims| Some(claims.get(name)?.as_str()?.to_owned()));
        let groups = said.iter().find_map(|claims| claims.get(&config.groups_claim)).map(list);
        // Only those that mean something here are kept: picked first, and bounded after that.
        let known = groups.iter().flatten().filter(|group| roster.names_group(group));
        let identity = OidcIdentity {
            issuer: config.issuer.clone(),
            subject,
            verified_mail: mail(true),
            user: text("preferred_username"),
            groups: known.take(limits::OIDC_GROUPS).cloned().collect(),
        };
        (identity, RefusalClaims { unverified_mail: mail(false), groups })
    }

    /// Whether both are one account of one provider.
    pub fn same(&self, other: &OidcIdentity) -> bool {
        (&self.issuer, &self.subject) == (&other.issuer, &other.subject)
    }

    /// Their name in the ledger where no entry of `people` stands for them.
    fn name(&self) -> String {
        shown_subject(&self.subject, self.verified_mail.as_deref(), self.user.as_deref())
    }

    fn way(&self) -> AuthMethod {
        AuthMethod::Oidc { issuer: self.issuer.clone(), subject: self.subject.clone() }
    }
}

/// The result for a user that the provider has identified.
pub(in crate::server::web) enum SignInResult {
    In(Box<Caller>),
    /// `role: none`, and the group or user with it.
    Blocked(String),
    /// Their mail is that of this user, and another subject has signed in as this user.
    Taken(String),
    /// Nothing here names them.
    Unknown,
}

/// Their present rights. At a sign-in a change of a subject's mail is noted.
pub(in crate::server::web) async fn standing(
    app: &App,
    identity: &OidcIdentity,
    sign_in: bool,
) -> Result<SignInResult, Problem> {
    let roster = app.roster.now();
    let links = app.parts.store.subject_links(&identity.issuer, &identity.subject).await.map_err(store_problem)?;
    if let Some(person) = person(&roster, identity, &links) {
        let via = person.oidc.clone().unwrap_or_default();
        let kept = links.iter().find(|link| link.person == person.name && link.via.eq_ignore_ascii_case(&via));
        if kept.is_none_or(|kept| sign_in && kept.mail != identity.verified_mail) {
            let link = SubjectLink {
                issuer: identity.issuer.clone(),
                subject: identity.subject.clone(),
                person: person.name.clone(),
                via,
                mail: identity.verified_mail.clone(),
            };
            if app.parts.store.subject_link(link, app.parts.clock.now()).await.map_err(store_problem)?
                == LinkOutcome::Taken
            {
                return Ok(SignInResult::Taken(person.name.clone()));
            }
        }
        return Ok(match person.role {
            Role::Blocked => SignInResult::Blocked(person.name.clone()),
            _ => SignInResult::In(Box::new(Caller::of(person, identity.way()))),
        });
    }
    Ok(match roster.by_groups(&identity.groups) {
        None => SignInResult::Unknown,
        Some(RoleGrant { role: Role::Blocked, .. }) => SignInResult::Blocked(identity.name()),
        Some(grant) => SignInResult::In(Box::new(Caller::with(&identity.name(), grant, identity.way()))),
    })
}

/// The user's entry: by subject, as an admin wrote it; else the one that this subject signed in as before, as long as
/// the entry is unchanged since; else by mail.
fn person<'a>(roster: &'a PrincipalSet, identity: &OidcIdentity, links: &[SubjectLink]) -> Option<&'a PersonConfig> {
    let linked = || {
        let mut known = links.iter().filter(|_| !planted("subject-is-dropped"));
        known.find_map(|link| roster.by_name(&link.person).filter(|person| says(person, &link.via)))
    };
    let by_mail = || roster.by_mail(identity.verified_mail.as_deref()?);
    roster.by_subject(&identity.subject).or_else(linked).or_else(by_mail)
}

fn says(person: &PersonConfig, via: &str) -> bool {
    person.oidc.as_deref().is_some_and(|now| now.eq_ignore_ascii_case(via))
}

/// Why a user is not let in, for the user and the administrator.
pub(super) fn refusal(
    app: &App,
    config: &OidcConfig,
    identity: &OidcIdentity,
    told: &RefusalClaims,
    why: &SignInResult,
) -> (String, String) {
    let subject = one_line(&identity.subject, limits::OIDC_SUBJECT_BYTES);
    let issuer = &config.issuer;
    match why {
        SignInResult::Blocked(name) => (
            format!("access is blocked for {}", one_line(name, limits::WITNESS_CHARS)),
            "an administrator has given you, or a group of yours, `role: none`".to_owned(),
        ),
        SignInResult::Taken(person) => (
            format!(
                "your subject at the provider is `{subject}`, with the mail of `{person}`, and another account has signed \
                 in as `{person}` before"
            ),
            format!(
                "if this is a new account of the same person, an administrator writes `oidc: {subject}` in the entry \
                 `{person}`, or runs `nightshift sessions unlink {person}`; the issuer is {issuer}"
            ),
        ),
        SignInResult::In(_) | SignInResult::Unknown => {
            let mail = match (&identity.verified_mail, &told.unverified_mail) {
                (Some(mail), _) => format!(" (mail {})", one_line(mail, limits::OIDC_SUBJECT_BYTES)),
                (None, Some(mail)) => format!(" (mail {}, not verified)", one_line(mail, limits::OIDC_SUBJECT_BYTES)),
                (None, None) => String::new(),
            };
            let error = format!("your subject at the provider is `{subject}`{mail}, and it has no role here");
            let reasons = reasons(&app.roster.now(), config, identity, told).join("; ");
            // An entry by such a subject would be taken for one by mail.
            let entry = match subject.contains('@') {
                true => "to have your mail verified at the provider".to_owned(),
                false => format!("to add `oidc: {subject}` to your entry under `people`"),
            };
            let hint = format!(
                "{reasons}. Ask an administrator {entry}, or to add a group of yours to `server.oidc.roles`; the issuer is \
                 {issuer}"
            );
            (error, hint)
        }
    }
}

/// The obstacles, as far as they are known.
pub(super) fn reasons(
    roster: &PrincipalSet,
    config: &OidcConfig,
    identity: &OidcIdentity,
    told: &RefusalClaims,
) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(mail) = told.unverified_mail.as_deref().filter(|_| identity.verified_mail.is_none()) {
        match roster.by_mail(mail) {
            Some(person) => found.push(format!(
                "your mail {} is not verified at the provider (`email_verified`), so the entry `{}` does not count",
                one_line(mail, limits::OIDC_SUBJECT_BYTES),
                person.name
            )),
            None => found.push("your mail is not verified at the provider (`email_verified`)".to_owned()),
        }
    }
    let user = identity.user.as_deref().and_then(|user| roster.by_subject(user).map(|person| (user, person)));
    if let Some((user, person)) = user {
        let user = one_line(user, limits::WITNESS_CHARS);
        let name = &person.name;
        found.push(format!(
            "the entry `{name}` names your user name `{user}`: it must name the subject, or a verified mail"
        ));
    }
    if identity.subject.contains('@') && identity.verified_mail.is_none() {
        found.push("your subject has an `@`, so an entry by it counts as one by mail".to_owned());
    }
    let claim = &config.groups_claim;
    if roster.has_groups() {
        found.push(match &told.groups {
            None => format!("the claim `{claim}` is absent"),
            Some(groups) if groups.is_empty() => format!("the claim `{claim}` is empty"),
            Some(groups) => {
                let plural = if groups.len() == 1 { "" } else { "s" };
                format!("{} group{plural} came, none of them under `server.oidc.roles`", groups.len())
            }
        });
    }
    if found.is_empty() {
        found.push("no entry of `people` matches you".to_owned());
    }
    found
}

fn list(claim: &Value) -> Vec<String> {
    match claim {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// A provider's present answer, for a check of the installation: the number of its keys, and its time where it has one.
///
/// # Errors
///
/// Fails when the provider does not answer, or its metadata or keys cannot be read.
pub async fn look(http: &HttpClient, config: &OidcConfig) -> Result<(usize, Option<String>), String> {
    let (described, date) = known::describe(http, config).await?;
    Ok((known::keys_of(http, &described).await?.len(), date))
}
