//! Who is known now: users with everything that is theirs, and the tokens of the configuration. Replaced as a whole when
//! the file changes, so that a role that is taken away is gone with the next request.
//!
//! Invariant: by every auth method, a user has one name here and never more than their own role.

mod reload;

pub use reload::watch;

use super::auth::{AuthMethod, Caller, ConfiguredTokens, LOCAL, digest};
use crate::config::{ListenerConfig, PersonConfig, Role};
use crate::model::{Right, RoleGrant, identity};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

/// The principals: users, tokens, and groups of the identity provider.
#[derive(Clone, Default)]
pub struct PrincipalSet {
    people: Vec<PersonConfig>,
    tokens: ConfiguredTokens,
    /// Groups of the identity provider, and the rights of their members.
    groups: BTreeMap<String, RoleGrant>,
}

/// The roster that is in force.
#[derive(Default)]
pub struct LivePrincipals(RwLock<Arc<PrincipalSet>>);

impl LivePrincipals {
    /// The principals in force; a reload replaces them.
    pub fn new(roster: PrincipalSet) -> LivePrincipals {
        LivePrincipals(RwLock::new(Arc::new(roster)))
    }

    /// The principals in force now.
    pub fn now(&self) -> Arc<PrincipalSet> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this one holds, for every request that begins.
    pub fn replace(&self, roster: PrincipalSet) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roster);
    }
}

impl PrincipalSet {
    /// Users and tokens, without groups.
    pub fn new(people: Vec<PersonConfig>, tokens: ConfiguredTokens) -> PrincipalSet {
        PrincipalSet { people, tokens, groups: BTreeMap::new() }
    }

    /// The same with the groups of the identity provider.
    pub fn with_groups(self, server: &ListenerConfig) -> PrincipalSet {
        let groups = server.oidc.iter().flat_map(|oidc| {
            let grant =
                |group: &String, role: Role| RoleGrant { role, clusters: oidc.group_clusters.get(group).cloned() };
            oidc.roles.iter().map(move |(group, role)| (group.clone(), grant(group, *role)))
        });
        PrincipalSet { groups: groups.collect(), ..self }
    }

    /// Whether the configuration gives rights to groups.
    pub fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Whether that group means something here.
    pub fn names_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// Whether members of some group have this right.
    pub fn some_group_may(&self, right: Right) -> bool {
        self.groups.values().any(|grant| grant.role.may(right))
    }

    /// The rights of members of these groups: a group that is blocked blocks; else the widest role, in the clusters of
    /// the groups that give it.
    pub fn by_groups(&self, groups: &[String]) -> Option<RoleGrant> {
        let given: Vec<&RoleGrant> = groups.iter().filter_map(|group| self.groups.get(group)).collect();
        let role = WIDEST_FIRST.into_iter().find(|role| given.iter().any(|grant| grant.role == *role))?;
        let places: Option<Vec<&Vec<String>>> =
            given.iter().filter(|grant| grant.role == role).map(|grant| grant.clusters.as_ref()).collect();
        let clusters =
            places.map(|all| all.into_iter().flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect());
        Some(RoleGrant { role, clusters })
    }

    /// Every user of the configuration.
    pub fn people(&self) -> &[PersonConfig] {
        &self.people
    }

    /// The user of this name.
    pub fn by_name(&self, name: &str) -> Option<&PersonConfig> {
        self.people.iter().find(|person| person.name == name)
    }

    /// The user of this Slack user id.
    pub fn by_slack(&self, user: &str) -> Option<&PersonConfig> {
        self.people.iter().find(|person| person.slack.as_deref() == Some(user))
    }

    /// The user of this PagerDuty user id.
    pub fn by_pagerduty(&self, user: &str) -> Option<&PersonConfig> {
        self.people.iter().find(|person| person.pagerduty.as_deref() == Some(user))
    }

    /// The user of a subject that an identity provider gives. A subject with an `@` is a mail address: a subject that
    /// its user chose may look like one.
    pub fn by_subject(&self, subject: &str) -> Option<&PersonConfig> {
        let named = |person: &&PersonConfig| person.oidc.as_deref() == Some(subject);
        self.people.iter().find(named).filter(|_| !subject.contains('@'))
    }

