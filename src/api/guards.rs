//! Guards: limits and levels, holds, breakers and freezes.
//!
//! Invariant: a level that could not be read is null, never zero.

use super::MovedRule;
use crate::model::{Breaker, Freeze, Mode, ReasonCode, RunId};
use crate::policy::{GuardLimits, TakenReplica};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The guards' limits, and how much of each is used now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct GuardLevels {
    pub pools: Vec<PoolLevel>,
    /// Nodes that runs hold.
    pub holds: Vec<NodeHold>,
    pub replicas_taken: Vec<TakenReplica>,
    /// Runs that a guard holds.
    pub held: Vec<HeldRun>,
    /// Sources whose silences hold runs.
    pub silences_of: Vec<String>,
    pub limits: GuardLimits,
    pub mode_ceiling: Mode,
    pub moved: Vec<MovedRule>,
    pub nodes_total: Option<u32>,
    pub nodes_out: Vec<String>,
    pub nodes_out_allowed: Option<u32>,
    pub nodes_held: u64,
    pub taken_hour: Vec<String>,
    pub taken_hour_allowed: Option<u32>,
    pub taken_day: Vec<String>,
    pub taken_day_allowed: Option<u32>,
    pub symptom: Option<SharedSymptom>,
    pub freezes: Vec<Freeze>,
    /// Why the kill switch outside the store is engaged.
    pub stopped: Option<String>,
    /// How many different people must agree to release a freeze.
    pub release_persons: u32,
    pub breakers: Vec<Breaker>,
    pub correlated_limit: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolLevel {
    pub pool: String,
    pub label: String,
    pub total: u32,
    pub out: Vec<String>,
    pub allowed: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeHold {
    pub node: String,
    pub run: RunId,
    pub runbook: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeldRun {
    pub run: RunId,
    pub guard: ReasonCode,
    pub why: String,
}

/// The rule that was started about the most nodes lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedSymptom {
    pub rule: String,
    pub nodes: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct BreakerReset {
    pub reset: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FreezeList {
    pub freezes: Vec<Freeze>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// `all`, `cluster:<name>` or `rule:<name>`.
    pub scope: String,
    #[serde(default, alias = "reason")]
    pub why: String,
    /// A duration: `2h`; left out: until it is released.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FreezeAnswer {
    pub freeze: Freeze,
    /// Channels that are notified.
    pub notified: Vec<String>,
    /// The command that releases it.
    pub release: String,
}

/// `unfrozen`, or `asked` with the freeze while a second person must agree.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct UnfreezeAnswer {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unfrozen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub freeze: Option<Freeze>,
}
