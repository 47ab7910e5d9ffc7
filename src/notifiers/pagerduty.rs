//! PagerDuty Events v2: trigger, acknowledge, resolve, under one key for the incident's whole life.
//!
//! Invariant: an event is sent only when the incident's state differs from what PagerDuty was told, so that a changed
//! headline never pages anybody again. The key makes a repeated send harmless.

mod changes;
mod door;

pub use changes::Changes;

use super::{Notifier, Pace, clock_time, text};
use crate::limits::{
    PAGERDUTY_BODY_BYTES, PAGERDUTY_BURST, PAGERDUTY_KEY_CHARS, PAGERDUTY_PACE, PAGERDUTY_SUMMARY_CHARS,
    STORY_LINE_CHARS,
};
use crate::model::{Delivery, Digest, IncidentState, Notice, Receipt, Severity, Time};
use crate::world::Http;
use door::Door;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub struct PagerDuty {
    door: Door,
    install: String,
    pace: Pace,
}

/// What PagerDuty knows: the receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Known {
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
struct Event<'a> {
    routing_key: &'a str,
    event_action: EventAction,
    dedup_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Payload>,
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link<'a>>,
}

#[derive(Serialize)]
struct Payload {
    summary: String,
    source: String,
    severity: Severity,
    timestamp: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    custom_details: Value,
}

#[derive(Serialize)]
struct Link<'a> {
    href: &'a str,
    text: &'static str,
}

impl PagerDuty {
    pub fn new(http: Http, routing_key: String, api: String, install: &str) -> Result<PagerDuty, String> {
        let pace = Pace::of(&api, &routing_key, PAGERDUTY_PACE, PAGERDUTY_BURST);
        Ok(PagerDuty { door: Door::new(http, routing_key, api)?, install: install.to_owned(), pace })
    }

    fn event<'a>(&'a self, action: EventAction, notice: &'a Notice) -> Event<'a> {
        let link = notice.link.as_deref().and_then(text::link);
        Event {
            routing_key: &self.door.routing_key,
            event_action: action,
            dedup_key: key(&notice.dedup_key),
            payload: (action == EventAction::Trigger).then(|| self.payload(notice)),
            client: "Nightshift",
            client_url: link,
            links: link.map(|href| Link { href, text: "The incident in Nightshift" }).into_iter().collect(),
        }
    }

    fn payload(&self, notice: &Notice) -> Payload {
        let incident = &notice.incident;
        let part = |name: &str| incident.subject.part(name).map(|value| text::plain(value, 200));
        let latest = notice.headlines.last().map(|line| format!(" — {}", line.text)).unwrap_or_default();
        let story: Vec<String> = notice
            .headlines
            .iter()
            .map(|line| text::plain(&format!("{} {}", clock_time(line.at), line.text), STORY_LINE_CHARS))
            .collect();
        let asks: Vec<String> = notice
            .asks
            .iter()
            .take(crate::limits::ASKS)
            .map(|ask| {
                let (command, deadline) = super::how_to_answer(ask);
                format!("{} [{command}] {deadline}", text::plain(&ask.question, STORY_LINE_CHARS))
            })
            .collect();
        Payload {
            summary: text::plain(&format!("{}{latest}", incident.title), PAGERDUTY_SUMMARY_CHARS),
            source: part("node").or_else(|| part("cluster")).unwrap_or_else(|| text::plain(&self.install, 200)),
            severity: incident.severity,
            timestamp: incident.opened_at,
            component: part("gpu").or_else(|| part("model")).or_else(|| part("workload")),
            group: part("cluster"),
            custom_details: details(
                notice,
                json!({
                    "incident": incident.id,
                    "subject": text::plain(&incident.subject.to_string(), STORY_LINE_CHARS),
                    "alerts_firing": incident.firing,
                    "story": story,
                    "questions": asks,
                }),
            ),
        }
    }
}

