//! Slack: an app that posts one message per incident and edits it, and the incoming webhook as the simple form.
//!
//! Invariant: an incident whose message is known is edited; one whose message may exist is looked for before it is posted.

mod api;
mod blocks;
mod home;
mod render;
mod seal;
mod view;
mod web;
mod webhook;

pub use home::{HomeContent, page, stranger};
pub use seal::{ButtonSeal, SealError, SealedValue};
pub use view::{FormField, HomeView, ModalView};
pub use web::{SlackBot, SlackRefusal, SlackWebClient};
pub use webhook::SlackWebhookNotifier;

use super::{ChannelRateLimit, Notifier, text};
use crate::limits::{MESSAGES_REMEMBERED, SLACK_BURST, SLACK_PACE};
use crate::model::{DeliveryReceipt, DeliveryResult, IncidentDigest, IncidentNotice};
use crate::telemetry::ChannelKind;
use crate::world::HttpClient;
use api::{MessageForm, SlackApi, SlackError, SlackResponse, arguments};
use blocks::SlackMessage;
use render::FirstPost;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The type of the metadata that our messages carry, so that one can be found again after a crash.
const METADATA: &str = "nightshift_incident";

/// A Slack app with a bot token (`chat:write`, and `channels:history` to look for a message after a crash).
pub struct SlackAppNotifier {
    api: SlackApi,
    channel: String,
    /// Seals buttons. None: there are none, as the engine would not receive a press of one.
    seal: Option<Arc<ButtonSeal>>,
    pace: ChannelRateLimit,
    /// The state of messages between a failed attempt and the next one, by dedup key.
    remembered: Mutex<HashMap<String, RememberedMessage>>,
}

/// Where an incident's message is: the receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SlackMessageLocation {
    channel: String,
    ts: String,
}

#[derive(Debug, Clone)]
enum RememberedMessage {
    /// Posted, but the attempt failed later; `doubt`: the lines in its thread may be there.
    At { place: SlackMessageLocation, doubt: bool },
    /// Slack did not answer: it may be there.
    Perhaps,
}

impl SlackAppNotifier {
    /// A channel of a Slack app. Connects to nothing yet.
    pub fn new(
        http: HttpClient,
        channel: String,
        token: &str,
        api: &str,
        seal: Option<Arc<ButtonSeal>>,
    ) -> SlackAppNotifier {
        let api = SlackApi { http, base: api.trim_end_matches('/').to_owned(), token: token.trim().to_owned() };
        let pace = ChannelRateLimit::of(&api.base, &api.token, SLACK_PACE, SLACK_BURST);
        SlackAppNotifier { api, channel, seal, pace, remembered: Mutex::new(HashMap::new()) }
    }

