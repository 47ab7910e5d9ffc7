//! What is durable: one append-only ledger and the tables of what is current, written in the same transaction.
//!
//! Invariant: a method that writes returns only after its commit is on stable storage, and a write of a run's journal
//! under an old epoch changes nothing and says `Fenced`.

mod failpoint;
pub mod ledger;
mod sqlite;

pub use failpoint::Failpoint;

pub use sqlite::{SqliteOptions, SqliteStore};

use crate::model::{
    About, Actor, AgentName, ApiToken, Approval, ApprovalId, Breaker, Call, Card, Entry, EntryKind, EntryNo, Episode,
    EpisodeId, Event, Freeze, Grant, Incident, IncidentId, Input, Level, Mode, Outcome, Pin, Plan, Promote, Reason,
    Receipt, Run, RunId, RunState, Span, Standing, Step, Subject, Terms, Time, TokenId,
};
use crate::policy::{GuardLimits, Proposal, RuleSet, TakenReplica};
use ledger::{Checkpoint, LeafHash, SigningKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another epoch owns the run: drop it at once.
    #[error("run {run} is owned by another epoch: this process must let go of it")]
    Fenced { run: RunId },
    #[error("there is no {what}")]
    NotFound { what: String },
    /// The request contradicts what is stored; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The queue to the writer is full: come again.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// Another process has the store open.
    #[error("{0}")]
    Locked(String),
    #[error("{what} at {path}: {source}")]
    Io { what: &'static str, path: String, source: std::io::Error },
    #[error("database: {0}")]
    Database(String),
    /// What is stored cannot be read back as what it should be.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
}

/// Events of one request, decided and stored in one transaction.
#[derive(Debug, Clone)]
pub struct Batch {
    pub source: String,
    pub events: Vec<Event>,
    /// Things the source could not tell us, in words; each becomes a `Gap` entry.
    pub gaps: Vec<String>,
    pub rules: Arc<RuleSet>,
    pub now: Time,
}

/// Findings of one agent, numbered by it.
#[derive(Debug, Clone)]
pub struct Numbered {
    pub batch: Batch,
    pub agent: AgentName,
    pub boot: String,
    pub spool: String,
    /// The numbers of all reports, in order; and of those that became events, one for each.
    pub numbers: Vec<u64>,
    pub of_events: Vec<u64>,
}

/// How an agent shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentProof {
    /// A ServiceAccount token that Kubernetes has looked at.
    Token,
    /// A certificate of our own authority.
    Certificate,
    /// It runs inside the engine.
    Inside,
}

/// An agent that speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgent {
    pub name: AgentName,
    pub how: AgentProof,
    /// What its certificates have in common since it joined; empty for the others.
    pub family: String,
}

/// An agent as it was last written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    pub name: AgentName,
    pub how: AgentProof,
    pub family: String,
    pub since: Time,
    pub seen_at: Time,
    pub standing: Standing,
}

/// A token by which one agent may join; only its hash is kept.
#[derive(Debug, Clone)]
pub struct JoinToken {
    pub hash: String,
    /// For that cluster and that node alone.
    pub cluster: Option<String>,
    pub node: Option<String>,
    pub by: String,
    pub expires_at: Time,
}

/// A token to be made; its text stays outside.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub name: String,
    pub grant: Grant,
    pub sources: Vec<String>,
    pub hash: String,
    pub by: String,
    pub expires_at: Time,
}

/// What a batch came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    pub opened: usize,
    pub reopened: usize,
    pub refreshed: usize,
    pub resolved: usize,
    pub late: usize,
    pub runs: Vec<RunId>,
    /// Something became due: a run or a notice.
    pub nudge: bool,
}

/// A run by hand or by schedule.
#[derive(Debug, Clone)]
pub struct NewRun {
    pub pin: Pin,
    pub input: Input,
    pub subject: Subject,
    /// Where a rule with terms is behind it, those decide how far it goes.
    pub mode: Mode,
    pub rule: Option<String>,
    /// What the rule says of how far it goes; none where no rule is behind it.
    pub terms: Option<Terms>,
    pub requested_by: String,
    /// A schedule's tick: a second start with the same one is the same run.
    pub once: Option<String>,
    pub now: Time,
}

