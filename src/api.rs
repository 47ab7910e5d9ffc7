//! The types of `/api/v1`: what each route takes and answers, for the server, the command line, pages, chat and tests.
//!
//! Invariant: a handler answers with a type from here, and `docs/openapi.json` is made from these types and no others.

mod access;
mod agents;
mod approvals;
mod audit;
mod channels;
mod guards;
mod incidents;
mod lists;
mod problem;
mod rules;
mod runs;
mod status;
mod why;

pub use access::{
    BreakGlassMade, BreakGlassRequest, SessionList, SessionRequest, SessionSummary, SessionsEndedAnswer,
    SubjectsUnlinkedAnswer, TokenList, TokenMade, TokenRequest, TokenState, TokenStatus, TokensRevoked,
};
pub use agents::{AgentList, AgentRemoval, AgentRemoved, AgentSummary, JoinTokenMade, JoinTokenRequest};
pub use approvals::{ApprovalAnswer, ApprovalList, DecisionRequest};
pub use audit::{
    CheckpointList, EntryList, InclusionProof, RawEntryAnswer, RawEntryList, RedactionAnswer, RedactionRequest,
};
pub use channels::{ChannelList, ChannelState, ChannelStatus, ChannelTest, LastDelivery};
pub use guards::{
    BreakerReset, FreezeAnswer, FreezeList, FreezeRequest, GuardLevels, HeldRun, NodeHold, PoolLevel, SharedSymptom,
    UnfreezeAnswer,
};
pub use incidents::{
    AssignRequest, IncidentAnswer, IncidentDetail, IncidentList, ResolveRequest, SilenceAnswer, SilenceMade,
    SilenceRequest,
};
pub use lists::{ListQuery, PageQuery};
pub use problem::ProblemDetails;
pub use rules::{JudgeAnswer, JudgeRequest, MoveRequest, MovedRule, RuleList, ScorecardAnswer, ScorecardList};
pub use runs::{RunAnswer, RunDetail, RunList, RunRequest, RunbookEntry, RunbookList, Simulation};
pub use status::{EngineStatus, LedgerSize, LostCluster, SlackConnection, SwitchedOff};
pub use why::{ExplainedOutcome, Explanation, ExplanationBlock, ExplanationLine, WhyQuery};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A reason, for requests that take nothing else.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonRequest {
    /// Goes into the ledger.
    #[serde(default)]
    pub why: String,
}

/// A scope with a reason.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeRequest {
    /// `all`, `cluster:<name>`, `rule:<name>` or, for a breaker, `symptom:<rule>`.
    pub scope: String,
    /// Goes into the ledger.
    #[serde(default)]
    pub why: String,
}
