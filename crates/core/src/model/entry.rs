//! One entry of the ledger: a fact that happened. A run's journal and the audit trail are two readings of the entries.
//!
//! Invariant: entries are never changed or reordered; their order is their number, never their time.

use super::{
    ActionCall, ApprovalId, EffectClass, EntryNo, EpisodeId, Event, IncidentId, Mode, Outcome, Plan, Reason, RoleGrant,
    RuleStats, RunId, RunState, RunbookPin, Severity, Span, Subject, Time, TokenId, VerificationResult,
};
use serde::{Deserialize, Serialize};

/// Who did it: `engine`, a rule, a source, or a person by the name of their token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Actor(pub String);

impl Actor {
    /// The engine itself: `engine`.
    pub fn engine() -> Actor {
        Actor("engine".to_owned())
    }

    /// A user or a token: `person:NAME`.
    pub fn person(name: &str) -> Actor {
        Actor(format!("person:{name}"))
    }

    /// A source of alerts: `source:NAME`.
    pub fn source(name: &str) -> Actor {
        Actor(format!("source:{name}"))
    }
}

/// What an entry belongs to, for look-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EntryLinks {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub incident: Option<IncidentId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run: Option<RunId>,
}

/// The kill switch as it stands for one scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Freeze {
    /// `all`, `cluster:<name>` or `rule:<name>`.
    pub scope: String,
    pub by: String,
    pub why: String,
    pub since: Time,
    /// When it ends by itself; none: it lasts until it is released.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Time>,
    /// The first of two users who request its release.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub release_by: Option<String>,
}

impl Freeze {
    /// `until 2026-11-30 14:00 UTC`, or `until it is released`.
    pub fn lasts(&self) -> String {
        match self.until {
            Some(until) => format!("until {}", until.strftime("%Y-%m-%d %H:%M UTC")),
            None => "until it is released".to_owned(),
        }
    }

    /// The command that releases exactly this freeze.
    pub fn way_back(&self) -> String {
        match self.scope.as_str() {
            "all" => "nightshift unfreeze --why '…'".to_owned(),
            scope => format!("nightshift unfreeze --scope {scope} --why '…'"),
        }
    }
}

/// A breaker that has tripped, until a person resets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Breaker {
    /// `cluster:<name>`, `rule:<name>` (too many remedies failed) or `symptom:<rule>` (too many nodes at once).
    pub scope: String,
    pub why: String,
    pub since: Time,
}

/// Who posted the events of a request, and by which token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EventSender {
    pub by: String,
    /// The token or the certificate, in words: `token t3`.
    pub with: String,
    /// A user (any role but `source`): a requester of the runs that the events start.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub person: bool,
}

/// What one event of a batch led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EventOutcome {
    pub event: Event,
    pub episode: EpisodeId,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub incident: Option<IncidentId>,
    /// The change of its episode: `opened`, `reopened`, `resolved` or `late`; or `reconsidered`, where it is open and rules have changed.
    pub change: String,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub runs: Vec<RunId>,
    /// Why nothing (more) was started, one for each rule that matched.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub reasons: Vec<Reason>,
}

