//! The change that an event makes to its episode, and the incident that an episode belongs to.
//!
//! Invariant: a new episode opens only after an observed end; the same start after an end reopens the old one.

mod title;

pub use title::{incident_title, title_of};

use crate::limits;
use crate::model::{EpisodeState, Event, EventStatus, Subject, Time};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The latest episode of a (source, fingerprint), as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriorEpisode {
    pub state: EpisodeState,
    /// The earliest start that was reported for it.
    pub starts_at: Time,
}

/// The change that an event makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum EpisodeChange {
    /// A new episode.
    Opened,
    /// The same start after an end: the old episode again, same incident, cooldown and attempts.
    Reopened,
    /// Still true: a counter.
    Refreshed,
    /// The open episode ends.
    Resolved,
    /// A resolve for something not open, or unknown: nothing.
    Late,
}

impl EpisodeChange {
    /// The change's name in the ledger.
    pub fn name(self) -> &'static str {
        self.into_str()
    }
}

/// Returns the change that the event makes to the latest episode of its alert.
pub fn hear(prior: Option<&PriorEpisode>, event: &Event) -> EpisodeChange {
    let Some(prior) = prior else {
        return match event.status {
            EventStatus::Firing => EpisodeChange::Opened,
            EventStatus::Resolved => EpisodeChange::Late,
        };
    };
    match (event.status, prior.state) {
        // Starts move between replicas, so any start refreshes an open episode; the earliest is kept.
        (EventStatus::Firing, EpisodeState::Open) => EpisodeChange::Refreshed,
        (EventStatus::Firing, EpisodeState::Resolved | EpisodeState::Stale) => {
            // A late duplicate of a replica, or an alert that had only timed out: both look the same, so it is the old
            // one.
            if event.starts_at <= prior.starts_at { EpisodeChange::Reopened } else { EpisodeChange::Opened }
        }
        (EventStatus::Resolved, EpisodeState::Open) if is_of_an_earlier_span(event, prior) => EpisodeChange::Late,
        (EventStatus::Resolved, EpisodeState::Open) => EpisodeChange::Resolved,
        (EventStatus::Resolved, EpisodeState::Resolved | EpisodeState::Stale) => EpisodeChange::Late,
    }
}

/// The key of the incident: the values of `group_by` (parts of the subject or labels), or, where that is empty, the
/// most specific container: cluster and node; else namespace and workload (or pod); else model; else alert name and
/// instance.
pub fn incident_key(event: &Event, group_by: &[String]) -> String {
    let mut parts: Vec<(&str, &str)> = group_by.iter().map(|name| (name.as_str(), value_of(event, name))).collect();
    if parts.iter().all(|(_, value)| value.is_empty()) {
        // None of the rule's `group_by` parts is known: all such events must not become one incident.
        parts = default_parts(event);
    }
    let mut key = String::new();
    for (name, value) in parts {
        if !key.is_empty() {
            key.push(',');
        }
        key.push_str(name);
        key.push('=');
        push_value(&mut key, value);
    }
    bounded_key(key)
}

/// The part of the subject (or the label) that distinguishes this event's incident from another one's: `node`,
/// `workload`, …
pub fn incident_part<'g>(event: &Event, group_by: &'g [String]) -> &'g str {
    match group_by.iter().rev().find(|name| !value_of(event, name).is_empty()) {
        Some(name) => name,
        None => default_parts(event).last().map_or("", |(name, _)| *name),
    }
}

/// The key under which alerts of one name are one incident, once they fire on many subjects: of one rule (none: the
/// catch-all) and one cluster, as users may act in one cluster and not in another.
pub fn group_key(event: &Event, rule: Option<&str>) -> String {
    let mut key = "group/alertname=".to_owned();
    push_value(&mut key, event.name());
    for (name, value) in [("rule", rule), ("cluster", event.subject.cluster.as_deref())] {
        if let Some(value) = value {
            key.push(',');
            key.push_str(name);
            key.push('=');
            push_value(&mut key, value);
        }
    }
    bounded_key(key)
}

/// `GpuHot on 30 nodes`. `part`: the common kind of its subjects, where they have one.
pub fn group_title(alert: &str, subjects: u32, part: Option<&str>) -> String {
    let what = match part {
        Some("node") => "nodes",
        Some("gpu") => "GPUs",
        Some("slice") => "slices",
        Some("namespace") => "namespaces",
        Some("workload") => "workloads",
        Some("pod") => "pods",
        Some("container") => "containers",
        Some("model") => "models",
        Some("cluster") => "clusters",
        Some("instance") => "instances",
        _ => "subjects",
    };
    cut(&format!("{} on {subjects} {what}", one_line(alert)), limits::TITLE_CHARS)
}