/// What the loops should look at now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Due {
    pub runs: Vec<RunId>,
    pub notices: Vec<DueNotice>,
    /// The earliest moment at which something more becomes due.
    pub next: Option<Time>,
}

/// A channel that does not yet show what it should for an incident.
#[derive(Debug, Clone, PartialEq)]
pub struct DueNotice {
    pub channel: String,
    pub incident: IncidentId,
    /// The entry up to which the channel should know.
    pub want: EntryNo,
    /// The entry up to which it knows; none before the first delivery.
    pub shown: Option<EntryNo>,
    pub receipt: Option<Receipt>,
    pub attempts: u32,
    /// A delivery was begun and never recorded: it may have arrived.
    pub maybe_sent: bool,
    /// It has a message of its own even in a storm: a broken glass.
    pub alone: bool,
}

/// A run as its owner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    pub run: Run,
    /// All steps in order of their number, undo steps too; only the last can be open.
    pub journal: Vec<Step>,
    /// Every episode behind it has ended, and it has changed nothing yet.
    pub moot: bool,
}

/// What came of wanting to begin a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    Step(Step),
    /// Recorded as an entry; the run is parked until then.
    Held {
        reason: Reason,
        until: Time,
    },
    /// Recorded as an entry; the caller decides what becomes of the run.
    Denied {
        reason: Reason,
    },
}

/// A question to put to people.
#[derive(Debug, Clone)]
pub struct NewApproval {
    pub question: String,
    pub plan: Option<Plan>,
    pub plan_hash: String,
    pub step: Option<u32>,
    pub approvers: Vec<String>,
    /// How many different persons must say yes.
    pub needed: u32,
    pub expires_at: Time,
}

/// What came of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Decided {
    Now(Approval),
    /// A yes was counted, and more persons are needed.
    Seconded(Approval),
    /// Somebody was faster, or it expired: the approval as it stands.
    Already(Approval),
}

/// What people and reconcilers may change besides runs.
#[derive(Debug, Clone)]
pub enum Control {
    Freeze(Freeze),
    /// Released once so many different persons asked for it, the first and the last within `RELEASE_WINDOW`.
    Unfreeze {
        scope: String,
        by: String,
        why: String,
        persons: u32,
    },
    /// A person has looked for the cause: the breaker of this scope lets new runs act again.
    ResetBreaker {
        scope: String,
        by: String,
        why: String,
    },
    Acknowledge {
        incident: IncidentId,
        by: String,
    },
    /// From now on it is theirs.
    Assign {
        incident: IncidentId,
        owner: String,
        by: String,
    },
    /// End a run that is not final: it is denied with `Cancelled`, and nothing is taken back. One that is stuck lets go
    /// of the nodes that it holds.
    Cancel {
        run: RunId,
        by: String,
        why: String,
    },
    /// A person's word on what a run of a rule did, or would have done; of one person the latest counts.
    Judge {
        run: RunId,
        right: bool,
        by: String,
        why: String,
        /// Only where nobody has said anything yet.
        first: bool,
    },
    /// One rung up, if what the rule asks for is on record.
    Promote(Climb),
    /// One rung down, or as far as `to`.
    Demote(Climb),
    /// The source fell silent or says it is over: end these episodes.
    EndEpisodes {
        episodes: Vec<EpisodeId>,
        stale: bool,
        why: String,
    },
    /// Remove the body of an entry; its hash stays.
    Redact {
        entry: EntryNo,
        by: String,
        why: String,
    },
}

/// A person wants a rule to go further, or less far.
#[derive(Debug, Clone)]
pub struct Climb {
    pub rule: String,
    /// The rule as it is in force now, and what it asks for.
    pub terms: Terms,
    pub promote: Promote,
    /// None: the next rung.
    pub to: Option<Mode>,
    pub by: String,
    pub why: String,
}

