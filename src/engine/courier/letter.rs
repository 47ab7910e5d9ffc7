//! Writes a notice: the incident as it is now, its alerts, its headlines, the news for the channel, the open questions.
//!
//! Invariant: a notice states its own omissions.

use super::NotificationDispatcher;
use super::needs::{IncidentRecords, awaited_plan, needs};
use super::standing::StatusLineInput;
use crate::engine::story;
use crate::limits::{BUDGET_PATIENCE, HEADLINES, NAMES_SHOWN, READ_LIMIT, STORY_LINE_CHARS, STORY_LINES, SUGGESTIONS};
use crate::model::{
    ApprovalId, Entry, EntryKind, EntryNo, Freeze, Incident, IncidentNotice, IncidentState, Mode, PendingApproval,
    PlanSuggestion, Run, RunId, RunState, Subject, Time, TimelineEntry,
};
use crate::notifiers::one_line;
use crate::policy::nodes_at_once;
use crate::store::{DueNotice, Filter, StoreError};
use std::collections::HashSet;

/// A notice, and the entry up to which it covers the timeline.
pub(super) struct DraftNotice {
    pub notice: IncidentNotice,
    pub upto: EntryNo,
    /// It has a question that the channel has not shown: an approver is needed.
    pub asks_anew: bool,
    /// A run is open that may take nodes out of service.
    pub acts: bool,
    /// Until when a first page should wait for a plan that is being made.
    pub plan_by: Option<Time>,
}

impl DraftNotice {
    /// Nothing new for users: the message stands as it is. In doubt, send.
    pub fn is_quiet(&self, row: &DueNotice) -> bool {
        self.notice.fresh.is_empty() && row.shown.is_some() && !row.maybe_sent && !row.urgent
    }

    /// Whether the incident has resolved.
    pub fn is_over(&self) -> bool {
        self.notice.incident.state == IncidentState::Resolved
    }
}

impl NotificationDispatcher {
    /// None: the incident is gone.
    pub(super) async fn letter(&self, row: &DueNotice) -> Result<Option<DraftNotice>, StoreError> {
        let about = || Filter { incident: Some(row.incident), ..Filter::default() };
        // The entries first: a state that is newer than they are is shown once more, an older one would stay for good.
        let mut entries = self.views.entries(Filter { limit: READ_LIMIT, ..about() }).await?;
        entries.sort_by_key(|entry| entry.no);
        self.with_absorbed(&mut entries).await?;
        let Some(mut incident) = self.incident(row).await? else { return Ok(None) };
        let alerts = self.alerts(&incident).await?;
        // A group's title counts its subjects and is kept with it.
        if let Some(title) = alerts.title.as_ref().filter(|_| !incident.is_group()) {
            incident.title.clone_from(title);
        }
        if alerts.lines.len() > 1 && !incident.is_group() {
            // The stored subject is the first alert's; the node is common to all.
            (incident.subject.gpu, incident.subject.slice) = (None, None);
        }
        let upto = entries.last().map_or(row.want, |last| last.no.max(row.want));
        let told = for_channel(story::lines(&entries), &entries, &row.channel);
        let open = self.views.runs(Filter { open: true, limit: READ_LIMIT, ..about() }).await?;
        let runs: HashSet<RunId> = open.iter().map(|run| run.id).collect();
        let asks = match open.iter().any(|run| matches!(run.state, RunState::Asking { .. })) {
            true => self.asks(row, &runs).await?,
            false => Vec::new(),
        };
        let shown = row.shown.map_or(-1, |no| no.0);
        let news = || entries.iter().filter(|entry| entry.no.0 > shown).map(|entry| &entry.kind);
        let asks_anew = !asks.is_empty() && news().any(|kind| matches!(kind, EntryKind::ApprovalAsked { .. }));
        let needs_people =
            incident.state != IncidentState::Resolved && (asks_anew || news().any(gave_up) || news().any(graver));
        let suggestions = suggestions(&entries);
        let frozen = self.frozen(&incident, &open, &asks).await?;
        let url = self.public_url.as_deref();
        let facts = IncidentRecords { incident: &incident, asks: &asks, open: &open, entries: &entries, url };
        let needs = needs(&facts, self.clock.now());
        let standing = StatusLineInput {
            incident: &incident,
            open: &open,
            asks: &asks,
            suggestions: &suggestions,
            needs: &needs,
            entries: &entries,
        };
        let (now, hands, plan_by) = (standing.words(), standing.hands(), awaited_plan(&open, &entries));
        let twice = shown_elsewhere(&entries, &asks, &suggestions, &open);
        let (first, news): (bool, Vec<TimelineEntry>) = (row.shown.is_none(), told.clone());
        let without = |lines: Vec<TimelineEntry>| -> Vec<TimelineEntry> {
            lines.into_iter().filter(|line| !twice.contains(&line.no)).collect()
        };
        let mut headlines = headlines(&without(told));
        for run in &open {
            // The ledger has no line for a wait; users need its present reason.
            if let RunState::Waiting { .. } = &run.state {
                let text = story::run_words(&format!("{} ({})", run.runbook.name, run.id), &run.state);
                let text = one_line(&text, STORY_LINE_CHARS);
                headlines.push(TimelineEntry { no: upto, at: self.clock.now(), text, headline: true, change: false });
            }
        }
        let acts = incident.state != IncidentState::Resolved && !open.is_empty();
        let notice = IncidentNotice {
            dedup_key: incident.dedup_key(&self.install),
            link: self.public_url.as_ref().map(|url| format!("{url}/incidents/{}", incident.id)),
            fresh: fresh(if first { without(news) } else { news }, row, &entries),
            headlines,
            asks,
            now,
            alerts: alerts.lines,
            alerts_left_out: alerts.left_out,
            links: alerts.links,
            frozen,
            because: None,
            budget: None,
            suggestions,
            hands,
            needs,
            needs_people,
            maybe_repeat: row.maybe_sent,
            incident,
        };
        Ok(Some(DraftNotice { notice, upto, asks_anew, acts, plan_by }))
    }

