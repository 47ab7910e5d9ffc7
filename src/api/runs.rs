//! Runs and runbooks.
//!
//! Invariant: the same request starts a run and simulates one, so what was simulated is what starts.

use crate::model::{
    Approval, Entry, Event, Mode, Plan, PreflightDecision, Run, RunInput, RunReview, RunbookHeader, RunbookPin, Step,
    Subject, TimelineEntry,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunList {
    pub runs: Vec<Run>,
    /// The `cursor` of the next page; absent where this one is not full.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunAnswer {
    pub run: Run,
}

/// A run with its steps, approvals, timeline, entries and reviews.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunDetail {
    pub run: Run,
    pub steps: Vec<Step>,
    pub approvals: Vec<Approval>,
    pub story: Vec<TimelineEntry>,
    pub entries: Vec<Entry>,
    pub judgements: Vec<RunReview>,
    pub can_be_judged: bool,
}

/// A runbook with its parameters.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    pub runbook: String,
    #[serde(default)]
    pub params: Map<String, Value>,
    /// The event that the script sees; only to simulate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// Only to start; left out: the installation's ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Left out: the default cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// The plan of a run that is not started, and what the guards would decide now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Simulation {
    pub runbook: RunbookPin,
    pub header: RunbookHeader,
    pub input: RunInput,
    pub subject: Subject,
    pub plan: Plan,
    #[serde(default)]
    pub guards: Vec<PreflightDecision>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunbookList {
    pub runbooks: Vec<RunbookEntry>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunbookEntry {
    pub runbook: RunbookPin,
    pub header: RunbookHeader,
}
