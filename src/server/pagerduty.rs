//! PagerDuty's webhook (v3): an act of a user there counts as the same act here.
//!
//! Invariant: nothing is decoded before its signature holds, nothing counts twice, and our own events that come back as
//! an echo change nothing.

use super::api::Inside;
use super::auth::digest;
use super::heard::Heard;
use super::{App, Caller, Problem, Way, body, signed};
use crate::config::Person;
use crate::limits;
use crate::model::{About, Actor, EntryKind, IncidentId, Time};
use crate::notifiers::one_line;
use crate::store::{Control, Filter, StoreError};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use ring::hmac;
use serde::Deserialize;
use serde_json::Value;
use std::sync::{PoisonError, RwLock};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/pagerduty/webhook", post(hear))
}

/// The keys that sign (two while one is rotated), and the deliveries received.
#[derive(Debug)]
pub struct PagerDutyDoor {
    keys: RwLock<Keys>,
    heard: Heard,
}

/// The keys, and a hash of their secrets: to see whether other ones are configured.
#[derive(Debug)]
struct Keys {
    keys: Vec<hmac::Key>,
    of: Vec<[u8; 32]>,
}

impl Keys {
    fn new(secrets: &[String]) -> Keys {
        let keys = secrets.iter().map(|secret| signed::key(secret)).collect();
        Keys { keys, of: secrets.iter().map(|secret| digest(secret)).collect() }
    }
}

impl PagerDutyDoor {
    /// An endpoint whose requests must be signed with one of these secrets.
    pub fn new(secrets: &[String]) -> PagerDutyDoor {
        PagerDutyDoor { keys: RwLock::new(Keys::new(secrets)), heard: Heard::new(limits::PAGERDUTY_HEARD) }
    }

    /// From now on these sign; whether they are others.
    pub(super) fn renew(&self, secrets: &[String]) -> bool {
        let next = Keys::new(secrets);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let others = keys.of != next.of;
        *keys = next;
        others
    }

    fn check(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if signatures(headers).any(|hex| keys.keys.iter().any(|key| signed::signs(key, body, hex))) {
            return Ok(());
        }
        Err(unsigned())
    }
}

/// The signatures that it claims to have, two while a secret is rotated.
fn signatures(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let given = headers.get("x-pagerduty-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(',').filter_map(|one| one.trim().strip_prefix("v1=")).take(limits::PAGERDUTY_SIGNATURES)
}

fn unsigned() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "this request is not from PagerDuty: no signature of it fits",
        "check `pagerduty.signing_secrets`, and that no proxy changes the body",
    )
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
    /// Part of what is signed; a time, as PagerDuty writes it.
    #[serde(default)]
    occurred_at: Value,
    /// The user who did it; an integration, or none, is our own echo.
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

async fn hear(State(app): State<App>, request: Request) -> Result<StatusCode, Problem> {
    let door = app.pagerduty.as_deref().ok_or_else(|| {
        Problem::not_found(
            "PagerDuty's webhook is not set up here",
            "add `pagerduty: { signing_secrets: [ … ] }` to nightshift.yaml",
        )
    })?;
    let (parts, body) = request.into_parts();
    if signatures(&parts.headers).next().is_none() {
        return Err(unsigned());
    }
    let held = {
        let bound = body::Bound::new(body::Unproved::PagerDuty, limits::PAGERDUTY_WEBHOOK_BYTES);
        body::unproved(&app, &parts.headers, body, bound).await?
    };
    door.check(&parts.headers, &held.bytes)?;
    let delivery: Delivery = serde_json::from_slice(&held.bytes).map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "this is not a webhook of version 3", "create a V3 webhook subscription")
    })?;
    drop(held);
    let event = delivery.event;
    let Some((incident, key, who)) = ours(&app, &event) else { return Ok(StatusCode::OK) };
    let filter = Filter { incident: Some(incident), limit: 1, ..Filter::default() };
    let found = app.parts.store.incidents(filter).await.map_err(|error| Problem::busy(error.to_string()))?;
    // A restored store gives numbers again: an alert there of another incident with this number is not ours.
    if found.first().is_none_or(|found| found.dedup_key(&app.parts.config.install) != key) {
        return Ok(StatusCode::OK);
    }
    // A restart forgets the numbers below: then the age of what was done bounds how long a copy of a delivery counts.
    let occurred = event.occurred_at.as_str().and_then(|at| at.parse::<Time>().ok());
    if occurred.is_some_and(|at| at + limits::PAGERDUTY_OLD < app.parts.clock.now()) {
        tracing::warn!(%incident, id = %one_line(&event.id, limits::WITNESS_CHARS), "PagerDuty delivery too old; ignored");
        return Ok(StatusCode::OK);
    }
    // PagerDuty signs no time of sending, so its own number is all that marks a repeat.
    if door.heard.again(&event.id) {
        return Ok(StatusCode::OK);
    }
    if let Err(problem) = follow(&app, &event, incident, &who).await {
        // PagerDuty tries again, and then it must count.
        door.heard.forget(&event.id);
        return Err(problem);
    }
    app.parts.nudge.nudge();
    Ok(StatusCode::OK)
}

