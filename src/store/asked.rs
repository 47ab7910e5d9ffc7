//! The arguments of the store's methods, and their results.
//!
//! Invariant: values alone; nothing here reads or writes.

use super::ledger::LeafHash;
use crate::model::{
    AgentName, Approval, Entry, EntryNo, EpisodeId, Event, Foretold, Freeze, Grant, IncidentId, Input, Mode, Pin, Plan,
    Poster, Promote, Reach, Reason, Receipt, Run, RunId, Severity, Standing, Step, Subject, Terms, Time, TokenId,
};
use crate::policy::{Proposal, RuleSet};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Events of one request, decided and stored in one transaction.
#[derive(Debug, Clone)]
pub struct Batch {
    pub source: String,
    pub events: Vec<Event>,
    /// Parts that the source left out, in words; each becomes a `Gap` entry.
    pub gaps: Vec<String>,
    pub rules: Arc<RuleSet>,
    pub now: Time,
    pub origin: Origin,
}

/// Where a batch comes from, besides the source's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The kind of the source, which rules match as `__source_kind__`.
    pub kind: String,
    /// Who posted it; none: this engine found it itself.
    pub via: Option<Poster>,
}

impl Origin {
    /// A source of this kind, without an agent.
    pub fn of_kind(kind: &str) -> Origin {
        Origin { kind: kind.to_owned(), via: None }
    }

    /// Findings of an agent, by its proof of identity.
    pub fn agent(agent: &NewAgent) -> Origin {
        let with = match agent.how {
            AgentProof::Token => "a ServiceAccount token",
            AgentProof::Certificate => "a certificate",
            AgentProof::Inside => "the engine's own process",
        };
        let via = Poster { by: format!("agent {}", agent.name), with: with.to_owned(), person: false };
        Origin { kind: Origin::AGENT.to_owned(), via: Some(via) }
    }

    /// The kind of the agents' own source.
    pub const AGENT: &str = "agent";
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentProof {
    /// A ServiceAccount token that Kubernetes has looked at.
    Token,
    /// A certificate of our own authority.
    Certificate,
    /// It runs inside the engine.
    Inside,
}

impl AgentProof {
    /// The word in JSON and in the terminal.
    pub fn word(self) -> &'static str {
        match self {
            AgentProof::Token => "token",
            AgentProof::Certificate => "certificate",
            AgentProof::Inside => "inside",
        }
    }
}

/// An agent that is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgent {
    pub name: AgentName,
    pub how: AgentProof,
    /// The common mark of its certificates since it joined; empty for the others.
    pub family: String,
    /// Of the certificate that it shows: each renewal counts one further. 0 for the others.
    pub generation: u64,
}

/// Whose certificates are good for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    pub family: String,
    /// The newest generation that was shown, and since when.
    pub used: u64,
    pub used_since: Time,
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
    /// The token by which it is made: revoking that one ends this one, and the agent that joined by it.
    pub made_with: Option<TokenId>,
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
    /// Who is behind it in the end, whatever tokens made it; none: it is a user's own.
    pub root: Option<String>,
    /// Whose it is, where it is a user's.
    pub person: Option<String>,
    /// The token by which it is made.
    pub made_with: Option<TokenId>,
    pub expires_at: Time,
}

/// A subject of the identity provider that signs in as a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectLink {
    pub issuer: String,
    pub subject: String,
    pub person: String,
    /// The value of `people[].oidc` that named it: a subject, or a mail address.
    pub via: String,
    /// As it was at the last sign-in, verified or not.
    pub mail: Option<String>,
}

/// Whether a subject is the user now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    Yes,
    /// Another subject signed in as that user before.
    Taken,
}

/// The result of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    pub opened: usize,
    pub reopened: usize,
    pub refreshed: usize,
    pub resolved: usize,
    pub late: usize,
    /// Opened or reopened, and matched by no rule.
    pub unmatched: usize,
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
    /// The rule's terms for its mode; none where no rule is behind it.
    pub terms: Option<Terms>,
    pub requested_by: String,
    /// A schedule's tick: a second start with the same one is the same run.
    pub once: Option<String>,
    pub now: Time,
}

/// Work that is due now, for the loops.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Due {
    pub runs: Vec<RunId>,
    /// Of each run, the cluster that it is about; empty where it names none.
    pub clusters: Vec<String>,
    pub notices: Vec<DueNotice>,
    /// The earliest moment at which something more becomes due.
    pub next: Option<Time>,
}

