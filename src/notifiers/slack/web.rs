//! Slack's Web API for what is no notice: forms, pages, and the address of a Socket Mode connection.
//!
//! Invariant: nothing here retries; what Slack asks for (wait, or mend) is handed on in words.

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
    /// Whether it has what slash commands need, as far as Slack says.
    pub commands: bool,
}

/// Why Slack did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub why: String,
    /// What Slack asks us to wait.
    pub after: Option<Duration>,
    /// It stays so until somebody mends something.
    pub lasting: bool,
}

impl Web {
    pub fn new(http: Http, base: &str, token: &str) -> Web {
        Web(Api { http, base: base.trim_end_matches('/').to_owned(), token: token.trim().to_owned() })
    }

    /// Shows a form to the person whose press or command gave this trigger, within three seconds of it.
    pub async fn open(&self, trigger: &str, modal: &Modal) -> Result<(), Refusal> {
        self.post("views.open", json!({ "trigger_id": trigger, "view": modal })).await.map(drop)
    }

    pub async fn publish(&self, user: &str, home: &Home) -> Result<(), Refusal> {
        self.post("views.publish", json!({ "user_id": user, "view": home })).await.map(drop)
    }

    /// Where to connect to for Socket Mode; the address is good for one connection within seconds.
    pub async fn socket(&self) -> Result<String, Refusal> {
        self.post("apps.connections.open", json!({})).await
    }

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