/// Who has acted there.
enum Who {
    /// A user of the roster: their rights there are the same as here.
    Known(Person),
    /// A user that only PagerDuty has, by their name there.
    Vouched(String),
}

impl Who {
    fn name(&self) -> &str {
        match self {
            Who::Known(person) => &person.name,
            Who::Vouched(name) => name,
        }
    }
}

/// The incident that it is about, by number and by its whole key, and the user who acted; none where it is not ours or
/// no user acted.
fn ours(app: &App, event: &Event) -> Option<(IncidentId, String, Who)> {
    let agent = event.agent.as_ref().filter(|agent| agent.kind.starts_with("user"))?;
    let who = match app.roster.now().by_pagerduty(&agent.id) {
        Some(person) => Who::Known(person.clone()),
        None => Who::Vouched(format!("{} (PagerDuty)", one_line(&agent.summary, 60))),
    };
    // A note carries its incident one level deeper.
    let key =
        [&event.data["incident_key"], &event.data["incident"]["incident_key"]].into_iter().find_map(Value::as_str)?;
    let number = key.strip_prefix(&format!("nightshift/{}/", app.parts.config.install))?;
    let number = number.split_once('/').map_or(number, |(number, _)| number);
    Some((number.parse().ok()?, key.to_owned(), who))
}

/// An acknowledgement: of a user with an entry here it is the request to the API that they would send, in their name,
/// so its table of roles decides and its audit records a refusal. For other users PagerDuty's signature counts.
async fn acknowledge(app: &App, incident: IncidentId, who: &Who) -> Result<(), Problem> {
    match who {
        Who::Known(person) => {
            let caller = Caller::of(person, Way::PagerDuty);
            match Inside::new(app, &caller).acknowledge(&incident.to_string()).await {
                Err(problem) if problem.status.is_server_error() => Err(Problem::busy(problem.error)),
                // Done; or refused, over or swept away, and then PagerDuty need not try again.
                Ok(_) | Err(_) => Ok(()),
            }
        }
        Who::Vouched(name) => {
            let acknowledge = Control::Acknowledge { incident, by: name.clone() };
            match app.parts.store.control(acknowledge, app.parts.clock.now()).await {
                Ok(()) | Err(StoreError::Refused(_) | StoreError::NotFound { .. }) => Ok(()),
                Err(error) => Err(Problem::busy(error.to_string())),
            }
        }
    }
}

async fn follow(app: &App, event: &Event, incident: IncidentId, who: &Who) -> Result<(), Problem> {
    let by = who.name();
    let said = match event.event_type.as_str() {
        "incident.acknowledged" => return acknowledge(app, incident, who).await,
        "incident.resolved" => "resolved it in PagerDuty; here it stays open as long as an alert fires".to_owned(),
        "incident.unacknowledged" => "took the acknowledgement back in PagerDuty".to_owned(),
        "incident.reassigned" | "incident.delegated" => {
            let names = event.data["assignees"].as_array().into_iter().flatten();
            let names: Vec<&str> = names.filter_map(|one| one["summary"].as_str()).take(limits::NAMES_SHOWN).collect();
            format!(
                "gave it to {} in PagerDuty",
                if names.is_empty() { "another user".to_owned() } else { names.join(", ") }
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
        format!("v1={}", hex::encode(tag))
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
