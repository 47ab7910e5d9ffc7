//! Reads: incidents, runs, approvals, entries, guards, status.
//!
//! Invariant: nothing here changes anything, and every list is bounded by `limits::READ_LIMIT`.

use super::{Allowed, App, Asked, Problem, refuse};
use crate::model::{
    ApprovalId, Entry, EntryKind, Incident, IncidentId, Run, RunId, RunState, Severity, Span, StoryLine, Time,
};
use crate::policy::{nodes_at_once, share_of};
use crate::store::Filter;
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

/// The parameters of every list: `open`, `limit`, `after`, `incident`, `run`, `kind`; incidents and runs also `state`,
/// `node`, `rule`, `since`, and incidents `severity`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct List {
    open: bool,
    limit: Option<usize>,
    /// Ascending from here; otherwise the newest first.
    after: Option<i64>,
    incident: Option<IncidentId>,
    run: Option<RunId>,
    /// One kind of entry, e.g. `step_denied`.
    kind: Option<String>,
    state: Option<String>,
    /// This bad, or worse.
    severity: Option<Severity>,
    node: Option<String>,
    rule: Option<String>,
    /// A time, or how long ago: `2h`.
    since: Option<String>,
}

/// The states of incidents, by their words in JSON.
const INCIDENT_STATES: [&str; 3] = ["open", "acknowledged", "resolved"];

impl List {
    /// The same with the words that a user typed: a state of these, and a time.
    fn picked(mut self, states: &[&'static str], now: Time) -> Result<Filter, Problem> {
        let state = match self.state.take() {
            None => None,
            Some(word) => Some(*states.iter().find(|state| **state == word).ok_or_else(|| {
                let hint = match crate::config::closest(&word, states.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("states: {}", states.join(", ")),
                };
                refuse::bad(format!("there is no state `{}`", word.escape_debug()), hint)
            })?),
        };
        let since = self.since.take().map(|text| since(&text, now)).transpose()?;
        Ok(Filter { state, since, ..self.filter() })
    }

    fn filter(self) -> Filter {
        Filter {
            severity: self.severity,
            node: self.node,
            rule: self.rule,
            incident: self.incident,
            run: self.run,
            open: self.open,
            after: self.after,
            limit: self.limit.unwrap_or(crate::limits::LIST_ROWS).min(crate::limits::READ_LIMIT),
            ..Filter::default()
        }
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

pub(super) async fn status(_: Allowed, State(app): State<App>) -> Result<Json<Value>, Problem> {
    let parts = &app.parts;
    let (epoch, full) = match parts.store.health().await {
        Ok(epoch) => (Some(epoch), None),
        Err(crate::store::StoreError::Busy(why)) => (None, Some(why)),
        Err(error) => return Err(refuse::store(error)),
    };
    let counts = parts.store.counts().await.map_err(refuse::store)?;
    let loaded = (app.current)();
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "install": parts.config.install,
        "now": parts.clock.now(),
        "epoch": epoch,
        "store": full.as_deref().unwrap_or("ok"),
        "files_refused": parts.catalog.refused(),
        "mode_ceiling": parts.config.mode_ceiling,
        "moved": super::ladder::moved(&app).await?,
        "rules": loaded.rules.rules().count(),
        "runbooks": loaded.runbooks.len(),
        "catalog": loaded.hash,
        "sources": parts.config.sources.keys().collect::<Vec<_>>(),
        "channels": parts.config.channels.keys().collect::<Vec<_>>(),
        "episodes_open": counts.episodes_open,
        "incidents_open": counts.incidents_open,
        "runs_unfinished": counts.runs_unfinished,
        "approvals_open": counts.approvals_open,
        "notices_due": counts.notices_due,
        "oldest_notice": counts.oldest_notice,
        "entries": counts.entries,
        "signed": counts.signed,
        "freezes": counts.freezes,
        "nodes_held": counts.nodes_held,
        "clusters": clusters(parts),
        "off": super::channels::off(&app),
        "key": parts.key.public().to_string(),
        "slack": app.slack_standing(),
        "break_glass": super::tokens::broken(&app).await?,
    })))
}

/// Each cluster: null where it is watched, else since when it is not, and why.
fn clusters(parts: &crate::engine::Parts) -> Value {
    let lost = parts.world.lost_clusters();
    let said = |name: &String| lost.get(name).map(|(since, why)| json!({ "lost_since": since, "why": why }));
    parts.world.clusters.keys().map(|name| (name.clone(), json!(said(name)))).collect::<serde_json::Map<_, _>>().into()
}

