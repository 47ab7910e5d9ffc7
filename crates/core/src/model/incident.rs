//! The episodes that are one problem for a user, and the state they add up to.
//!
//! Invariant: at most one incident with a given key is open at a time.

use super::{IncidentId, Severity, Subject, Time};
use serde::{Deserialize, Serialize};

/// The state of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IncidentState {
    Open,
    Acknowledged,
    Resolved,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Incident {
    pub id: IncidentId,
    /// The key that joins episodes into one incident, e.g. `node=gpu-3`.
    pub key: String,
    pub title: String,
    pub subject: Subject,
    pub severity: Severity,
    pub state: IncidentState,
    pub opened_at: Time,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closed_at: Option<Time>,
    /// All of its alerts have ended: it is resolved then, unless one fires again before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resolves_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acknowledged_by: Option<String>,
    /// Its owner, once one was assigned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// Episodes still firing.
    pub firing: u32,
    /// Episodes that ever joined; an alert that comes back while the incident is open is the one that it was.
    pub episodes: u32,
    /// The incarnation of the store in which it was opened; empty before there were any.
    #[serde(skip)]
    pub incarnation: String,
}

impl Incident {
    /// Under which it is known at PagerDuty, Slack and in mail threads: the same for as long as it lasts, and another one
    /// for an incident to which a restored store gives the same number.
    pub fn dedup_key(&self, install: &str) -> String {
        match self.incarnation.as_str() {
            "" => format!("nightshift/{install}/{}", self.id),
            born => format!("nightshift/{install}/{}/{born}", self.id),
        }
    }

    /// A test message through a channel, which no incident in the store stands behind.
    pub fn is_test(&self) -> bool {
        self.id.0 == 0
    }

    /// Its number as users read it: a test message has none.
    pub fn shown_id(&self) -> String {
        if self.is_test() { "test message".to_owned() } else { self.id.to_string() }
    }

    /// Alerts of one name on many subjects: its title counts them.
    pub fn is_group(&self) -> bool {
        self.key.starts_with("group/")
    }

    /// `recovering, closes 03:12 UTC`: all of its alerts have ended, and it is kept open for a while.
    pub fn recovery(&self) -> Option<String> {
        let until = self.resolves_at.filter(|_| self.closed_at.is_none())?;
        Some(format!("recovering, closes {}", until.strftime("%H:%M UTC")))
    }
}
