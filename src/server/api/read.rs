//! Reads: incidents, runs, approvals, entries, guards, status.
//!
//! Invariant: nothing here changes anything, and every list is bounded by `limits::READ_LIMIT`.

use super::{Allowed, App, Asked, Problem, refuse};
use crate::api::{
    ApprovalAnswer, ApprovalList, EngineStatus, EntryList, FreezeList, GuardLevels, HeldRun, IncidentDetail,
    IncidentList, ListQuery, LostCluster, NodeHold, PoolLevel, RuleList, RunDetail, RunList, RunbookEntry, RunbookList,
    SharedSymptom,
};
use crate::model::{ApprovalId, Entry, EntryKind, Incident, IncidentId, Run, RunId, RunState, Span, StoryLine, Time};
use crate::planted::planted;
use crate::policy::{nodes_at_once, share_of};
use crate::script::Runbook;
use crate::store::Filter;
use axum::Json;
use axum::extract::{Path, State};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A kind of list: its states, and the filters that it has besides `open`, `incident` and `run`.
struct Listed {
    name: &'static str,
    states: &'static [&'static str],
    filters: &'static [&'static str],
}

const INCIDENTS: Listed = Listed {
    name: "incidents",
    states: &["open", "acknowledged", "resolved"],
    filters: &["state", "severity", "node", "rule", "since"],
};
const RUNS: Listed = Listed { name: "runs", states: &RunState::NAMES, filters: &["state", "node", "rule", "since"] };
const APPROVALS: Listed = Listed {
    name: "approvals",
    states: &["open", "approved", "denied", "expired", "void"],
    filters: &["state", "node", "rule", "since"],
};
const ENTRIES: Listed = Listed { name: "entries", states: &[], filters: &["kind", "node", "rule", "since"] };

impl Listed {
    /// The same with the words that a user typed: a state of these, and a time.
    fn picked(&self, list: ListQuery, now: Time) -> Result<Filter, Problem> {
        let given =
            [("state", list.state.is_some()), ("severity", list.severity.is_some()), ("kind", list.kind.is_some())];
        if let Some((name, _)) = given.iter().find(|(name, given)| *given && !self.filters.contains(name)) {
            let error = format!("{} have no filter `{name}`", self.name);
            return Err(refuse::bad(error, format!("filters: {}", self.filters.join(", "))));
        }
        let state = list.state.as_deref().map(|word| one_of(("state", "states"), word, self.states)).transpose()?;
        let kind =
            list.kind.as_deref().map(|word| one_of(("kind of entry", "kinds"), word, EntryKind::NAMES)).transpose()?;
        let since = list.since.as_deref().map(|text| since(text, now)).transpose()?;
        // A client that follows `next` may keep the rest of its query, `after` too: the cursor goes on from there.
        let (after, before) = match list.cursor.as_deref() {
            None => (list.after, None),
            Some(cursor) => place(cursor)?,
        };
        Ok(Filter {
            state,
            since,
            after,
            before,
            kinds: kind.into_iter().collect(),
            severity: list.severity,
            node: list.node,
            rule: list.rule,
            incident: list.incident,
            run: list.run,
            open: list.open,
            limit: list.limit.unwrap_or(crate::limits::LIST_ROWS).min(crate::limits::READ_LIMIT),
        })
    }
}