pub(super) async fn incidents(
    _: Allowed,
    State(app): State<App>,
    Asked(list): Asked<List>,
) -> Result<Json<Value>, Problem> {
    let filter = list.picked(&INCIDENT_STATES, app.parts.clock.now())?;
    let mut incidents = app.parts.store.incidents(filter).await.map_err(refuse::store)?;
    let many = |incident: &&mut Incident| incident.episodes > 1 && !incident.is_group();
    for incident in incidents.iter_mut().filter(many).take(crate::limits::TITLES_READ) {
        let about = Filter { incident: Some(incident.id), limit: crate::limits::ALERTS_READ, ..Filter::default() };
        let episodes = app.parts.store.episodes(about).await.map_err(refuse::store)?;
        incident.title = crate::engine::alert_title(&episodes).unwrap_or(std::mem::take(&mut incident.title));
    }
    Ok(Json(json!({ "incidents": incidents })))
}

pub(super) async fn incident(
    _: Allowed,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let mut incident = find_incident(&app, refuse::id(&id)?).await?;
    let store = &app.parts.store;
    let about = || Filter { incident: Some(incident.id), limit: crate::limits::READ_LIMIT, ..Filter::default() };
    let episodes = store.episodes(about()).await.map_err(refuse::store)?;
    if let Some(title) = crate::engine::alert_title(&episodes).filter(|_| !incident.is_group()) {
        incident.title = title;
    }
    let runs = store.runs(about()).await.map_err(refuse::store)?;
    let approvals = store.approvals(about()).await.map_err(refuse::store)?;
    let entries = oldest_first(&app, about()).await?;
    let story = story(&entries);
    Ok(Json(json!({
        "incident": incident, "episodes": episodes, "runs": runs, "approvals": approvals,
        "story": story, "entries": entries,
    })))
}

pub(super) async fn runs(_: Allowed, State(app): State<App>, Asked(list): Asked<List>) -> Result<Json<Value>, Problem> {
    let runs =
        app.parts.store.runs(list.picked(&RunState::NAMES, app.parts.clock.now())?).await.map_err(refuse::store)?;
    Ok(Json(json!({ "runs": runs })))
}

pub(super) async fn run(_: Allowed, State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let run = find_run(&app, refuse::id(&id)?).await?;
    let store = &app.parts.store;
    let about = || Filter { run: Some(run.id), limit: crate::limits::READ_LIMIT, ..Filter::default() };
    let steps = store.steps(run.id).await.map_err(refuse::store)?;
    let approvals = store.approvals(about()).await.map_err(refuse::store)?;
    let entries = oldest_first(&app, about()).await?;
    let story = story(&entries);
    Ok(Json(json!({
        "judgements": super::ladder::judgements(&entries),
        "can_be_judged": super::ladder::can_be_judged(&run, &steps, &entries),
        "run": run, "steps": steps, "approvals": approvals, "story": story, "entries": entries,
    })))
}

pub(super) async fn runbooks(_: Allowed, State(app): State<App>) -> Result<Json<Value>, Problem> {
    let loaded = (app.current)();
    let mut runbooks: Vec<_> = loaded.runbooks.values().collect();
    runbooks.sort_by(|a, b| a.pin.name.cmp(&b.pin.name));
    let runbooks: Vec<Value> =
        runbooks.into_iter().map(|runbook| json!({ "runbook": runbook.pin, "header": runbook.header })).collect();
    Ok(Json(json!({ "runbooks": runbooks })))
}

pub(super) async fn rules(_: Allowed, State(app): State<App>) -> Result<Json<Value>, Problem> {
    let loaded = (app.current)();
    Ok(Json(json!({ "rules": loaded.rules.rules().collect::<Vec<_>>() })))
}

pub(super) async fn approvals(
    _: Allowed,
    State(app): State<App>,
    Asked(list): Asked<List>,
) -> Result<Json<Value>, Problem> {
    let approvals = app.parts.store.approvals(list.filter()).await.map_err(refuse::store)?;
    Ok(Json(json!({ "approvals": approvals })))
}

pub(super) async fn approval(
    _: Allowed,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let approval = find_approval(&app, refuse::id(&id)?).await?;
    Ok(Json(json!({ "approval": approval })))
}