    fn remember(&self, key: &str, what: Option<RememberedMessage>) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
            Some(what) => {
                // Forgetting costs at most a repeated message, so the simplest bound will do.
                if remembered.len() >= MESSAGES_REMEMBERED {
                    remembered.clear();
                }
                remembered.insert(key.to_owned(), what);
            }
            None => drop(remembered.remove(key)),
        }
    }

    fn recall(&self, key: &str) -> Option<RememberedMessage> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// The incident's message, if there is one already or one can be found, and whether lines may be in its thread that
    /// are not on record.
    async fn place(
        &self,
        notice: &IncidentNotice,
        prior: Option<&DeliveryReceipt>,
    ) -> Result<(Option<SlackMessageLocation>, bool), SlackError> {
        let known = self.recall(&notice.dedup_key);
        let doubt = notice.maybe_repeat || matches!(known, Some(RememberedMessage::At { doubt: true, .. }));
        if let Some(place) = prior.and_then(|receipt| SlackMessageLocation::deserialize(&receipt.0).ok()) {
            return Ok((Some(place), doubt));
        }
        match known {
            Some(RememberedMessage::At { place, .. }) => Ok((Some(place), doubt)),
            Some(RememberedMessage::Perhaps) => Ok((self.find(&notice.dedup_key).await?, true)),
            None if notice.maybe_repeat => Ok((self.find(&notice.dedup_key).await?, true)),
            None => Ok((None, false)),
        }
    }

    /// Looks through the channel's latest messages for ours. A name instead of an id, or a missing right, finds nothing:
    /// then the message is posted again with a note. A Slack that does not answer is tried again before anything is
    /// posted.
    async fn find(&self, key: &str) -> Result<Option<SlackMessageLocation>, SlackError> {
        let query = [("channel", self.channel.as_str()), ("include_all_metadata", "true"), ("limit", "200")];
        let said = match self.api.get("conversations.history", &query).await {
            Ok(said) => said,
            Err(trouble @ (SlackError::Doubtful(_) | SlackError::Not(DeliveryResult::Retry { .. }))) => {
                return Err(trouble);
            }
            Err(_) => return Ok(None),
        };
        let found = said.messages.into_iter().find(|posted| {
            posted.metadata["event_type"] == METADATA && posted.metadata["event_payload"]["dedup_key"] == key
        });
        Ok(found.map(|found| SlackMessageLocation { channel: self.channel.clone(), ts: found.ts }))
    }

    /// Whether the thread has this line already: only read when a crash makes it doubtful.
    async fn threaded(&self, place: &SlackMessageLocation, upto: i64) -> bool {
        let query = [
            ("channel", place.channel.as_str()),
            ("ts", place.ts.as_str()),
            ("include_all_metadata", "true"),
            ("limit", "200"),
        ];
        let Ok(said) = self.api.get("conversations.replies", &query).await else { return false };
        said.messages.iter().any(|posted| {
            posted.metadata["event_type"] == METADATA
                && posted.metadata["event_payload"]["upto"].as_i64().is_some_and(|seen| seen >= upto)
                && posted.ts != place.ts
        })
    }

    /// Edits the message, or posts it where there is none or it is gone.
    async fn show(
        &self,
        notice: &IncidentNotice,
        place: Option<SlackMessageLocation>,
    ) -> Result<(SlackMessageLocation, FirstPost), SlackError> {
        let full = render::incident(notice, self.seal.as_deref());
        let metadata = metadata(notice);
        if let Some(place) = place {
            match self.say("chat.update", Some(&place), &full, notice, &metadata).await {
                Ok(_) => return Ok((place, FirstPost::No)),
                Err(SlackError::Gone) => {}
                Err(other) => return Err(other),
            }
        }
        let said = self.say("chat.postMessage", None, &full, notice, &metadata).await?;
        Ok((posted_at(&said, &self.channel)?, FirstPost::Yes))
    }

    /// One message; shorter if it is too long, without blocks if Slack does not like them.
    async fn say(
        &self,
        method: &str,
        place: Option<&SlackMessageLocation>,
        full: &SlackMessage,
        notice: &IncidentNotice,
        metadata: &Value,
    ) -> Result<SlackResponse, SlackError> {
        let body = |message: &SlackMessage, form: MessageForm| {
            let channel = place.map_or(self.channel.as_str(), |place| place.channel.as_str());
            let mut body = arguments(channel, message, form);
            if let Some(place) = place {
                body["ts"] = json!(place.ts);
            }
            if form == MessageForm::Blocks {
                body["metadata"] = metadata.clone();
            }
            body
        };
        match self.api.post(method, &body(full, MessageForm::Blocks)).await {
            Err(SlackError::TooLong) => {
                self.api.post(method, &body(&render::compact(notice), MessageForm::Blocks)).await
            }
            Err(SlackError::BadBlocks) => self.api.post(method, &body(full, MessageForm::Words)).await,
            other => other,
        }
    }

    /// Posts the fresh lines in the thread of the message.
    async fn say_in_thread(
        &self,
        notice: &IncidentNotice,
        place: &SlackMessageLocation,
        first: FirstPost,
        doubt: bool,
    ) -> Result<(), SlackError> {
        let Some(message) = render::thread(notice, first) else { return Ok(()) };
        let upto = notice.fresh.last().map_or(0, |line| line.no.0);
        if doubt && first == FirstPost::No && self.threaded(place, upto).await {
            return Ok(());
        }
        let mut body = arguments(&place.channel, &message, MessageForm::Blocks);
        body["thread_ts"] = json!(place.ts);
        // An edit and a line in a thread notify no one; a request for a user shows in the channel, too.
        body["reply_broadcast"] = json!(notice.needs_people && first == FirstPost::No);
        body["metadata"] =
            json!({ "event_type": METADATA, "event_payload": { "thread_of": notice.dedup_key, "upto": upto } });
        match self.api.post("chat.postMessage", &body).await {
            Err(SlackError::BadBlocks | SlackError::TooLong) => {
                let mut body = arguments(&place.channel, &message, MessageForm::Words);
                body["thread_ts"] = json!(place.ts);
                body["reply_broadcast"] = json!(notice.needs_people && first == FirstPost::No);
                self.api.post("chat.postMessage", &body).await.map(drop)
            }
            other => other.map(drop),
        }
    }
}

