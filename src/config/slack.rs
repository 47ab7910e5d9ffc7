//! The Slack app: how it reaches us, or we it.
//!
//! Invariant: secrets are references, as everywhere in the configuration.

use super::{ChannelConfig, Config, SecretSource};
use serde::{Deserialize, Serialize};

/// The Slack app's ways in: slash commands, buttons, forms and its page; over HTTP, over Socket Mode, or both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SlackApp {
    /// The secret of Slack's signatures; required for HTTP.
    #[serde(default)]
    pub signing_secret: Option<SecretSource>,
    /// `xapp-…`, with `connections:write`: we connect to Slack (Socket Mode), and need no public address.
    #[serde(default)]
    pub app_token: Option<SecretSource>,
    /// `xoxb-…`, for forms and the app's page. Left out: the token of the first Slack channel.
    #[serde(default)]
    pub token: Option<SecretSource>,
    /// `T0123ABCD`: requests of other workspaces are refused.
    #[serde(default)]
    pub team: Option<String>,
    /// `A0123ABCD`: requests for other apps are refused.
    #[serde(default)]
    pub app: Option<String>,
    /// Where answers may be sent.
    #[serde(default = "SlackApp::hooks")]
    pub hooks: String,
    /// Slack's API.
    #[serde(default = "ChannelConfig::slack_api")]
    pub api: String,
}

impl SlackApp {
    fn hooks() -> String {
        "https://hooks.slack.com/".to_owned()
    }
}

impl Config {
    /// The bot's token for calls that are no message: that of `slack`, else of the first Slack channel.
    pub fn slack_token(&self) -> Option<&SecretSource> {
        let of_channel = self.channels.values().find_map(|channel| match channel {
            ChannelConfig::Slack { token, .. } => Some(token),
            _ => None,
        });
        self.slack.as_ref()?.token.as_ref().or(of_channel)
    }
}
