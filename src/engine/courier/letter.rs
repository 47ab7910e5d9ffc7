//! Writes a notice: the incident as it is now, its headlines, what the channel has not heard, the open questions.
//!
//! Invariant: what is left out of a notice is said in it.

use super::Courier;
use super::needs::{Facts, awaited_plan, needs};
use crate::engine::story;
use crate::limits::{BUDGET_PATIENCE, HEADLINES, READ_LIMIT, STORY_LINES, SUGGESTIONS};
use crate::model::{
    Approval, ApprovalId, Ask, Effect, Entry, EntryKind, EntryNo, Incident, IncidentState, Mode, Notice, Run, RunId,
    RunState, StoryLine, Subject, Suggestion, Time,
};
use crate::policy::nodes_at_once;
use crate::store::{DueNotice, Filter, StoreError};
use std::collections::HashSet;

/// A notice, and up to where it tells the story.
pub(super) struct Letter {
    pub notice: Notice,
    pub upto: EntryNo,
    /// It asks something that the channel has not shown: people wait for it.
    pub asks_anew: bool,
    /// A run is open that may take nodes out of service.
    pub acts: bool,
    /// Until when a first page should wait for a plan that is being made.
    pub plan_by: Option<Time>,
}

impl Letter {
    /// Nothing new for people: the message stands as it is. In doubt, speak.
    pub fn is_quiet(&self, row: &DueNotice) -> bool {
        self.notice.fresh.is_empty() && row.shown.is_some() && !row.maybe_sent && !row.urgent
    }

    pub fn is_over(&self) -> bool {
        self.notice.incident.state == IncidentState::Resolved
    }
}

impl Courier {
    /// None: the incident is gone.
    pub(super) async fn letter(&self, row: &DueNotice) -> Result<Option<Letter>, StoreError> {
        let about = || Filter { incident: Some(row.incident), ..Filter::default() };
        // The entries first: a state that is newer than they are is shown once more, an older one would stay for good.
        let mut entries = self.store.entries(Filter { limit: READ_LIMIT, ..about() }).await?;
        entries.sort_by_key(|entry| entry.no);
        let Some(incident) = self.incident(row).await? else { return Ok(None) };
        let upto = entries.last().map_or(row.want, |last| last.no.max(row.want));
        let told = story::lines(&entries);
        let open = self.store.runs(Filter { open: true, limit: READ_LIMIT, ..about() }).await?;
        let runs: HashSet<RunId> = open.iter().map(|run| run.id).collect();
        let asks = match open.iter().any(|run| matches!(run.state, RunState::Asking { .. })) {
            true => self.asks(row, &runs).await?,
            false => Vec::new(),
        };
        let shown = row.shown.map_or(-1, |no| no.0);
        let news = || entries.iter().filter(|entry| entry.no.0 > shown).map(|entry| &entry.kind);
        let asks_anew = !asks.is_empty() && news().any(|kind| matches!(kind, EntryKind::ApprovalAsked { .. }));
        let needs_people = incident.state != IncidentState::Resolved && (asks_anew || news().any(gave_up));
        let hands = hands(&incident, &open, &entries, &told);
        let url = self.public_url.as_deref();
        let facts = Facts { incident: &incident, asks: &asks, open: &open, entries: &entries, url };
        let needs = needs(&facts, self.clock.now());
        let plan_by = awaited_plan(&open, &entries);
        // A question that is open is shown with its plan, so their lines would say it twice.
        let asked: HashSet<ApprovalId> = asks.iter().map(|ask| ask.approval).collect();
        let twice: HashSet<EntryNo> =
            entries.iter().filter(|entry| shown_with(entry, &asked, &open)).map(|entry| entry.no).collect();
        let (first, news): (bool, Vec<StoryLine>) = (row.shown.is_none(), told.clone());
        let without = |lines: Vec<StoryLine>| -> Vec<StoryLine> {
            lines.into_iter().filter(|line| !twice.contains(&line.no)).collect()
        };
        let mut headlines = headlines(&without(told));
        for run in &open {
            // The ledger has no line for a wait; people want to know what holds it up right now.
            if let RunState::Waiting { .. } = &run.state {
                let text = story::run_words(&format!("{} ({})", run.runbook.name, run.id), &run.state);
                let text = crate::notifiers::one_line(&text, crate::limits::STORY_LINE_CHARS);
                headlines.push(StoryLine { no: upto, at: self.clock.now(), text, headline: true, change: false });
            }
        }
        let acts = incident.state != IncidentState::Resolved && !open.is_empty();
        let notice = Notice {
            dedup_key: format!("nightshift/{}/{}", self.install, incident.id),
            link: self.public_url.as_ref().map(|url| format!("{url}/incidents/{}", incident.id)),
            fresh: fresh(if first { without(news) } else { news }, row, &entries),
            headlines,
            asks,
            because: None,
            budget: None,
            suggestions: suggestions(&entries),
            hands,
            needs,
            needs_people,
            maybe_repeat: row.maybe_sent,
            incident,
        };
        Ok(Some(Letter { notice, upto, asks_anew, acts, plan_by }))
    }

