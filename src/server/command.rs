//! Commands as users type them in a chat: one line in, a few lines of plain text out, by way of the API.
//!
//! Invariant: a command is a request to `/api/v1` on behalf of an identified user, so its table of roles decides.

use super::api::Inside;
use super::{App, Caller, Problem};
use crate::api::{
    AssignRequest, DecisionRequest, EngineStatus, Explanation, FreezeRequest, GuardLevels, JudgeRequest, ListQuery,
    RunRequest, ScopeRequest, SilenceAnswer, SilenceRequest, Simulation,
};
use crate::limits;
use crate::model::{
    Approval, ApprovalState, Foretold, Freeze, Incident, PlannedCall, Reach, Scorecard, Span, StoryLine,
};
use axum::http::StatusCode;
use serde_json::{Map, Value};

/// The commands, for `help`.
pub(super) const HELP: &str = "\
status                        show the engine's status
incidents                     list open incidents
show i3 | r7                  show the timeline of an incident or a run
why i3 | r7 | NODE            explain why an action was taken or not taken
plan RUNBOOK name=value …     show the steps a runbook would take now
run RUNBOOK name=value …      start a runbook, within the guards
approve a4 [reason]           approve a request
deny a4 [reason]              deny a request
judge r7 right|wrong [reason] review a run: right or wrong
scorecard RULE                show how a rule has performed
ack i3                        somebody looks at it
assign i3 @user               whose it is from now on (or: me)
silence i3 2h REASON          silence its alerts at Alertmanager
freeze [SCOPE] [for 2h] REASON stop all actions (of all, cluster:NAME or rule:NAME)
unfreeze [SCOPE] REASON       let them go on
guards                        limits, levels, tripped breakers
help                          this list";

/// Performs the command of the line, in the name of the caller.
pub(super) async fn perform(app: &App, caller: &Caller, line: &str) -> Result<String, Problem> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let api = Inside::new(app, caller);
    match word.to_ascii_lowercase().as_str() {
        "" | "help" => Ok(HELP.to_owned()),
        "status" => Ok(status(&api.status().await?)),
        "incidents" => {
            let open = ListQuery { open: true, limit: Some(limits::CHAT_ROWS), ..ListQuery::default() };
            Ok(incidents(&api.incidents(open).await?.incidents))
        }
        "guards" => Ok(guards(&api.guards().await?)),
        "show" => {
            let id = one(rest, "show i3")?;
            Ok(match rest.starts_with(['r', 'R']) {
                true => story(&api.run(id).await?.story),
                false => story(&api.incident(id).await?.story),
            })
        }
        "why" => Ok(why(&api.why(one(rest, "why gpu-3")?).await?)),
        "approve" | "deny" => {
            let (id, why) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let approve = word.eq_ignore_ascii_case("approve");
            let request = DecisionRequest { approve, plan_hash: None, why: why.trim().to_owned() };
            Ok(decided(&api.decide(one(id, "approve a4")?, request).await?.approval))
        }
        "judge" => {
            let mut words = rest.splitn(3, char::is_whitespace);
            let (id, verdict) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let why = words.next().unwrap_or_default().trim();
            judge(app, caller, one(id, "judge r7 right")?, verdict, why, false).await
        }
        "scorecard" => Ok(scorecard(Some(&api.scorecard(one(rest, "scorecard xid-79")?).await?.scorecard))),
        "ack" => {
            let incident = api.acknowledge(one(rest, "ack i3")?).await?.incident;
            Ok(format!("{} is acknowledged by {}", incident.id, incident.acknowledged_by.unwrap_or_default()))
        }
        "assign" => {
            let (id, to) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let request = AssignRequest { to: to.trim().to_owned() };
            let incident = api.assign(one(id, "assign i3 @ada")?, request).await?.incident;
            Ok(format!("{} is {}'s", incident.id, incident.owner.unwrap_or_default()))
        }
        "silence" => {
            let mut words = rest.splitn(3, char::is_whitespace);
            let (id, lasts) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let why = words.next().unwrap_or_default().trim().trim_matches('"');
            let id = one(id, "silence i3 2h new fan")?;
            let request = SilenceRequest { lasts: lasts.to_owned(), why: why.to_owned() };
            Ok(silenced(&api.silence(id, request).await?))
        }
        "freeze" => {
            let (scope, why) = scope(rest);
            let (lasts, why) = lasts(why);
            let (scope, why, lasts) = (scope.to_owned(), why.to_owned(), lasts.map(str::to_owned));
            let freeze = api.freeze(FreezeRequest { scope: scope.clone(), why, lasts }).await?.freeze;
            let until = freeze.lasts();
            Ok(format!("frozen: {scope}. No new step starts {until}; to release: unfreeze {scope} REASON"))
        }
        "unfreeze" => {
            let (scope, why) = scope(rest);
            let request = ScopeRequest { scope: scope.to_owned(), why: why.to_owned() };
            Ok(match api.unfreeze(request).await?.asked.is_some() {
                true => format!("{scope} is still frozen: a second person must confirm within 30 minutes"),
                false => format!("no longer frozen: {scope}"),
            })
        }
        "plan" => Ok(plan(&api.simulate(wanted(rest)?).await?)),
        "run" => start(app, caller, wanted(rest)?).await,
        other => {
            let known = HELP.lines().filter_map(|line| line.split_whitespace().next());
            let hint = match crate::config::closest(other, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`help` lists the commands".to_owned(),
            };
            let shown: String = other.chars().take(40).collect();
            Err(Problem::new(StatusCode::BAD_REQUEST, format!("`{shown}` is not a command"), hint))
        }
    }
}

