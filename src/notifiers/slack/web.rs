//! Slack's Web API beside messages: forms, pages, and the address of a Socket Mode connection.
//!
//! Invariant: nothing here retries; Slack's request to wait, or its error, is returned in words.

use super::api::{Api, Trouble};
use super::delivery;
use super::view::{Home, Modal};
use crate::model::Delivery;
use crate::notifiers::text;
use crate::world::Http;
use serde_json::{Value, json};
use std::time::Duration;

/// One token's way to Slack.
#[derive(Clone)]
pub struct Web(Api);

/// Whose a bot token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bot {
    /// The workspace's id.
    pub team: String,
    /// Whether it has the scope that slash commands need, as far as Slack lists its scopes.
    pub commands: bool,
}

/// Why Slack did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub why: String,
    /// The wait that Slack requires.
    pub after: Option<Duration>,
    /// It lasts until a user fixes it.
    pub lasting: bool,
}

impl Web {
    /// A client with this token. Connects to nothing yet.
    pub fn new(http: Http, base: &str, token: &str) -> Web {
        Web(Api { http, base: base.trim_end_matches('/').to_owned(), token: token.trim().to_owned() })
    }

    /// Shows a form to the user whose press or command gave this trigger, within three seconds of it.
    ///
    /// # Errors
    ///
    /// Fails when Slack refuses the form, or does not answer.
    pub async fn open(&self, trigger: &str, modal: &Modal) -> Result<(), Refusal> {
        self.post("views.open", json!({ "trigger_id": trigger, "view": modal })).await.map(drop)
    }

    /// Publishes a user's page of the app.
    ///
    /// # Errors
    ///
    /// Fails when Slack refuses the page, or does not answer.
    pub async fn publish(&self, user: &str, home: &Home) -> Result<(), Refusal> {
        self.post("views.publish", json!({ "user_id": user, "view": home })).await.map(drop)
    }

    /// Where to connect to for Socket Mode; the address is good for one connection within seconds.
    ///
    /// # Errors
    ///
    /// Fails when Slack refuses, or does not answer.
    pub async fn socket(&self) -> Result<String, Refusal> {
        self.post("apps.connections.open", json!({})).await
    }

    /// The workspace of the bot, and whether it has the scope for slash commands.
    ///
    /// # Errors
    ///
    /// Fails when Slack refuses the token, or does not answer.
    pub async fn bot(&self) -> Result<Bot, Refusal> {
        let said = self.0.post("auth.test", &json!({})).await.map_err(refusal)?;
        Ok(Bot { commands: said.lacks(&["commands"]).is_empty(), team: text::plain(&said.team_id, 40) })
    }

    async fn post(&self, method: &str, body: Value) -> Result<String, Refusal> {
        self.0.post(method, &body).await.map(|said| said.url).map_err(refusal)
    }
}

fn refusal(trouble: Trouble) -> Refusal {
    match delivery(trouble) {
        Delivery::Retry { after, why } => Refusal { why, after, lasting: false },
        Delivery::Refused { why } => Refusal { why, after: None, lasting: true },
        Delivery::Delivered(_) | Delivery::Nothing(_) => Refusal { why: String::new(), after: None, lasting: false },
    }
}
