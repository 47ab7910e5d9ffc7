//! Slack's incoming webhook: the simple form. It cannot edit, so it posts only when there is news.
//!
//! Invariant: a notice that opens nothing, changes no headline and requests nothing posts nothing.

use super::blocks::SlackMessage;
use super::render;
use crate::limits::{SLACK_BURST, SLACK_PACE};
use crate::model::{DeliveryReceipt, DeliveryResult, IncidentDigest, IncidentNotice, PendingApproval};
use crate::notifiers::{ChannelRateLimit, Notifier, answer, text, word};
use crate::telemetry::ChannelKind;
use crate::world::{HttpClient, HttpRequest};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// A channel to one of Slack's incoming webhooks.
pub struct SlackWebhookNotifier {
    http: HttpClient,
    url: String,
    pace: ChannelRateLimit,
}

/// The last message: the receipt.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SlackWebhookReceipt {
    state: String,
    /// Approvals that were shown.
    asks: Vec<String>,
}

impl SlackWebhookNotifier {
    /// A channel to this address. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// Fails when the address is no web address.
    pub fn new(http: HttpClient, url: String) -> Result<SlackWebhookNotifier, String> {
        match url::Url::parse(&url) {
            Ok(parsed) if matches!(parsed.scheme(), "https" | "http") => {
                let pace = ChannelRateLimit::of("", &url, SLACK_PACE, SLACK_BURST);
                Ok(SlackWebhookNotifier { http, url, pace })
            }
            _ => Err("`url` is not a web address; Slack gives one like https://hooks.slack.com/services/…".to_owned()),
        }
    }

    /// Whether there is news, and the receipt after it is sent.
    fn news(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> (bool, SlackWebhookReceipt) {
        let before = prior.and_then(|receipt| SlackWebhookReceipt::deserialize(&receipt.0).ok()).unwrap_or_default();
        let ids = |asks: &[PendingApproval]| asks.iter().map(|ask| ask.approval.to_string()).collect::<Vec<_>>();
        let now = SlackWebhookReceipt { state: word(notice.incident.state).to_owned(), asks: ids(&notice.asks) };
        let asked = now.asks.iter().any(|ask| !before.asks.contains(ask));
        (now.state != before.state || asked || notice.fresh.iter().any(|line| line.headline), now)
    }

    async fn post(&self, message: &SlackMessage) -> Result<(), DeliveryResult> {
        let body = json!({ "text": message.text, "blocks": message.blocks });
        let request = HttpRequest { method: "POST".to_owned(), url: self.url.clone(), headers: BTreeMap::new(), body };
        let sent = self.http.send(&request).await;
        let answered =
            answer::accepted("Slack's webhook", sent).map_err(|delivery| answer::without(&self.url, delivery))?;
        // Anything but `ok` is no webhook of Slack's: a proxy's login page answers 200 too.
        if answered.body.trim() == "ok" {
            return Ok(());
        }
        let why = format!("Slack's webhook did not answer ok{}", answer::quote(&answered.body));
        Err(answer::without(&self.url, DeliveryResult::Retry { after: None, why }))
    }
}

#[async_trait::async_trait]
impl Notifier for SlackWebhookNotifier {
    fn kind(&self) -> ChannelKind {
        ChannelKind::SlackWebhook
    }

    async fn deliver(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        let (news, now) = self.news(notice, prior);
        if !news {
            return DeliveryResult::Nothing(Some(DeliveryReceipt(json!(now))));
        }
        match self.post(&render::simple(notice)).await {
            Ok(()) => DeliveryResult::Delivered(DeliveryReceipt(json!(now))),
            Err(delivery) => delivery,
        }
    }

    /// One post when the storm begins and one when it is over.
    async fn digest(&self, digest: &IncidentDigest, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        if prior.is_some() && !digest.over {
            return DeliveryResult::Nothing(None);
        }
        match self.post(&render::digest(digest)).await {
            Ok(()) => DeliveryResult::Delivered(DeliveryReceipt(json!({ "digest": digest.total }))),
            Err(delivery) => delivery,
        }
    }

    fn pace(&self) -> Option<&ChannelRateLimit> {
        Some(&self.pace)
    }

    fn speaks(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> bool {
        self.news(notice, prior).0
    }

    async fn probe(&self) -> Result<String, String> {
        let host =
            url::Url::parse(&self.url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        Ok(format!("{} can only be tried by posting; nothing was sent", text::plain(&host, 200)))
    }
}
