//! Changes by users: start, cancel, approve, acknowledge, freeze, redact. Each goes through the store, which writes its
//! ledger entry in the same commit.
//!
//! Invariant: nothing here touches the world; a run that is started waits for the runner and its guards like any other.

use super::{App, AuthorizedCaller, CreatedJson, JsonBody, Problem, humans, incidents, read, refuse};
use crate::api::{
    ApprovalAnswer, BreakerReset, DecisionRequest, FreezeAnswer, FreezeRequest, IncidentAnswer, ReasonRequest,
    RedactionAnswer, RedactionRequest, RunAnswer, RunRequest, ScopeRequest, Simulation, UnfreezeAnswer,
};
use crate::catalog::CatalogSnapshot;
use crate::limits;
use crate::model::{
    Approval, EntryNo, Freeze, ImpactScope, IncidentId, RunId, RunInput, RunState, Span, Subject, Time, identity,
};
use crate::policy::{RuleSet, subject_of};
use crate::script::Runbook;
use crate::server::Caller;
use crate::store::{ControlChange, DecisionOutcome, Filter, NewRun};
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use std::sync::Arc;

pub(super) async fn start(
    AuthorizedCaller(caller): AuthorizedCaller,
    State(app): State<App>,
    JsonBody(wanted): JsonBody<RunRequest>,
) -> Result<CreatedJson<RunAnswer>, Problem> {
    let parts = &app.parts;
    if wanted.event.is_some() {
        return Err(refuse::bad("a run by hand has no event", "leave `event` out, or use `simulate`"));
    }
    let (runbook, input) = bind(&app, &wanted)?;
    let ceiling = parts.config.mode_ceiling;
    let mode = wanted.mode.unwrap_or(ceiling);
    if mode > ceiling {
        return Err(refuse::conflict(
            format!("mode {mode} is above this installation's ceiling, {ceiling}"),
            format!("use `--mode {ceiling}`, or raise `mode_ceiling` in the configuration"),
        ));
    }
    let subject = subject_in(&app, &wanted, &runbook, &input)?;
    caller.need_subject(&app, &subject)?;
    let now = parts.clock.now();
    parts.store.pin(&runbook.pin, &runbook.text, runbook.header.reach, now).await.map_err(refuse::store)?;
    let new = NewRun {
        pin: runbook.pin.clone(),
        subject,
        input,
        mode,
        rule: None,
        terms: None,
        requested_by: caller.name,
        once: None,
        now,
    };
    let id = parts.store.start(new).await.map_err(refuse::store)?;
    parts.nudge.nudge();
    let id = id.ok_or_else(|| refuse::conflict("this run was started already", "see `nightshift runs`"))?;
    let run = read::find_run(&app, id).await?;
    Ok(CreatedJson(RunAnswer { run }))
}

pub(super) async fn simulate(
    _: AuthorizedCaller,
    State(app): State<App>,
    JsonBody(wanted): JsonBody<RunRequest>,
) -> Result<Json<Simulation>, Problem> {
    let (runbook, input) = bind(&app, &wanted)?;
    let subject = subject_in(&app, &wanted, &runbook, &input)?;
    let _place = app.simulations.try_acquire().map_err(|_| {
        Problem::busy(format!(
            "{} plans are being made already, and each one queries live systems",
            limits::SIMULATIONS
        ))
    })?;
    let mut parts = app.parts.clone();
    parts.world = parts.world.within(subject.cluster.as_deref());
    let plan = crate::engine::plan(&parts, &runbook, &input, &[]).await;
    let guards = crate::engine::foretell(&parts, &runbook, &input, &subject, &plan).await.map_err(refuse::store)?;
    let (runbook, header) = (runbook.pin.clone(), runbook.header.clone());
    Ok(Json(Simulation { runbook, header, input, subject, plan, guards }))
}

