//! Durable state: one append-only ledger and the tables of the current state, written in the same transaction.
//!
//! Invariant: a method that writes returns only after its commit is on stable storage, and a write of a run's journal
//! under an old epoch changes nothing and says `Fenced`.

mod advice;
mod asked;
mod ballast;
mod db;
mod failpoint;
pub mod ledger;
mod mark;
mod ops;
mod sqlite;
mod traits;

pub use advice::advice;
pub use asked::{
    AgentIdentity, AgentProof, AgentRow, BatchOrigin, BeginOutcome, ClaimedRun, CommitFollower, CommitRecord,
    ControlChange, DecisionOutcome, DeliveryOutcome, DueNotice, DueWork, EventBatch, Filter, GuardCounts, HeldNode,
    IntakeResult, JoinToken, LinkOutcome, NewAgent, NewApproval, NewRun, NewToken, NumberedBatch, OnFatal,
    PreflightRun, PromotionRequest, RawEntry, StoreCounts, SubjectLink,
};
pub use failpoint::Failpoint;
pub use mark::CheckpointMark;
pub use traits::{Decisions, Intake, Ledger, Outbox, Registry, RunJournal, Store, Views};

pub use sqlite::{
    BackupContents, RestoreReport, SqliteOptions, SqliteStore, StoreFiles, backup, restore, signed_entries,
    verify_backup,
};

use crate::model::RunId;

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

/// The clock by which the times in the store were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockMark {
    /// `Clock::boot`, `Clock::offset` and microseconds of `Clock::monotonic` at that moment.
    pub boot: i64,
    pub offset: i64,
    pub running: i64,
}
