//! Interactions: each button names its action and carries the state that it was shown for.
//!
//! Invariant: a press is acknowledged before it is done, is done once however often it is delivered, and its answer goes to
//! the user who pressed.

use super::forms::Purpose;
use super::said::{Interaction, Press};
use super::{Chat, command, said, too_much, words};
use crate::limits;
use crate::model::ApprovalState;
use crate::notifiers::slack::{Broken, private};
use crate::server::api::Inside;
use crate::server::{Caller, Problem};
use axum::http::StatusCode;
use serde_json::Value;
use std::sync::Arc;

impl Chat {
    /// Slack's immediate answer to it; null: none.
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

    /// Begins the action of a press and returns at once.
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
            // Pressed on the user's own page, which shows the result.
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

    /// None: a form has opened for the rest.
    async fn do_press(&self, caller: &Caller, from: &Interaction, press: &Press) -> Result<Option<String>, Problem> {
        let carried = match self.door.seal.open(&press.action_id, &press.value, self.app.parts.clock.now()) {
            Ok(carried) => carried,
            Err(broken) => return Err(self.broken(caller, broken).await),
        };
        let (id, shown) = (carried.id.as_str(), carried.shown.as_str());
        let asks = match press.action_id.as_str() {
            // A decided one is answered as such, without a form first.
            "deny" if self.still_the_same(caller, id, shown).await? => {
                Some(Purpose::Deny { approval: id.to_owned(), shown: shown.to_owned() })
            }
            "silence" => Some(Purpose::Silence { incident: id.to_owned() }),
            "freeze" if id == "all" => Some(Purpose::Freeze { scope: id.to_owned() }),
            "freeze" => Some(Purpose::FreezeAround { incident: id.to_owned() }),
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
            verdict @ ("right" | "wrong") => {
                return command::judge(&self.app, caller, id, verdict, "", true).await.map(Some);
            }
            "ack" => format!("ack {id}"),
            "silence" | "freeze" => {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    "this button needs a form, and the engine has no bot token to open it with",
                    format!("use the command: `{} …`; an operator adds `slack.token`", press.action_id),
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

    /// A button that is none of ours, or too old: answered in place, and recorded.
    async fn broken(&self, caller: &Caller, broken: Broken) -> Problem {
        let problem = match broken {
            Broken::Foreign => Problem::new(
                StatusCode::FORBIDDEN,
                "this button is of another installation or of another version, or it was altered",
                "use the command instead; `/nightshift help` lists them",
            ),
            Broken::Late => Problem::new(
                StatusCode::GONE,
                "this button has expired: buttons work for thirty days",
                "see the current state: `/nightshift incidents`",
            ),
        };
        self.app.witness.refused(&self.app, &caller.name, "a button in Slack", "", &problem.error).await;
        problem
    }

    /// The answer counts for the plan that the button was shown with, and for no other. Whether the question is open.
    pub(super) async fn still_the_same(&self, caller: &Caller, id: &str, shown: &str) -> Result<bool, Problem> {
        let approval = Inside::new(&self.app, caller).approval(id).await?.approval;
        if !shown.is_empty() && shown == approval.plan_hash {
            return Ok(approval.state == ApprovalState::Open);
        }
        let error = format!("{id} is not the request that this button belongs to");
        Err(Problem::new(StatusCode::CONFLICT, error, "see the current message, or use `show`"))
    }
}