/// The subject of a run by hand, in the cluster that was named for it.
fn subject_in(app: &App, wanted: &RunRequest, runbook: &Runbook, input: &RunInput) -> Result<Subject, Problem> {
    let mut subject = subject_of(&runbook.header, &input.params, None);
    if let Some(cluster) = &wanted.cluster {
        if !app.parts.config.clusters.contains_key(cluster) {
            let known: Vec<&str> = app.parts.config.clusters.keys().map(String::as_str).collect();
            let hint = match crate::config::closest(cluster, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("clusters: {}", known.join(", ")),
            };
            return Err(refuse::missing(format!("cluster `{}`", cluster.escape_debug()), hint));
        }
        if subject.cluster.as_ref().is_some_and(|named| named != cluster) {
            return Err(refuse::bad("the parameters name another cluster than `cluster` does", "name one of them"));
        }
        subject.cluster = Some(cluster.clone());
    }
    Ok(subject)
}

pub(super) async fn cancel(
    AuthorizedCaller(caller): AuthorizedCaller,
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ReasonRequest>,
) -> Result<Json<RunAnswer>, Problem> {
    let id: RunId = refuse::id(&id)?;
    let run = read::find_run(&app, id).await?;
    caller.need_subject(&app, &run.subject)?;
    // One that is stuck may still hold nodes, which this lets go.
    if run.state.is_final() && !matches!(run.state, RunState::Stuck { .. }) {
        let state = run.state.name();
        return Err(refuse::conflict(format!("run {id} is over: {state}"), format!("see `nightshift show {id}`")));
    }
    let why = refuse::reason(&body.why)?;
    control(&app, ControlChange::Cancel { run: id, by: caller.name, why }).await?;
    app.parts.world.agents.cancel(id);
    Ok(Json(RunAnswer { run: read::find_run(&app, id).await? }))
}

pub(super) async fn decide(
    AuthorizedCaller(caller): AuthorizedCaller,
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(answer): JsonBody<DecisionRequest>,
) -> Result<Json<ApprovalAnswer>, Problem> {
    let approval = read::find_approval(&app, refuse::id(&id)?).await?;
    if !approval.approvers.is_empty() && !approval.approvers.iter().any(|name| name == identity(&caller.name)) {
        return Err(refuse::with(
            StatusCode::FORBIDDEN,
            format!("{} may not answer {}", caller.name, approval.id),
            format!("ask one of: {}", approval.approvers.join(", ")),
        ));
    }
    // The plan of a question never changes: another plan is another question, and this one is void then.
    if answer.plan_hash.as_ref().is_some_and(|shown| *shown != approval.plan_hash) {
        return Err(refuse::conflict(
            format!("{} is not the question that was shown: its plan is another one", approval.id),
            "check the current plan, then decide again",
        ));
    }
    let why = refuse::bounded(&answer.why)?;
    let parts = &app.parts;
    may_answer(&app, &caller, &approval, answer.approve).await?;
    let decided = parts.store.decide(approval.id, answer.approve, &caller.name, &why, parts.clock.now()).await;
    parts.nudge.nudge();
    match decided.map_err(refuse::store)? {
        DecisionOutcome::Now(approval) | DecisionOutcome::Seconded(approval) => Ok(Json(ApprovalAnswer { approval })),
        DecisionOutcome::Already(approval) => {
            let state = serde_json::to_value(approval.state).unwrap_or_default();
            let by = approval.decided_by.as_deref().unwrap_or("expiry");
            Err(refuse::conflict(
                format!("{} is {} already (by {by})", approval.id, state.as_str().unwrap_or("answered")),
                format!("see `nightshift show {}`", approval.run),
            ))
        }
    }
}

/// Refuses an answer from a user who may not act there, or who approves their own request or approves twice, by any way
/// of signing in. The store checks once more, by name.
async fn may_answer(app: &App, caller: &Caller, approval: &Approval, yes: bool) -> Result<(), Problem> {
    let run = read::find_run(app, approval.run).await?;
    caller.need_subject(app, &run.subject)?;
    for planned in approval.plan.iter().flat_map(|plan| &plan.calls).filter(|planned| planned.reach > ImpactScope::None)
    {
        // A target that names no cluster is in that of its run.
        caller.need_cluster(planned.target.cluster.as_deref().or_else(|| app.cluster_of(&run.subject)))?;
    }
    for requester in run.requesters().filter(|_| yes) {
        if humans::same(app, requester, caller).await? {
            let did = if run.rule.is_none() { "asked for" } else { "posted the alert that started" };
            return Err(humans::own_request(requester, did, run.id, caller));
        }
    }
    if yes && approval.needed > 1 {
        humans::need_name(caller)?;
    }
    for before in approval.given.iter().filter(|name| yes && **name != caller.name) {
        if humans::same(app, before, caller).await? {
            let error = format!("{} already approved {}, as {before}", caller.name, approval.id);
            return Err(refuse::with(StatusCode::FORBIDDEN, error, "a different person must"));
        }
    }
    Ok(())
}

