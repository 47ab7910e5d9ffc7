//! One Socket Mode connection: hello, envelopes that are acknowledged before their work begins, pings, the end.
//!
//! Invariant: an envelope is acknowledged first and counts once, whatever connections bring it; a form, whose answer is the
//! acknowledgement, gets it well within Slack's three seconds.

use super::SlackReceiver;
use super::said::{EventCallback, SlackInteraction, SlashCommand, SocketEnvelope};
use crate::clock::Clock;
use crate::limits;
use crate::model::Time;
use crate::notifiers::one_line;
use crate::notifiers::slack::{SlackRefusal, SlackWebClient};
use crate::world::{SocketFrame, WebSocketClient};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::timeout;

pub(super) struct SocketLink {
    chat: SlackReceiver,
    clock: Arc<dyn Clock>,
    socket: WebSocketClient,
    born: Time,
    /// Acknowledgements that wait for the result of a form.
    acks: FuturesUnordered<BoxFuture<'static, Value>>,
    /// When to ping Slack, or to give the connection up.
    deadline: Time,
    asked: bool,
    /// Slack requires another connection; then this one goes on receiving for so long.
    until: Option<Time>,
}

/// Why a connection is handed back.
pub(super) enum LinkEnd {
    /// Slack requires a successor; this one still receives.
    CalledOff {
        link: Box<SocketLink>,
        born: Time,
    },
    Ended {
        born: Time,
        called_off: bool,
        why: String,
        lasting: bool,
    },
}

/// Slack's reason for ending a connection.
enum DisconnectReason {
    Successor,
    End { why: String, lasting: bool },
}

impl SocketLink {
    /// Requests an address, connects, and waits for the hello.
    pub(super) async fn open(chat: SlackReceiver) -> Result<Box<SocketLink>, SlackRefusal> {
        let (config, http) = (Arc::clone(&chat.app.parts.config), chat.app.parts.world.http.clone());
        let lasting = |why: String| SlackRefusal { why, after: None, lasting: true };
        let passing = |why: String| SlackRefusal { why, after: None, lasting: false };
        let Some(slack) = &config.slack else { return Err(lasting("Slack is not set up".to_owned())) };
        let Some(secret) = &slack.app_token else { return Err(lasting("`slack.app_token` is missing".to_owned())) };
        // Read each time: a token that was replaced works without a restart.
        let token = secret.read().map_err(|why| lasting(format!("slack.app_token: {why}")))?;
        let address = SlackWebClient::new(http, &slack.api, &token).socket().await?;
        let socket =
            WebSocketClient::connect(&address).await.map_err(|error| passing(format!("Slack's socket: {error}")))?;
        let clock = Arc::clone(&chat.app.parts.clock);
        let now = clock.now();
        let deadline = now + limits::SLACK_QUIET;
        let acks = FuturesUnordered::new();
        let mut link = SocketLink { chat, clock, socket, born: now, acks, deadline, asked: false, until: None };
        let hello = timeout(limits::SLACK_HELLO, link.hello()).await;
        let app = hello.unwrap_or_else(|_| Err(passing("Slack's socket sent no hello".to_owned())))?;
        match &slack.app {
            Some(ours) if !app.is_empty() && *ours != app => {
                let app = one_line(&app, 40);
                Err(lasting(format!("the app token is of app {app}, and `slack.app` is {ours}: make them agree")))
            }
            _ => Ok(Box::new(link)),
        }
    }

    /// The id of the app that Slack greets.
    async fn hello(&mut self) -> Result<String, SlackRefusal> {
        loop {
            match self.socket.hear().await {
                SocketFrame::Text(text) => match serde_json::from_str::<SocketEnvelope>(&text) {
                    Ok(frame) if frame.kind == "hello" => return Ok(frame.connection_info.app_id),
                    Ok(frame) if frame.kind == "disconnect" => {
                        let (why, lasting) = match goodbye(&frame.reason) {
                            DisconnectReason::End { why, lasting } => (why, lasting),
                            DisconnectReason::Successor => {
                                ("Slack closed the connection during the handshake".to_owned(), false)
                            }
                        };
                        return Err(SlackRefusal { why, after: None, lasting });
                    }
                    // Nothing is acknowledged before the hello, so nothing is lost: Slack sends it again.
                    _ => {}
                },
                SocketFrame::Alive => {}
                SocketFrame::Closed(why) => {
                    return Err(SlackRefusal { why: format!("Slack's socket: {why}"), after: None, lasting: false });
                }
            }
        }
    }