/// What happened. Refreshes ("still firing") change a counter and are no entry.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, strum::IntoStaticStr, strum::VariantNames,
)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum EntryKind {
    /// The engine started on this store.
    Started { version: String, epoch: i64 },
    /// Events of one request of one source were accepted and decided.
    Heard {
        source: String,
        /// Absent where the engine itself is the sender, and in entries of before.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        via: Option<EventSender>,
        events: Vec<EventOutcome>,
    },
    /// A gap of a source: a truncated list, a missing part, a body that was refused.
    Gap { source: String, text: String },
    /// An alert, or something else that people must see, opened an incident.
    IncidentOpened {
        key: String,
        title: String,
        subject: Subject,
        /// The alert that opened it; none where it is about something else, such as a freeze.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        alert: Option<String>,
    },
    /// An incident is over.
    IncidentResolved { why: String },
    /// All of its alerts have ended; it is resolved then, unless one fires again before.
    IncidentRecovering { until: Time },
    /// An alert fired before that: the same incident goes on.
    IncidentRecurred { alert: String },
    /// Alerts of one name on many subjects are one incident from now on, with those incidents that became part of it.
    IncidentGrouped {
        title: String,
        why: String,
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        merged: Vec<IncidentId>,
    },
    /// Alerts of one request joined an open incident: some of them by name, and how many more.
    AlertsJoined {
        alerts: Vec<String>,
        #[serde(skip_serializing_if = "is_zero", default)]
        more: usize,
        /// The incident's title, where it follows.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        title: Option<String>,
        /// They are graver than the incident was: its severity from now on.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        raised: Option<Severity>,
    },
    /// A person acknowledged an incident.
    IncidentAcknowledged { by: String },
    /// Whose it is from now on.
    IncidentAssigned { owner: String, by: String },
    /// Intent: a user requests that the alerts of an incident be silenced at their sources.
    SilenceAsked { alerts: usize, until: Time, by: String, why: String },
    /// The source has made it.
    SilenceMade { source: String, silence: String, until: Time, by: String },
    /// A run was created: by a rule, by a person or by a schedule.
    RunCreated {
        runbook: RunbookPin,
        rule: Option<String>,
        episode: Option<EpisodeId>,
        subject: Subject,
        mode: Mode,
        requested_by: String,
        /// The hash of the rule's behavior, by which evidence and levels refer to it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        content: Option<String>,
    },
    /// A run made its plan.
    RunPlanned { plan: Plan },
    /// A run requested an approval.
    ApprovalAsked { approval: ApprovalId, question: String, plan_hash: String, expires_at: Time },
    /// A person approved or denied a request.
    ApprovalDecided { approval: ApprovalId, approved: bool, by: String, why: String },
    /// A request got no answer in time: it counts as denied.
    ApprovalExpired { approval: ApprovalId },
    /// Intent: durable before the effect is sent.
    StepBegun { step: u32, call: ActionCall, effect: EffectClass, target: Subject, undoes: Option<u32> },
    /// A step ended, with its outcome.
    StepEnded { step: u32, outcome: Outcome },
    /// A guard holds a step until a time.
    StepHeld { call: ActionCall, reason: Reason, until: Time },
    /// A guard denied a step.
    StepDenied { call: ActionCall, reason: Reason },
    /// A run reached a final state.
    RunEnded { state: RunState },
    /// The state of the alert after a run had done its work.
    RunProved { rule: String, aftermath: VerificationResult, bake: Span },
    /// A user's review of a run's actions, done or planned: right or wrong. Of one user the latest review counts.
    RunJudged { rule: String, right: bool, by: String, why: String },
    /// A rule's mode is raised, on this evidence.
    RulePromoted { rule: String, from: Mode, to: Mode, by: String, why: String, content: String, card: Box<RuleStats> },
    /// A rule's mode is lowered from now on, until it is promoted or its content changes.
    RuleDemoted {
        rule: String,
        from: Mode,
        to: Mode,
        by: String,
        why: String,
        content: String,
        card: Box<RuleStats>,
        /// The rule does something else by now, and that stays where it is.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        past: bool,
    },
    /// A runbook sent a message to a channel.
    Told { channel: String, text: String },
    /// A message was delivered through a channel.
    Delivered { channel: String, upto: EntryNo },
    /// A message could not be delivered.
    DeliveryFailed { channel: String, why: String, final_: bool },
    /// Whether a channel that waits for automation notifies about an incident, and why.
    PageJudged {
        channel: String,
        paged: bool,
        why: String,
        /// Not paged for now: it is, at this time, unless something happens before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Time>,
    },
    /// A person froze automation.
    Frozen { freeze: Freeze },
    /// A freeze was released, or ended by itself.
    Unfrozen { scope: String, by: String, why: String },
    /// The first of two users requests the release of a freeze.
    ReleaseAsked { scope: String, by: String, why: String },
    /// An approver agreed to a question that needs more than one.
    ApprovalSeconded { approval: ApprovalId, by: String, given: u32, needed: u32 },
    /// Too much went wrong: nothing new of this scope begins until a user resets it.
    BreakerTripped { breaker: Breaker },
    /// A person reset a tripped breaker.
    BreakerReset { scope: String, by: String, why: String },
    /// A rule or runbook file was taken in.
    CatalogLoaded { rules: usize, runbooks: usize, hash: String },
    /// A bad file keeps the last good one.
    CatalogRefused { file: String, why: String },
    /// A token was made; its text is nowhere.
    TokenMade {
        token: TokenId,
        name: String,
        grant: RoleGrant,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sources: Vec<String>,
        expires_at: Time,
        by: String,
    },
    /// An API token was revoked.
    TokenRevoked { token: TokenId, name: String, by: String, why: String },
    /// Access to everything for an hour; everyone is notified.
    BreakGlass { token: TokenId, by: String, why: String, until: Time },
    /// The request it was used for, with a count of repeats.
    BreakGlassUsed { token: TokenId, by: String, what: String, times: u64 },
    /// A request that was refused for a missing right, with a count of repeats.
    Refused {
        who: String,
        what: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
        times: u64,
    },
    /// Users or tokens of the configuration are others now, in words.
    PeopleChanged { changes: Vec<String> },
    /// A subject of the identity provider signed in as this user for the first time: from now on it is that user.
    SubjectLinked {
        person: String,
        issuer: String,
        subject: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        mail: Option<String>,
    },
    /// The mail of this user's entry belongs to another subject than the one that has signed in as them: refused.
    SubjectRefused { person: String, issuer: String, subject: String, mail: String },
    /// A subject that is this user signed in with another mail than before; it stays that user.
    SubjectMailChanged {
        person: String,
        issuer: String,
        subject: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        mail: Option<String>,
    },
    /// An admin lets the next subject with the mail of this user's entry be that user.
    SubjectsUnlinked { person: String, subjects: u64, by: String, why: String },
    /// Sessions of the pages were ended by an admin.
    SessionsEnded { who: String, sessions: u64, by: String, why: String },
    /// A user has checked the remains of a stuck run and released its nodes for other runs.
    NodesReleased { nodes: Vec<String>, by: String, why: String },
    /// A join token was made: for one agent, of this cluster and node where they are named.
    AgentTokenMade {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cluster: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<String>,
        expires_at: Time,
        by: String,
    },
    /// An agent has got another certificate for a certificate that it had.
    AgentRenewed {
        #[serde(default, skip_serializing_if = "String::is_empty")]
        cluster: String,
        node: String,
        /// Counts from 1, the one that it got when it joined.
        generation: u64,
    },
    /// An agent has got its first certificate, by a token that this user made.
    AgentJoined {
        #[serde(default, skip_serializing_if = "String::is_empty")]
        cluster: String,
        node: String,
        token_by: String,
    },
    /// Its certificates are refused from now on.
    AgentRemoved {
        #[serde(default, skip_serializing_if = "String::is_empty")]
        cluster: String,
        node: String,
        by: String,
        why: String,
    },
    /// Old rows were removed, as configured.
    Swept { table: String, rows: u64 },
    /// A body was removed from beside the tree; its hash and place stay.
    Redacted { entry: EntryNo, by: String, why: String },
    /// A user's remark or act elsewhere that belongs to the timeline.
    Remarked { by: String, text: String },
    /// Something that should not be: shown to users, counted.
    Trouble { text: String },
}