fn one_of((what, all): (&str, &str), word: &str, known: &[&'static str]) -> Result<&'static str, Problem> {
    known.iter().find(|known| **known == word).copied().ok_or_else(|| {
        let hint = match crate::config::closest(word, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("{all}: {}", known.join(", ")),
        };
        refuse::bad(format!("there is no {what} `{}`", word.escape_debug()), hint)
    })
}

/// After and before which number a page begins: `n17` are rows newer than 17, ascending; `o17` older ones.
fn place(cursor: &str) -> Result<(Option<i64>, Option<i64>), Problem> {
    let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
    let newer = cursor.strip_prefix('n').and_then(number);
    let older = cursor.strip_prefix('o').and_then(number);
    if newer.is_none() && older.is_none() {
        let error = format!("`cursor`: `{}` is not a cursor", cursor.escape_debug());
        return Err(refuse::bad(error, "take `next` of the page before, or leave it out for the first page"));
    }
    Ok((newer, older))
}

/// Where the next page begins, if this one is full: past its last row, in the same direction. Rows that arrive meanwhile
/// have greater numbers, so a walk from the newest meets none of them and each earlier row once.
fn next(asked: &Asking, rows: usize, last: Option<i64>) -> Option<String> {
    let last = last.filter(|_| rows >= asked.limit)?;
    let last = if planted("cursor-repeats-a-row") && !asked.ascending { last + 1 } else { last };
    Some(format!("{}{last}", if asked.ascending { 'n' } else { 'o' }))
}

/// What `next` needs of a filter that went to the store.
struct Asking {
    limit: usize,
    ascending: bool,
}

impl Asking {
    fn of(filter: &Filter) -> Asking {
        Asking { limit: filter.limit, ascending: filter.after.is_some() }
    }
}

/// `2h` is two hours ago; anything else must be a time.
fn since(text: &str, now: Time) -> Result<Time, Problem> {
    if let Ok(ago) = text.parse::<Span>() {
        return now.checked_sub(ago.0).map_err(|_| refuse::bad(format!("there was no time {ago} ago"), "write `2h`"));
    }
    text.parse().map_err(|_| {
        let error = format!("`since`: `{}` is neither a length of time nor a time", text.escape_debug());
        refuse::bad(error, "write for example `2h` or `2026-11-30T08:00:00Z`")
    })
}

pub(super) async fn status(_: Allowed, State(app): State<App>) -> Result<Json<EngineStatus>, Problem> {
    let parts = &app.parts;
    let (epoch, full) = match parts.store.health().await {
        Ok(epoch) => (Some(epoch), None),
        Err(crate::store::StoreError::Busy(why)) => (None, Some(why)),
        Err(error) => return Err(refuse::store(error)),
    };
    let counts = parts.store.counts().await.map_err(refuse::store)?;
    let loaded = (app.current)();
    Ok(Json(EngineStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        install: parts.config.install.clone(),
        now: parts.clock.now(),
        epoch,
        store: full.unwrap_or_else(|| "ok".to_owned()),
        files_refused: parts.catalog.refused() as u64,
        mode_ceiling: parts.config.mode_ceiling,
        moved: super::ladder::moved(&app).await?,
        rules: loaded.rules.rules().count() as u64,
        runbooks: loaded.runbooks.len() as u64,
        catalog: loaded.hash.clone(),
        sources: parts.config.sources.keys().cloned().collect(),
        channels: parts.config.channels.keys().cloned().collect(),
        episodes_open: counts.episodes_open,
        incidents_open: counts.incidents_open,
        runs_unfinished: counts.runs_unfinished,
        approvals_open: counts.approvals_open,
        notices_due: counts.notices_due,
        oldest_notice: counts.oldest_notice,
        entries: counts.entries,
        signed: counts.signed,
        freezes: counts.freezes,
        nodes_held: counts.nodes_held,
        clusters: clusters(parts),
        off: super::channels::off(&app),
        key: parts.key.public().to_string(),
        slack: app.slack_connection(),
        break_glass: super::tokens::broken(&app).await?,
    }))
}

/// Each cluster: none where it is watched, else since when it is not, and why.
fn clusters(parts: &crate::engine::Parts) -> BTreeMap<String, Option<LostCluster>> {
    let lost = parts.world.lost_clusters();
    let state = |name: &String| {
        let (since, why) = lost.get(name)?;
        Some(LostCluster { lost_since: *since, why: why.clone() })
    };
    parts.world.clusters.keys().map(|name| (name.clone(), state(name))).collect()
}

pub(super) async fn incidents(
    _: Allowed,
    State(app): State<App>,
    Asked(list): Asked<ListQuery>,
) -> Result<Json<IncidentList>, Problem> {
    let filter = INCIDENTS.picked(list, app.parts.clock.now())?;
    let asked = Asking::of(&filter);
    let mut incidents = app.parts.store.incidents(filter).await.map_err(refuse::store)?;
    let many = |incident: &&mut Incident| incident.episodes > 1 && !incident.is_group();
    for incident in incidents.iter_mut().filter(many).take(crate::limits::TITLES_READ) {
        let about = Filter { incident: Some(incident.id), limit: crate::limits::ALERTS_READ, ..Filter::default() };
        let episodes = app.parts.store.episodes(about).await.map_err(refuse::store)?;
        incident.title = crate::engine::alert_title(&episodes).unwrap_or(std::mem::take(&mut incident.title));
    }
    let next = next(&asked, incidents.len(), incidents.last().map(|last| last.id.0));
    Ok(Json(IncidentList { incidents, next }))
}

pub(super) async fn incident(
    _: Allowed,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<IncidentDetail>, Problem> {
    let mut incident = find_incident(&app, refuse::id(&id)?).await?;
    let store = &app.parts.store;
    let about = Filter { incident: Some(incident.id), limit: crate::limits::READ_LIMIT, ..Filter::default() };
    let episodes = store.episodes(about.clone()).await.map_err(refuse::store)?;
    if let Some(title) = crate::engine::alert_title(&episodes).filter(|_| !incident.is_group()) {
        incident.title = title;
    }
    let runs = store.runs(about.clone()).await.map_err(refuse::store)?;
    let approvals = store.approvals(about.clone()).await.map_err(refuse::store)?;
    let entries = oldest_first(&app, about).await?;
    let story = story(&entries);
    Ok(Json(IncidentDetail { incident, episodes, runs, approvals, story, entries }))
}

pub(super) async fn runs(
    _: Allowed,
    State(app): State<App>,
    Asked(list): Asked<ListQuery>,
) -> Result<Json<RunList>, Problem> {
    let filter = RUNS.picked(list, app.parts.clock.now())?;
    let asked = Asking::of(&filter);
    let runs = app.parts.store.runs(filter).await.map_err(refuse::store)?;
    let next = next(&asked, runs.len(), runs.last().map(|last| last.id.0));
    Ok(Json(RunList { runs, next }))
}

pub(super) async fn run(
    _: Allowed,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<RunDetail>, Problem> {
    let run = find_run(&app, refuse::id(&id)?).await?;
    let store = &app.parts.store;
    let about = Filter { run: Some(run.id), limit: crate::limits::READ_LIMIT, ..Filter::default() };
    let steps = store.steps(run.id).await.map_err(refuse::store)?;
    let approvals = store.approvals(about.clone()).await.map_err(refuse::store)?;
    let entries = oldest_first(&app, about).await?;
    let judgements = super::ladder::judgements(&entries);
    let can_be_judged = super::ladder::can_be_judged(&run, &steps, &entries);
    let story = story(&entries);
    Ok(Json(RunDetail { run, steps, approvals, story, entries, judgements, can_be_judged }))
}

pub(super) async fn runbooks(_: Allowed, State(app): State<App>) -> Result<Json<RunbookList>, Problem> {
    let loaded = (app.current)();
    let mut runbooks: Vec<_> = loaded.runbooks.values().collect();
    runbooks.sort_by(|a, b| a.pin.name.cmp(&b.pin.name));
    let entry = |runbook: &Arc<Runbook>| RunbookEntry { runbook: runbook.pin.clone(), header: runbook.header.clone() };
    Ok(Json(RunbookList { runbooks: runbooks.into_iter().map(entry).collect() }))
}

pub(super) async fn rules(_: Allowed, State(app): State<App>) -> Result<Json<RuleList>, Problem> {
    let loaded = (app.current)();
    Ok(Json(RuleList { rules: loaded.rules.rules().cloned().collect() }))
}

pub(super) async fn approvals(
    _: Allowed,
    State(app): State<App>,
    Asked(list): Asked<ListQuery>,
) -> Result<Json<ApprovalList>, Problem> {
    let filter = APPROVALS.picked(list, app.parts.clock.now())?;
    let asked = Asking::of(&filter);
    let approvals = app.parts.store.approvals(filter).await.map_err(refuse::store)?;
    let next = next(&asked, approvals.len(), approvals.last().map(|last| last.id.0));
    Ok(Json(ApprovalList { approvals, next }))
}

pub(super) async fn approval(
    _: Allowed,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<ApprovalAnswer>, Problem> {
    let approval = find_approval(&app, refuse::id(&id)?).await?;
    Ok(Json(ApprovalAnswer { approval }))
}

pub(super) async fn entries(
    _: Allowed,
    State(app): State<App>,
    Asked(list): Asked<ListQuery>,
) -> Result<Json<EntryList>, Problem> {
    let filter = ENTRIES.picked(list, app.parts.clock.now())?;
    let asked = Asking::of(&filter);
    let entries = app.parts.store.entries(filter).await.map_err(refuse::store)?;
    let next = next(&asked, entries.len(), entries.last().map(|last| last.no.0));
    let story = crate::engine::story::each(&entries);
    Ok(Json(EntryList { entries, story, next }))
}

pub(super) async fn freezes(_: Allowed, State(app): State<App>) -> Result<Json<FreezeList>, Problem> {
    let freezes = app.parts.store.freezes().await.map_err(refuse::store)?;
    Ok(Json(FreezeList { freezes }))
}

/// The guards' limits and how much of them is used now.
pub(super) async fn guards(_: Allowed, State(app): State<App>) -> Result<Json<GuardLevels>, Problem> {
    let parts = &app.parts;
    let limits = &parts.config.guards;
    let store = &parts.store;
    let counts = store.counts().await.map_err(refuse::store)?;
    let freezes = store.freezes().await.map_err(refuse::store)?;
    let breakers = store.breakers().await.map_err(refuse::store)?;
    let facts = parts.world.fleet().await;
    let holds = store.holds().await.map_err(refuse::store)?;
    let replicas_taken = store.replicas_taken().await.map_err(refuse::store)?;
    let open = Filter { open: true, limit: crate::limits::READ_LIMIT, ..Filter::default() };
    let runs = store.runs(open).await.map_err(refuse::store)?;
    let pressure = store.pressure(parts.clock.now()).await.map_err(refuse::store)?;
    let share = |share: f64| facts.nodes_total.map(|total| share_of(share, total));
    let silent = parts.config.sources.iter().filter(|(_, source)| source.api.is_some());
    Ok(Json(GuardLevels {
        pools: pools(parts).await,
        holds: holds.into_iter().map(|h| NodeHold { node: h.node, run: h.run, runbook: h.runbook }).collect(),
        replicas_taken,
        held: runs.into_iter().filter_map(held).collect(),
        silences_of: silent.map(|(name, _)| name.clone()).collect(),
        limits: limits.clone(),
        mode_ceiling: parts.config.mode_ceiling,
        moved: super::ladder::moved(&app).await?,
        nodes_out_allowed: facts.nodes_total.map(|total| nodes_at_once(limits, total)),
        nodes_total: facts.nodes_total,
        nodes_out: facts.nodes_out.clone(),
        nodes_held: counts.nodes_held,
        taken_hour: node_names(parts, &pressure.taken_hour),
        taken_hour_allowed: share(limits.share_per_hour),
        taken_day: node_names(parts, &pressure.taken_day),
        taken_day_allowed: share(limits.share_per_day),
        symptom: pressure.symptom.map(|(rule, nodes)| SharedSymptom { rule, nodes }),
        freezes,
        stopped: parts.world.stopped(),
        release_persons: super::humans::release_persons(&app).await?,
        breakers,
        correlated_limit: facts.nodes_total.and_then(|total| limits.correlated_limit(total)),
    }))
}

fn held(run: Run) -> Option<HeldRun> {
    match run.state {
        RunState::Held { reason } => Some(HeldRun { run: run.id, guard: reason.code, why: reason.text }),
        _ => None,
    }
}

/// The pools of the configuration, with the nodes that are out and how many may be.
async fn pools(parts: &crate::engine::Parts) -> Vec<PoolLevel> {
    let limits = &parts.config.guards;
    let pools = parts.world.groups().await.into_iter().filter(|group| limits.pools.contains(&group.label));
    let pool = |group: crate::policy::Group| {
        let total = group.members.len() as u32;
        let allowed = nodes_at_once(limits, total).min(total.saturating_sub(1));
        PoolLevel { pool: group.value, label: group.label, total, out: group.out, allowed }
    };
    pools.map(pool).collect()
}

/// With their cluster where there are several.
fn node_names(parts: &crate::engine::Parts, list: &[(String, String)]) -> Vec<String> {
    let several = parts.world.clusters.len() > 1;
    let name = |(cluster, node): &(String, String)| match several && !cluster.is_empty() {
        true => format!("{cluster}/{node}"),
        false => node.clone(),
    };
    list.iter().map(name).collect()
}

pub(super) async fn find_incident(app: &App, id: IncidentId) -> Result<Incident, Problem> {
    let filter = Filter { incident: Some(id), limit: 1, ..Filter::default() };
    let found = app.parts.store.incidents(filter).await.map_err(refuse::store)?;
    found.into_iter().find(|incident| incident.id == id).ok_or_else(|| {
        refuse::missing(
            format!("incident {id}"),
            "see `nightshift incidents --all`; old ones leave after their retention",
        )
    })
}

pub(super) async fn find_run(app: &App, id: RunId) -> Result<Run, Problem> {
    let filter = Filter { run: Some(id), limit: 1, ..Filter::default() };
    let found = app.parts.store.runs(filter).await.map_err(refuse::store)?;
    found.into_iter().find(|run| run.id == id).ok_or_else(|| {
        refuse::missing(format!("run {id}"), "see `nightshift runs --all`; old ones leave after their retention")
    })
}

pub(super) async fn find_approval(app: &App, id: ApprovalId) -> Result<crate::model::Approval, Problem> {
    // "After" is exclusive and ascending, so this page begins with the requested one.
    let filter = Filter { after: Some(id.0 - 1), limit: 1, ..Filter::default() };
    let found = app.parts.store.approvals(filter).await.map_err(refuse::store)?;
    found
        .into_iter()
        .find(|approval| approval.id == id)
        .ok_or_else(|| refuse::missing(format!("approval {id}"), "see `nightshift approve` for the open ones"))
}

/// A story begins at its beginning; more than a page of it is cut at the old end.
pub(super) async fn oldest_first(app: &App, filter: Filter) -> Result<Vec<Entry>, Problem> {
    let mut entries = app.parts.store.entries(filter).await.map_err(refuse::store)?;
    entries.sort_by_key(|entry| entry.no);
    Ok(entries)
}

/// The story of a run or an incident, from entries in ascending order.
pub(super) fn story(entries: &[Entry]) -> Vec<StoryLine> {
    crate::engine::story::lines(entries)
}
