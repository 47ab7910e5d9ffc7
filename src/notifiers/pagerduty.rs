//! PagerDuty Events v2: trigger, acknowledge, resolve, under one key for the incident's whole life.
//!
//! Invariant: an event is sent only when the incident's state differs from PagerDuty's, when a user is needed for a new
//! reason, or when the severity rose. A second trigger under an open key never notifies again: PagerDuty adds it to the
//! log of the alert. The key makes a repeated send harmless.

mod changes;
mod door;
mod page;

pub use changes::PagerDutyChangeNotifier;

use super::{ChannelRateLimit, Notifier, text};
use crate::limits::{PAGERDUTY_BODY_BYTES, PAGERDUTY_BURST, PAGERDUTY_KEY_CHARS, PAGERDUTY_PACE};
use crate::model::{DeliveryReceipt, DeliveryResult, IncidentDigest, IncidentNotice, IncidentState, Severity};
use crate::telemetry::ChannelKind;
use crate::world::HttpClient;
use door::PagerDutyClient;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A channel to PagerDuty's Events API.
pub struct PagerDutyNotifier {
    door: PagerDutyClient,
    install: String,
    pace: ChannelRateLimit,
}

/// PagerDuty's state of an incident: the receipt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct PagerDutyReceipt {
    state: Option<PagerDutyState>,
    dedup_key: String,
    /// Keys of the reasons why users are needed.
    needs: Vec<String>,
    severity: Option<Severity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PagerDutyState {
    Triggered,
    Acknowledged,
    Resolved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum EventAction {
    Trigger,
    Acknowledge,
    Resolve,
}

#[derive(Serialize)]
struct PagerDutyEventBody<'a> {
    routing_key: &'a str,
    event_action: EventAction,
    dedup_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<page::PagerDutyPayload>,
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<PagerDutyLink<'a>>,
}

#[derive(Serialize)]
struct PagerDutyLink<'a> {
    href: &'a str,
    text: String,
}

impl PagerDutyNotifier {
    /// A channel of this integration. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// Fails when the routing key is not one of an Events API V2 integration.
    pub fn new(http: HttpClient, routing_key: String, api: String, install: &str) -> Result<PagerDutyNotifier, String> {
        let pace = ChannelRateLimit::of(&api, &routing_key, PAGERDUTY_PACE, PAGERDUTY_BURST);
        Ok(PagerDutyNotifier { door: PagerDutyClient::new(http, routing_key, api)?, install: install.to_owned(), pace })
    }

    fn event<'a>(&'a self, action: EventAction, notice: &'a IncidentNotice) -> PagerDutyEventBody<'a> {
        let link = notice.link.as_deref().and_then(text::link);
        let mut links: Vec<PagerDutyLink<'a>> = link
            .map(|href| PagerDutyLink { href, text: "The incident in Nightshift".to_owned() })
            .into_iter()
            .collect();
        for need in &notice.needs {
            if let Some(href) = need.link.as_deref().and_then(text::link)
                && links.iter().all(|link| link.href != href)
            {
                links.push(PagerDutyLink { href, text: format!("Run {} in Nightshift", need.run) });
            }
        }
        for found in &notice.links {
            links.extend(text::link(&found.url).map(|href| PagerDutyLink { href, text: found.label.clone() }));
        }
        PagerDutyEventBody {
            routing_key: &self.door.routing_key,
            event_action: action,
            dedup_key: key(&notice.dedup_key),
            payload: (action == EventAction::Trigger).then(|| page::payload(notice, &self.install)),
            client: "Nightshift",
            client_url: link,
            links,
        }
    }
}

#[async_trait::async_trait]
impl Notifier for PagerDutyNotifier {
    fn kind(&self) -> ChannelKind {
        ChannelKind::PagerDuty
    }

    async fn deliver(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        let before = shown(prior);
        let (action, then) = next(&before, notice);
        // An acknowledgement carries no details: the rest is sent next.
        let said = action != Some(EventAction::Acknowledge);
        let receipt = DeliveryReceipt(json!(PagerDutyReceipt {
            state: then,
            dedup_key: key(&notice.dedup_key),
            needs: match said {
                true => notice.needs.iter().map(|need| need.key.clone()).collect(),
                false => before.needs.clone(),
            },
            severity: if said { before.severity.max(Some(notice.incident.severity)) } else { before.severity },
        }));
        let Some(action) = action else {
            // Nothing is kept of an incident of which PagerDuty has nothing.
            return DeliveryResult::Nothing(prior.map(|_| receipt));
        };
        match self.door.send(bounded(json!(self.event(action, notice)))).await {
            Ok(()) => DeliveryResult::Delivered(receipt),
            Err(delivery) => delivery,
        }
    }

