//! One firing-to-resolved span of one alert.
//!
//! Invariant: at most one episode per (source, fingerprint) is open, and its start is the earliest one reported.

use super::{EpisodeId, Event, IncidentId, Time};
use serde::{Deserialize, Serialize};

/// Whether an alert is firing, as far as its source reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EpisodeState {
    Open,
    /// The source reported its end.
    Resolved,
    /// The source fell silent: its state is unknown. Nothing acts on a stale episode.
    Stale,
}

/// An episode with the latest event that spoke of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Episode {
    pub id: EpisodeId,
    pub state: EpisodeState,
    pub incident: Option<IncidentId>,
    pub opened_at: Time,
    pub last_seen: Time,
    /// Reports of the source, the first one included.
    pub seen: u32,
    /// How often it came back with the same start after a resolve.
    pub reopened: u32,
    pub event: Event,
}