    /// By a mail address; the caller has seen that the provider has verified it.
    pub fn by_mail(&self, mail: &str) -> Option<&PersonConfig> {
        let named =
            |person: &&PersonConfig| person.oidc.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(mail));
        self.people.iter().find(named).filter(|_| mail.contains('@'))
    }

    /// Whose a token of that name is.
    pub fn of_token(&self, token: &str) -> Option<&PersonConfig> {
        let listed = self.people.iter().find(|person| person.tokens.iter().any(|name| name == token));
        listed.or_else(|| self.by_name(token))
    }

    /// Whether two names in the ledger are one user.
    pub fn same(&self, one: &str, other: &str) -> bool {
        let person = |name: &str| self.of_token(name).map_or(name.to_owned(), |person| person.name.clone());
        let (one, other) = (identity(one), identity(other));
        one == other || person(one) == person(other)
    }

    /// Who comes with this token of the configuration.
    pub fn caller(&self, presented: &str) -> Option<Caller> {
        self.caller_by_hash(&digest(presented))
    }

    /// Who comes with the token of this hash.
    pub(super) fn caller_by_hash(&self, hash: &[u8; 32]) -> Option<Caller> {
        let known = self.tokens.by_hash(hash)?;
        let way = if known.name == LOCAL { AuthMethod::Local } else { AuthMethod::Token(known.name.clone()) };
        Some(self.caller_by(&known.name, known.grant.clone(), known.sources.clone(), way))
    }

    /// The caller of a token of that name: its owner, where one is configured.
    pub fn caller_by(&self, token: &str, grant: RoleGrant, sources: Vec<String>, way: AuthMethod) -> Caller {
        let person = self.of_token(token).filter(|_| grant.role != Role::Source);
        let name = person.map_or(token, |person| &person.name);
        Caller { person: person.map(PersonConfig::grant), sources, ..Caller::with(name, grant, way) }
    }

    /// Whether the configuration has a token of that name.
    pub fn has_token(&self, name: &str) -> bool {
        self.tokens.all().any(|token| token.name == name)
    }

    /// Every name that can be used here: users, and tokens without an owner.
    pub fn names(&self) -> BTreeSet<String> {
        let tokens = self.tokens.all().filter(|token| token.grant.role != Role::Source && token.name != LOCAL);
        let tokens = tokens.filter(|token| self.of_token(&token.name).is_none()).map(|token| token.name.clone());
        self.people.iter().map(|person| person.name.clone()).chain(tokens).collect()
    }

    /// The names with this right, by a token of the configuration, by Slack or by the provider. The machine's own token
    /// has no owner.
    pub fn holders(&self, right: Right) -> BTreeSet<String> {
        let tokens = self.tokens.all().filter(|token| token.name != LOCAL);
        let by_token = tokens.map(|token| {
            let way = AuthMethod::Token(token.name.clone());
            self.caller_by(&token.name, token.grant.clone(), token.sources.clone(), way)
        });
        let by_chat = self.people.iter().filter(|person| person.slack.is_some() || person.oidc.is_some());
        by_token
            .chain(by_chat.map(|person| Caller::of(person, AuthMethod::Slack)))
            .filter(|caller| caller.may(right))
            .map(|caller| caller.name)
            .collect()
    }

    /// The differences to another roster, in words, without a secret.
    fn changes(&self, next: &PrincipalSet) -> Vec<String> {
        let said = |roster: &PrincipalSet| -> BTreeSet<(String, String)> {
            let people = roster.people.iter().map(|person| {
                let known = [("slack", &person.slack), ("pagerduty", &person.pagerduty), ("oidc", &person.oidc)];
                let known = known.into_iter().filter_map(|(key, id)| id.as_ref().map(|id| format!(" {key} {id}")));
                let tokens = person.tokens.iter().map(|token| format!(" token {token}"));
                let words: String = known.chain(tokens).collect();
                (person.name.clone(), format!("{}{words}", grant_words(&person.grant())))
            });
            let tokens = roster.tokens.all().filter(|token| token.name != LOCAL);
            let tokens = tokens.map(|token| {
                let places = if token.sources.is_empty() { "" } else { " for " };
                let words = format!("{}{places}{}", grant_words(&token.grant), token.sources.join(", "));
                (format!("token {}", token.name), words)
            });
            let groups = roster.groups.iter().map(|(group, grant)| (format!("group {group}"), grant_words(grant)));
            people.chain(tokens).chain(groups).collect()
        };
        let (before, after) = (said(self), said(next));
        let is_in = |list: &BTreeSet<(String, String)>, name: &str| list.iter().any(|(other, _)| other == name);
        let gone = before.iter().filter(|(name, _)| !is_in(&after, name)).map(|(name, _)| format!("{name} is gone"));
        let new = after.difference(&before).map(|(name, words)| {
            let was = before.iter().find(|(other, _)| other == name);
            was.map_or_else(|| format!("{name}: {words}"), |(_, was)| format!("{name}: {was} → {words}"))
        });
        let mut changes: Vec<String> = gone.chain(new).collect();
        if changes.is_empty() && !self.tokens.same_secrets(&next.tokens) {
            changes.push("a token has another secret".to_owned());
        }
        changes
    }
}

/// Of several groups' roles the first of these holds.
const WIDEST_FIRST: [Role; 8] = [
    Role::Blocked,
    Role::Admin,
    Role::Operator,
    Role::Approver,
    Role::Responder,
    Role::Author,
    Role::Auditor,
    Role::Viewer,
];

/// `approver`, `operator in eu-1, eu-2`.
fn grant_words(grant: &RoleGrant) -> String {
    match &grant.clusters {
        None => grant.role.to_string(),
        Some(clusters) => format!("{} in {}", grant.role, clusters.join(", ")),
    }
}

#[cfg(test)]
mod tests;