/// A user's review of a run. `first`: only where there is no review yet.
pub(super) async fn judge(
    app: &App,
    caller: &Caller,
    id: &str,
    verdict: &str,
    why: &str,
    first: bool,
) -> Result<String, Problem> {
    let request = JudgeRequest { verdict: verdict.to_owned(), why: why.to_owned(), first };
    let answer = Inside::new(app, caller).judge(id, request).await?;
    let card = scorecard(answer.scorecard.as_ref());
    Ok(format!("{}: {}, says {}\n{card}", answer.run, answer.verdict, answer.by))
}

/// Starts a runbook with its parameters.
pub(super) async fn start(app: &App, caller: &Caller, wanted: RunRequest) -> Result<String, Problem> {
    let run = Inside::new(app, caller).start(wanted).await?.run;
    Ok(format!("{} started; `show {0}` shows its progress", run.id))
}

/// Exactly one word.
fn one<'a>(rest: &'a str, example: &str) -> Result<&'a str, Problem> {
    let mut words = rest.split_whitespace();
    match (words.next(), words.next()) {
        (Some(word), None) => Ok(word),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "one name is required here",
            format!("write for example `{example}`"),
        )),
    }
}

/// A scope where the first word is one, else everything.
fn scope(rest: &str) -> (&str, &str) {
    let (first, why) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let named = first == "all" || first.starts_with("cluster:") || first.starts_with("rule:");
    if named { (first, why.trim()) } else { ("all", rest) }
}

/// `for 2h REASON`: how long, where that is written before the reason.
fn lasts(why: &str) -> (Option<&str>, &str) {
    let mut words = why.splitn(3, char::is_whitespace);
    match (words.next(), words.next()) {
        (Some("for"), Some(lasts)) if lasts.parse::<Span>().is_ok() => {
            (Some(lasts), words.next().unwrap_or_default().trim())
        }
        _ => (None, why),
    }
}

/// `RUNBOOK name=value …`; a value that is JSON is that, any other one is a text.
fn wanted(rest: &str) -> Result<RunRequest, Problem> {
    let mut words = rest.split_whitespace();
    let Some(runbook) = words.next() else {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "a runbook is missing",
            "write for example `plan node-drain node=gpu-3`",
        ));
    };
    let mut params = Map::new();
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            let shown: String = word.chars().take(40).collect();
            let error = format!("`{shown}` is not a parameter");
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                error,
                "parameters are written name=value, without blanks",
            ));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        params.insert(name.to_owned(), value);
    }
    Ok(RunRequest { runbook: runbook.to_owned(), params, ..RunRequest::default() })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn status(status: &EngineStatus) -> String {
    format!(
        "{} {}: {} open incidents, {} unfinished runs, {} pending approvals, {} freezes; mode ceiling {}",
        status.install,
        status.version,
        status.incidents_open,
        status.runs_unfinished,
        status.approvals_open,
        status.freezes,
        status.mode_ceiling
    )
}

fn incidents(list: &[Incident]) -> String {
    let line = |incident: &Incident| {
        let seen = incident.acknowledged_by.as_ref().map(|by| format!(", acknowledged by {by}")).unwrap_or_default();
        let owner = incident.owner.as_ref().map(|owner| format!(", {owner}'s")).unwrap_or_default();
        let recovery = incident.recovery().map(|recovery| format!(", {recovery}")).unwrap_or_default();
        format!("{} {} ({}{seen}{owner}{recovery})", incident.id, incident.title, incident.severity)
    };
    listed(list.iter().map(line), "no open incidents")
}

pub(super) fn guards(levels: &GuardLevels) -> String {
    let out = levels.nodes_out.len();
    let mut lines = vec![match levels.nodes_total {
        Some(total) => {
            let allowed = levels.nodes_out_allowed.map(|most| most.to_string()).unwrap_or_default();
            format!("{out} of {total} nodes out of service, {allowed} allowed at once")
        }
        None => "the number of nodes out of service is unknown, so steps that disturb a node are on hold".to_owned(),
    }];
    lines.extend(frozen(levels));
    for held in levels.held.iter().take(limits::LIST_ROWS.min(limits::CHAT_LINES)) {
        lines.push(format!("{} is held by {}: {}", held.run, held.guard.name(), held.why));
    }
    for breaker in &levels.breakers {
        lines.push(format!("breaker {} has tripped: {}", breaker.scope, breaker.why));
    }
    lines.join("\n")
}

