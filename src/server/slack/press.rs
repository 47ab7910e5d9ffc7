//! What people press: each button says what it does and carries what it was shown for.
//!
//! Invariant: a press is acknowledged before it is done, is done once however often it is delivered, and its answer goes to
//! the person who pressed.

use super::forms::Purpose;
use super::said::{Interaction, Press};
use super::{Chat, command, said, too_much, words};
use crate::limits;
use crate::notifiers::slack::private;
use crate::server::{Caller, Problem, api};
use axum::http::StatusCode;
use serde_json::Value;
use std::sync::Arc;

impl Chat {
    /// What Slack shows for it at once; null: nothing.
    pub(super) async fn interact(&self, said: Interaction) -> Value {
        match said.kind.as_str() {
            "block_actions" => {
                self.pressed(said);
                Value::Null
            }
            "view_submission" => self.submitted(said).await,
            _ => Value::Null,
        }
    }

    /// Begins what was pressed and returns at once.
    fn pressed(&self, said: Interaction) {
        if self.door.heard.again(&said.trigger_id) {
            return;
        }
        let chat = self.clone();
        tokio::spawn(async move {
            let Ok(_place) = Arc::clone(&chat.door.places).try_acquire_owned() else {
                chat.reply(&said.response_url, too_much()).await;
                return;
            };
            for press in said.actions.iter().take(limits::SLACK_PRESSES) {
                chat.press(&said, press).await;
            }
        });
    }

    async fn press(&self, from: &Interaction, press: &Press) {
        let done = match self.person(from.team(), &from.api_app_id, &from.user.id).await {
            Ok(caller) => self.do_press(&caller, from, press).await,
            Err(problem) => Err(problem),
        };
        let changed = matches!(&done, Ok(Some(_)));
        let text = match &done {
            Ok(None) => return,
            Ok(Some(text)) => text.clone(),
            Err(problem) => words(problem),
        };
        if from.response_url.is_empty() {
            // Pressed on the person's own page, which says what came of it.
            self.stir(&from.user.id, Some(text));
            return;
        }
        if changed {
            self.stir(&from.user.id, None);
        }
        let answer = match &done {
            Err(problem) => said(problem),
            Ok(_) => private(&text),
        };
        self.reply(&from.response_url, answer).await;
    }

    /// None: a form has opened, which asks for the rest.
    async fn do_press(&self, caller: &Caller, from: &Interaction, press: &Press) -> Result<Option<String>, Problem> {
        let (id, shown) = press.value.split_once(' ').unwrap_or((&press.value, ""));
        let asks = match press.action_id.as_str() {
            // One that is decided is said to be, without a form first.
            "deny" if self.still_the_same(caller, id, shown).await? => {
                Some(Purpose::Deny { approval: id.to_owned(), shown: shown.to_owned() })
            }
            "silence" => Some(Purpose::Silence { incident: id.to_owned() }),
            "freeze" => Some(Purpose::Freeze { scope: id.to_owned() }),
            _ => None,
        };
        if let Some(purpose) = asks
            && self.ask(caller, &from.user.id, &from.trigger_id, &from.response_url, purpose).await?
        {
            return Ok(None);
        }
        let line = match press.action_id.as_str() {
            "approve" | "deny" => {
                self.still_the_same(caller, id, shown).await?;
                format!("{} {id} by a button in Slack", press.action_id)
            }
            "right" | "wrong" => format!("judge {id} {}", press.action_id),
            "ack" => format!("ack {id}"),
            "silence" | "freeze" => {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    "this button needs a form, and the engine has no bot token to open it with",
                    format!("use the command: `{} {id} …`; an operator adds `slack.token`", press.action_id),
                ));
            }
            _ => {
                return Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    "this button is of another version",
                    "use the command instead; `/nightshift help` lists them",
                ));
            }
        };
        command::perform(&self.app, caller, &line).await.map(Some)
    }

    /// The answer counts for the plan that the button was shown with, and for no other. Whether the question is open.
    pub(super) async fn still_the_same(&self, caller: &Caller, id: &str, shown: &str) -> Result<bool, Problem> {
        let path = format!("approvals/{}", url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>());
        let answer = api::ask(&self.app, caller.clone(), "GET", path, Value::Null).await?;
        let hash = answer["approval"]["plan_hash"].as_str().unwrap_or_default();
        if !shown.is_empty() && shown == hash {
            return Ok(answer["approval"]["state"] == "open");
        }
        let error = format!("{id} is not the question that this button was shown with");
        Err(Problem::new(StatusCode::CONFLICT, error, "look at the message as it is now, or use `show`"))
    }
}