/// What came of one attempt to deliver, as the courier saw it.
#[derive(Debug, Clone)]
pub enum Receipted {
    /// About to send: a crash after this means "may have arrived".
    Sending,
    Delivered {
        upto: EntryNo,
        receipt: Receipt,
    },
    Retry {
        why: String,
        at: Time,
    },
    /// Nothing failed: its turn on the channel comes then.
    Later {
        at: Time,
    },
    /// Whether a patient channel speaks, before it does. Not `paged`: at `until` it is looked at again; without one the
    /// channel needs not know what happened up to `upto`.
    Judged {
        upto: EntryNo,
        paged: bool,
        why: String,
        until: Option<Time>,
        /// It has not been written down yet.
        news: bool,
    },
    /// Given up until somebody changes the configuration or something new happens.
    Refused {
        upto: EntryNo,
        why: String,
    },
}

/// Which rows a read wants; everything is optional and `limit` is bounded by `limits::READ_LIMIT`.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub incident: Option<IncidentId>,
    pub run: Option<RunId>,
    /// Only open incidents, or runs that are not final.
    pub open: bool,
    /// Only entries of these kinds (`EntryKind::name`); empty: all.
    pub kinds: Vec<&'static str>,
    /// Rows with a number greater than this, ascending; otherwise the newest first.
    pub after: Option<i64>,
    pub limit: usize,
}

/// How much is there, for `/metrics`, `/readyz` and the idle loop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub episodes_open: u64,
    pub incidents_open: u64,
    pub runs_unfinished: u64,
    pub approvals_open: u64,
    pub notices_due: u64,
    pub oldest_notice: Option<Time>,
    pub entries: u64,
    pub signed: u64,
    pub freezes: u64,
    pub nodes_held: u64,
}

/// A node that a run holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Empty for a run that names none and a fleet without a name.
    pub cluster: String,
    pub node: String,
    pub run: RunId,
    pub runbook: String,
}

/// The raw parts of one entry, for export and proofs. `body` and `salt` are gone once redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEntry {
    pub no: EntryNo,
    /// Microseconds since 1970.
    pub at: i64,
    pub commit: LeafHash,
    pub salt: Option<Vec<u8>>,
    /// The exact JSON bytes that the commitment covers.
    pub body: Option<Vec<u8>>,
}

