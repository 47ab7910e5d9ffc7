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
    Closed, Facts, Group, GuardLimits, Levels, Proposal, Protected, Replica, Serving, TakenReplica, admit, admit_again,
};
pub use backoff::backoff;
pub use correlate::{
    Change, Prior, alert_place, group_key, group_title, hear, incident_key, incident_part, incident_title, title_of,
};
pub use escalate::{Page, page};
pub use guards::{nodes_at_once, share_of};
pub use inference::{
    EngineCheck, EngineJudge, EngineKind, EngineLimits, EngineLook, EngineReading, EngineSignal, EngineTrouble,
    FirstTokens, Lane, SignalGroup, Unread, engine_signals, inference_page, parse_engine_page,
};
pub use ladder::{effective, missing};
pub use matcher::{Matcher, MatcherError, Op, matches_all, parse_matchers};
pub use mig::{
    Geometry, Held, MigBoard, MigBounds, MigDemand, MigNode, MigPlan, MigPlanError, MigRefusal, MigSeat, Seating,
    move_cost, plan_mig, profiles_of_product,
};
pub use select::{Chosen, RuleError, RuleSet, Selected, Start, subject_of};
pub use xid::{Blame, Remedy, XidEntry, XidTable, XidTableError};
