//! One report of a source about one subject, never changed.
//!
//! Invariant: an event of one source is identified by its fingerprint; nothing else in it is an identity.

use super::{Labels, Subject, Time};
use serde::{Deserialize, Serialize};

/// Whether the complaint holds or has ended, in the source's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventStatus {
    Firing,
    Resolved,
}

/// How bad a source says it is, from mild to grave.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::Display,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Severity {
    Info,
    #[default]
    Warning,
    Error,
    Critical,
}

impl Severity {
    /// Reads the spellings in use; an unknown or missing one is a warning, so that nothing is silently mild.
    pub fn from_label(text: &str) -> Severity {
        match text.to_ascii_lowercase().as_str() {
            "critical" | "page" | "fatal" | "emergency" | "p1" | "high" => Severity::Critical,
            "error" | "major" | "p2" => Severity::Error,
            "info" | "informational" | "none" | "notice" | "low" | "p4" | "p5" => Severity::Info,
            _ => Severity::Warning,
        }
    }
}

/// One statement of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Event {
    /// The logical source, e.g. an Alertmanager cluster; never a network address.
    pub source: String,
    /// The source's identity for the alert: for Alertmanager, 16 hex digits over the labels.
    pub fingerprint: String,
    pub status: EventStatus,
    pub starts_at: Time,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ends_at: Option<Time>,
    pub labels: Labels,
    #[serde(skip_serializing_if = "Labels::is_empty", default)]
    pub annotations: Labels,
    #[serde(skip_serializing_if = "Subject::is_empty", default)]
    pub subject: Subject,
    pub severity: Severity,
    /// One line for a user: the summary annotation, else the alert's name.
    pub summary: String,
    /// Where the source shows more; text to display, never fetched.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub url: String,
}

impl Event {
    /// The summary of an event whose text is no longer kept.
    pub const REMOVED: &str = "(text removed)";

    /// Whether retention or a redaction has removed its text: then labels, subject and sender are unknown.
    pub fn is_removed(&self) -> bool {
        self.labels.is_empty() && self.summary == Event::REMOVED
    }

    /// The alert's name, or the fingerprint where a source has no such label.
    pub fn name(&self) -> &str {
        match self.labels.get("alertname") {
            "" => &self.fingerprint,
            name => name,
        }
    }
}
