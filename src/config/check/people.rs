//! People and the Slack app: that nobody is two, and that a button has somebody who hears it.
//!
//! Invariant: one Slack user is one person, and a person has one name.

use super::Findings;
use crate::config::{Channel, Config, Role};
use std::collections::BTreeSet;

pub(super) fn check(config: &Config, found: &mut Findings) {
    let (mut names, mut users) = (BTreeSet::new(), BTreeSet::new());
    for (at, person) in config.people.iter().enumerate() {
        let path = format!("people[{at}]");
        if person.name.trim().is_empty() || !names.insert(person.name.as_str()) {
            found.say(&format!("{path}.name"), "is empty, or stands here twice", "give each person one entry");
        }
        if person.role == Role::Source {
            found.say(
                &format!("{path}.role"),
                "`source` is for machines",
                "write viewer, responder, approver, operator or admin",
            );
        }
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
                format!("`{user}` is somebody else already"),
                "one Slack user is one person",
            );
        }
    }
    if config.pagerduty.as_ref().is_some_and(|webhook| webhook.signing_secrets.is_empty()) {
        found.say("pagerduty.signing_secrets", "is empty", "copy the secret that PagerDuty shows once, into a file");
    }
    if let Some(slack) = &config.slack {
        let https = url::Url::parse(&slack.hooks).is_ok_and(|url| {
            let here = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
            url.scheme() == "https" || (url.scheme() == "http" && here)
        });
        if !https {
            found.say("slack.hooks", "answers would travel in the clear", "write https://hooks.slack.com/");
        }
    }
    for (name, channel) in &config.channels {
        if config.slack.is_none() && matches!(channel, Channel::Slack { buttons: true, .. }) {
            let path = format!("channels.{name}.buttons");
            found.say(
                &path,
                "nobody would hear a button",
                "add `slack: { signing_secret: … }`, or leave `buttons` out",
            );
        }
    }
}