#[async_trait::async_trait]
impl Notifier for SlackAppNotifier {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Slack
    }

    async fn deliver(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        let key = &notice.dedup_key;
        let before = self.recall(key);
        let (place, doubt) = match self.place(notice, prior).await {
            Ok(found) => found,
            Err(trouble) => return delivery(trouble),
        };
        if place.is_none() {
            // Kept before it is sent: an attempt that is cut off leaves no other trace.
            self.remember(key, Some(RememberedMessage::Perhaps));
        }
        let (place, first) = match self.show(notice, place.clone()).await {
            Ok(shown) => shown,
            Err(trouble) => {
                // Certainly not sent: the earlier state holds; in doubt, the next attempt looks before it posts.
                if place.is_none() && !matches!(trouble, SlackError::Doubtful(_)) {
                    self.remember(key, before);
                }
                return delivery(trouble);
            }
        };
        let at = |doubt| Some(RememberedMessage::At { place: place.clone(), doubt });
        self.remember(key, at(true));
        if let Err(trouble) = self.say_in_thread(notice, &place, first, doubt).await {
            self.remember(key, at(doubt || matches!(trouble, SlackError::Doubtful(_))));
            return delivery(trouble);
        }
        self.remember(key, None);
        DeliveryResult::Delivered(DeliveryReceipt(json!(place)))
    }

    fn pace(&self) -> Option<&ChannelRateLimit> {
        Some(&self.pace)
    }

    async fn digest(&self, digest: &IncidentDigest, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        let message = render::digest(digest);
        let place = prior.and_then(|receipt| SlackMessageLocation::deserialize(&receipt.0).ok());
        if let Some(place) = place {
            let mut body = arguments(&place.channel, &message, MessageForm::Blocks);
            body["ts"] = json!(place.ts);
            match self.api.post("chat.update", &body).await {
                Ok(_) => return DeliveryResult::Delivered(DeliveryReceipt(json!(place))),
                Err(SlackError::Gone) => {}
                Err(trouble) => return delivery(trouble),
            }
        }
        let said = self.api.post("chat.postMessage", &arguments(&self.channel, &message, MessageForm::Blocks)).await;
        match said.and_then(|said| posted_at(&said, &self.channel)) {
            Ok(place) => DeliveryResult::Delivered(DeliveryReceipt(json!(place))),
            Err(trouble) => delivery(trouble),
        }
    }

    async fn probe(&self) -> Result<String, String> {
        match self.api.post("auth.test", &json!({})).await {
            Ok(said) if !said.lacks(&["chat:write"]).is_empty() => Err(
                "the bot token may not post: the app lacks `chat:write`; add it (OAuth & Permissions), reinstall the app, \
                 and put the new token into the channel's secret"
                    .to_owned(),
            ),
            Ok(said) => {
                // Either is enough, for the kind of channel that it is.
                let twice = match said.lacks(&["channels:history", "groups:history"]).len() {
                    2 => "; without `channels:history` a message may be sent twice after a crash",
                    _ => "",
                };
                Ok(format!(
                    "the token is valid: {} in {}; only the first message can show whether it may post to {}{twice}",
                    text::plain(&said.user, 80),
                    text::plain(&said.team, 80),
                    self.channel
                ))
            }
            Err(trouble) => Err(why(delivery(trouble))),
        }
    }
}

/// An answer that one user sees, as Slack takes it at a command's answer or a `response_url`: lines of plain text, so that
/// nothing in them becomes a mention, a link or a button.
pub fn private(words: &str) -> Value {
    let mut message = SlackMessage::new(words.lines().next().unwrap_or_default());
    let left_out = message.says(words, usize::MAX);
    if left_out > 0 {
        message.tail(&format!("{left_out} earlier lines are left out; the command line shows all"));
    }
    json!({ "response_type": "ephemeral", "replace_original": false, "text": message.text, "blocks": message.blocks })
}

fn metadata(notice: &IncidentNotice) -> Value {
    let upto = notice.headlines.iter().chain(&notice.fresh).map(|line| line.no.0).max().unwrap_or(0);
    json!({
        "event_type": METADATA,
        "event_payload": {
            "dedup_key": notice.dedup_key,
            "rev": format!("{}-{}-{upto}", super::word(notice.incident.state), notice.asks.len()),
        },
    })
}

/// Slack answers with the channel's id, which `chat.update` needs, whatever name was configured.
fn posted_at(said: &SlackResponse, channel: &str) -> Result<SlackMessageLocation, SlackError> {
    if said.ts.is_empty() {
        let why = "Slack answered ok without the message's address".to_owned();
        return Err(SlackError::Doubtful(DeliveryResult::Retry { after: None, why }));
    }
    let channel = said.channel.as_str().unwrap_or(channel);
    Ok(SlackMessageLocation { channel: text::plain(channel, 100), ts: text::plain(&said.ts, 100) })
}

fn delivery(trouble: SlackError) -> DeliveryResult {
    match trouble {
        SlackError::Doubtful(delivery) | SlackError::Not(delivery) => delivery,
        SlackError::TooLong => refused("Slack rejects even the short form of this message as too long"),
        SlackError::BadBlocks => refused("Slack refuses this message even without blocks"),
        SlackError::Gone => refused("Slack reports that the thread of this message is gone"),
    }
}

fn refused(why: &str) -> DeliveryResult {
    DeliveryResult::Refused { why: why.to_owned() }
}

fn why(delivery: DeliveryResult) -> String {
    match delivery {
        DeliveryResult::Delivered(_) | DeliveryResult::Nothing(_) => String::new(),
        DeliveryResult::Retry { why, .. } | DeliveryResult::Refused { why } => why,
    }
}