/// A channel whose message about an incident is out of date.
#[derive(Debug, Clone, PartialEq)]
pub struct DueNotice {
    pub channel: String,
    pub incident: IncidentId,
    /// The entry up to which the channel should show it.
    pub want: EntryNo,
    /// The entry up to which it shows it; none before the first delivery.
    pub shown: Option<EntryNo>,
    pub receipt: Option<Receipt>,
    pub attempts: u32,
    /// A delivery was begun and never recorded: it may have arrived.
    pub maybe_sent: bool,
    /// It has a message of its own even in a storm: a broken glass.
    pub alone: bool,
    /// Users wait for something that the channel has not shown: a question, a run that gave up.
    pub urgent: bool,
    /// How grave the incident is, and the source that opened it; empty where none did.
    pub severity: Severity,
    pub source: String,
}

/// A run as its owner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    pub run: Run,
    /// All steps in order of their number, undo steps too; only the last can be open.
    pub journal: Vec<Step>,
    /// Every episode behind it has ended, and it has changed nothing yet.
    pub moot: bool,
    /// The same, but until then its incident is kept open: it waits, and goes on if one of them fires again.
    pub kept: Option<Time>,
    /// A guard held it when it was claimed: its reads may be out of date.
    pub held: bool,
}

/// A run that was not started, and the steps that it would make.
#[derive(Debug, Clone)]
pub struct Prospect {
    pub run: Run,
    /// The scope that the header of its runbook declares.
    pub reach: Reach,
    pub proposals: Vec<Proposal>,
}

/// The result of an attempt to begin a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    Step(Step),
    /// Recorded as an entry; the run is parked until then.
    Held {
        reason: Reason,
        until: Time,
    },
    /// Recorded as an entry; the caller decides on the run.
    Denied {
        reason: Reason,
    },
}

/// A question to put to users.
#[derive(Debug, Clone)]
pub struct NewApproval {
    pub question: String,
    pub plan: Option<Plan>,
    /// The guards' predicted decisions on the plan's calls.
    pub foretold: Vec<Foretold>,
    pub plan_hash: String,
    pub step: Option<u32>,
    pub approvers: Vec<String>,
    /// The number of different approvers.
    pub needed: u32,
    pub expires_at: Time,
}

/// The result of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Decided {
    Now(Approval),
    /// A yes was counted, and more users are needed.
    Seconded(Approval),
    /// Another answer was faster, or it expired: the approval as it stands.
    Already(Approval),
}

/// Changes by users and reconcilers besides runs.
#[derive(Debug, Clone)]
pub enum Control {
    /// The second part: channels that are notified of it, and of its end.
    Freeze(Freeze, Vec<String>),
    /// Released once so many different users requested it, the first and the last within `RELEASE_WINDOW`.
    Unfreeze {
        scope: String,
        by: String,
        why: String,
        persons: u32,
    },
    /// A user has looked for the cause: the breaker of this scope lets new runs act again.
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
    /// The subjects of the identity provider that were this user are so no more: the next one with their mail is.
    UnlinkSubjects {
        person: String,
        by: String,
        why: String,
    },
    /// End a run that is not final: it is denied with `Cancelled`, and nothing is taken back. One that is stuck lets go
    /// of the nodes that it holds.
    Cancel {
        run: RunId,
        by: String,
        why: String,
    },
    /// A user's review of a run, done or planned; of one user the latest counts.
    Judge {
        run: RunId,
        right: bool,
        by: String,
        why: String,
        /// Only where there is no review yet.
        first: bool,
        /// The content of the rule in force, where it still exists.
        in_force: Option<String>,
    },
    /// One level up, if the rule's required evidence is on record.
    Promote(Climb),
    /// One level down, or as far as `to`.
    Demote(Climb),
    /// A user ends the open episodes of an incident, all of them or those of one source. An alert that is sent again is
    /// new.
    Resolve {
        incident: IncidentId,
        source: Option<String>,
        by: String,
        why: String,
    },
    /// The source fell silent or reports the end: end these episodes.
    EndEpisodes {
        episodes: Vec<EpisodeId>,
        stale: bool,
        why: String,
    },
    /// Remove the body of an entry that carries text from outside; its hash stays. So many different users must request
    /// it, the first and the last within `RELEASE_WINDOW`; these channels are notified.
    Redact {
        entry: EntryNo,
        by: String,
        why: String,
        persons: u32,
        notify: Vec<String>,
    },
}

