//! Channels: how each stands, and the outcome of a test message.
//!
//! Invariant: no secret of a channel is in an answer.

use crate::model::{IncidentId, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ChannelList {
    pub channels: Vec<ChannelStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ChannelStatus {
    pub name: String,
    pub kind: String,
    pub state: ChannelState,
    /// Why it is off or failing.
    pub why: Option<String>,
    pub last_delivery: Option<LastDelivery>,
}

/// `off`: it has no secret. `failing`: its latest delivery failed. `on`: neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelState {
    On,
    Failing,
    Off,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LastDelivery {
    pub at: Time,
    pub incident: Option<IncidentId>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ChannelTest {
    pub channel: String,
    pub delivered: bool,
    /// What the other side answered.
    pub answer: String,
}
