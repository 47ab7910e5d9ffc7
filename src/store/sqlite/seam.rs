//! SQLite behind the seven traits of the store: each method is one transaction of the writer, or one read beside it.
//!
//! Invariant: nothing is decided here; that is done by the operations, within the transaction.

use super::writer::WhenFull;
use super::{SqliteStore, faults, schema};
use crate::limits;
use crate::model::{
    Actor, AgentName, AgentStatus, ApiToken, Approval, ApprovalId, Breaker, CatalogFile, Entry, EntryKind, EntryLinks,
    EntryNo, Episode, EpisodeId, Freeze, GuardDecision, ImpactScope, Incident, IncidentId, Outcome, Plan, RuleLevel,
    RuleStats, Run, RunId, RunState, RunbookPin, Span, Step, Time, TokenId,
};
use crate::policy::{GuardLimits, StepProposal, TakenReplica};
use crate::store::db::{exec, micros, params, to_word};
use crate::store::ledger::{Checkpoint, LeafHash, SigningKey};
use crate::store::ops::{
    agents, begin, breakers, catalog, intake, ladder, notices, parked, people, persons, read, replicas, runs, subjects,
    sweep, timers, tokens,
};
use crate::store::{
    AgentIdentity, AgentRow, BeginOutcome, ClaimedRun, ClockMark, ControlChange, DecisionOutcome, Decisions,
    DeliveryOutcome, DueWork, EventBatch, Filter, GuardCounts, HeldNode, Intake, IntakeResult, JoinToken, Ledger,
    LinkOutcome, NewAgent, NewApproval, NewRun, NewToken, NumberedBatch, Outbox, PreflightRun, RawEntry, Registry,
    RunJournal, StoreCounts, StoreError, SubjectLink, Views,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

#[async_trait::async_trait]
impl Intake for SqliteStore {
    async fn intake(&self, batch: EventBatch) -> Result<IntakeResult, StoreError> {
        let prepared = intake::PreparedBatch::new(batch)?;
        self.has_room()?;
        self.write_as(WhenFull::Refuse, move |tx| intake::intake(tx, &prepared)).await
    }

    async fn reconsider(&self, batch: EventBatch, changed: BTreeSet<String>) -> Result<IntakeResult, StoreError> {
        let prepared = intake::PreparedBatch::new(batch)?.for_open_alerts(changed);
        self.write(move |tx| intake::intake(tx, &prepared)).await
    }

    async fn applied_rules(&self) -> Result<Option<BTreeMap<String, String>>, StoreError> {
        self.readers.read(|conn| catalog::applied_rules(conn)).await
    }

    async fn apply_rules(&self, rules: BTreeMap<String, String>) -> Result<(), StoreError> {
        self.write(move |tx| catalog::apply_rules(tx, &rules)).await
    }

    async fn intake_reports(&self, numbered: NumberedBatch) -> Result<(u64, IntakeResult), StoreError> {
        self.has_room()?;
        self.write_as(WhenFull::Refuse, move |tx| agents::reports(tx, numbered)).await
    }
}

#[async_trait::async_trait]
impl RunJournal for SqliteStore {
    async fn start(&self, run: NewRun) -> Result<Option<RunId>, StoreError> {
        self.write(move |tx| runs::start(tx, &run)).await
    }

    async fn claim(&self, run: RunId, now: Time) -> Result<Option<ClaimedRun>, StoreError> {
        self.write(move |tx| runs::claim(tx, run, now)).await
    }

    async fn begin(
        &self,
        proposal: StepProposal,
        limits: Arc<GuardLimits>,
        now: Time,
    ) -> Result<BeginOutcome, StoreError> {
        self.write(move |tx| begin::begin(tx, proposal, &limits, now)).await
    }

    async fn foretell(
        &self,
        prospect: PreflightRun,
        limits: Arc<GuardLimits>,
        now: Time,
    ) -> Result<Vec<GuardDecision>, StoreError> {
        // Where the levels are read for a step: operations under way are in them.
        self.write(move |tx| begin::foretell(tx, prospect, &limits, now)).await
    }

    async fn again(
        &self,
        proposal: StepProposal,
        step: u32,
        limits: Arc<GuardLimits>,
        now: Time,
    ) -> Result<BeginOutcome, StoreError> {
        self.write(move |tx| begin::again(tx, proposal, step, &limits, now)).await
    }

    async fn attempt(&self, run: RunId, epoch: i64, step: u32, deadline: Time) -> Result<Step, StoreError> {
        self.write(move |tx| runs::attempt(tx, run, epoch, step, deadline)).await
    }

    async fn park(
        &self,
        run: RunId,
        epoch: i64,
        carry: Option<(u32, Value)>,
        state: RunState,
        wake_at: Time,
        now: Time,
    ) -> Result<(), StoreError> {
        self.write(move |tx| runs::park(tx, run, epoch, carry, &state, wake_at, now)).await
    }

    async fn end(
        &self,
        run: RunId,
        epoch: i64,
        step: u32,
        outcome: Outcome,
        tell: Vec<(String, String)>,
        now: Time,
    ) -> Result<(), StoreError> {
        self.write(move |tx| runs::end(tx, run, epoch, step, outcome, tell, now)).await
    }

    async fn planned(&self, run: RunId, epoch: i64, plan: Plan, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| runs::planned(tx, run, epoch, plan, now)).await
    }

    async fn ask(&self, run: RunId, epoch: i64, question: NewApproval, now: Time) -> Result<ApprovalId, StoreError> {
        self.write(move |tx| runs::ask(tx, run, epoch, question, now)).await
    }

    async fn unwind(&self, run: RunId, epoch: i64, why: String) -> Result<(), StoreError> {
        self.write(move |tx| runs::unwind(tx, run, epoch, why)).await
    }

    async fn abandoned(&self, run: RunId) -> Result<Option<(Run, Step)>, StoreError> {
        self.write(move |tx| runs::abandoned(tx, run)).await
    }

    async fn look_again(&self, run: RunId, epoch: i64, at: Option<Time>) -> Result<(), StoreError> {
        self.write(move |tx| runs::look_again(tx, run, epoch, at)).await
    }

    async fn set_aside(&self, run: RunId, why: String, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| parked::park(tx, "run", &run.0.to_string(), &why, now).map(drop)).await
    }

    async fn finish(&self, run: RunId, epoch: i64, state: RunState, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| runs::finish(tx, run, epoch, state, now)).await
    }

    async fn pin(&self, pin: &RunbookPin, text: &str, reach: ImpactScope, now: Time) -> Result<(), StoreError> {
        let (pin, text) = (pin.clone(), text.to_owned());
        self.write(move |tx| {
            // A text that comes back is kept from then on.
            let sql = "INSERT INTO pin (hash, name, text, at, reach) VALUES (?1, ?2, ?3, ?4, ?5) \
                       ON CONFLICT (hash) DO UPDATE SET at = max(at, excluded.at), reach = excluded.reach";
            let reach = to_word(&reach)?;
            exec(&tx.conn, sql, params![pin.hash, pin.name, text, micros(now), reach]).map(drop)
        })
        .await
    }

    async fn pinned(&self, hash: &str) -> Result<Option<String>, StoreError> {
        let hash = hash.to_owned();
        self.readers.read(move |conn| read::pinned(conn, &hash)).await
    }

    async fn keep_catalog(&self, files: Vec<CatalogFile>) -> Result<(), StoreError> {
        self.write(move |tx| catalog::keep(tx, &files)).await
    }

    async fn kept_catalog(&self) -> Result<Vec<CatalogFile>, StoreError> {
        self.readers.read(|conn| catalog::kept(conn)).await
    }
}