    /// The entries about incidents before they became part of this group: their runs begin there.
    async fn with_absorbed(&self, entries: &mut Vec<Entry>) -> Result<(), StoreError> {
        let grouped = entries.iter().filter_map(|entry| match &entry.kind {
            EntryKind::IncidentGrouped { merged, .. } => Some(merged.clone()),
            _ => None,
        });
        let absorbed: Vec<_> = grouped.flatten().take(NAMES_SHOWN).collect();
        for incident in absorbed {
            let kinds = vec!["run_created", "run_planned", "run_ended", "approval_asked", "step_held"];
            let filter = Filter { incident: Some(incident), kinds, limit: READ_LIMIT, ..Filter::default() };
            entries.extend(self.views.entries(filter).await?);
        }
        entries.sort_by_key(|entry| entry.no);
        Ok(())
    }

    pub(super) async fn incident(&self, row: &DueNotice) -> Result<Option<Incident>, StoreError> {
        let filter = Filter { incident: Some(row.incident), limit: 1, ..Filter::default() };
        Ok(self.views.incidents(filter).await?.into_iter().find(|incident| incident.id == row.incident))
    }

    /// The nodes that may still be taken out of service in the incident's cluster; none where the fleet is not counted
    /// quickly, because users must not wait for it, nor for a single machine, which has a guard of its own.
    pub(super) async fn budget(&self, subject: &Subject) -> Option<String> {
        let (world, limits) = self.fleet.as_ref()?;
        let there = world.within(subject.cluster.as_deref());
        let facts = tokio::time::timeout(BUDGET_PATIENCE, there.fleet()).await.ok()?;
        let total = facts.nodes_total.filter(|total| *total > 1)?;
        let held = self.views.holds().await.ok()?;
        let of = |cluster: &str| if cluster.is_empty() { world.default_cluster.clone() } else { cluster.to_owned() };
        let held = held.iter().filter(|hold| of(&hold.cluster) == there.default_cluster).map(|hold| &hold.node);
        let out = facts.nodes_out.iter().chain(held).collect::<HashSet<_>>().len() as u32;
        let more = match nodes_at_once(limits, total).min(total - 1).saturating_sub(out) {
            0 => "limit reached".to_owned(),
            left => format!("{left} more allowed"),
        };
        Some(format!("{out} of {total} GPU nodes out of service, {more}"))
    }

    async fn asks(&self, row: &DueNotice, runs: &HashSet<RunId>) -> Result<Vec<PendingApproval>, StoreError> {
        let filter = Filter { incident: Some(row.incident), open: true, limit: READ_LIMIT, ..Filter::default() };
        let approvals = self.views.approvals(filter).await?;
        Ok(approvals
            .into_iter()
            .filter(|approval| runs.contains(&approval.run))
            .map(|approval| story::question(&approval))
            .collect())
    }

    /// The freeze that stops the waiting or running runs of this incident, in words; none where nothing does.
    async fn frozen(
        &self,
        incident: &Incident,
        open: &[Run],
        asks: &[PendingApproval],
    ) -> Result<Option<String>, StoreError> {
        if open.is_empty() || incident.state == IncidentState::Resolved {
            return Ok(None);
        }
        let then = if asks.is_empty() { "No new step starts." } else { "Approving will not start it." };
        if let Some(why) = self.fleet.as_ref().and_then(|(world, _)| world.stopped()) {
            return Ok(Some(format!("Everything is stopped: {why}. {then}")));
        }
        let cluster = incident.subject.cluster.as_deref();
        let home = self.fleet.as_ref().map(|(world, _)| world.default_cluster.as_str());
        let covers = |freeze: &&Freeze| match freeze.scope.split_once(':') {
            Some(("cluster", name)) => cluster.or(home).is_none_or(|ours| ours == name),
            Some(("rule", name)) => open.iter().any(|run| run.rule.as_deref() == Some(name)),
            _ => true,
        };
        let freezes = self.views.freezes().await?;
        Ok(freezes.iter().find(covers).map(|freeze| {
            let since = story::moment(freeze.since, self.clock.now());
            let scope = if freeze.scope == "all" { String::new() } else { format!(" ({})", freeze.scope) };
            let why = if freeze.why.is_empty() { String::new() } else { format!(": {}", freeze.why) };
            one_line(&format!("Frozen{scope} by {} since {since}{why}. {then}", freeze.by), STORY_LINE_CHARS)
        }))
    }
}