/// A user's request to raise or lower a rule's mode.
#[derive(Debug, Clone)]
pub struct Climb {
    pub rule: String,
    /// The terms of the rule in force, and the evidence that it requires.
    pub terms: Terms,
    pub promote: Promote,
    /// None: the next mode.
    pub to: Option<Mode>,
    pub by: String,
    pub why: String,
}

/// The result of one attempt to deliver.
#[derive(Debug, Clone)]
pub enum Receipted {
    /// About to send: a crash after this means "may have arrived".
    Sending,
    /// A request was answered: it becomes an entry.
    Delivered {
        upto: EntryNo,
        receipt: Receipt,
    },
    /// There was nothing to send up to there: no entry. The receipt, where there is one, replaces the one before.
    Nothing {
        upto: EntryNo,
        receipt: Option<Receipt>,
    },
    Retry {
        why: String,
        at: Time,
    },
    /// Nothing failed: its turn on the channel comes then, or at once if users wait for something after `upto`.
    Later {
        upto: EntryNo,
        at: Time,
    },
    /// Whether a waiting channel is notified, before it is. Not `paged`: at `until` it is checked again; without one
    /// the channel has no need of the news up to `upto`.
    Judged {
        upto: EntryNo,
        paged: bool,
        why: String,
        until: Option<Time>,
        /// It has not been written down yet.
        news: bool,
    },
    /// Given up until the configuration changes or something new happens.
    Refused {
        upto: EntryNo,
        why: String,
    },
}

/// The rows that a read selects; everything is optional and `limit` is bounded by `limits::READ_LIMIT`.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub incident: Option<IncidentId>,
    pub run: Option<RunId>,
    /// Only open incidents, or runs that are not final.
    pub open: bool,
    /// Only entries of these kinds (`EntryKind::name`); empty: all.
    pub kinds: Vec<&'static str>,
    /// Only incidents, runs or approvals in this state, by its word in JSON; `denied` of a run means each that was not done.
    pub state: Option<&'static str>,
    /// Only incidents that are so bad, or worse.
    pub severity: Option<Severity>,
    /// Only records about this node.
    pub node: Option<String>,
    /// Only runs of this rule, incidents that have one, and approvals and entries of such runs.
    pub rule: Option<String>,
    /// Only incidents that opened, runs that were created, approvals that were requested, entries that were written at this
    /// time or later.
    pub since: Option<Time>,
    /// Rows with a number greater than this, ascending; otherwise the newest first.
    pub after: Option<i64>,
    /// Only rows with a number less than this: the next page of a list that begins with the newest.
    pub before: Option<i64>,
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

/// The present counts of the guards that count over a window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Distinct nodes, by cluster (empty for a fleet without a name) and name.
    pub taken_hour: Vec<(String, String)>,
    pub taken_day: Vec<(String, String)>,
    /// The rule, and how many nodes it was started about within `SYMPTOM_WINDOW`.
    pub symptom: Option<(String, u32)>,
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

/// The content of one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Operations that shared it.
    pub operations: usize,
    /// How long the disk took.
    pub took: Duration,
    /// Its entries in order, without the bodies of heard batches, which nothing that follows needs.
    pub entries: Vec<Entry>,
}

/// Called on the writer's thread after each commit and before any answer: it must not wait.
#[derive(Clone)]
pub struct Follower(Arc<dyn Fn(Commit) + Send + Sync>);

impl Follower {
    /// A follower that calls `follow` after each commit.
    pub fn new(follow: impl Fn(Commit) + Send + Sync + 'static) -> Follower {
        Follower(Arc::new(follow))
    }

    /// Passes a commit on.
    pub fn follow(&self, commit: Commit) {
        (self.0)(commit);
    }
}

/// Called once the store cannot be trusted any more: it must end the process, so that a supervisor starts it again.
#[derive(Clone)]
pub struct OnFatal(Arc<dyn Fn(&str) + Send + Sync>);

impl OnFatal {
    /// A hook that calls `end` once the store cannot be trusted any more.
    pub fn new(end: impl Fn(&str) + Send + Sync + 'static) -> OnFatal {
        OnFatal(Arc::new(end))
    }

    /// Ends the process with this reason.
    pub fn call(&self, why: &str) {
        (self.0)(why);
    }
}

impl fmt::Debug for OnFatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnFatal")
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Follower")
    }
}
