//! Slack's Web API beside messages: forms, pages, and the address of a Socket Mode connection.
//!
//! Invariant: nothing here retries; Slack's request to wait, or its error, is returned in words.

use super::api::{SlackApi, SlackError};
use super::delivery;
use super::view::{HomeView, ModalView};
use crate::model::DeliveryResult;
use crate::notifiers::text;
use crate::world::HttpClient;
use serde_json::{Value, json};
use std::time::Duration;

/// One token's way to Slack.
#[derive(Clone)]
pub struct SlackWebClient(SlackApi);

/// Whose a bot token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlackBot {
    /// The workspace's id.
    pub team: String,
    /// Whether it has the scope that slash commands need, as far as Slack lists its scopes.
    pub commands: bool,
}

/// Why Slack did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlackRefusal {
    pub why: String,
    /// The wait that Slack requires.
    pub after: Option<Duration>,
    /// It lasts until a user fixes it.
    pub lasting: bool,
}

impl SlackWebClient {
    /// A client with this token. Connects to nothing yet.
    pub fn new(http: HttpClient, base: &str, token: &str) -> SlackWebClient {
        SlackWebClient(SlackApi { http, base: base.trim_end_matches('/').to_owned(), token: token.trim().to_owned() })
    }

    /// Shows a form to the user whose press or command gave this trigger, within three seconds of it.
    ///
    /// # Errors
    ///
    /// Fails when Slack refuses the form, or does not answer.
    pub async fn open(&self, trigger: &str, modal: &ModalView) -> Result<(), SlackRefusal> {
        self.post("views.open", json!({ "trigger_id": trigger, "view": modal })).await.map(drop)
    }

    /// Publishes a user's page of the app.
    ///
    /// # Errors
    ///
    /// Fails when Slack refuses the page, or does not answer.
    pub async fn publish(&self, user: &str, home: &HomeView) -> Result<(), SlackRefusal> {
        self.post("views.publish", json!({ "user_id": user, "view": home })).await.map(drop)
    }

    /// Where to connect to for Socket Mode; the address is good for one connection within seconds.
    ///
    /// # Errors
    ///
    /// Fails when Slack refuses, or does not answer.
    pub async fn socket(&self) -> Result<String, SlackRefusal> {
        self.post("apps.connections.open", json!({})).await
    }

    /// The workspace of the bot, and whether it has the scope for slash commands.
    ///
    /// # Errors
    ///
    /// Fails when Slack refuses the token, or does not answer.
    pub async fn bot(&self) -> Result<SlackBot, SlackRefusal> {
        let said = self.0.post("auth.test", &json!({})).await.map_err(refusal)?;
        Ok(SlackBot { commands: said.lacks(&["commands"]).is_empty(), team: text::plain(&said.team_id, 40) })
    }

    async fn post(&self, method: &str, body: Value) -> Result<String, SlackRefusal> {
        self.0.post(method, &body).await.map(|said| said.url).map_err(refusal)
    }
}

fn refusal(trouble: SlackError) -> SlackRefusal {
    match delivery(trouble) {
        DeliveryResult::Retry { after, why } => SlackRefusal { why, after, lasting: false },
        DeliveryResult::Refused { why } => SlackRefusal { why, after: None, lasting: true },
        DeliveryResult::Delivered(_) | DeliveryResult::Nothing(_) => {
            SlackRefusal { why: String::new(), after: None, lasting: false }
        }
    }
}