/// The entries whose content stands elsewhere in the notice.
fn shown_elsewhere(
    entries: &[Entry],
    asks: &[PendingApproval],
    suggestions: &[PlanSuggestion],
    open: &[Run],
) -> HashSet<EntryNo> {
    // An open question is shown with its plan, so their lines would repeat it.
    let asked: HashSet<ApprovalId> = asks.iter().map(|ask| ask.approval).collect();
    let mut twice: HashSet<EntryNo> =
        entries.iter().filter(|entry| shown_with(entry, &asked, open)).map(|entry| entry.no).collect();
    // The title and the time of the start stand above.
    let opened = |entry: &&Entry| matches!(entry.kind, EntryKind::IncidentOpened { .. });
    twice.extend(entries.iter().find(opened).map(|entry| entry.no));
    let planned = |entry: &&Entry| {
        let shown = suggestions.iter().any(|suggestion| Some(suggestion.run) == entry.about.run);
        shown && matches!(&entry.kind, EntryKind::RunEnded { state: RunState::Planned })
    };
    twice.extend(entries.iter().filter(planned).map(|entry| entry.no));
    twice
}

/// A runbook's own message to the channel stands there in its own words.
fn for_channel(lines: Vec<TimelineEntry>, entries: &[Entry], channel: &str) -> Vec<TimelineEntry> {
    let own = |line: &TimelineEntry| {
        let at = entries.binary_search_by_key(&line.no, |entry| entry.no).ok()?;
        match &entries[at].kind {
            EntryKind::Told { channel: to, text } if to == channel => Some(one_line(text, STORY_LINE_CHARS)),
            _ => None,
        }
    };
    let line = |line: TimelineEntry| match own(&line) {
        Some(text) => TimelineEntry { text, ..line },
        None => line,
    };
    lines.into_iter().map(line).collect()
}

/// Plans that were only shown: of rules in observe, and of rules in suggest that have no review yet.
fn suggestions(entries: &[Entry]) -> Vec<PlanSuggestion> {
    let mut open: Vec<PlanSuggestion> = Vec::new();
    let mut planned = HashSet::new();
    for entry in entries {
        let Some(run) = entry.about.run else { continue };
        match &entry.kind {
            EntryKind::RunCreated { rule: Some(_), content, mode, runbook, .. } if *mode <= Mode::Suggest => {
                open.push(PlanSuggestion {
                    run,
                    runbook: runbook.name.clone(),
                    created_at: entry.at,
                    brief: String::new(),
                    review: *mode == Mode::Suggest && content.is_some(),
                });
            }
            EntryKind::RunPlanned { plan } => {
                for suggestion in open.iter_mut().filter(|suggestion| suggestion.run == run) {
                    suggestion.brief = story::brief(plan);
                }
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

/// Whether the line of this entry repeats an open question: its own words, or the plan of its run.
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

/// An alert joined that is graver than the ones reported so far.
fn graver(kind: &EntryKind) -> bool {
    matches!(kind, EntryKind::AlertsJoined { raised: Some(_), .. })
}

/// A run that ended without having helped, and stands for users.
fn gave_up(kind: &EntryKind) -> bool {
    let EntryKind::RunEnded { state } = kind else { return false };
    matches!(state, RunState::Stopped { .. } | RunState::Failed { .. } | RunState::Stuck { .. })
}

/// The first one, with the incident's beginning, and the latest.
fn headlines(told: &[TimelineEntry]) -> Vec<TimelineEntry> {
    let all: Vec<&TimelineEntry> = told.iter().filter(|line| line.headline).collect();
    let latest = all.len().saturating_sub(HEADLINES - 1);
    let first = all.first().filter(|_| latest > 0).copied();
    let skip = if first.is_some() { latest } else { all.len().saturating_sub(HEADLINES) };
    first.into_iter().chain(all[skip..].iter().copied()).cloned().collect()
}

/// The news for the channel, bounded, with a line for the number left out.
fn fresh(told: Vec<TimelineEntry>, row: &DueNotice, entries: &[Entry]) -> Vec<TimelineEntry> {
    let shown = row.shown.map_or(-1, |no| no.0);
    let about_deliveries = |line: &TimelineEntry| {
        let at = entries.binary_search_by_key(&line.no, |entry| entry.no).ok();
        at.is_some_and(|at| matches!(entries[at].kind.name(), "delivered" | "delivery_failed" | "page_judged"))
    };
    let mut fresh: Vec<TimelineEntry> =
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
                TimelineEntry { no: EntryNo(first.no.0 - 1), at: first.at, text, headline: false, change: false },
            );
        }
    }
    fresh
}
