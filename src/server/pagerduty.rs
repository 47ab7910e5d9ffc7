//! PagerDuty's webhook (v3): what people do there is the same here.
//!
//! Invariant: nothing is decoded before its signature holds, nothing counts twice, and our own events that come back as
//! an echo change nothing.

use super::heard::Heard;
use super::{App, Problem, signed};
use crate::limits;
use crate::model::{About, Actor, EntryKind, IncidentId};
use crate::notifiers::one_line;
use crate::store::{Control, Filter, StoreError};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use ring::hmac;
use serde::Deserialize;
use serde_json::Value;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/pagerduty/webhook", post(hear)).layer(DefaultBodyLimit::max(limits::PAGERDUTY_WEBHOOK_BYTES))
}

/// The keys that sign (two while one is rotated), and deliveries that were heard.
#[derive(Debug)]
pub struct PagerDutyDoor {
    keys: Vec<hmac::Key>,
    heard: Heard,
}

impl PagerDutyDoor {
    pub fn new(secrets: &[String]) -> PagerDutyDoor {
        PagerDutyDoor {
            keys: secrets.iter().map(|secret| signed::key(secret)).collect(),
            heard: Heard::new(limits::PAGERDUTY_HEARD),
        }
    }

    fn check(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
        let given = headers.get("x-pagerduty-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut signatures =
            given.split(',').filter_map(|one| one.trim().strip_prefix("v1=")).take(limits::PAGERDUTY_SIGNATURES);
        if signatures.any(|hex| self.keys.iter().any(|key| signed::signs(key, body, hex))) {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "this request is not from PagerDuty: no signature of it fits",
            "check `pagerduty.signing_secrets`, and that no proxy changes the body",
        ))
    }
}

#[derive(Deserialize)]
struct Delivery {
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    id: String,
    event_type: String,
    /// Who did it; an integration, or nobody, is our own echo.
    #[serde(default)]
    agent: Option<Reference>,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    id: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    summary: String,
}

async fn hear(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<StatusCode, Problem> {
    let door = app.pagerduty.as_deref().ok_or_else(|| {
        Problem::not_found(
            "PagerDuty's webhook is not set up here",
            "add `pagerduty: { signing_secrets: [ … ] }` to nightshift.yaml",
        )
    })?;
    door.check(&headers, &body)?;
    let delivery: Delivery = serde_json::from_slice(&body).map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "this is not a webhook of version 3", "create a V3 webhook subscription")
    })?;
    let event = delivery.event;
    let Some((incident, by)) = ours(&app, &event) else { return Ok(StatusCode::OK) };
    // PagerDuty signs no time, so its own number is all that tells a repeat.
    if door.heard.again(&event.id) {
        return Ok(StatusCode::OK);
    }
    if let Err(problem) = follow(&app, &event, incident, &by).await {
        // PagerDuty tries again, and then it must count.
        door.heard.forget(&event.id);
        return Err(problem);
    }
    app.parts.nudge.nudge();
    Ok(StatusCode::OK)
}

/// The incident that it is about and the person who acted; none where it is not ours or nobody acted.
fn ours(app: &App, event: &Event) -> Option<(IncidentId, String)> {
    let agent = event.agent.as_ref().filter(|agent| agent.kind.starts_with("user"))?;
    let roster = app.roster.now();
    let known = roster.by_pagerduty(&agent.id);
    let by =
        known.map_or_else(|| format!("{} (PagerDuty)", one_line(&agent.summary, 60)), |person| person.name.clone());
    // A note carries its incident one level deeper.
    let key =
        [&event.data["incident_key"], &event.data["incident"]["incident_key"]].into_iter().find_map(Value::as_str)?;
    let number = key.strip_prefix(&format!("nightshift/{}/", app.parts.config.install))?;
    Some((number.parse().ok()?, by))
}

async fn follow(app: &App, event: &Event, incident: IncidentId, by: &str) -> Result<(), Problem> {
    let said = match event.event_type.as_str() {
        "incident.acknowledged" => {
            let acknowledge = Control::Acknowledge { incident, by: by.to_owned() };
            return match app.parts.store.control(acknowledge, app.parts.clock.now()).await {
                // Over, or swept away: nothing is left to acknowledge, and PagerDuty need not try again.
                Ok(()) | Err(StoreError::Refused(_) | StoreError::NotFound { .. }) => Ok(()),
                Err(error) => Err(Problem::busy(error.to_string())),
            };
        }
        "incident.resolved" => "resolved it in PagerDuty; here it stays open as long as an alert fires".to_owned(),
        "incident.unacknowledged" => "took the acknowledgement back in PagerDuty".to_owned(),
        "incident.reassigned" | "incident.delegated" => {
            let names = event.data["assignees"].as_array().into_iter().flatten();
            let names: Vec<&str> = names.filter_map(|one| one["summary"].as_str()).take(limits::NAMES_SHOWN).collect();
            format!(
                "gave it to {} in PagerDuty",
                if names.is_empty() { "somebody else".to_owned() } else { names.join(", ") }
            )
        }
        "incident.escalated" => "escalated it in PagerDuty".to_owned(),
        "incident.priority_updated" => {
            let priority = event.data["priority"]["summary"].as_str().unwrap_or("none");
            format!("set its priority to {priority} in PagerDuty")
        }
        "incident.annotated" => format!("noted in PagerDuty: {}", event.data["content"].as_str().unwrap_or_default()),
        _ => return Ok(()),
    };
    let filter = Filter { incident: Some(incident), limit: 1, ..Filter::default() };
    let there = app.parts.store.incidents(filter).await.map_err(|error| Problem::busy(error.to_string()))?;
    if there.iter().all(|found| found.id != incident) {
        return Ok(());
    }
    let remark = EntryKind::Remarked { by: by.to_owned(), text: one_line(&said, limits::STORY_LINE_CHARS) };
    let about = About { incident: Some(incident), run: None };
    let noted = app.parts.store.note(Actor::person(by), about, remark, app.parts.clock.now()).await;
    noted.map(drop).map_err(|error| Problem::busy(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-pagerduty-signature", signature.parse().unwrap());
        headers
    }

    fn sign(secret: &str, body: &[u8]) -> String {
        let tag = hmac::sign(&signed::key(secret), body);
        tag.as_ref().iter().fold("v1=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    #[test]
    fn one_fitting_signature_is_enough_while_a_secret_is_rotated() {
        let door = PagerDutyDoor::new(&["old".to_owned(), "new".to_owned()]);
        let body = br#"{"event":{}}"#;
        assert!(door.check(&headers(&sign("new", body)), body).is_ok());
        let both = format!("{}, {}", sign("another", body), sign("old", body));
        assert!(door.check(&headers(&both), body).is_ok());
        for wrong in
            [sign("another", body), sign("new", b"{}"), "v1=".to_owned(), sign("new", body).replace("v1", "v0")]
        {
            assert_eq!(door.check(&headers(&wrong), body).unwrap_err().status, StatusCode::UNAUTHORIZED);
        }
        assert!(door.check(&HeaderMap::new(), body).is_err());
        assert!(PagerDutyDoor::new(&[]).check(&headers(&sign("new", body)), body).is_err());
    }
}
