//! Users and the Slack app: identities are unique, and buttons have a configured receiver.
//!
//! Invariant: give each Slack user to one person, and a person has one name.

use super::ConfigFindings;
use super::words::check_scope;
use crate::config::{ChannelConfig, Config, Role, SlackApp};
use std::collections::{BTreeMap, BTreeSet};

/// An identity elsewhere belongs to one user alone: no identity is two users, and no two users are one.
fn identities(config: &Config, found: &mut ConfigFindings) {
    let mut owners: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let names: BTreeSet<&str> = config.people.iter().map(|person| person.name.as_str()).collect();
    for (at, person) in config.people.iter().enumerate() {
        let known = [("pagerduty", &person.pagerduty), ("oidc", &person.oidc)];
        let known = known.into_iter().filter_map(|(key, id)| id.as_deref().map(|id| (key, id)));
        for (key, id) in known.chain(person.tokens.iter().map(|token| ("tokens", token.as_str()))) {
            let path = format!("people[{at}].{key}");
            if id.trim().is_empty() {
                found.say(&path, "is empty", "leave the key out where they have none");
            } else if owners.insert((key, id), &person.name).is_some_and(|other| other != person.name) {
                found.say(
                    &path,
                    format!("`{id}` already belongs to another entry"),
                    "give each identity to one person",
                );
            }
        }
        for token in &person.tokens {
            let path = format!("people[{at}].tokens");
            let given = config.server.tokens.iter().find(|given| given.name == *token);
            if *token != person.name && names.contains(token.as_str()) {
                found.say(
                    &path,
                    format!("`{token}` is the name of another person, so it counts as theirs"),
                    "rename the token",
                );
            } else if token == "local" && person.role != Role::Admin {
                let mend = "give it to a person with the role admin, or remove it";
                found.say(&path, "`local` is this machine's own token, of role admin", mend);
            } else if given.is_some_and(|given| given.role == Role::Source) {
                found.say(
                    &path,
                    format!("`{token}` is a machine's, of role source"),
                    "give each person a separate token",
                );
            }
        }
    }
}

pub(super) fn check(config: &Config, found: &mut ConfigFindings) {
    let (mut names, mut users) = (BTreeSet::new(), BTreeSet::new());
    identities(config, found);
    for (at, person) in config.people.iter().enumerate() {
        let path = format!("people[{at}]");
        if person.name.trim().is_empty() || !names.insert(person.name.as_str()) {
            found.say(&format!("{path}.name"), "is empty, or stands here twice", "give each person one entry");
        }
        if matches!(person.role, Role::Source | Role::Metrics) {
            found.say(
                &format!("{path}.role"),
                format!("`{}` is for machines", person.role),
                "write viewer, responder, approver, author, operator, admin or auditor",
            );
        }
        check_scope(&format!("{path}.clusters"), person.clusters.as_deref(), config, found);
        let Some(user) = &person.slack else { continue };
        let id = user.starts_with(['U', 'W']) && user.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        if !id {
            found.say(
                &format!("{path}.slack"),
                format!("`{user}` is no member id"),
                "copy it from the profile: `U0123ABCD`",
            );
        }
        if !users.insert(user.as_str()) {
            found.say(
                &format!("{path}.slack"),
                format!("`{user}` already belongs to another entry"),
                "give each Slack user to one person",
            );
        }
    }
    if config.pagerduty.as_ref().is_some_and(|webhook| webhook.signing_secrets.is_empty()) {
        found.say("pagerduty.signing_secrets", "is empty", "copy the secret that PagerDuty shows once, into a file");
    }
    if let Some(slack) = &config.slack {
        check_slack(slack, found);
    }
    for (name, channel) in &config.channels {
        if config.slack.is_none() && matches!(channel, ChannelConfig::Slack { buttons: true, .. }) {
            let path = format!("channels.{name}.buttons");
            found.say(
                &path,
                "no receiver is configured for the buttons",
                "add `slack: { signing_secret: … }` or `slack: { app_token: … }`, or leave `buttons` out",
            );
        }
    }
}

fn check_slack(slack: &SlackApp, found: &mut ConfigFindings) {
    if slack.signing_secret.is_none() && slack.app_token.is_none() {
        found.say(
            "slack",
            "has no sign-in method",
            "add `signing_secret` where Slack reaches you over HTTPS, or `app_token` (xapp-…) for Socket Mode",
        );
    }
    for (path, url, mend) in [
        ("slack.hooks", &slack.hooks, "write https://hooks.slack.com/"),
        ("slack.api", &slack.api, "write https://slack.com/api"),
    ] {
        let https = url::Url::parse(url).is_ok_and(|url| {
            let here = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
            url.scheme() == "https" || (url.scheme() == "http" && here)
        });
        if !https {
            found.say(path, "words would travel in the clear", mend);
        }
    }
    for (path, id, letter) in [("slack.team", &slack.team, 'T'), ("slack.app", &slack.app, 'A')] {
        let Some(id) = id else { continue };
        if !id.starts_with(letter) || !id.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()) {
            let mend = format!("copy it from Slack: `{letter}0123ABCD`");
            found.say(path, format!("`{}` is no id of Slack's", id.escape_debug()), mend);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn an_app_of_slack_needs_a_way_in_and_ids_are_copied_not_typed() {
        let paths = |text: &str| -> Vec<String> {
            Config::parse("x", text).unwrap().check().into_iter().map(|problem| problem.path).collect()
        };
        assert_eq!(paths("slack: { team: T1 }"), ["slack"]);
        assert_eq!(paths("slack: { app_token: { env: A }, team: acme, app: T1 }"), ["slack.team", "slack.app"]);
        assert_eq!(paths("slack: { signing_secret: { env: A }, api: 'http://slack.com/api' }"), ["slack.api"]);
        assert!(paths("slack: { app_token: { env: A }, app: A0B1, team: T0X }").is_empty());
    }
}