#[async_trait::async_trait]
impl Outbox for SqliteStore {
    async fn due(&self, now: Time, limit: usize) -> Result<DueWork, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::due(conn, now, limit, &unreadable)).await
    }

    async fn receipted(
        &self,
        channel: &str,
        incident: IncidentId,
        what: DeliveryOutcome,
        now: Time,
    ) -> Result<(), StoreError> {
        let channel = channel.to_owned();
        self.write(move |tx| notices::receipted(tx, &channel, incident, what, now)).await
    }
}

#[async_trait::async_trait]
impl Decisions for SqliteStore {
    async fn decide(
        &self,
        approval: ApprovalId,
        approved: bool,
        by: &str,
        why: &str,
        now: Time,
    ) -> Result<DecisionOutcome, StoreError> {
        let answer = people::UserAnswer { approval, approved, by: by.to_owned(), why: why.to_owned() };
        self.write(move |tx| people::decide(tx, &answer, now)).await
    }

    async fn control(&self, control: ControlChange, now: Time) -> Result<(), StoreError> {
        let again = control.clone();
        match self.write(move |tx| people::control(tx, control, now)).await {
            // The disk was full, and there is room now that is kept for this.
            Err(StoreError::Database(_)) if self.ballast.is_let_go() && matches!(again, ControlChange::Freeze(..)) => {
                self.write(move |tx| people::control(tx, again, now)).await
            }
            done => done,
        }
    }

