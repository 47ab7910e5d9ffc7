//! Durable state: one append-only ledger and the tables of the current state, written in the same transaction.
//!
//! Invariant: a method that writes returns only after its commit is on stable storage, and a write of a run's journal
//! under an old epoch changes nothing and says `Fenced`.

mod advice;
mod asked;
mod ballast;
mod failpoint;
pub mod ledger;
mod mark;
mod sqlite;

pub use advice::advice;
pub use asked::{
    AgentIdentity, AgentProof, AgentRow, Batch, Begun, Claimed, Climb, Commit, Control, Counts, Decided, Due,
    DueNotice, Filter, Follower, Heard, Hold, JoinToken, Linked, NewAgent, NewApproval, NewRun, NewToken, Numbered,
    OnFatal, Origin, Pressure, Prospect, RawEntry, Receipted, SubjectLink,
};
pub use failpoint::Failpoint;
pub use mark::Mark;

pub use sqlite::{
    BackupContents, Restored, SqliteOptions, SqliteStore, StorePlace, backup, restore, signed_entries, verify_backup,
};

use crate::model::{
    About, Actor, AgentName, ApiToken, Approval, ApprovalId, Breaker, Card, CatalogFile, Entry, EntryKind, EntryNo,
    Episode, EpisodeId, Freeze, Incident, IncidentId, Level, Outcome, Pin, Plan, Reach, Run, RunId, RunState, Span,
    Standing, Step, Time, TokenId, Verdict,
};
use crate::policy::{GuardLimits, Proposal, TakenReplica};
use ledger::{Checkpoint, LeafHash, SigningKey};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Why the store did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another epoch owns the run: drop it at once.
    #[error("run {run} is owned by another epoch: this process must let go of it")]
    Fenced { run: RunId },
    #[error("there is no {what}")]
    NotFound { what: String },
    /// The request contradicts the stored state; nothing was changed.
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
    /// A stored value cannot be read back as its type.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
}

/// By which clock the times in the store were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockMark {
    /// `Clock::boot`, `Clock::offset` and microseconds of `Clock::monotonic` at that moment.
    pub boot: i64,
    pub offset: i64,
    pub running: i64,
}

