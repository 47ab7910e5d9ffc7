//! PagerDuty's change events: Nightshift's actions, on the timeline of a service. They page no one.
//!
//! Invariant: only a change that happened is sent, once for each news of an incident; nothing here opens or ends an
//! alert.

use super::door::PagerDutyClient;
use crate::limits::{NAMES_SHOWN, PAGERDUTY_BURST, PAGERDUTY_PACE, PAGERDUTY_SUMMARY_CHARS, STORY_LINE_CHARS};
use crate::model::{DeliveryReceipt, DeliveryResult, IncidentDigest, IncidentNotice, TimelineEntry};
use crate::notifiers::{ChannelRateLimit, Notifier, clock_time, text};
use crate::telemetry::ChannelKind;
use crate::world::HttpClient;
use serde_json::{Value, json};

/// A channel to PagerDuty's change events.
pub struct PagerDutyChangeNotifier {
    door: PagerDutyClient,
    install: String,
    pace: ChannelRateLimit,
}

impl PagerDutyChangeNotifier {
    /// A channel of this integration. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// Fails when the routing key is not one of a service's Events API V2 integration.
    pub fn new(
        http: HttpClient,
        routing_key: String,
        api: String,
        install: &str,
    ) -> Result<PagerDutyChangeNotifier, String> {
        let pace = ChannelRateLimit::of(&api, &routing_key, PAGERDUTY_PACE, PAGERDUTY_BURST);
        let door = PagerDutyClient::new(http, routing_key, api)?;
        if door.routing_key.starts_with('R') {
            return Err("`routing_key` is one of a ruleset or orchestration, which take no change events: take the integration \
                        key of a service"
                .to_owned());
        }
        Ok(PagerDutyChangeNotifier { door, install: install.to_owned(), pace })
    }

    fn event(&self, notice: &IncidentNotice, changes: &[&TimelineEntry]) -> Value {
        let incident = &notice.incident;
        let what: Vec<String> = changes.iter().map(|line| text::plain(&line.text, STORY_LINE_CHARS)).collect();
        let mut summary = what.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join("; ");
        if what.len() > NAMES_SHOWN {
            summary.push_str(&format!("; and {} more", what.len() - NAMES_SHOWN));
        }
        let lines: Vec<String> =
            changes.iter().zip(&what).map(|(line, text)| format!("{} {text}", clock_time(line.at))).collect();
        let node = incident.subject.part("node").or_else(|| incident.subject.part("cluster"));
        let link = notice.link.as_deref().and_then(text::link);
        let links: Vec<Value> =
            link.map(|href| json!({ "href": href, "text": "The incident in Nightshift" })).into_iter().collect();
        json!({
            "routing_key": self.door.routing_key,
            "payload": {
                "summary": text::plain(&summary, PAGERDUTY_SUMMARY_CHARS),
                "source": text::plain(node.unwrap_or(&self.install), 200),
                "timestamp": changes.last().map_or(incident.opened_at, |line| line.at),
                "custom_details": {
                    "changes": lines, "incident": incident.id, "title": text::plain(&incident.title, STORY_LINE_CHARS),
                    "by": format!("Nightshift {}", text::plain(&self.install, 200)),
                },
            },
            "links": links,
        })
    }
}

#[async_trait::async_trait]
impl Notifier for PagerDutyChangeNotifier {
    fn kind(&self) -> ChannelKind {
        ChannelKind::PagerDutyChanges
    }

    async fn deliver(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        let changes: Vec<&TimelineEntry> = notice.fresh.iter().filter(|line| line.change).collect();
        let told = prior.and_then(|receipt| receipt.0["told"].as_u64()).unwrap_or(0);
        if changes.is_empty() {
            return DeliveryResult::Nothing(None);
        }
        match self.door.send(self.event(notice, &changes)).await {
            Ok(()) => DeliveryResult::Delivered(DeliveryReceipt(json!({ "told": told + changes.len() as u64 }))),
            Err(delivery) => delivery,
        }
    }

    /// A storm is no change; actions on it are sent with each incident.
    async fn digest(&self, _: &IncidentDigest, _: Option<&DeliveryReceipt>) -> DeliveryResult {
        DeliveryResult::Nothing(None)
    }

    fn pace(&self) -> Option<&ChannelRateLimit> {
        Some(&self.pace)
    }

    fn speaks(&self, notice: &IncidentNotice, _: Option<&DeliveryReceipt>) -> bool {
        notice.fresh.iter().any(|line| line.change)
    }

    async fn probe(&self) -> Result<String, String> {
        Ok("the routing key has the right form; only an event can show whether PagerDuty accepts it, and none was sent"
            .to_owned())
    }
}