    /// One alert a storm. It stays open until a user resolves it, who has looked. Under its key the count is corrected
    /// when it has doubled, when more wait for an answer, and when the storm is over.
    async fn digest(&self, digest: &IncidentDigest, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        let said = |name: &str| prior.and_then(|receipt| receipt.0[name].as_u64()).unwrap_or(0);
        let (total, asking) = (digest.total as u64, digest.asking as u64);
        let news = digest.over && total > said("total") || total >= 2 * said("total") || asking > said("asking");
        if prior.is_some() && !news {
            return DeliveryResult::Nothing(None);
        }
        let before = prior.and_then(|receipt| receipt.0["dedup_key"].as_str()).map(str::to_owned);
        let dedup_key = before.unwrap_or_else(|| key(&format!("nightshift/{}/storm/{}", self.install, digest.since)));
        let link = digest.link.as_deref().and_then(text::link);
        let event = PagerDutyEventBody {
            routing_key: &self.door.routing_key,
            event_action: EventAction::Trigger,
            dedup_key: dedup_key.clone(),
            payload: Some(page::storm(digest, &self.install)),
            client: "Nightshift",
            client_url: link,
            links: link
                .map(|href| PagerDutyLink { href, text: "All incidents in Nightshift".to_owned() })
                .into_iter()
                .collect(),
        };
        match self.door.send(bounded(json!(event))).await {
            Ok(()) => DeliveryResult::Delivered(DeliveryReceipt(
                json!({ "dedup_key": dedup_key, "total": total, "asking": asking }),
            )),
            Err(delivery) => delivery,
        }
    }

    fn pace(&self) -> Option<&ChannelRateLimit> {
        Some(&self.pace)
    }