    pub(super) async fn incident(&self, row: &DueNotice) -> Result<Option<Incident>, StoreError> {
        let filter = Filter { incident: Some(row.incident), limit: 1, ..Filter::default() };
        Ok(self.store.incidents(filter).await?.into_iter().find(|incident| incident.id == row.incident))
    }

    /// What may still be taken out of service in the cluster that it is about; nothing where the fleet is not counted
    /// quickly, because people must not wait for it, nor for a single machine, which has a guard of its own.
    pub(super) async fn budget(&self, subject: &Subject) -> Option<String> {
        let (world, limits) = self.fleet.as_ref()?;
        let there = world.within(subject.cluster.as_deref());
        let facts = tokio::time::timeout(BUDGET_PATIENCE, there.fleet()).await.ok()?;
        let total = facts.nodes_total.filter(|total| *total > 1)?;
        let held = self.store.holds().await.ok()?;
        let of = |cluster: &str| if cluster.is_empty() { world.default_cluster.clone() } else { cluster.to_owned() };
        let held = held.iter().filter(|hold| of(&hold.cluster) == there.default_cluster).map(|hold| &hold.node);
        let out = facts.nodes_out.iter().chain(held).collect::<HashSet<_>>().len() as u32;
        let more = match nodes_at_once(limits, total).min(total - 1).saturating_sub(out) {
            0 => "no more may be".to_owned(),
            left => format!("{left} more may be"),
        };
        Some(format!("{out} of {total} GPU nodes out of service, {more}"))
    }

    async fn asks(&self, row: &DueNotice, runs: &HashSet<RunId>) -> Result<Vec<Ask>, StoreError> {
        let filter = Filter { incident: Some(row.incident), open: true, limit: READ_LIMIT, ..Filter::default() };
        let approvals = self.store.approvals(filter).await?;
        Ok(approvals.into_iter().filter(|approval| runs.contains(&approval.run)).map(ask).collect())
    }
}

/// Plans of rules in suggest that nobody has judged: an observing rule tells nobody, and what was asked was answered.
fn suggestions(entries: &[Entry]) -> Vec<Suggestion> {
    let mut open: Vec<Suggestion> = Vec::new();
    let mut planned = HashSet::new();
    for entry in entries {
        let Some(run) = entry.about.run else { continue };
        match &entry.kind {
            EntryKind::RunCreated { rule: Some(_), content: Some(_), mode: Mode::Suggest, runbook, .. } => {
                let (runbook, created_at) = (runbook.name.clone(), entry.at);
                open.push(Suggestion { run, runbook, created_at });
            }
            EntryKind::RunEnded { state: RunState::Planned } => drop(planned.insert(run)),
            EntryKind::RunJudged { .. } => open.retain(|suggestion| suggestion.run != run),
            _ => {}
        }
    }
    open.retain(|suggestion| planned.contains(&suggestion.run));
    open.drain(..open.len().saturating_sub(SUGGESTIONS));
    open
}

