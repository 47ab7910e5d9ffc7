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
    ActionPhrases, ActionSpec, ApprovalNeed, CapacityKind, CapacityLoss, EffectClass, ImpactScope, KubePermission,
    ParamSpec, ParamType, SchedulingEffect, TargetKind,
};
pub use agent::AgentName;
pub use catalog_file::{CatalogFile, FileKind};
pub use command::{AgentCommand, CommandStatus};
pub use entry::{Actor, Breaker, Entry, EntryKind, EntryLinks, EventOutcome, EventSender, Freeze};
pub use episode::{Episode, EpisodeState};
pub use event::{Event, EventStatus, Severity};
pub use finding::{AGENT_ALERTS, AGENT_LABELS, Finding, GpuName};
pub use id::{ApprovalId, EntryNo, EpisodeId, IdError, IncidentId, RunId, TokenId};
pub use incident::{Incident, IncidentState};
pub use labels::Labels;
pub use ladder::{
    DemotionLimits, NextLevel, PromotionCriteria, RuleLevel, RuleSnapshot, RuleStats, RunReview, Scorecard,
    VerificationResult, short_content,
};
pub use mig::{MigAct, MigCompute, MigGpu, MigInstance, MigPlace, MigProfile, MigStep, mig_profile_of, mig_resource};
pub use notice::{
    AlertLine, AttentionKind, AttentionReason, DeliveryReceipt, DeliveryResult, DigestItem, IncidentDigest,
    IncidentNotice, NoticeLink, PendingApproval, PlanSuggestion, PlannedStep, TimelineEntry,
};
pub use plan::{Plan, PlanEnd, PlannedCall, PreflightDecision};
pub use report::{AgentStatus, CommandBatch, CommandReport, FindingAck, FindingBatch, NumberedFinding};
pub use role::{Right, Role, RoleGrant};
pub use rule::{Mode, ParamSource, RepeatCondition, Rule, Schedule};
pub use run::{Approval, ApprovalState, Run, RunInput, RunState};
pub use runbook::{RunbookHeader, RunbookParam, RunbookPin, UndoPolicy};
pub use span::{Span, SpanError};
pub use step::{ActionCall, FailureKind, Outcome, Step, StepFailure};
pub use subject::{LabelMap, Subject};
pub use token::{ApiToken, BreakGlass, LOCAL, identity, local_user, short_name, shown_subject, subject_name};
pub use verdict::{GuardDecision, Reason, ReasonCode};

/// A moment, to the microsecond; printed as RFC 3339 in UTC.
pub type Time = jiff::Timestamp;