/// Whether a scope lies within the clusters in which the caller may act. Rules are about every cluster.
fn in_reach(caller: &Caller, scope: &str) -> Result<(), Problem> {
    match scope.strip_prefix("cluster:") {
        Some(cluster) => caller.need_cluster(Some(cluster)),
        None => caller.need_everywhere(&format!("`{}`", scope.escape_debug())),
    }
}

pub(super) async fn acknowledge(
    AuthorizedCaller(caller): AuthorizedCaller,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<IncidentAnswer>, Problem> {
    let id: IncidentId = refuse::id(&id)?;
    let incident = incidents::for_caller(&app, &caller, id).await?;
    if incident.closed_at.is_some() {
        return Err(refuse::conflict(format!("incident {id} is over"), format!("see `nightshift show {id}`")));
    }
    control(&app, ControlChange::Acknowledge { incident: id, by: caller.name }).await?;
    Ok(Json(IncidentAnswer { incident: read::find_incident(&app, id).await? }))
}

pub(super) async fn freeze(
    AuthorizedCaller(caller): AuthorizedCaller,
    State(app): State<App>,
    JsonBody(body): JsonBody<FreezeRequest>,
) -> Result<CreatedJson<FreezeAnswer>, Problem> {
    check_scope(&app, &body.scope)?;
    in_reach(&caller, &body.scope)?;
    let why = refuse::reason(&body.why)?;
    let since = app.parts.clock.now();
    let until = body.lasts.as_deref().map(|text| end_of_freeze(text, since)).transpose()?;
    let channels: Vec<String> = app.parts.config.channels.keys().cloned().collect();
    let freeze = Freeze { scope: body.scope, by: caller.name, why, since, until, release_by: None };
    control(&app, ControlChange::Freeze(freeze.clone(), channels.clone())).await?;
    // As it is in force: one of before may last longer.
    let freezes = app.parts.store.freezes().await.map_err(refuse::store)?;
    let freeze = freezes.into_iter().find(|kept| kept.scope == freeze.scope).unwrap_or(freeze);
    let release = freeze.way_back();
    Ok(CreatedJson(FreezeAnswer { freeze, notified: channels, release }))
}

fn end_of_freeze(text: &str, since: Time) -> Result<Time, Problem> {
    let (least, most) = (limits::FREEZE_MIN, limits::FREEZE_MAX);
    let hint =
        format!("write for example `30m` or `2h`, from {least} to {most}; left out, it lasts until it is released");
    let lasts: Span = text.parse().map_err(|error| refuse::bad(format!("`for`: {error}"), hint.clone()))?;
    if !(least..=most).contains(&lasts) {
        return Err(refuse::bad(format!("a freeze cannot last {lasts}"), hint));
    }
    since.checked_add(lasts.0).map_err(|_| refuse::bad(format!("there is no time {lasts} from now"), hint))
}

pub(super) async fn unfreeze(
    AuthorizedCaller(caller): AuthorizedCaller,
    State(app): State<App>,
    JsonBody(body): JsonBody<ScopeRequest>,
) -> Result<Json<UnfreezeAnswer>, Problem> {
    in_reach(&caller, &body.scope)?;
    let why = refuse::reason(&body.why)?;
    let freezes = app.parts.store.freezes().await.map_err(refuse::store)?;
    let Some(freeze) = freezes.iter().find(|freeze| freeze.scope == body.scope) else {
        let ways: Vec<String> =
            freezes.iter().take(limits::NAMES_SHOWN).map(|freeze| format!("`{}`", freeze.way_back())).collect();
        let scopes: Vec<&str> = freezes.iter().map(|freeze| freeze.scope.as_str()).collect();
        let hint = match ways.is_empty() {
            true => "no freeze is active".to_owned(),
            false => format!("frozen: {}; to release: {}", scopes.join(", "), ways.join(" or ")),
        };
        return Err(refuse::missing(format!("freeze of `{}`", body.scope.escape_debug()), hint));
    };
    let persons = humans::release_persons(&app).await?;
    if persons > 1 {
        humans::need_name(&caller)?;
    }
    if let Some(first) = freeze.release_by.as_ref().filter(|first| persons > 1 && **first != caller.name)
        && humans::same(&app, first, &caller).await?
    {
        let error = format!("{} already requested the release of `{}`, as {first}", caller.name, freeze.scope);
        return Err(refuse::with(StatusCode::FORBIDDEN, error, "a different person must confirm"));
    }
    control(&app, ControlChange::Unfreeze { scope: body.scope.clone(), by: caller.name, why, persons }).await?;
    let freezes = app.parts.store.freezes().await.map_err(refuse::store)?;
    Ok(Json(match freezes.into_iter().find(|freeze| freeze.scope == body.scope) {
        Some(freeze) => UnfreezeAnswer { asked: Some(body.scope), freeze: Some(freeze), unfrozen: None },
        None => UnfreezeAnswer { unfrozen: Some(body.scope), ..UnfreezeAnswer::default() },
    }))
}

pub(super) async fn reset_breaker(
    AuthorizedCaller(caller): AuthorizedCaller,
    State(app): State<App>,
    JsonBody(body): JsonBody<ScopeRequest>,
) -> Result<Json<BreakerReset>, Problem> {
    in_reach(&caller, &body.scope)?;
    let why = refuse::reason(&body.why)?;
    let tripped = app.parts.store.breakers().await.map_err(refuse::store)?;
    if !tripped.iter().any(|breaker| breaker.scope == body.scope) {
        let scopes: Vec<&str> = tripped.iter().map(|breaker| breaker.scope.as_str()).collect();
        let hint =
            if scopes.is_empty() { "none has tripped".to_owned() } else { format!("tripped: {}", scopes.join(", ")) };
        return Err(refuse::missing(format!("tripped breaker `{}`", body.scope.escape_debug()), hint));
    }
    control(&app, ControlChange::ResetBreaker { scope: body.scope.clone(), by: caller.name, why }).await?;
    Ok(Json(BreakerReset { reset: body.scope }))
}

pub(super) async fn redact(
    AuthorizedCaller(caller): AuthorizedCaller,
    State(app): State<App>,
    JsonBody(body): JsonBody<RedactionRequest>,
) -> Result<Json<RedactionAnswer>, Problem> {
    let entry = entry_no(&body.entry)?;
    caller.need_everywhere("the ledger")?;
    let why = refuse::reason(&body.why)?;
    let persons = humans::redaction_persons(&app).await?;
    if persons > 1 {
        humans::need_name(&caller)?;
    }
    let notify: Vec<String> = app.parts.config.channels.keys().cloned().collect();
    control(&app, ControlChange::Redact { entry, by: caller.name, why, persons, notify }).await?;
    // The first of two users has only requested it.
    let at = Filter { after: Some(entry.0 - 1), limit: 1, ..Filter::default() };
    let there = app.parts.store.entries(at).await.map_err(refuse::store)?;
    let gone = there.first().is_none_or(|found| found.no != entry);
    Ok(Json(match gone {
        true => RedactionAnswer { redacted: Some(entry), asked: None },
        false => RedactionAnswer { redacted: None, asked: Some(entry) },
    }))
}

/// `#12` or `12`: a shell takes the first one for a comment.
pub(super) fn entry_no(text: &str) -> Result<EntryNo, Problem> {
    refuse::id(&format!("#{}", text.trim_start_matches('#')))
}

pub(super) async fn control(app: &App, control: ControlChange) -> Result<(), Problem> {
    let done = app.parts.store.control(control, app.parts.clock.now()).await;
    app.parts.nudge.nudge();
    done.map_err(refuse::store)
}

fn names(loaded: &CatalogSnapshot) -> String {
    let mut names: Vec<&str> = loaded.runbooks.keys().map(String::as_str).collect();
    names.sort_unstable();
    names.truncate(crate::limits::LIST_ROWS);
    if names.is_empty() { "there are none".to_owned() } else { format!("there are: {}", names.join(", ")) }
}

/// Finds the runbook and checks the parameters against its header.
fn bind(app: &App, wanted: &RunRequest) -> Result<(Arc<Runbook>, RunInput), Problem> {
    let loaded = (app.current)();
    let Some(runbook) = loaded.runbooks.get(&wanted.runbook) else {
        let near = crate::config::closest(&wanted.runbook, loaded.runbooks.keys().map(String::as_str));
        let hint = near.map_or_else(|| names(&loaded), |near| format!("did you mean `{near}`?"));
        return Err(refuse::missing(format!("runbook `{}`", wanted.runbook.escape_debug()), hint));
    };
    let input = RuleSet::bind(&runbook.header, &wanted.params, wanted.event.as_ref()).map_err(|error| {
        let needs: Vec<String> =
            runbook.header.params.iter().map(|param| format!("{}: {}", param.name, param.ty.name())).collect();
        refuse::bad(
            error,
            format!(
                "`{}` takes {}",
                wanted.runbook,
                if needs.is_empty() { "nothing".to_owned() } else { needs.join(", ") }
            ),
        )
    })?;
    Ok((runbook.clone(), input))
}

/// A freeze of something that does not exist would look like safety and be none.
fn check_scope(app: &App, scope: &str) -> Result<(), Problem> {
    let (known, what, name): (Vec<String>, _, _) = match scope.split_once(':') {
        None if scope == "all" => return Ok(()),
        Some(("cluster", name)) => (app.parts.config.clusters.keys().cloned().collect(), "cluster", name),
        Some(("rule", name)) => ((app.current)().rules.rules().map(|rule| rule.name.clone()).collect(), "rule", name),
        _ => {
            let scope = scope.escape_debug();
            return Err(refuse::bad(
                format!("`{scope}` is no scope"),
                "write `all`, `cluster:<name>` or `rule:<name>`",
            ));
        }
    };
    if known.iter().any(|known| known == name) {
        return Ok(());
    }
    let hint = match crate::config::closest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{what}:{near}`? To stop everything at once: `all`"),
        None => match crate::config::nearest(name, known.iter().map(String::as_str)) {
            Some(near) => {
                let list = if what == "rule" {
                    "`nightshift scorecard` lists them"
                } else {
                    "`nightshift config --effective` lists them"
                };
                let many = known.len();
                format!("the nearest of {many} is `{what}:{near}` ({list}). To stop everything at once: `all`")
            }
            None => format!("there is no {what} at all. To stop everything at once: `all`"),
        },
    };
    Err(refuse::missing(format!("{what} `{}`", name.escape_debug()), hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ImpactScope, ParamType, RunbookHeader, RunbookParam, UndoPolicy};
    use serde_json::{Value, json};

    #[test]
    fn a_run_by_hand_is_about_what_its_parameters_name() {
        let param = |name: &str, ty| RunbookParam {
            name: name.to_owned(),
            ty,
            default: None,
            pattern: None,
            doc: String::new(),
        };
        let header = RunbookHeader {
            title: "x".to_owned(),
            params: vec![param("node", ParamType::Node), param("pod", ParamType::Pod), param("why", ParamType::String)],
            reach: ImpactScope::Node,
            undo: UndoPolicy::Never,
            approvers: Vec::new(),
        };
        let params = json!({ "node": "gpu-3", "pod": "llm/llm-0", "why": "a/b" });
        let input = RunInput { params: params.as_object().unwrap().clone(), event: Value::Null };
        assert_eq!(subject_of(&header, &input.params, None).to_string(), "node gpu-3 namespace llm pod llm-0");
    }
}