pub(super) async fn entries(
    _: Allowed,
    State(app): State<App>,
    Asked(list): Asked<List>,
) -> Result<Json<Value>, Problem> {
    let kind = match &list.kind {
        None => None,
        Some(word) => match EntryKind::NAMES.iter().find(|kind| **kind == word.as_str()) {
            Some(kind) => Some(*kind),
            None => {
                return Err(refuse::bad(
                    format!("`{word}` is no kind of entry"),
                    format!("kinds: {}", EntryKind::NAMES.join(", ")),
                ));
            }
        },
    };
    let filter = Filter { kinds: kind.into_iter().collect(), ..list.filter() };
    let entries = app.parts.store.entries(filter).await.map_err(refuse::store)?;
    let story = crate::engine::story::each(&entries);
    Ok(Json(json!({ "entries": entries, "story": story })))
}

pub(super) async fn freezes(_: Allowed, State(app): State<App>) -> Result<Json<Value>, Problem> {
    let freezes = app.parts.store.freezes().await.map_err(refuse::store)?;
    Ok(Json(json!({ "freezes": freezes })))
}

/// The guards' limits and how much of them is used now.
pub(super) async fn guards(_: Allowed, State(app): State<App>) -> Result<Json<Value>, Problem> {
    let parts = &app.parts;
    let counts = parts.store.counts().await.map_err(refuse::store)?;
    let freezes = parts.store.freezes().await.map_err(refuse::store)?;
    let breakers = parts.store.breakers().await.map_err(refuse::store)?;
    let facts = parts.world.fleet().await;
    let at_once = facts.nodes_total.map(|total| nodes_at_once(&parts.config.guards, total));
    let holds = parts.store.holds().await.map_err(refuse::store)?;
    let holds: Vec<Value> =
        holds.iter().map(|hold| json!({ "node": hold.node, "run": hold.run, "runbook": hold.runbook })).collect();
    let taken = parts.store.replicas_taken().await.map_err(refuse::store)?;
    let open = Filter { open: true, limit: crate::limits::READ_LIMIT, ..Filter::default() };
    let runs = parts.store.runs(open).await.map_err(refuse::store)?;
    let held: Vec<Value> = runs
        .iter()
        .filter_map(|run| match &run.state {
            RunState::Held { reason } => Some(json!({ "run": run.id, "guard": reason.code, "why": reason.text })),
            _ => None,
        })
        .collect();
    let limits = &parts.config.guards;
    let pools = parts.world.groups().await.into_iter().filter(|group| limits.pools.contains(&group.label));
    let pool = |group: crate::policy::Group| {
        let total = group.members.len() as u32;
        let most = nodes_at_once(limits, total).min(total.saturating_sub(1));
        json!({ "pool": group.value, "label": group.label, "total": total, "out": group.out, "allowed": most })
    };
    let pools: Vec<Value> = pools.map(pool).collect();
    let pressure = parts.store.pressure(parts.clock.now()).await.map_err(refuse::store)?;
    let named = |list: &[(String, String)]| -> Vec<String> {
        let several = parts.world.clusters.len() > 1;
        let name = |(cluster, node): &(String, String)| match several && !cluster.is_empty() {
            true => format!("{cluster}/{node}"),
            false => node.clone(),
        };
        list.iter().map(name).collect()
    };
    let share = |share: f64| facts.nodes_total.map(|total| share_of(share, total));
    let silent: Vec<&String> =
        parts.config.sources.iter().filter(|(_, source)| source.api.is_some()).map(|(name, _)| name).collect();
    Ok(Json(json!({
        "pools": pools,
        "holds": holds,
        "replicas_taken": taken,
        "held": held,
        "silences_of": silent,
        "limits": parts.config.guards,
        "mode_ceiling": parts.config.mode_ceiling,
        "moved": super::ladder::moved(&app).await?,
        "nodes_total": facts.nodes_total,
        "nodes_out": facts.nodes_out,
        "nodes_out_allowed": at_once,
        "nodes_held": counts.nodes_held,
        "taken_hour": named(&pressure.taken_hour),
        "taken_hour_allowed": share(limits.share_per_hour),
        "taken_day": named(&pressure.taken_day),
        "taken_day_allowed": share(limits.share_per_day),
        "symptom": pressure.symptom.map(|(rule, nodes)| json!({ "rule": rule, "nodes": nodes })),
        "freezes": freezes,
        "stopped": parts.world.stopped(),
        "release_persons": super::humans::release_persons(&app).await?,
        "breakers": breakers,
        "correlated_limit": facts.nodes_total.and_then(|total| parts.config.guards.correlated_limit(total)),
    })))
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
