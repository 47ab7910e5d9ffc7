//! Incidents: the list, one with everything about it, and the requests of people.
//!
//! Invariant: entries and timeline are in ascending order of the ledger.

use crate::model::{Approval, Entry, Episode, Incident, IncidentId, Run, Time, TimelineEntry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct IncidentList {
    pub incidents: Vec<Incident>,
    /// The `cursor` of the next page; absent where this one is not full.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// An incident with its alerts, runs, approvals, timeline and entries.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct IncidentDetail {
    pub incident: Incident,
    pub episodes: Vec<Episode>,
    pub runs: Vec<Run>,
    pub approvals: Vec<Approval>,
    pub story: Vec<TimelineEntry>,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct IncidentAnswer {
    pub incident: Incident,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignRequest {
    /// A name under `people`, `me`, or a mention as Slack writes it.
    pub to: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    #[serde(default)]
    pub why: String,
    /// Only the alerts of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SilenceRequest {
    /// A duration: `2h`.
    pub lasts: String,
    #[serde(default)]
    pub why: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SilenceAnswer {
    pub incident: IncidentId,
    pub until: Time,
    pub silences: Vec<SilenceMade>,
    /// Alerts that could not be silenced, with the reason.
    pub left: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SilenceMade {
    pub source: String,
    /// The silence's ID at the source.
    pub silence: String,
}