/// The freezes and switches that stop automation now, a line each.
pub(super) fn frozen(levels: &GuardLevels) -> Vec<String> {
    let stopped = levels.stopped.as_ref().map(|why| format!("everything is stopped: {why}"));
    let line = |freeze: &Freeze| {
        let until = freeze.until.map(|_| format!(" {}", freeze.lasts())).unwrap_or_default();
        format!("frozen: {} by {}{until}: {}", freeze.scope, freeze.by, freeze.why)
    };
    stopped.into_iter().chain(levels.freezes.iter().map(line)).collect()
}

fn silenced(answer: &SilenceAnswer) -> String {
    let ids = answer.silences.iter().map(|made| format!("{} at {}", made.silence, made.source));
    let ids: Vec<String> = ids.collect();
    let until = answer.until.to_string();
    let mut lines = vec![format!("silenced until {}: {}", until.get(..16).unwrap_or(&until), ids.join(", "))];
    lines.extend(answer.left.iter().map(|left| format!("not: {left}")));
    lines.join("\n")
}

fn story(lines: &[StoryLine]) -> String {
    let line = |line: &StoryLine| format!("{} {}", line.at.strftime("%H:%M"), line.text);
    let older = lines.len().saturating_sub(limits::CHAT_LINES);
    let head = (older > 0).then(|| format!("… {older} earlier lines"));
    listed(head.into_iter().chain(lines.iter().skip(older).map(line)), "there is no timeline yet")
}

fn why(explanation: &Explanation) -> String {
    let mut lines = Vec::new();
    for block in &explanation.blocks {
        lines.push(block.title.clone());
        lines.extend(block.lines.iter().map(|line| format!("  {}: {}", line.what.word(), line.text)));
    }
    listed(lines.into_iter(), "there is no record of it")
}

/// The changes, a line each, and beneath it the guards' predicted decisions.
fn plan(simulation: &Simulation) -> String {
    let line = |(at, planned): (usize, &PlannedCall)| {
        let args = planned.call.args.iter().map(|(name, value)| format!("{name} {}", text(value)));
        let line = format!("{} ({})", planned.call.action, args.collect::<Vec<_>>().join(", "));
        match simulation.guards.iter().find(|guard| guard.call == at).and_then(Foretold::words) {
            Some(words) => format!("{line}\n  ! {words}"),
            None => line,
        }
    };
    let calls = simulation.plan.calls.iter().enumerate().filter(|(_, planned)| planned.reach > Reach::None);
    listed(calls.map(line), "no changes")
}

fn scorecard(card: Option<&Scorecard>) -> String {
    match card {
        Some(card) => format!("rule {} is in {}\nstatistics: {}", card.rule, card.because(), card.card.words()),
        None => "its rule is no longer in force".to_owned(),
    }
}

fn decided(approval: &Approval) -> String {
    let (id, by) = (approval.id, approval.decided_by.as_deref().unwrap_or_default());
    let word = match approval.state {
        ApprovalState::Open => {
            let given = approval.given.len();
            return format!("{id}: your approval is counted, {given} of {}", approval.needed);
        }
        ApprovalState::Approved => "approved",
        ApprovalState::Denied => "denied",
        ApprovalState::Expired => "expired",
        ApprovalState::Void => "void",
    };
    format!("{id} is {word} by {by}")
}

fn listed(lines: impl Iterator<Item = String>, none: &str) -> String {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { none.to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_taken_only_where_one_is_written() {
        assert_eq!(scope("rule:xid a bad driver"), ("rule:xid", "a bad driver"));
        assert_eq!(scope("all"), ("all", ""));
        assert_eq!(scope("the room is on fire"), ("all", "the room is on fire"));
    }

    #[test]
    fn a_freeze_ends_by_itself_only_where_a_length_of_time_is_written() {
        assert_eq!(lasts("for 2h a bad driver"), (Some("2h"), "a bad driver"));
        assert_eq!(lasts("for a bad driver"), (None, "for a bad driver"));
        assert_eq!(lasts("fire"), (None, "fire"));
    }

    #[test]
    fn parameters_are_json_where_they_look_like_it() {
        let wanted = wanted("drain node=gpu-3 gpu=5 force=false").unwrap();
        let params = serde_json::json!({ "node": "gpu-3", "gpu": 5, "force": false });
        assert_eq!(Value::Object(wanted.params), params);
        assert!(super::wanted("drain gpu-3").is_err());
        assert!(super::wanted("").is_err());
    }
}