#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    // ── intake ──
    async fn intake(&self, batch: Batch) -> Result<Heard, StoreError>;
    /// `Ok(None)`: that schedule tick has its run already.
    async fn start(&self, run: NewRun) -> Result<Option<RunId>, StoreError>;
    /// Findings of an agent: what is at or below its mark changes nothing, and a hole in the numbers is a gap. Returns the
    /// number up to which everything is durable.
    async fn intake_reports(&self, numbered: Numbered) -> Result<(u64, Heard), StoreError>;

    // ── what is due ──
    async fn due(&self, now: Time, limit: usize) -> Result<Due, StoreError>;
    /// Expires approvals, closes finished incidents, releases what ended runs held. Returns how much it changed.
    async fn tick(&self, now: Time) -> Result<u64, StoreError>;

    // ── runs: every write is conditional on the epoch ──
    /// Takes the run for this process; `None` if it is final or gone. The state is the one it was found in: an open step
    /// of a run that was waiting or held was not on its way, that of a ready one may have been.
    async fn claim(&self, run: RunId, now: Time) -> Result<Option<Claimed>, StoreError>;
    /// Guards, reservation, step and ledger entry, in one transaction.
    async fn begin(&self, proposal: Proposal, limits: Arc<GuardLimits>, now: Time) -> Result<Begun, StoreError>;
    /// The open step is to be performed once more: asks the guards that people can change meanwhile (the kill switch),
    /// in one transaction, and moves the step's deadline. Held: the step stays open and the run is parked.
    async fn again(
        &self,
        proposal: Proposal,
        step: u32,
        limits: Arc<GuardLimits>,
        now: Time,
    ) -> Result<Begun, StoreError>;
    /// The open step failed to be answered, or a crash left it open: counts the attempt.
    async fn attempt(&self, run: RunId, epoch: i64, step: u32, deadline: Time) -> Result<Step, StoreError>;
    /// The step stays open and keeps its place; the run waits.
    async fn park(
        &self,
        run: RunId,
        epoch: i64,
        carry: Option<(u32, Value)>,
        state: RunState,
        wake_at: Time,
        now: Time,
    ) -> Result<(), StoreError>;
    /// Records the final outcome of a step, and what the runbook said to channels.
    async fn end(
        &self,
        run: RunId,
        epoch: i64,
        step: u32,
        outcome: Outcome,
        tell: Vec<(String, String)>,
        now: Time,
    ) -> Result<(), StoreError>;
    /// Records the plan (ledger entry `RunPlanned`).
    async fn planned(&self, run: RunId, epoch: i64, plan: Plan, now: Time) -> Result<(), StoreError>;
    /// Asks people and parks the run until they answer or the question expires.
    async fn ask(&self, run: RunId, epoch: i64, question: NewApproval, now: Time) -> Result<ApprovalId, StoreError>;
    /// The runbook failed: from now on its steps are taken back.
    async fn unwind(&self, run: RunId, epoch: i64, why: String, now: Time) -> Result<(), StoreError>;
    /// Takes a run that people have cancelled in the middle of a step, for who stops what that step left under way: the run
    /// and its open step. `None`: nothing is open, and it is not due any more.
    async fn abandoned(&self, run: RunId, now: Time) -> Result<Option<(Run, Step)>, StoreError>;
    /// Such a run is due again then; without a time never, and its step stays open.
    async fn look_again(&self, run: RunId, epoch: i64, at: Option<Time>) -> Result<(), StoreError>;
    /// The final state; releases what the run held.
    async fn finish(&self, run: RunId, epoch: i64, state: RunState, now: Time) -> Result<(), StoreError>;

    // ── people ──
    /// An answer. Plan approvals set the run's `approved` and make it ready; step approvals end the step with
    /// `{"approved": true, "by": …}` or a refusal; a denied plan ends the run, after taking back what it has done.
    /// Who asked for a run by hand cannot approve it.
    async fn decide(
        &self,
        approval: ApprovalId,
        approved: bool,
        by: &str,
        why: &str,
        now: Time,
    ) -> Result<Decided, StoreError>;
    async fn control(&self, control: Control, now: Time) -> Result<(), StoreError>;
    /// A bare entry, for things that happen outside runs.
    async fn note(&self, actor: Actor, about: About, kind: EntryKind, now: Time) -> Result<EntryNo, StoreError>;

    // ── notices ──
    async fn receipted(
        &self,
        channel: &str,
        incident: IncidentId,
        what: Receipted,
        now: Time,
    ) -> Result<(), StoreError>;

    // ── texts of runbooks, by hash ──
    async fn pin(&self, pin: &Pin, text: &str, now: Time) -> Result<(), StoreError>;
    async fn pinned(&self, hash: &str) -> Result<Option<String>, StoreError>;

    // ── reading ──
    async fn incidents(&self, filter: Filter) -> Result<Vec<Incident>, StoreError>;
    async fn episodes(&self, filter: Filter) -> Result<Vec<Episode>, StoreError>;
    async fn runs(&self, filter: Filter) -> Result<Vec<Run>, StoreError>;
    async fn steps(&self, run: RunId) -> Result<Vec<Step>, StoreError>;
    async fn approvals(&self, filter: Filter) -> Result<Vec<Approval>, StoreError>;
    async fn entries(&self, filter: Filter) -> Result<Vec<Entry>, StoreError>;
    async fn freezes(&self) -> Result<Vec<Freeze>, StoreError>;
    /// Breakers that have tripped and were not reset.
    async fn breakers(&self) -> Result<Vec<Breaker>, StoreError>;
    /// How far rules may go, where a move up or down has said so.
    async fn levels(&self) -> Result<Vec<Level>, StoreError>;
    /// What a rule with this content has on record, as far as it counts.
    async fn card(&self, rule: &str, content: &str) -> Result<Card, StoreError>;
    async fn counts(&self) -> Result<Counts, StoreError>;
    /// The nodes that unfinished runs hold, and for whom.
    async fn holds(&self) -> Result<Vec<Hold>, StoreError>;
    /// Replicas that runs which are not over take away.
    async fn replicas_taken(&self) -> Result<Vec<TakenReplica>, StoreError>;
    /// Open episodes of a source not seen since `before`, oldest first: for the reconciler.
    async fn unseen(&self, source: &str, before: Time, limit: usize) -> Result<Vec<Episode>, StoreError>;

    // ── ledger ──
    async fn raw_entries(&self, after: Option<EntryNo>, limit: usize) -> Result<Vec<RawEntry>, StoreError>;
    /// Signs the present tree and keeps the checkpoint; the last one if nothing is new.
    async fn checkpoint(&self, key: Arc<SigningKey>, now: Time) -> Result<Option<Checkpoint>, StoreError>;
    async fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError>;
    /// The leaf's hash and the audit path of `no` in the tree of the first `size` entries.
    async fn inclusion(&self, no: EntryNo, size: u64) -> Result<(LeafHash, Vec<LeafHash>), StoreError>;

    /// The proof that the tree of the first `new` entries extends that of the first `old`.
    async fn consistency(&self, old: u64, new: u64) -> Result<Vec<LeafHash>, StoreError>;

    // ── agents ──
    async fn agent_seen(&self, agent: NewAgent, standing: Standing, now: Time) -> Result<(), StoreError>;
    async fn agents(&self) -> Result<Vec<AgentRow>, StoreError>;
    /// The family whose certificates are good for that node; none: no agent of that node has joined.
    async fn agent_family(&self, agent: &AgentName) -> Result<Option<String>, StoreError>;
    /// From now on it is not known: its certificates are refused, and its silence is nobody's matter.
    async fn agent_remove(&self, agent: &AgentName, by: &str, why: &str, now: Time) -> Result<(), StoreError>;
    async fn join_token(&self, token: JoinToken, now: Time) -> Result<(), StoreError>;
    /// Uses the token with that hash up for this agent, or refuses in words.
    async fn join(&self, hash: &str, agent: NewAgent, now: Time) -> Result<(), StoreError>;

    // ── tokens ──
    async fn token_make(&self, token: NewToken, now: Time) -> Result<ApiToken, StoreError>;
    /// By the hash of its text, as it is in the database at this moment.
    async fn token(&self, hash: &str) -> Result<Option<ApiToken>, StoreError>;
    /// The newest first, revoked and expired ones too as long as they are kept.
    async fn tokens(&self) -> Result<Vec<ApiToken>, StoreError>;
    /// Once this has returned, no request is let in by it.
    async fn token_revoke(&self, token: TokenId, by: &str, why: &str, now: Time) -> Result<ApiToken, StoreError>;
    /// That it was used: no entry, and no more often than to the hour.
    async fn token_used(&self, token: TokenId, now: Time) -> Result<(), StoreError>;
    /// A token for everything, and the incident by which these channels are told of it.
    async fn break_glass(
        &self,
        token: NewToken,
        why: String,
        channels: Vec<String>,
        now: Time,
    ) -> Result<ApiToken, StoreError>;

    // ── upkeep ──
    /// Removes at most `limits::SWEEP_ROWS` rows that are older than their retention. Returns how many.
    async fn sweep(&self, episodes: Span, bodies: Span, now: Time) -> Result<u64, StoreError>;
    /// The epoch of this process, and whether the writer answers.
    async fn health(&self) -> Result<i64, StoreError>;
    /// Commits what is queued, checkpoints the WAL, releases the lock file.
    async fn close(&self) -> Result<(), StoreError>;
}

// Only to keep the imports of the trait honest while implementations live in their own folders.
const _: fn(Call) = |_| ();