/// Whether the line of this entry says what an open question shows: its own words, or the plan of its run.
fn shown_with(entry: &Entry, asked: &HashSet<ApprovalId>, open: &[Run]) -> bool {
    match &entry.kind {
        EntryKind::ApprovalAsked { approval, .. } => asked.contains(approval),
        EntryKind::RunPlanned { .. } => open.iter().any(|run| {
            Some(run.id) == entry.about.run
                && matches!(run.state, RunState::Asking { approval } if asked.contains(&approval))
        }),
        _ => false,
    }
}

/// What is left to people, where the last run gave up and none is at work.
fn hands(incident: &Incident, open: &[Run], entries: &[Entry], told: &[StoryLine]) -> Option<String> {
    if incident.state == IncidentState::Resolved || !open.is_empty() {
        return None;
    }
    let ended = |entry: &&Entry| matches!(&entry.kind, EntryKind::RunEnded { state } if *state != RunState::Planned);
    let last = entries.iter().rev().find(ended).filter(|entry| gave_up(&entry.kind))?;
    told.iter().find(|line| line.no == last.no).map(|line| line.text.clone())
}

/// A run that ended without having helped, and stands for people.
fn gave_up(kind: &EntryKind) -> bool {
    let EntryKind::RunEnded { state } = kind else { return false };
    matches!(state, RunState::Stopped { .. } | RunState::Failed { .. } | RunState::Stuck { .. })
}

fn ask(approval: Approval) -> Ask {
    let calls = approval.plan.map(|plan| plan.calls).unwrap_or_default();
    Ask {
        plan_hash: approval.plan_hash.clone(),
        approval: approval.id,
        question: approval.question,
        plan: calls
            .iter()
            .filter(|planned| planned.effect != Effect::Read)
            .map(|planned| story::planned_words(&planned.call, &planned.target))
            .collect(),
        expires_at: approval.expires_at,
    }
}

/// The first one, which says how it began, and the latest.
fn headlines(told: &[StoryLine]) -> Vec<StoryLine> {
    let all: Vec<&StoryLine> = told.iter().filter(|line| line.headline).collect();
    let latest = all.len().saturating_sub(HEADLINES - 1);
    let first = all.first().filter(|_| latest > 0).copied();
    let skip = if first.is_some() { latest } else { all.len().saturating_sub(HEADLINES) };
    first.into_iter().chain(all[skip..].iter().copied()).cloned().collect()
}

/// What the channel has not heard, bounded, with a line for what was left out.
fn fresh(told: Vec<StoryLine>, row: &DueNotice, entries: &[Entry]) -> Vec<StoryLine> {
    let shown = row.shown.map_or(-1, |no| no.0);
    let about_deliveries = |line: &StoryLine| {
        let at = entries.binary_search_by_key(&line.no, |entry| entry.no).ok();
        at.is_some_and(|at| matches!(entries[at].kind.name(), "delivered" | "delivery_failed" | "page_judged"))
    };
    let mut fresh: Vec<StoryLine> =
        told.into_iter().filter(|line| line.no.0 > shown && !about_deliveries(line)).collect();
    let cut = entries.len() >= READ_LIMIT && entries.first().is_some_and(|first| first.no.0 > shown + 1);
    if fresh.len() >= STORY_LINES || (cut && shown >= 0) {
        let newest = fresh.split_off(fresh.len().saturating_sub(STORY_LINES - 1));
        let left_out = if cut { "some".to_owned() } else { fresh.len().to_string() };
        fresh = newest;
        if let Some(first) = fresh.first() {
            let text = format!("{left_out} earlier lines are not shown here: nightshift why {}", row.incident);
            fresh.insert(
                0,
                StoryLine { no: EntryNo(first.no.0 - 1), at: first.at, text, headline: false, change: false },
            );
        }
    }
    fresh
}
