//! Slack's Web API: one call, and the reading of its answer.
//!
//! Invariant: HTTP 200 is not success; only `ok: true` is.

use super::blocks::SlackMessage;
use crate::model::DeliveryResult;
use crate::notifiers::{answer, text};
use crate::world::{HttpClient, HttpRequest, WorldError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The client of Slack's Web API, with one token.
#[derive(Clone)]
pub struct SlackApi {
    pub http: HttpClient,
    pub base: String,
    pub token: String,
}

/// Slack's answer to a call.
#[derive(Debug, Default, Deserialize)]
pub struct SlackResponse {
    #[serde(default)]
    pub ok: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    needed: String,
    #[serde(default)]
    pub ts: String,
    #[serde(default)]
    pub channel: Value,
    #[serde(default)]
    pub messages: Vec<PostedMessage>,
    #[serde(default)]
    pub team: String,
    #[serde(default)]
    pub team_id: String,
    #[serde(default)]
    pub user: String,
    /// The token's scopes, where Slack lists them.
    #[serde(skip)]
    pub scopes: Option<String>,
    /// Where to connect to, of `apps.connections.open`.
    #[serde(default)]
    pub url: String,
}

impl SlackResponse {
    /// The rights of these that the token lacks, as far as Slack lists its scopes.
    pub fn lacks(&self, rights: &[&'static str]) -> Vec<&'static str> {
        let Some(scopes) = &self.scopes else { return Vec::new() };
        let has = |right: &str| scopes.split(',').any(|scope| scope.trim() == right);
        rights.iter().copied().filter(|right| !has(right)).collect()
    }
}

/// A message as `conversations.history` and `conversations.replies` list it.
#[derive(Debug, Default, Deserialize)]
pub struct PostedMessage {
    #[serde(default)]
    pub ts: String,
    #[serde(default)]
    pub metadata: Value,
}

/// Why it was not done.
#[derive(Debug)]
pub enum SlackError {
    /// It may have been done: a timeout, a 5xx, an answer that makes no sense.
    Doubtful(DeliveryResult),
    /// It was not done.
    Not(DeliveryResult),
    /// `msg_too_long`, `msg_blocks_too_long`: send it shorter.
    TooLong,
    /// Slack refuses our blocks: send it without.
    BadBlocks,
    /// The message to edit is gone or may not be edited any more.
    Gone,
}

impl SlackApi {
    /// Calls a method with a JSON body.
    ///
    /// # Errors
    ///
    /// Fails when the call was not sent, is in doubt, or Slack answers without `ok: true`.
    pub async fn post(&self, method: &str, body: &Value) -> Result<SlackResponse, SlackError> {
        self.call("POST", &format!("{}/{method}", self.base), body.clone(), method).await
    }

    /// Reads take their arguments in the query.
    ///
    /// # Errors
    ///
    /// Fails when the call was not sent, is in doubt, or Slack answers without `ok: true`.
    pub async fn get(&self, method: &str, query: &[(&str, &str)]) -> Result<SlackResponse, SlackError> {
        let url = url::Url::parse_with_params(&format!("{}/{method}", self.base), query).map_err(|error| {
            SlackError::Not(DeliveryResult::Refused { why: format!("the address of Slack's API: {error}") })
        })?;
        self.call("GET", url.as_str(), Value::Null, method).await
    }

    async fn call(&self, verb: &str, url: &str, body: Value, method: &str) -> Result<SlackResponse, SlackError> {
        let mut headers = std::collections::BTreeMap::new();
        headers.insert("authorization".to_owned(), format!("Bearer {}", self.token));
        if body.is_object() {
            headers.insert("content-type".to_owned(), "application/json; charset=utf-8".to_owned());
        }
        let request = HttpRequest { method: verb.to_owned(), url: url.to_owned(), headers, body };
        let sent = self.http.send(&request).await;
        let answered = sent.map_err(|error| match (&error, answer::no_answer("Slack", &error)) {
            // Without a connection nothing was sent.
            (WorldError::Unreached(_), delivery) => SlackError::Not(delivery),
            (_, delivery) => doubt(delivery),
        })?;
        let after = answered.retry_after.map(Duration::from_secs);
        if !(200..300).contains(&answered.status) {
            return Err(match answered.status {
                500..=599 | 408 => SlackError::Doubtful(answer::unaccepted("Slack", &answered)),
                _ => SlackError::Not(answer::unaccepted("Slack", &answered)),
            });
        }
        let mut said: SlackResponse = serde_json::from_str(&answered.body).map_err(|_| {
            let why = format!("Slack's answer to {method} is not valid JSON{}", answer::quote(&answered.body));
            SlackError::Doubtful(DeliveryResult::Retry { after, why })
        })?;
        said.scopes = answered.scopes;
        if said.ok { Ok(said) } else { Err(trouble(method, &said, after)) }
    }
}

/// A delivery that was refused was not made; any other may have been.
fn doubt(delivery: DeliveryResult) -> SlackError {
    match delivery {
        refused @ DeliveryResult::Refused { .. } => SlackError::Not(refused),
        other => SlackError::Doubtful(other),
    }
}

/// The one call that takes an app token.
const SOCKET: &str = "apps.connections.open";

/// Slack's error in words, and its fix.
fn trouble(method: &str, said: &SlackResponse, after: Option<Duration>) -> SlackError {
    let error = text::plain(&said.error, 80);
    let mend = match said.error.as_str() {
        "msg_too_long" | "msg_blocks_too_long" => return SlackError::TooLong,
        "invalid_blocks" | "invalid_blocks_format" | "invalid_metadata_format" => return SlackError::BadBlocks,
        "message_not_found" | "cant_update_message" | "edit_window_closed" | "thread_not_found" | "is_inactive" => {
            return SlackError::Gone;
        }
        "expired_trigger_id"
        | "trigger_expired"
        | "exchanged_trigger_id"
        | "trigger_exchanged"
        | "invalid_trigger_id" => "the form expired or was already used: press the button again",
        "not_authed"
        | "invalid_auth"
        | "account_inactive"
        | "token_revoked"
        | "token_expired"
        | "not_allowed_token_type"
            if method == SOCKET =>
        {
            "the app token is not valid: make one with `connections:write` (Basic Information, App-Level Tokens) and put it \
             into the secret of `slack.app_token`, which is reloaded automatically"
        }
        "socket_mode_not_enabled" | "forbidden_team" | "app_not_found" if method == SOCKET => {
            "Socket Mode is off for this app: switch it on at api.slack.com/apps, Socket Mode"
        }
        "not_authed"
        | "invalid_auth"
        | "account_inactive"
        | "token_revoked"
        | "token_expired"
        | "not_allowed_token_type" => {
            "the bot token is not valid: reinstall the app and put its `xoxb-` token into the channel's secret"
        }
        "channel_not_found" => {
            "there is no such channel, or the bot may not see it: check `channel`, and invite the bot if it is private"
        }
        "not_in_channel" => "the bot is not in the channel: write `/invite @nightshift` there",
        "is_archived" => "the channel is archived: choose another one",
        "missing_scope" | "no_permission" | "restricted_action" | "access_denied" => {
            let needed = text::plain(&said.needed, 80);
            let why = format!(
                "Slack refused {method}: {error}: the app lacks a scope{}{needed}; add it and reinstall the app",
                if needed.is_empty() { "" } else { ": " }
            );
            return SlackError::Not(DeliveryResult::Refused { why });
        }
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => {
            return SlackError::Not(DeliveryResult::Retry { after, why: format!("Slack limits our rate ({error})") });
        }
        // Unknown words may pass by themselves (internal_error, fatal_error, …): rather twice than never.
        _ => {
            return SlackError::Doubtful(DeliveryResult::Retry {
                after,
                why: format!("Slack answered {method} with `{error}`"),
            });
        }
    };
    SlackError::Not(DeliveryResult::Refused { why: format!("Slack refused {method}: {error}: {mend}") })
}

/// The arguments of a message, in one of its forms.
pub fn arguments(channel: &str, message: &SlackMessage, form: MessageForm) -> Value {
    let mut body = json!({
        "channel": channel,
        "text": message.text,
        "parse": "none",
        "link_names": false,
        "unfurl_links": false,
        "unfurl_media": false,
    });
    if form == MessageForm::Blocks {
        body["blocks"] = json!(message.blocks);
    }
    body
}

/// How a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageForm {
    Blocks,
    /// Only the fallback text, for when Slack refuses the blocks.
    Words,
}