    async fn tick(&self, now: Time) -> Result<u64, StoreError> {
        let room = self.look_after_room(now).await;
        let unreadable = self.readers.unreadable.take();
        let chores = self.write(move |tx| people::chores(tx, unreadable, now)).await?;
        let each = chores.into_iter().map(async |chore| {
            let same = chore.clone();
            match self.write(move |tx| people::perform(tx, &chore, now)).await {
                Err(StoreError::Damaged(why)) => {
                    self.write(move |tx| people::give_up(tx, &same, &why, now)).await.map(|()| 0)
                }
                done => done,
            }
        });
        // Together, so that they share a commit; all are tried before the first failure is returned.
        futures::future::join_all(each).await.into_iter().chain([room]).sum()
    }

    async fn same_person(&self, one: &str, other: &str) -> Result<bool, StoreError> {
        let (one, other) = (one.to_owned(), other.to_owned());
        self.readers.read(move |conn| persons::same(conn, &one, &other)).await
    }

    async fn breakers(&self) -> Result<Vec<Breaker>, StoreError> {
        self.readers.read(|conn| breakers::tripped(conn)).await
    }

    async fn levels(&self) -> Result<Vec<RuleLevel>, StoreError> {
        self.readers.read(|conn| ladder::levels(conn)).await
    }

    async fn card(&self, rule: &str, content: &str) -> Result<RuleStats, StoreError> {
        let (rule, content) = (rule.to_owned(), content.to_owned());
        self.readers.read(move |conn| ladder::card(conn, &rule, &content)).await
    }

    async fn pressure(&self, now: Time) -> Result<GuardCounts, StoreError> {
        self.readers.read(move |conn| read::pressure(conn, now)).await
    }

    async fn replicas_taken(&self) -> Result<Vec<TakenReplica>, StoreError> {
        self.readers.read(|conn| replicas::open(conn)).await
    }
}

#[async_trait::async_trait]
impl Ledger for SqliteStore {
    async fn note(&self, actor: Actor, about: EntryLinks, kind: EntryKind, now: Time) -> Result<EntryNo, StoreError> {
        self.write(move |tx| tx.ops().append(&actor, about, &kind, now)).await
    }

    async fn raw_entries(&self, after: Option<EntryNo>, limit: usize) -> Result<Vec<RawEntry>, StoreError> {
        self.readers.read(move |conn| read::raw_entries(conn, after, limit)).await
    }

    async fn checkpoint(&self, key: Arc<SigningKey>, now: Time) -> Result<Option<Checkpoint>, StoreError> {
        self.sign(key, now).await
    }

    async fn checkpoints(&self, after: u64, limit: usize) -> Result<Vec<Checkpoint>, StoreError> {
        self.readers.read(move |conn| read::checkpoints(conn, after, limit)).await
    }

    async fn inclusion(&self, no: EntryNo, size: u64) -> Result<(LeafHash, Vec<LeafHash>), StoreError> {
        self.readers.read(move |conn| read::inclusion(conn, no, size)).await
    }

    async fn consistency(&self, old: u64, new: u64) -> Result<Vec<LeafHash>, StoreError> {
        self.readers.read(move |conn| read::consistency(conn, old, new)).await
    }

