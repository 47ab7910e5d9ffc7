//! Changes that were really made to the fleet, and requests that were only received: the target's own count.
//!
//! Invariant: append-only; a line is written in the same locked moment as its change.

use crate::limits;
use crate::model::Time;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A mutating request that the API accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppliedChange {
    /// From 1, without gaps.
    pub sequence: u64,
    pub at: Time,
    /// `patch`, `create`, `update`, `delete`, `evict` or `scale`.
    pub verb: String,
    /// Plural, as in the URL: `nodes`, `pods`, `deployments`, `nodes/status`.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    /// The merge patch from before to after, without bookkeeping fields; null when nothing changed.
    pub change: Value,
    /// False if the request left the object as it was.
    pub changed: bool,
    /// The field manager, or else the user agent.
    pub by: String,
    /// The caller never got the answer, because a fault lost it.
    pub reply_lost: bool,
}

/// A request as it arrived, whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedRequest {
    pub at: Time,
    pub method: String,
    /// With its query.
    pub path: String,
    /// The status that was (or would have been) answered; 0 if the connection was cut before anything was done.
    pub code: u16,
}

#[derive(Default)]
pub(super) struct EffectLog {
    pub applied: Vec<AppliedChange>,
    pub asked: std::collections::VecDeque<ReceivedRequest>,
}

impl EffectLog {
    /// Appends a change and numbers it.
    pub fn add(&mut self, mut applied: AppliedChange) {
        applied.sequence = self.applied.len() as u64 + 1;
        self.applied.push(applied);
    }

    /// Appends a request; the oldest beyond `SIM_REQUESTS` is dropped.
    pub fn ask(&mut self, asked: ReceivedRequest) {
        self.asked.push_back(asked);
        if self.asked.len() > limits::SIM_REQUESTS {
            self.asked.pop_front();
        }
    }

    /// Marks everything from the given length on as never answered.
    pub fn lose_since(&mut self, length: usize) {
        for applied in self.applied.iter_mut().skip(length) {
            applied.reply_lost = true;
        }
    }
}