#[async_trait::async_trait]
impl Notifier for PagerDuty {
    fn kind(&self) -> &'static str {
        "pagerduty"
    }

    async fn deliver(&self, notice: &Notice, prior: Option<&Receipt>) -> Delivery {
        let (action, then) = next(known(prior), notice.incident.state);
        if let Some(action) = action
            && let Err(delivery) = self.door.send(bounded(json!(self.event(action, notice)))).await
        {
            return delivery;
        }
        Delivery::Delivered(Receipt(json!({ "state": then, "dedup_key": key(&notice.dedup_key) })))
    }

    /// One event a storm. It stays open until a human resolves it: somebody should have looked.
    async fn digest(&self, digest: &Digest, prior: Option<&Receipt>) -> Delivery {
        if let Some(prior) = prior {
            return Delivery::Delivered(prior.clone());
        }
        let dedup_key = key(&format!("nightshift/{}/storm/{}", self.install, digest.since));
        let shown: Vec<String> = digest
            .shown
            .iter()
            .map(|item| text::plain(&format!("{}: {} {}", item.severity, item.title, item.line), STORY_LINE_CHARS))
            .collect();
        let event = Event {
            routing_key: &self.door.routing_key,
            event_action: EventAction::Trigger,
            dedup_key: dedup_key.clone(),
            payload: Some(Payload {
                summary: format!(
                    "{} incidents at once, worst: {}; more are not paged one by one",
                    digest.total, digest.worst
                ),
                source: text::plain(&self.install, 200),
                severity: digest.worst,
                timestamp: digest.since,
                component: None,
                group: None,
                custom_details: json!({ "incidents": shown, "all": "nightshift incidents" }),
            }),
            client: "Nightshift",
            client_url: None,
            links: Vec::new(),
        };
        match self.door.send(bounded(json!(event))).await {
            Ok(()) => Delivery::Delivered(Receipt(json!({ "dedup_key": dedup_key }))),
            Err(delivery) => delivery,
        }
    }

    fn pace(&self) -> Option<&Pace> {
        Some(&self.pace)
    }

    fn speaks(&self, notice: &Notice, prior: Option<&Receipt>) -> bool {
        next(known(prior), notice.incident.state).0.is_some()
    }

    async fn probe(&self) -> Result<String, String> {
        Ok("the routing key has the right form; whether PagerDuty knows it shows only with an event, and none was sent"
            .to_owned())
    }
}

fn known(prior: Option<&Receipt>) -> Option<Known> {
    prior.and_then(|receipt| Known::deserialize(&receipt.0["state"]).ok())
}

/// What to send, and what PagerDuty knows afterwards.
fn next(known: Option<Known>, state: IncidentState) -> (Option<EventAction>, Known) {
    use EventAction::*;
    match (known, state) {
        (Some(Known::Triggered), IncidentState::Open) => (None, Known::Triggered),
        (_, IncidentState::Open) => (Some(Trigger), Known::Triggered),
        (Some(Known::Triggered), IncidentState::Acknowledged) => (Some(Acknowledge), Known::Acknowledged),
        // Nobody is paged for what somebody has in hand or what is over before PagerDuty heard of it.
        (None | Some(Known::Acknowledged | Known::Resolved), IncidentState::Acknowledged) => {
            (None, Known::Acknowledged)
        }
        (Some(Known::Triggered | Known::Acknowledged), IncidentState::Resolved) => (Some(Resolve), Known::Resolved),
        (None | Some(Known::Resolved), IncidentState::Resolved) => (None, Known::Resolved),
    }
}

/// With why a patient channel speaks now.
fn details(notice: &Notice, mut details: Value) -> Value {
    if let Some(because) = &notice.because {
        details["why_told_now"] = json!(text::plain(because, STORY_LINE_CHARS));
    }
    details
}

/// The dedup key, within PagerDuty's bound, still unique when it was too long.
fn key(long: &str) -> String {
    let clean = text::plain(long, long.len());
    if clean.len() <= PAGERDUTY_KEY_CHARS {
        return clean;
    }
    let hash: String = Sha256::digest(long.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
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

    #[test]
    fn only_a_changed_state_is_sent() {
        use EventAction::*;
        use IncidentState as State;
        let check =
            |known, state, action, then| assert_eq!(next(known, state), (action, then), "{known:?} → {state:?}");
        check(None, State::Open, Some(Trigger), Known::Triggered);
        check(Some(Known::Triggered), State::Open, None, Known::Triggered);
        check(Some(Known::Triggered), State::Acknowledged, Some(Acknowledge), Known::Acknowledged);
        check(Some(Known::Acknowledged), State::Acknowledged, None, Known::Acknowledged);
        check(Some(Known::Acknowledged), State::Resolved, Some(Resolve), Known::Resolved);
        check(Some(Known::Triggered), State::Resolved, Some(Resolve), Known::Resolved);
        check(Some(Known::Resolved), State::Resolved, None, Known::Resolved);
        check(Some(Known::Resolved), State::Open, Some(Trigger), Known::Triggered);
        check(None, State::Resolved, None, Known::Resolved);
        check(None, State::Acknowledged, None, Known::Acknowledged);
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