/// An alert and where it is, in a few words: `GpuHot (GPU 1 of gpu-1)`.
pub fn alert_place(event: &Event) -> String {
    let subject = &event.subject;
    let name = match event.labels.get("xid").parse::<u32>() {
        Ok(code) => format!("XID {code}"),
        Err(_) => one_line(event.name()),
    };
    let place = one_line(&place_of(event));
    let text = match &subject.gpu {
        Some(gpu) if !place.is_empty() => format!("{name} (GPU {} of {place})", one_line(gpu)),
        Some(gpu) => format!("{name} (GPU {})", one_line(gpu)),
        None if !place.is_empty() => format!("{name} on {place}"),
        None => name,
    };
    cut(&text, limits::ALERT_PLACE_CHARS)
}

/// Whether a resolve is about a span that was over before the open one began: a peer that lags behind.
fn is_of_an_earlier_span(event: &Event, prior: &PriorEpisode) -> bool {
    event.starts_at < prior.starts_at && event.ends_at.is_some_and(|end| end <= prior.starts_at)
}

/// A part of the subject by that name, else a label, else the empty string.
pub(super) fn value_of<'e>(event: &'e Event, name: &str) -> &'e str {
    event.subject.part(name).unwrap_or_else(|| event.labels.get(name))
}

fn default_parts(event: &Event) -> Vec<(&'static str, &str)> {
    let subject = &event.subject;
    let mut parts: Vec<(&str, &str)> = subject.cluster.iter().map(|cluster| ("cluster", cluster.as_str())).collect();
    let namespace = subject.namespace.as_deref().map(|name| ("namespace", name));
    if let Some(node) = &subject.node {
        parts.push(("node", node));
    } else if let Some(workload) = &subject.workload {
        parts.extend(namespace);
        parts.push(("workload", workload));
    } else if let Some(pod) = &subject.pod {
        parts.extend(namespace);
        parts.push(("pod", pod));
    } else if let Some(model) = &subject.model {
        parts.push(("model", model));
    } else {
        parts.push(("alertname", event.name()));
        // Without another place, the target that Prometheus scraped is the place.
        let instance = event.labels.get("instance");
        if !instance.is_empty() {
            parts.push(("instance", instance));
        }
    }
    parts
}

/// Plain values stand as they are; others are quoted, so that a comma in a label cannot forge another key.
fn push_value(key: &mut String, value: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '/' | '-' | '@' | '+');
    if value.chars().all(plain) {
        key.push_str(value);
    } else {
        let _ = write!(key, "{value:?}");
    }
}

fn bounded_key(key: String) -> String {
    if key.len() <= limits::INCIDENT_KEY_BYTES {
        return key;
    }
    let mut short = key[..key.floor_char_boundary(limits::INCIDENT_KEY_BYTES - 40)].to_owned();
    short.push_str("…#");
    short + &hex::encode(&Sha256::digest(key.as_bytes())[..16])
}

/// The place to look at for an event: its subject, or the target that Prometheus scraped.
fn place_of(event: &Event) -> String {
    match place(&event.subject) {
        place if place.is_empty() => event.labels.get("instance").to_owned(),
        place => place,
    }
}

/// The shortest name that locates the subject.
fn place(subject: &Subject) -> String {
    let within = |name: &String| match &subject.namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.clone(),
    };
    let inner = subject
        .node
        .clone()
        .or_else(|| subject.workload.as_ref().map(within))
        .or_else(|| subject.pod.as_ref().map(within))
        .or_else(|| subject.model.clone())
        .or_else(|| subject.namespace.clone());
    match (&subject.cluster, inner) {
        (Some(cluster), Some(inner)) => format!("{cluster}/{inner}"),
        (Some(cluster), None) => cluster.clone(),
        (None, Some(inner)) => inner,
        (None, None) => String::new(),
    }
}

/// Runs of blanks and control characters become one space; marks that turn the reading direction are dropped, for they
/// can make a title show another text than it holds.
fn one_line(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let mut line = String::with_capacity(text.len().min(4 * limits::TITLE_CHARS));
    for c in text.chars().filter(|c| !turns(*c)).take(4 * limits::TITLE_CHARS) {
        if !c.is_whitespace() && !c.is_control() {
            line.push(c);
        } else if !line.ends_with(' ') {
            line.push(' ');
        }
    }
    line.trim().to_owned()
}

/// At most so many characters, the last one an ellipsis if something was cut.
fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests;
