//! Decisions: pure functions from facts to the next actions. No I/O, no clock.
//!
//! Invariant: every "no" carries a `Reason`; the time is an argument.

mod admit;
mod backoff;
mod correlate;
mod escalate;
mod guards;
mod inference;
mod ladder;
mod matcher;
mod mig;
mod select;
mod suggest;
mod xid;

pub use admit::{
    AffectedReplicas, ClosedWindow, GuardInputs, GuardLimits, NodeGroup, ProtectedObjects, ReadyReplica, StepProposal,
    TakenReplica, WorldFacts, admit, admit_again,
};
pub use backoff::backoff;
pub use correlate::{
    EpisodeChange, PriorEpisode, alert_place, group_key, group_title, hear, incident_key, incident_part,
    incident_title, title_of,
};
pub use escalate::{PageDecision, page};
pub use guards::{nodes_at_once, share_of};
pub use inference::{
    EngineCheck, EngineJudge, EngineKind, EngineLimits, EngineLook, EngineQueue, EngineReadError, EngineReading,
    EngineSignal, EngineTrouble, FirstTokens, SignalGroup, engine_signals, inference_page, parse_engine_page,
};
pub use ladder::{effective, missing};
pub use matcher::{MatchOperator, Matcher, MatcherError, matches_all, parse_matchers};
pub use mig::{
    MigBoard, MigBounds, MigDemand, MigGeometry, MigNode, MigOccupancy, MigPlan, MigPlanError, MigRefusal, MigSeat,
    NodeConstraints, move_cost, plan_mig, profiles_of_product,
};
pub use select::{RuleDecision, RuleError, RuleSelection, RuleSet, RunSpec, subject_of};
pub use xid::{XidCause, XidEntry, XidRemedy, XidTable, XidTableError};