impl EntryKind {
    /// Every word that `name` gives.
    pub const NAMES: &'static [&'static str] = <EntryKind as strum::VariantNames>::VARIANTS;

    /// The `kind` word as it is stored.
    pub fn name(&self) -> &'static str {
        self.into_str()
    }

    /// Whether the ledger is signed with this entry at once, not within the next minute: what stops automation or lets it go on,
    /// and who may do what. A start from an older copy of the database is then refused, and cannot forget it.
    pub fn is_signed_at_once(&self) -> bool {
        use EntryKind::*;
        matches!(
            self,
            Frozen { .. }
                | Unfrozen { .. }
                | ReleaseAsked { .. }
                | BreakerTripped { .. }
                | BreakerReset { .. }
                | RulePromoted { .. }
                | RuleDemoted { .. }
                | NodesReleased { .. }
                | TokenMade { .. }
                | TokenRevoked { .. }
                | BreakGlass { .. }
                | PeopleChanged { .. }
                | SubjectLinked { .. }
                | SubjectsUnlinked { .. }
                | SessionsEnded { .. }
                | AgentTokenMade { .. }
                | AgentJoined { .. }
                | AgentRemoved { .. }
                | Redacted { .. }
        )
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// One entry as it is read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Entry {
    pub no: EntryNo,
    pub at: Time,
    pub actor: Actor,
    pub about: EntryLinks,
    #[serde(flatten)]
    pub kind: EntryKind,
}
