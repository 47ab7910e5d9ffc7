//! What an event does to its episode, and which incident an episode belongs to.
//!
//! Invariant: a new episode opens only after an observed end; the same start after an end reopens the old one.

use crate::model::{EpisodeState, Event, Time};

/// The latest episode of a (source, fingerprint), as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prior {
    pub state: EpisodeState,
    pub starts_at: Time,
}

/// What an event does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
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

impl Change {
    pub fn name(self) -> &'static str {
        match self {
            Change::Opened => "opened",
            Change::Reopened => "reopened",
            Change::Refreshed => "refreshed",
            Change::Resolved => "resolved",
            Change::Late => "late",
        }
    }
}

pub fn hear(_prior: Option<&Prior>, _event: &Event) -> Change {
    todo!("policy")
}

/// The key of the incident: the values of `group_by` (parts of the subject or labels), or, where that is empty, the
/// most telling container: cluster and node; else namespace and workload (or pod); else model; else alert name.
pub fn incident_key(_event: &Event, _group_by: &[String]) -> String {
    todo!("policy")
}

/// A title for people, from the first event.
pub fn incident_title(_event: &Event) -> String {
    todo!("policy")
}
