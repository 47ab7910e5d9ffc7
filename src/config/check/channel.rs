//! Channels: their receivers, and their secrets.
//!
//! Invariant: no secret travels in the clear.

use super::ConfigFindings;
use super::words::{check_address, check_mail_server, check_name, check_safe_url, check_secret};
use crate::config::ChannelConfig;
use crate::limits::{PATIENCE_MAX, PATIENCE_MIN};

pub(super) fn check_channel(path: &str, channel: &ChannelConfig, found: &mut ConfigFindings) {
    let patience = channel.patience().filter(|patience| !(PATIENCE_MIN..=PATIENCE_MAX).contains(patience));
    if let Some(patience) = patience {
        let mend = format!("write {PATIENCE_MIN} to {PATIENCE_MAX}, or leave it out to notify at once");
        found.say(&format!("{path}.notify_after"), format!("{patience} is no time to wait for automation"), mend);
    }
    match channel {
        ChannelConfig::Slack { channel, token, api, buttons: _ } => {
            if channel.trim().is_empty() {
                found.say(
                    &format!("{path}.channel"),
                    "is empty",
                    "write the channel's id (`C0123ABCD`) or name (`#gpu-oncall`)",
                );
            }
            check_secret(&format!("{path}.token"), Some(token), found);
            check_safe_url(&format!("{path}.api"), api, found);
        }
        ChannelConfig::SlackWebhook { url } => check_secret(&format!("{path}.url"), Some(url), found),
        ChannelConfig::PagerDuty { routing_key, api, .. } | ChannelConfig::PagerDutyChanges { routing_key, api } => {
            check_secret(&format!("{path}.routing_key"), Some(routing_key), found);
            check_safe_url(&format!("{path}.api"), api, found);
        }
        ChannelConfig::Email { server, from, to, username, password, .. } => {
            check_mail_server(&format!("{path}.server"), server, found);
            check_address(&format!("{path}.from"), from, found);
            if to.is_empty() {
                found.say(
                    &format!("{path}.to"),
                    "the mail would have no recipient: add an address",
                    "list at least one address: `to: [oncall@example.com]`",
                );
            }
            for (at, address) in to.iter().enumerate() {
                check_address(&format!("{path}.to[{at}]"), address, found);
            }
            check_secret(&format!("{path}.password"), password.as_ref(), found);
            if username.is_some() != password.is_some() {
                found.say(path, "has one of `username` and `password`", "give both, or neither");
            }
        }
        ChannelConfig::Webhook { shape, url, headers, .. } => {
            check_name(&format!("{path}.shape"), shape, found);
            check_secret(&format!("{path}.url"), Some(url), found);
            for (name, secret) in headers {
                check_secret(&format!("{path}.headers.{name}"), Some(secret), found);
            }
        }
        ChannelConfig::Log => {}
    }
}