    /// Receives until Slack requires a successor, or the end.
    pub(super) async fn listen(mut self) -> LinkEnd {
        loop {
            let wake = self.until.map_or(self.deadline, |until| until.min(self.deadline));
            tokio::select! {
                frame = self.socket.hear() => {
                    (self.asked, self.deadline) = (false, self.clock.now() + limits::SLACK_QUIET);
                    let goodbye = match frame {
                        SocketFrame::Text(text) => self.heard(&text).await,
                        SocketFrame::Alive => None,
                        SocketFrame::Closed(why) => Some(DisconnectReason::End { why: format!("Slack's socket: {why}"), lasting: false }),
                    };
                    match goodbye {
                        None => {}
                        Some(DisconnectReason::Successor) => {
                            let first = self.until.is_none();
                            self.until.get_or_insert(self.clock.now() + limits::SLACK_OVERLAP);
                            if first {
                                return LinkEnd::CalledOff { born: self.born, link: Box::new(self) };
                            }
                        }
                        Some(DisconnectReason::End { why, lasting }) => return self.ended(why, lasting).await,
                    }
                }
                Some(ack) = self.acks.next(), if !self.acks.is_empty() => {
                    if let Err(error) = self.socket.say(ack.to_string()).await {
                        return self.ended(format!("Slack's socket: {error}"), false).await;
                    }
                }
                () = self.clock.sleep_until(wake) => {
                    if self.until.is_some_and(|until| until <= self.clock.now()) {
                        return self.ended("Slack requested another connection".to_owned(), false).await;
                    }
                    if self.asked {
                        return self.ended("Slack stopped sending".to_owned(), false).await;
                    }
                    (self.asked, self.deadline) = (true, self.clock.now() + limits::SLACK_QUIET);
                    if let Err(error) = self.socket.ping().await {
                        return self.ended(format!("Slack's socket: {error}"), false).await;
                    }
                }
            }
        }
    }

    async fn ended(self, why: String, lasting: bool) -> LinkEnd {
        let (born, called_off) = (self.born, self.until.is_some());
        self.socket.close().await;
        LinkEnd::Ended { born, called_off, why, lasting }
    }

    /// One frame: acknowledged, then begun. Something, where it is the end.
    async fn heard(&mut self, text: &str) -> Option<DisconnectReason> {
        let Ok(frame) = serde_json::from_str::<SocketEnvelope>(text) else {
            tracing::warn!("Slack's socket sent an invalid Socket Mode frame");
            return None;
        };
        if frame.kind == "disconnect" {
            return Some(goodbye(&frame.reason));
        }
        if frame.envelope_id.is_empty() {
            return None;
        }
        let form = frame.kind == "interactive" && frame.payload["type"] == "view_submission";
        if form && self.acks.len() < limits::SLACK_AT_ONCE {
            return self.form(frame).await;
        }
        if let Err(goodbye) = self.acknowledge(&frame.envelope_id).await {
            return Some(goodbye);
        }
        if !self.chat.door.heard.again(&frame.envelope_id) {
            self.begin(frame);
        }
        None
    }

    /// A form shows its result, in the acknowledgement itself.
    async fn form(&mut self, frame: SocketEnvelope) -> Option<DisconnectReason> {
        let id = frame.envelope_id;
        let said = serde_json::from_value::<SlackInteraction>(frame.payload).ok();
        let Some(said) = said.filter(|_| !self.chat.door.heard.again(&id)) else {
            return self.acknowledge(&id).await.err();
        };
        let chat = self.chat.clone();
        self.acks.push(Box::pin(async move {
            let answer = chat.interact(said).await;
            if answer.is_null() {
                json!({ "envelope_id": id })
            } else {
                json!({ "envelope_id": id, "payload": answer })
            }
        }));
        None
    }

    async fn acknowledge(&mut self, id: &str) -> Result<(), DisconnectReason> {
        let said = self.socket.say(json!({ "envelope_id": id }).to_string()).await;
        said.map_err(|error| DisconnectReason::End { why: format!("Slack's socket: {error}"), lasting: false })
    }

    /// The same that HTTP would begin.
    fn begin(&self, frame: SocketEnvelope) {
        let chat = self.chat.clone();
        let begun = match frame.kind.as_str() {
            "slash_commands" => {
                serde_json::from_value::<SlashCommand>(frame.payload).map(|slash| chat.command_later(slash))
            }
            "interactive" => serde_json::from_value::<SlackInteraction>(frame.payload).map(|said| {
                tokio::spawn(async move { chat.interact(said).await });
            }),
            "events_api" => serde_json::from_value::<EventCallback>(frame.payload).map(|said| chat.event(said)),
            _ => Ok(()),
        };
        if begun.is_err() {
            tracing::warn!("Slack's socket sent an invalid payload");
        }
    }
}

/// The consequence of a `disconnect`.
fn goodbye(reason: &str) -> DisconnectReason {
    match reason {
        "link_disabled" => DisconnectReason::End {
            why: "Socket Mode was switched off for this app: switch it on at api.slack.com/apps, Socket Mode"
                .to_owned(),
            lasting: true,
        },
        "too_many_websockets" => DisconnectReason::End {
            why: "too many connections are open for this app: is another engine running with the same app token?"
                .to_owned(),
            lasting: true,
        },
        // `warning`, `refresh_requested`, and future reasons.
        _ => DisconnectReason::Successor,
    }
}