    async fn retain_until(&self, further: Duration, now: Time) -> Result<Time, StoreError> {
        self.write(move |tx| sweep::retain_until(tx, further, now)).await
    }

    async fn sweep(&self, episodes: Span, bodies: Span, now: Time) -> Result<u64, StoreError> {
        self.write(move |tx| sweep::sweep(tx, episodes, bodies, now)).await
    }

    async fn shift_timers(&self, by: i64, text: String, now: Time) -> Result<u64, StoreError> {
        self.write(move |tx| timers::shift(tx, by, text, now)).await
    }

    async fn clock_mark(&self) -> Result<Option<ClockMark>, StoreError> {
        self.readers.read(|conn| timers::clock_mark(conn)).await
    }

    async fn keep_clock_mark(&self, mark: ClockMark) -> Result<(), StoreError> {
        self.write(move |tx| timers::keep_clock_mark(tx, mark)).await
    }

    async fn fold(&self, now: Time) -> Result<(), StoreError> {
        let on_fatal = self.on_fatal.clone();
        let fold = move |conn: &rusqlite::Connection| {
            let folded = schema::fold(conn);
            if let (Err(error), Some(on_fatal)) = (&folded, &on_fatal)
                && faults::is_lost_sync(error)
                && !crate::planted::planted("fatal-store-lives-on")
            {
                on_fatal.call(&format!("folding the write-ahead log into the database failed: {error}"));
            }
            match folded? {
                left if left > limits::WAL_PAGES_LEFT => Err(StoreError::Busy(format!(
                    "{left} pages of the log wait for a reader of an older state: does another program read the database?"
                ))),
                _ => Ok(()),
            }
        };
        let folded = self.readers.with(fold).await;
        self.notify_of_fold(folded.as_ref().err().map(ToString::to_string), now).await?;
        folded
    }

    async fn health(&self) -> Result<i64, StoreError> {
        self.queue()?.sound()?;
        self.has_room()?;
        // A row, so that an answer means that the disk takes writes.
        let sql = "INSERT INTO setting (name, value) VALUES ('health', 1) \
                   ON CONFLICT (name) DO UPDATE SET value = value + 1";
        self.write(move |tx| exec(&tx.conn, sql, []).map(drop)).await?;
        Ok(self.epoch)
    }

    async fn close(&self) -> Result<(), StoreError> {
        let Some(thread) = self.stop() else { return Ok(()) };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        match joined {
            Ok(Ok(())) => Ok(()),
            _ => Err(StoreError::Database("the writer did not end in order".to_owned())),
        }
    }
}

