//! Slack's endpoints: the slash command, interactions, forms, the home page. Over HTTP, signed by Slack, or over a
//! connection that we open (Socket Mode). Answered at once, done after it.
//!
//! Invariant: both ways end in the same code; nothing is decoded before its signature holds; a user is known by user id
//! alone, never by a name.

mod forms;
mod home;
mod http;
mod link;
mod person;
mod press;
mod said;
mod signature;
mod socket;
mod submit;

pub(super) use http::routes;
pub use socket::listen as listen_to_slack;

use super::heard::ReplayCache;
use super::{App, Caller, Problem, command};
use crate::limits;
use crate::notifiers::slack::{ButtonSeal, SlackWebClient, private};
use crate::world::HttpRequest;
use forms::OpenForms;
use home::SlackHomes;
use said::SlashCommand;
use serde_json::Value;
use signature::SlackSignature;
use socket::SocketStatus;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;
use url::Url;

/// The secrets and settings of Slack's endpoints, as configured.
#[derive(Clone)]
pub struct SlackEndpoint {
    /// Left out: nothing comes in over HTTP.
    pub signing_secret: Option<String>,
    /// Where answers may go: `https://hooks.slack.com/`.
    pub hooks: Url,
    /// With the bot's token, for forms and pages. Left out: there are none.
    pub web: Option<SlackWebClient>,
    /// Opens the values of our buttons.
    pub seal: Arc<ButtonSeal>,
}

/// The endpoints, with the state kept between two requests of Slack.
pub struct SlackDoor {
    signature: Option<SlackSignature>,
    hooks: Url,
    web: Option<SlackWebClient>,
    seal: Arc<ButtonSeal>,
    forms: OpenForms,
    homes: SlackHomes,
    heard: ReplayCache,
    /// One permit for each thing that is being done.
    places: Arc<Semaphore>,
    pub(super) standing: SocketStatus,
}

impl SlackDoor {
    /// Endpoints with these settings, and nothing remembered.
    pub fn new(door: SlackEndpoint) -> SlackDoor {
        SlackDoor {
            signature: door.signing_secret.as_deref().map(SlackSignature::new),
            hooks: door.hooks,
            web: door.web,
            seal: door.seal,
            forms: OpenForms::default(),
            homes: SlackHomes::default(),
            heard: ReplayCache::new(limits::SLACK_ENVELOPES),
            places: Arc::new(Semaphore::new(limits::SLACK_AT_ONCE)),
            standing: SocketStatus::default(),
        }
    }

    /// From now on Slack signs with this secret; whether it is another one.
    pub(super) fn renew(&self, secret: &str) -> bool {
        self.signature.as_ref().is_some_and(|signature| signature.renew(secret))
    }

    /// Whether an address that came with a request is one of Slack's.
    fn may_reply_to(&self, url: &str) -> bool {
        Url::parse(url).is_ok_and(|url| {
            url.origin() == self.hooks.origin() && url.username().is_empty() && url.password().is_none()
        })
    }
}

/// An engine with its endpoints of Slack: both transports lead here.
#[derive(Clone)]
struct SlackReceiver {
    app: App,
    door: Arc<SlackDoor>,
}

impl SlackReceiver {
    fn of(app: &App) -> Result<SlackReceiver, Problem> {
        let door = app.slack.clone().ok_or_else(|| {
            Problem::not_found("Slack is not set up here", "add `slack: { signing_secret: … }` to nightshift.yaml")
        })?;
        Ok(SlackReceiver { app: app.clone(), door })
    }

    /// Performs the command. An answer that takes longer than Slack waits is sent later, to the address that came with
    /// it. Null: there is no answer, a form has opened.
    async fn command(&self, slash: SlashCommand) -> Value {
        let Ok(place) = Arc::clone(&self.door.places).try_acquire_owned() else { return too_much() };
        let (chat, to) = (self.clone(), slash.response_url.clone());
        let mut work = tokio::spawn(async move {
            let _place = place;
            chat.perform(&slash).await
        });
        match tokio::time::timeout(limits::SLACK_PATIENCE, &mut work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => private(BUG),
            Err(_) => {
                let chat = self.clone();
                tokio::spawn(async move {
                    if let Ok(answer) = work.await {
                        chat.reply(&to, answer).await;
                    }
                });
                private("working on it …")
            }
        }
    }

    /// The same where Slack has its acknowledgement already: every answer goes to the address that came with it.
    fn command_later(&self, slash: SlashCommand) {
        let chat = self.clone();
        tokio::spawn(async move {
            let answer = match Arc::clone(&chat.door.places).try_acquire_owned() {
                Ok(_place) => chat.perform(&slash).await,
                Err(_) => too_much(),
            };
            chat.reply(&slash.response_url, answer).await;
        });
    }

    async fn perform(&self, slash: &SlashCommand) -> Value {
        let caller = match self.person(&slash.team_id, &slash.api_app_id, &slash.user_id).await {
            Ok(caller) => caller,
            Err(problem) => return said(&problem),
        };
        match self.obey(&caller, slash).await {
            Ok(Some(text)) => private(&text),
            Ok(None) => Value::Null,
            Err(problem) => said(&problem),
        }
    }

    /// None: a form requests the omitted parts of the line.
    async fn obey(&self, caller: &Caller, slash: &SlashCommand) -> Result<Option<String>, Problem> {
        if let Some(purpose) = self.left_open(&slash.text)
            && self.ask(caller, &slash.user_id, &slash.trigger_id, &slash.response_url, purpose).await?
        {
            return Ok(None);
        }
        let text = command::perform(&self.app, caller, &slash.text).await?;
        if slash.text.trim_start().starts_with(['a', 'A', 'd', 'D']) {
            self.stir(&slash.user_id, None);
        }
        Ok(Some(text))
    }

    async fn reply(&self, url: &str, body: Value) {
        if body.is_null() {
            return;
        }
        if !self.door.may_reply_to(url) {
            tracing::warn!("answer to Slack not sent: its address is not a Slack address");
            return;
        }
        let request = HttpRequest { method: "POST".to_owned(), url: url.to_owned(), headers: BTreeMap::new(), body };
        match self.app.parts.world.http.send(&request).await {
            Ok(answer) if (200..300).contains(&answer.status) => {}
            Ok(answer) => {
                tracing::warn!(
                    status = answer.status,
                    "Slack rejected an answer; the action is recorded in the ledger"
                );
            }
            Err(error) => tracing::warn!(%error, "Slack rejected an answer; the action is recorded in the ledger"),
        }
    }
}

const BUG: &str = "a bug ended this command; the ledger shows which actions were taken";

fn too_much() -> Value {
    private("too much is being done for Slack at once; try again in a moment")
}

fn said(problem: &Problem) -> Value {
    private(&words(problem))
}

fn words(problem: &Problem) -> String {
    format!("{}\n{}", problem.error, problem.hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_slack_and_nowhere_else() {
        let hooks = Url::parse("https://hooks.slack.com/").unwrap();
        let door = SlackDoor::new(SlackEndpoint {
            signing_secret: None,
            hooks,
            web: None,
            seal: Arc::new(ButtonSeal::new(&[7; 32], "x")),
        });
        assert!(door.may_reply_to("https://hooks.slack.com/commands/T1/2/x"));
        for wrong in [
            "http://hooks.slack.com/x",
            "https://hooks.slack.com.evil.example/x",
            "https://hooks.slack.com@evil.example/x",
            "https://u:p@hooks.slack.com/x",
            "https://169.254.169.254/latest",
            "",
        ] {
            assert!(!door.may_reply_to(wrong), "{wrong}");
        }
    }
}
