//! The calls a run would make, from a dry advance over a live, read-only world.
//!
//! Invariant: the hash covers every mutating call and its target, and nothing that changes from one reading to the next.

use super::{Call, Effect, Outcome, Reach, Reason, ReasonCode, Subject, Verdict};
use serde::{Deserialize, Serialize};

/// A mutating or reading call of a plan, with its effect and scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlannedCall {
    pub call: Call,
    pub effect: Effect,
    pub reach: Reach,
    pub target: Subject,
    /// Read live for reads, predicted by the action's own model for the rest.
    pub predicted: Outcome,
}

/// How the dry advance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlanEnd {
    Done,
    /// The runbook called `stop`.
    Stopped(String),
    /// It would fail: the error and its place.
    Failed(String),
    /// The plan is longer than the limit.
    Cut(Reason),
}

/// The calls that a run would make now, and its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Plan {
    pub calls: Vec<PlannedCall>,
    pub end: PlanEnd,
    /// SHA-256 over the mutating calls, 64 hex digits.
    pub hash: String,
}

/// What the guards would say now to one call of a plan; it is no part of it, for it changes from one moment to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Foretold {
    /// Its place among the plan's calls, from zero.
    pub call: usize,
    pub verdict: Verdict,
}

impl Foretold {
    /// `would be held now: gpu-2 is already out of service and …`; none where nothing stands in its way.
    pub fn words(&self) -> Option<String> {
        match &self.verdict {
            Verdict::Allow => None,
            Verdict::Hold { reason, .. } => Some(format!("would be held now: {}", reason.text)),
            Verdict::Deny { reason } => Some(format!("would be refused now: {}", reason.text)),
        }
    }

    /// It is held by a freeze.
    pub fn is_frozen(&self) -> bool {
        matches!(&self.verdict, Verdict::Hold { reason, .. } if reason.code == ReasonCode::Frozen)
    }

    /// Whether the guard of the serving floor has let it through: only the budget of nodes is checked after it.
    pub fn keeps_the_floor(&self) -> bool {
        match &self.verdict {
            Verdict::Allow => true,
            Verdict::Hold { reason, .. } | Verdict::Deny { reason } => reason.code == ReasonCode::BlastRadius,
        }
    }
}

impl Plan {
    /// Whether the plan names this call: same action, same arguments.
    pub fn names(&self, call: &Call) -> bool {
        self.calls.iter().any(|planned| planned.call == *call)
    }
}
