//! Allow, hold or deny; always with words from a closed list.
//!
//! Invariant: there is no hold and no denial without a reason that a user can read.

use super::Time;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why something was not done. Closed: it is a metric label, and each has a page in `nightshift why --explain`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum ReasonCode {
    // intake: why an event started nothing
    NoRuleMatched,
    Muted,
    AlreadyRunning,
    AlreadyHandled,
    NotYetRepeated,
    ParameterMissing,
    NoRunbook,
    // guards: why a run or step was held or denied
    Mode,
    Frozen,
    Cooldown,
    AttemptsUsedUp,
    NodeBusy,
    BlastRadius,
    FleetUnknown,
    Protected,
    ForeignCordon,
    GivenBack,
    NotApproved,
    ApprovalExpired,
    NotInPlan,
    ReachExceeded,
    ActionOff,
    EpisodeOver,
    NoLongerNeeded,
    BreakerTripped,
    Correlated,
    Flapping,
    Window,
    NotConfirmed,
    ServingFloor,
    DomainBusy,
    Silenced,
    // runs: why one is stuck
    Diverged,
    InDoubt,
    StepLimit,
    ScriptBroken,
    UndoFailed,
    RunbookMissing,
    // the world
    TargetUnavailable,
    Cancelled,
}

impl ReasonCode {
    /// Every code, in the order of the documentation.
    pub const ALL: &'static [ReasonCode] = <ReasonCode as strum::VariantArray>::VARIANTS;

    /// The code's name in the ledger, the API and `nightshift why --explain`.
    pub fn name(self) -> &'static str {
        self.into_str()
    }
}

/// A word from the closed list and a sentence with the numbers at that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Reason {
    pub code: ReasonCode,
    pub text: String,
}

impl Reason {
    /// A reason with its code and its text.
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Reason {
        Reason { code, text: text.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.text, self.code.name())
    }
}

/// The decision of one guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    /// Not now; check again at `until`.
    Hold {
        reason: Reason,
        until: Time,
    },
    /// Not at all.
    Deny {
        reason: Reason,
    },
}
