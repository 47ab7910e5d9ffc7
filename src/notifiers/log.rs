//! The structured log as a channel: for a first day without any account, and beside the others.
//!
//! Invariant: it always succeeds.

use super::{Notifier, text};
use crate::limits::STORY_LINE_CHARS;
use crate::model::{DeliveryReceipt, DeliveryResult, IncidentDigest, IncidentNotice};
use crate::telemetry::ChannelKind;
use serde_json::json;

/// A channel that writes to the program's log.
pub struct LogNotifier {
    pub channel: String,
}

#[async_trait::async_trait]
impl Notifier for LogNotifier {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Log
    }

    async fn deliver(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        let incident = &notice.incident;
        tracing::info!(
            channel = %self.channel,
            incident = %incident.shown_id(),
            state = super::word(incident.state),
            severity = %incident.severity,
            subject = %text::plain(&incident.subject.words(), STORY_LINE_CHARS),
            firing = incident.firing,
            "{}{}",
            text::plain(&incident.title, STORY_LINE_CHARS),
            text::plain(&if notice.now.is_empty() { String::new() } else { format!("; {}", notice.now) }, 2 * STORY_LINE_CHARS),
        );
        for line in &notice.fresh {
            tracing::info!(channel = %self.channel, incident = %incident.id, entry = %line.no, "{}", text::plain(&line.text, STORY_LINE_CHARS));
        }
        for ask in &notice.asks {
            let question = text::plain(&ask.question, STORY_LINE_CHARS);
            tracing::warn!(channel = %self.channel, incident = %incident.id, approval = %ask.approval, expires_at = %ask.expires_at, "{question}");
        }
        let times = prior.and_then(|receipt| receipt.0["times"].as_u64()).unwrap_or(0);
        DeliveryResult::Delivered(DeliveryReceipt(json!({ "times": times + 1 })))
    }

    async fn digest(&self, digest: &IncidentDigest, _prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        tracing::warn!(
            channel = %self.channel,
            total = digest.total,
            worst = %digest.worst,
            since = %digest.since,
            over = digest.over,
            "many incidents at once; see `nightshift incidents`",
        );
        DeliveryResult::Delivered(DeliveryReceipt(json!({ "digest": digest.total })))
    }

    async fn probe(&self) -> Result<String, String> {
        Ok("writes to the log of the engine".to_owned())
    }
}
