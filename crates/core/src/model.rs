//! The nouns of Nightshift: plain values that every layer shares. No I/O, no clock, no decisions.
//!
//! Invariant: every type here is data that survives a trip through JSON unchanged, because the ledger keeps it so.

mod action;
mod agent;
mod catalog_file;
mod command;
mod entry;
mod episode;
mod event;
mod finding;
mod id;
mod incident;
mod labels;
mod ladder;
mod mig;
mod notice;
mod plan;
mod report;
mod role;
mod rule;
mod run;
mod runbook;
mod span;
mod step;
mod subject;
mod token;
mod verdict;

pub use action::{
    ActionSpec, ApprovalNeed, Capacity, Effect, ParamSpec, ParamType, Permission, Phrases, Reach, Scheduling, Takes,
    TargetKind,
};
pub use agent::AgentName;
pub use catalog_file::{CatalogFile, FileKind};
pub use command::{Answer, Command};
pub use entry::{About, Actor, Breaker, Entry, EntryKind, Freeze, HeardEvent, Poster};
pub use episode::{Episode, EpisodeState};
pub use event::{Event, Severity, Status};
pub use finding::{AGENT_ALERTS, AGENT_LABELS, Finding, GpuName};
pub use id::{ApprovalId, EntryNo, EpisodeId, IdError, IncidentId, RunId, TokenId};
pub use incident::{Incident, IncidentState};
pub use labels::Labels;
pub use ladder::{Aftermath, Card, Demote, Judgement, Level, NextRung, Promote, Scorecard, Terms, short_content};
pub use mig::{MigAct, MigCompute, MigGpu, MigInstance, MigPlace, MigProfile, MigStep, mig_profile_of, mig_resource};
pub use notice::{
    AlertLine, Ask, Delivery, Digest, DigestItem, Link, Need, NeedKind, Notice, PlannedStep, Receipt, StoryLine,
    Suggestion,
};
pub use plan::{Foretold, Plan, PlanEnd, PlannedCall};
pub use report::{Answered, Commands, Report, Reports, Standing, Taken};
pub use role::{Grant, Right, Role};
pub use rule::{Argument, Mode, Repeat, Rule, Schedule};
pub use run::{Approval, ApprovalState, Input, Run, RunState};
pub use runbook::{Header, Param, Pin, UndoPolicy};
pub use span::{Span, SpanError};
pub use step::{Call, Failure, FailureKind, Outcome, Step};
pub use subject::{LabelMap, Subject};
pub use token::{ApiToken, BreakGlass, LOCAL, identity, local_user, short_name, shown_subject, subject_name};
pub use verdict::{Reason, ReasonCode, Verdict};

/// A moment, to the microsecond; printed as RFC 3339 in UTC.
pub type Time = jiff::Timestamp;
