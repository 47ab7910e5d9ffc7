//! How the engine stands.
//!
//! Invariant: a number that could not be read is null, never zero.

use super::MovedRule;
use crate::model::{ApiToken, Mode, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version, counts and everything that is switched off or lost now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EngineStatus {
    pub version: String,
    /// The name of this installation.
    pub install: String,
    pub now: Time,
    /// The epoch of the engine that owns the store; null while the store is busy.
    pub epoch: Option<i64>,
    /// `ok`, or why the store cannot be written.
    pub store: String,
    /// Files of the catalog whose last good version is active instead.
    pub files_refused: u64,
    pub mode_ceiling: Mode,
    pub moved: Vec<MovedRule>,
    pub rules: u64,
    pub runbooks: u64,
    /// The hash of the catalog that is active.
    pub catalog: String,
    pub sources: Vec<String>,
    pub channels: Vec<String>,
    pub episodes_open: u64,
    pub incidents_open: u64,
    pub runs_unfinished: u64,
    pub approvals_open: u64,
    pub notices_due: u64,
    pub oldest_notice: Option<Time>,
    pub entries: u64,
    /// Entries that the newest checkpoint covers.
    pub signed: u64,
    pub freezes: u64,
    pub nodes_held: u64,
    /// By name: null where the cluster is watched.
    pub clusters: BTreeMap<String, Option<LostCluster>>,
    pub off: Vec<SwitchedOff>,
    /// The public key of the ledger.
    pub key: String,
    /// Null where no Socket Mode connection is configured.
    pub slack: Option<SlackConnection>,
    /// Break-glass tokens in force.
    pub break_glass: Vec<ApiToken>,
}

/// The only member of a status that an export needs, so that an engine of another version can be exported too.
#[derive(Debug, Clone, Deserialize)]
pub struct LedgerSize {
    pub entries: u64,
}

/// A cluster that is not watched now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LostCluster {
    pub lost_since: Time,
    pub why: String,
}

/// A channel or setting whose secret or file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SwitchedOff {
    pub what: String,
    pub why: String,
    /// The effect of it.
    pub off: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fix: Option<String>,
}

/// The Socket Mode connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlackConnection {
    pub connected: bool,
    /// Since when it is connected, or is not.
    pub since: Option<Time>,
    /// Why it is not connected.
    pub why: Option<String>,
}