#[async_trait::async_trait]
impl Registry for SqliteStore {
    async fn agent_seen(&self, agent: NewAgent, standing: AgentStatus, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| agents::seen(tx, &agent, &standing, now)).await
    }

    async fn agents(&self) -> Result<Vec<AgentRow>, StoreError> {
        self.readers.read(|conn| agents::rows(conn)).await
    }

    async fn agent_identity(&self, agent: &AgentName) -> Result<Option<AgentIdentity>, StoreError> {
        let agent = agent.clone();
        self.readers.read(move |conn| agents::identity(conn, &agent)).await
    }

    async fn agent_used(&self, agent: NewAgent, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| agents::used(tx, &agent, now)).await
    }

    async fn agent_renewed(&self, agent: NewAgent, now: Time) -> Result<u64, StoreError> {
        self.write(move |tx| agents::renewed(tx, &agent, now)).await
    }

    async fn agent_remove(&self, agent: &AgentName, by: &str, why: &str, now: Time) -> Result<(), StoreError> {
        let (agent, by, why) = (agent.clone(), by.to_owned(), why.to_owned());
        self.write(move |tx| agents::remove(tx, &agent, &by, &why, now)).await
    }

    async fn join_token(&self, token: JoinToken, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| agents::join_token(tx, &token, now)).await
    }

    async fn join_check(&self, hash: &str, agent: &AgentName, now: Time) -> Result<bool, StoreError> {
        let (hash, agent) = (hash.to_owned(), agent.clone());
        self.readers.read(move |conn| agents::join_check(conn, &hash, &agent, now).map(|made| made.is_bound)).await
    }

    async fn join(&self, hash: &str, agent: NewAgent, now: Time) -> Result<(), StoreError> {
        let hash = hash.to_owned();
        self.write(move |tx| agents::join(tx, &hash, &agent, now)).await
    }

    async fn token_make(&self, token: NewToken, now: Time) -> Result<ApiToken, StoreError> {
        self.write(move |tx| tokens::make(tx, &token, now)).await
    }

    async fn token(&self, hash: &str) -> Result<Option<ApiToken>, StoreError> {
        let hash = hash.to_owned();
        self.readers.read(move |conn| tokens::by_hash(conn, &hash)).await
    }

    async fn token_by_id(&self, token: TokenId) -> Result<Option<ApiToken>, StoreError> {
        self.readers.read(move |conn| tokens::find(conn, token)).await
    }

    async fn tokens(&self, now: Time) -> Result<Vec<ApiToken>, StoreError> {
        self.readers.read(move |conn| tokens::list(conn, now)).await
    }

    async fn token_revoke(&self, token: TokenId, by: &str, why: &str, now: Time) -> Result<Vec<ApiToken>, StoreError> {
        let (by, why) = (by.to_owned(), why.to_owned());
        self.write(move |tx| tokens::revoke(tx, token, &by, &why, now)).await
    }

    async fn token_used(&self, token: TokenId, now: Time) -> Result<(), StoreError> {
        self.write(move |tx| tokens::used(tx, token, now)).await
    }

    async fn break_glass(
        &self,
        token: NewToken,
        why: String,
        channels: Vec<String>,
        now: Time,
    ) -> Result<ApiToken, StoreError> {
        self.write(move |tx| tokens::break_glass(tx, &token, &why, &channels, now)).await
    }

    async fn subject_links(&self, issuer: &str, subject: &str) -> Result<Vec<SubjectLink>, StoreError> {
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        self.readers.read(move |conn| subjects::links(conn, &issuer, &subject)).await
    }

    async fn subject_link(&self, link: SubjectLink, now: Time) -> Result<LinkOutcome, StoreError> {
        self.write(move |tx| subjects::link(tx, &link, now)).await
    }
}

#[async_trait::async_trait]
impl Views for SqliteStore {
    async fn incidents(&self, filter: Filter) -> Result<Vec<Incident>, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::incidents(conn, &filter, &unreadable)).await
    }

    async fn episodes(&self, filter: Filter) -> Result<Vec<Episode>, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::episodes(conn, &filter, &unreadable)).await
    }

    async fn runs(&self, filter: Filter) -> Result<Vec<Run>, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::runs(conn, &filter, &unreadable)).await
    }

    async fn steps(&self, run: RunId) -> Result<Vec<Step>, StoreError> {
        self.readers.read(move |conn| read::steps(conn, run)).await
    }

    async fn approvals(&self, filter: Filter) -> Result<Vec<Approval>, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::approvals(conn, &filter, &unreadable)).await
    }

    async fn entries(&self, filter: Filter) -> Result<Vec<Entry>, StoreError> {
        let unreadable = self.readers.unreadable.clone();
        self.readers.read(move |conn| read::entries(conn, &filter, &unreadable)).await
    }

    async fn freezes(&self) -> Result<Vec<Freeze>, StoreError> {
        self.readers.read(|conn| read::freezes(conn)).await
    }

    async fn holds(&self) -> Result<Vec<HeldNode>, StoreError> {
        self.readers.read(|conn| read::holds(conn)).await
    }

    async fn counts(&self) -> Result<StoreCounts, StoreError> {
        self.readers.read(|conn| read::counts(conn)).await
    }

    async fn unseen(
        &self,
        source: &str,
        before: Time,
        after: Option<(Time, EpisodeId)>,
        limit: usize,
    ) -> Result<Vec<Episode>, StoreError> {
        let (source, unreadable) = (source.to_owned(), self.readers.unreadable.clone());
        self.readers.read(move |conn| read::unseen(conn, &source, before, after, limit, &unreadable)).await
    }
}
