//! One execution of a pinned runbook: for one incident, by hand, or by schedule.
//!
//! Invariant: a run in a final state never changes again, and one that waits is only a row.

use super::{ApprovalId, EpisodeId, Foretold, IncidentId, Mode, Pin, Plan, Reason, RunId, Subject, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a run was started with; frozen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Input {
    /// The header's parameters, by name.
    pub params: Map<String, Value>,
    /// The event that started it, as the script sees it (`event.labels.alertname`); null when started by hand.
    #[serde(default)]
    pub event: Value,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum RunState {
    /// To be advanced now.
    Ready,
    /// A step asked to be performed again later: a timer, a drain, a retry.
    Waiting {
        why: String,
    },
    /// A guard said: not now.
    Held {
        reason: Reason,
    },
    /// A human is asked.
    Asking {
        approval: ApprovalId,
    },
    // final states
    Done,
    /// The runbook stopped itself, on purpose.
    Stopped {
        why: String,
    },
    /// A call failed and the runbook did not catch it; `undone` says whether its effects were taken back.
    Failed {
        why: String,
        undone: bool,
    },
    /// Needs a human: see the reason's page.
    Stuck {
        reason: Reason,
    },
    /// The plan is recorded; nothing was done (observe, suggest).
    Planned,
    /// Not done: denied by a guard or a human, expired, cancelled.
    Denied {
        reason: Reason,
    },
}

impl RunState {
    pub fn is_final(&self) -> bool {
        !matches!(self, RunState::Ready | RunState::Waiting { .. } | RunState::Held { .. } | RunState::Asking { .. })
    }

    /// The word for tables and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            RunState::Ready => "ready",
            RunState::Waiting { .. } => "waiting",
            RunState::Held { .. } => "held",
            RunState::Asking { .. } => "asking",
            RunState::Done => "done",
            RunState::Stopped { .. } => "stopped",
            RunState::Failed { .. } => "failed",
            RunState::Stuck { .. } => "stuck",
            RunState::Planned => "planned",
            RunState::Denied { .. } => "denied",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub id: RunId,
    /// The rule that started it; none when by hand.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub incident: Option<IncidentId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub episode: Option<EpisodeId>,
    pub runbook: Pin,
    pub input: Input,
    /// What it is about, for locks, cooldowns and people.
    pub subject: Subject,
    pub mode: Mode,
    pub state: RunState,
    /// When to look at it again, for states that are not final.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wake_at: Option<Time>,
    /// Who owns it; every write to its journal is conditional on this.
    pub epoch: i64,
    /// The plan that was approved, once one was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approved: Option<Plan>,
    /// Set once the runbook has failed and its steps are being taken back: the words of the failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unwinding: Option<String>,
    pub created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at: Option<Time>,
    /// Who asked for it: `rule`, `schedule` or a person's name.
    pub requested_by: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalState {
    Open,
    Approved,
    Denied,
    Expired,
    /// The plan changed or the run ended: the question is moot.
    Void,
}

/// One question to a human: single use, expiring, bound to the hash of what was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub id: ApprovalId,
    pub run: RunId,
    pub question: String,
    pub plan_hash: String,
    pub plan: Option<Plan>,
    /// What the guards would have said to the calls of the plan when it was asked.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub foretold: Vec<Foretold>,
    /// The step that asked, for `approve(...)` in a runbook; none for the plan of a run in mode approve.
    pub step: Option<u32>,
    pub state: ApprovalState,
    pub asked_at: Time,
    pub expires_at: Time,
    pub approvers: Vec<String>,
    /// How many different persons must say yes, and who has.
    #[serde(default = "one_person")]
    pub needed: u32,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub given: Vec<String>,
    pub decided_by: Option<String>,
    pub decided_at: Option<Time>,
}

fn one_person() -> u32 {
    1
}