    fn speaks(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> bool {
        next(&shown(prior), notice).0.is_some()
    }

    fn waits_for_plan(&self) -> bool {
        true
    }

    async fn probe(&self) -> Result<String, String> {
        Ok("the routing key has the right form; only an event can show whether PagerDuty accepts it, and none was sent"
            .to_owned())
    }
}

fn shown(prior: Option<&DeliveryReceipt>) -> PagerDutyReceipt {
    prior.and_then(|receipt| PagerDutyReceipt::deserialize(&receipt.0).ok()).unwrap_or_default()
}

/// The event to send, and PagerDuty's state afterwards.
fn next(shown: &PagerDutyReceipt, notice: &IncidentNotice) -> (Option<EventAction>, Option<PagerDutyState>) {
    use EventAction::*;
    let worse = shown.severity.is_some_and(|before| before < notice.incident.severity);
    let update = worse || notice.needs.iter().any(|need| !shown.needs.contains(&need.key));
    match (shown.state, notice.incident.state) {
        (Some(PagerDutyState::Triggered), IncidentState::Open) => {
            (update.then_some(Trigger), Some(PagerDutyState::Triggered))
        }
        (_, IncidentState::Open) => (Some(Trigger), Some(PagerDutyState::Triggered)),
        (Some(PagerDutyState::Triggered), IncidentState::Acknowledged) => {
            (Some(Acknowledge), Some(PagerDutyState::Acknowledged))
        }
        // It stays acknowledged, with the user who has it in hand; the log of the alert has the news.
        (Some(PagerDutyState::Acknowledged), IncidentState::Acknowledged) => {
            (update.then_some(Trigger), Some(PagerDutyState::Acknowledged))
        }
        // No page for an incident that a user has acknowledged, or that is over, before PagerDuty has anything of it.
        (None | Some(PagerDutyState::Resolved), IncidentState::Acknowledged) => (None, shown.state),
        (Some(PagerDutyState::Triggered | PagerDutyState::Acknowledged), IncidentState::Resolved) => {
            (Some(Resolve), Some(PagerDutyState::Resolved))
        }
        (None | Some(PagerDutyState::Resolved), IncidentState::Resolved) => (None, shown.state),
    }
}

/// The dedup key, within PagerDuty's bound, still unique when it was too long.
fn key(long: &str) -> String {
    let clean = text::plain(long, long.len());
    if clean.len() <= PAGERDUTY_KEY_CHARS {
        return clean;
    }
    let hash = hex::encode(Sha256::digest(long.as_bytes()));
    format!("nightshift/{hash}")
}

/// As Alertmanager does: over the bound, the details give way to a note.
fn bounded(mut event: Value) -> Value {
    let size = event.to_string().len();
    if size > PAGERDUTY_BODY_BYTES
        && let Some(details) = event.pointer_mut("/payload/custom_details")
    {
        *details = json!({ "left_out": format!("the details would have made the event {size} bytes long") });
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(state: IncidentState, severity: Severity, needs: &[&str]) -> IncidentNotice {
        let need = |key: &&str| json!({ "kind": "approval", "key": key, "run": "r2", "text": "gpu-reset (r2) waits for an answer" });
        serde_json::from_value(json!({
            "incident": {
                "id": "i3", "key": "node=gpu-3", "title": "gpu-3: GPU 5 fell off the bus (XID 79)",
                "subject": { "node": "gpu-3", "gpu": "5" }, "severity": severity, "state": state,
                "opened_at": "2026-11-23T03:00:00Z", "firing": 1, "episodes": 1,
            },
            "fresh": [], "headlines": [], "asks": [], "dedup_key": "nightshift/prod/i3", "maybe_repeat": false,
            "needs": needs.iter().map(need).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn a_state_is_sent_once_and_what_needs_people_once_more_under_the_same_key() {
        use EventAction::*;
        use IncidentState as State;
        let check = |state, needs: &[&str], incident, now: &[&str], action, then| {
            let needs = needs.iter().map(|key| (*key).to_owned()).collect();
            let shown =
                PagerDutyReceipt { state, needs, severity: Some(Severity::Warning), ..PagerDutyReceipt::default() };
            let found = next(&shown, &notice(incident, Severity::Warning, now));
            assert_eq!(found, (action, then), "{shown:?} → {incident:?}");
        };
        let (triggered, acknowledged, resolved) =
            (Some(PagerDutyState::Triggered), Some(PagerDutyState::Acknowledged), Some(PagerDutyState::Resolved));
        check(None, &[], State::Open, &[], Some(Trigger), triggered);
        check(triggered, &[], State::Open, &[], None, triggered);
        check(triggered, &[], State::Open, &["a2"], Some(Trigger), triggered);
        check(triggered, &["a2"], State::Open, &["a2"], None, triggered);
        check(triggered, &["a2"], State::Open, &[], None, triggered);
        check(triggered, &["a2"], State::Open, &["a2", "r2 stuck"], Some(Trigger), triggered);
        check(triggered, &[], State::Acknowledged, &[], Some(Acknowledge), acknowledged);
        check(acknowledged, &[], State::Acknowledged, &[], None, acknowledged);
        check(acknowledged, &[], State::Acknowledged, &["a2"], Some(Trigger), acknowledged);
        check(acknowledged, &[], State::Resolved, &[], Some(Resolve), resolved);
        check(triggered, &[], State::Resolved, &[], Some(Resolve), resolved);
        check(resolved, &[], State::Resolved, &[], None, resolved);
        check(resolved, &[], State::Open, &[], Some(Trigger), triggered);
        check(None, &[], State::Resolved, &[], None, None);
        check(None, &[], State::Acknowledged, &["a2"], None, None);
    }

    #[test]
    fn a_severity_that_rose_is_news_and_one_that_fell_is_not() {
        let state = Some(PagerDutyState::Triggered);
        let shown = PagerDutyReceipt { state, severity: Some(Severity::Error), ..PagerDutyReceipt::default() };
        let next = |severity| next(&shown, &notice(IncidentState::Open, severity, &[])).0;
        assert_eq!(next(Severity::Critical), Some(EventAction::Trigger));
        assert_eq!(next(Severity::Error), None);
        assert_eq!(next(Severity::Warning), None);
    }

    /// A receipt of an earlier version has neither needs nor a severity.
    #[test]
    fn a_receipt_of_an_earlier_version_is_read() {
        let old = DeliveryReceipt(json!({ "state": "triggered", "dedup_key": "nightshift/prod/i3" }));
        let shown = shown(Some(&old));
        assert_eq!(shown.state, Some(PagerDutyState::Triggered));
        assert_eq!(next(&shown, &notice(IncidentState::Open, Severity::Critical, &[])).0, None);
    }

    #[test]
    fn a_key_is_stable_and_never_too_long() {
        assert_eq!(key("nightshift/prod/i3"), "nightshift/prod/i3");
        let long = format!("nightshift/{}/i3", "x".repeat(300));
        assert_eq!(key(&long), key(&long));
        assert!(key(&long).len() <= PAGERDUTY_KEY_CHARS);
        assert_ne!(key(&long), key(&format!("{long}4")));
    }
}