/// The engine's durable state. Each method that writes is one transaction.
///
/// # Errors
///
/// A read fails with [`StoreError::Database`] when the database does, and with [`StoreError::Damaged`] where the one
/// requested row cannot be read back. A write fails also with [`StoreError::Fenced`] where it belongs to a run of
/// another epoch, with [`StoreError::NotFound`] and [`StoreError::Refused`] where the stored state forbids it, and with
/// [`StoreError::Busy`] while the queue or the disk is full; nothing was changed then.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    // ── intake ──
    async fn intake(&self, batch: Batch) -> Result<Heard, StoreError>;
    /// `Ok(None)`: that schedule tick has its run already.
    async fn start(&self, run: NewRun) -> Result<Option<RunId>, StoreError>;
    /// Findings of an agent: those at or below its mark change nothing, and a hole in the numbers is a gap. Returns the
    /// number up to which everything is durable.
    async fn intake_reports(&self, numbered: Numbered) -> Result<(u64, Heard), StoreError>;

    // ── due work ──
    async fn due(&self, now: Time, limit: usize) -> Result<Due, StoreError>;
    /// Expires approvals, closes finished incidents, releases the nodes of ended runs. Returns how much it changed.
    async fn tick(&self, now: Time) -> Result<u64, StoreError>;

    // ── runs: every write is conditional on the epoch ──
    /// Takes the run for this process; `None` if it is final or gone. The state is the one it was found in: an open step
    /// of a run that was waiting or held was not on its way, that of a ready one may have been.
    async fn claim(&self, run: RunId, now: Time) -> Result<Option<Claimed>, StoreError>;
    /// Guards, reservation, step and ledger entry, in one transaction.
    async fn begin(&self, proposal: Proposal, limits: Arc<GuardLimits>, now: Time) -> Result<Begun, StoreError>;
    /// The guards' predicted decisions on these steps, each as if those before it had been made. Changes nothing.
    async fn foretell(
        &self,
        prospect: Prospect,
        limits: Arc<GuardLimits>,
        now: Time,
    ) -> Result<Vec<Verdict>, StoreError>;
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
    /// Records the final outcome of a step, and the runbook's messages to channels.
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
    /// Takes a run that was cancelled in the middle of a step, for the caller that stops the step's remaining work:
    /// the run and its open step. `None`: nothing is open, and it is not due any more.
    async fn abandoned(&self, run: RunId, now: Time) -> Result<Option<(Run, Step)>, StoreError>;
    /// Such a run is due again then; without a time never, and its step stays open.
    async fn look_again(&self, run: RunId, epoch: i64, at: Option<Time>) -> Result<(), StoreError>;
    /// The stored run cannot be read: it is parked with the reason, users are notified, and it is not due any more. A
    /// cancellation lets its nodes go.
    async fn set_aside(&self, _run: RunId, _why: String, _now: Time) -> Result<(), StoreError> {
        Ok(())
    }
    /// The final state; releases the nodes that the run held.
    async fn finish(&self, run: RunId, epoch: i64, state: RunState, now: Time) -> Result<(), StoreError>;

    // ── people ──
    /// An answer. Plan approvals set the run's `approved` and make it ready; step approvals end the step with
    /// `{"approved": true, "by": …}` or a refusal; a denied plan ends the run, after its changes were undone.
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
    /// Keeps the text with the reach that its header declares: the guards go by that, and parse nothing again.
    async fn pin(&self, pin: &Pin, text: &str, reach: Reach, now: Time) -> Result<(), StoreError>;
    async fn pinned(&self, hash: &str) -> Result<Option<String>, StoreError>;

    /// Keeps the files of the catalog in force, instead of those kept before.
    async fn keep_catalog(&self, _files: Vec<CatalogFile>) -> Result<(), StoreError> {
        Ok(())
    }
    /// The files that were kept last, by path; none before the first catalog.
    async fn kept_catalog(&self) -> Result<Vec<CatalogFile>, StoreError> {
        Ok(Vec::new())
    }

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
    /// The statistics of a rule with this content, as far as they count.
    async fn card(&self, rule: &str, content: &str) -> Result<Card, StoreError>;
    async fn counts(&self) -> Result<Counts, StoreError>;
    /// The nodes that unfinished runs hold, and for whom.
    async fn holds(&self) -> Result<Vec<Hold>, StoreError>;
    /// Nodes that our runs took out within the last hour and day, and the rule that was started about most nodes lately.
    async fn pressure(&self, now: Time) -> Result<Pressure, StoreError>;
    /// Replicas that runs which are not over take away.
    async fn replicas_taken(&self) -> Result<Vec<TakenReplica>, StoreError>;
    /// Open episodes of a source not seen since `before`, by the time they were last seen, in pages: those after this time
    /// and number. For the reconciler.
    async fn unseen(
        &self,
        source: &str,
        before: Time,
        after: Option<(Time, EpisodeId)>,
        limit: usize,
    ) -> Result<Vec<Episode>, StoreError>;

    // ── ledger ──
    async fn raw_entries(&self, after: Option<EntryNo>, limit: usize) -> Result<Vec<RawEntry>, StoreError>;
    /// Signs the present tree and keeps the checkpoint; the last one if nothing is new.
    async fn checkpoint(&self, key: Arc<SigningKey>, now: Time) -> Result<Option<Checkpoint>, StoreError>;
    /// Checkpoints over more than `after` entries, the smallest first, in pages.
    async fn checkpoints(&self, after: u64, limit: usize) -> Result<Vec<Checkpoint>, StoreError>;
    /// The leaf's hash and the audit path of `no` in the tree of the first `size` entries.
    async fn inclusion(&self, no: EntryNo, size: u64) -> Result<(LeafHash, Vec<LeafHash>), StoreError>;

    /// The proof that the tree of the first `new` entries extends that of the first `old`.
    async fn consistency(&self, old: u64, new: u64) -> Result<Vec<LeafHash>, StoreError>;

    // ── agents ──
    /// That an agent speaks, and how it stands. `Refused`: its certificate was taken away, or another kind of agent serves
    /// that node; how an agent shows who it is never changes here.
    async fn agent_seen(&self, agent: NewAgent, standing: Standing, now: Time) -> Result<(), StoreError>;
    async fn agents(&self) -> Result<Vec<AgentRow>, StoreError>;
    /// Whose certificates are good for that node; none: no agent of that node has joined.
    async fn agent_identity(&self, agent: &AgentName) -> Result<Option<AgentIdentity>, StoreError>;
    /// A newer certificate of the agent was shown: older ones are refused from then on.
    async fn agent_used(&self, agent: NewAgent, now: Time) -> Result<(), StoreError>;
    /// The generation of the certificate that the agent gets for the one that it shows, with a ledger entry. `Refused`: it
    /// was taken away, or renewed a moment ago.
    async fn agent_renewed(&self, agent: NewAgent, now: Time) -> Result<u64, StoreError>;
    /// From now on it is not known: its certificates are refused, and its silence is nobody's matter.
    async fn agent_remove(&self, agent: &AgentName, by: &str, why: &str, now: Time) -> Result<(), StoreError>;
    async fn join_token(&self, token: JoinToken, now: Time) -> Result<(), StoreError>;
    /// Whether `join` with that token would be refused, in words; else whether the token was made for that very node.
    /// Changes nothing.
    async fn join_check(&self, hash: &str, agent: &AgentName, now: Time) -> Result<bool, StoreError>;
    /// Uses the token with that hash up for this agent, or refuses in words. Only this enters an agent with a certificate.
    async fn join(&self, hash: &str, agent: NewAgent, now: Time) -> Result<(), StoreError>;

    // ── tokens ──
    async fn token_make(&self, token: NewToken, now: Time) -> Result<ApiToken, StoreError>;
    /// By the hash of its text, as it is in the database at this moment.
    async fn token(&self, hash: &str) -> Result<Option<ApiToken>, StoreError>;
    async fn token_by_id(&self, token: TokenId) -> Result<Option<ApiToken>, StoreError>;
    /// Those in force first, then the newest first; revoked and expired ones too as long as they are kept.
    async fn tokens(&self, now: Time) -> Result<Vec<ApiToken>, StoreError>;
    /// Once this has returned, no request is let in by it, nor by any that it made: these are in the answer, too.
    async fn token_revoke(&self, token: TokenId, by: &str, why: &str, now: Time) -> Result<Vec<ApiToken>, StoreError>;
    /// Whether two names in the ledger may be one person: they are the same, or one of them, or who made a token of that
    /// name, is behind both.
    async fn same_person(&self, one: &str, other: &str) -> Result<bool, StoreError>;
    /// That it was used: no entry, and no more often than to the hour.
    async fn token_used(&self, token: TokenId, now: Time) -> Result<(), StoreError>;
    /// As which persons this subject signs in, the first one first.
    async fn subject_links(&self, issuer: &str, subject: &str) -> Result<Vec<SubjectLink>, StoreError>;
    /// Links a subject to a person, or notes that its mail is another one; each with an entry of the ledger.
    async fn subject_link(&self, link: SubjectLink, now: Time) -> Result<Linked, StoreError>;
    /// A token for everything, and the incident by which these channels are told of it.
    async fn break_glass(
        &self,
        token: NewToken,
        why: String,
        channels: Vec<String>,
        now: Time,
    ) -> Result<ApiToken, StoreError>;

    // ── upkeep ──
    /// Moves the mark up to which retention counts on by that much, and never beyond the newest entry or `now`; `sweep` goes
    /// by it. A store without a mark begins with the last entry before this start. Returns the mark.
    async fn retain_until(&self, further: Duration, now: Time) -> Result<Time, StoreError>;
    /// The wall clock was set by so many microseconds: in one transaction everything that waits is moved with it (waking,
    /// deadlines, expiry, notices, windows that guards count in), and `text` becomes an entry. Returns how many rows.
    async fn shift_timers(&self, by: i64, text: String, now: Time) -> Result<u64, StoreError>;
    /// What `keep_clock_mark` has kept, moved by every `shift_timers` since; none: nothing yet.
    async fn clock_mark(&self) -> Result<Option<ClockMark>, StoreError> {
        Ok(None)
    }
    /// Keeps by which clock the times in the store were written, for the next start.
    async fn keep_clock_mark(&self, _mark: ClockMark) -> Result<(), StoreError> {
        Ok(())
    }
    /// Removes at most `limits::SWEEP_ROWS` rows that are older than their retention. Returns how many.
    async fn sweep(&self, episodes: Span, bodies: Span, now: Time) -> Result<u64, StoreError>;
    /// Folds the write-ahead log into the database as far as possible, so that a copy of the file alone is near complete. While
    /// it fails nothing is lost, the log keeps everything; people are notified once, and again when it works.
    async fn fold(&self, _now: Time) -> Result<(), StoreError> {
        Ok(())
    }
    /// The epoch of this process, and whether the writer answers.
    async fn health(&self) -> Result<i64, StoreError>;
    /// Commits queued operations, checkpoints the WAL, releases the lock file.
    async fn close(&self) -> Result<(), StoreError>;
}
