//! Commands as users type them in a chat: one line in, a few lines of plain text out, by way of the API.
//!
//! Invariant: a command is a request to `/api/v1` on behalf of an identified user, so its table of roles decides.

use super::api::segment;
use super::{App, Caller, Problem, api};
use crate::limits;
use crate::model::{Foretold, Freeze, Incident, Span};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

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
    let ask = |method: &'static str, path: String, body: Value| api::ask(app, caller.clone(), method, path, body);
    match word.to_ascii_lowercase().as_str() {
        "" | "help" => Ok(HELP.to_owned()),
        "status" => Ok(status(&ask("GET", "status".to_owned(), Value::Null).await?)),
        "incidents" => Ok(incidents(&ask("GET", "incidents?open=true&limit=20".to_owned(), Value::Null).await?)),
        "guards" => Ok(guards(&ask("GET", "guards".to_owned(), Value::Null).await?)),
        "show" => {
            let kind = if rest.starts_with(['r', 'R']) { "runs" } else { "incidents" };
            let answer = ask("GET", format!("{kind}/{}", segment(one(rest, "show i3")?)), Value::Null).await?;
            Ok(story(&answer))
        }
        "why" => {
            let about = segment(one(rest, "why gpu-3")?);
            Ok(why(&ask("GET", format!("why?subject={about}"), Value::Null).await?))
        }
        "approve" | "deny" => {
            let (id, why) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let id = segment(one(id, "approve a4")?);
            let yes = word.eq_ignore_ascii_case("approve");
            let answer = ask("POST", format!("approvals/{id}"), json!({ "approve": yes, "why": why.trim() })).await?;
            Ok(decided(&answer["approval"]))
        }
        "judge" => {
            let mut words = rest.splitn(3, char::is_whitespace);
            let (id, verdict) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let why = words.next().unwrap_or_default().trim();
            judge(app, caller, one(id, "judge r7 right")?, verdict, why, false).await
        }
        "scorecard" => {
            let rule = segment(one(rest, "scorecard xid-79")?);
            Ok(scorecard(&ask("GET", format!("rules/{rule}/scorecard"), Value::Null).await?["scorecard"]))
        }
        "ack" => {
            let id = segment(one(rest, "ack i3")?);
            let answer = ask("POST", format!("incidents/{id}/ack"), Value::Null).await?;
            Ok(format!(
                "{} is acknowledged by {}",
                text(&answer["incident"]["id"]),
                text(&answer["incident"]["acknowledged_by"])
            ))
        }
        "assign" => {
            let (id, to) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let id = segment(one(id, "assign i3 @ada")?);
            let answer = ask("POST", format!("incidents/{id}/assign"), json!({ "to": to.trim() })).await?;
            Ok(format!("{} is {}'s", text(&answer["incident"]["id"]), text(&answer["incident"]["owner"])))
        }
        "silence" => {
            let mut words = rest.splitn(3, char::is_whitespace);
            let (id, lasts) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let why = words.next().unwrap_or_default().trim().trim_matches('"');
            let id = segment(one(id, "silence i3 2h new fan")?);
            let answer = ask("POST", format!("incidents/{id}/silence"), json!({ "lasts": lasts, "why": why })).await?;
            Ok(silenced(&answer))
        }
        "freeze" => {
            let (scope, why) = scope(rest);
            let (lasts, why) = lasts(why);
            let mut body = json!({ "scope": scope, "why": why });
            if let Some(lasts) = lasts {
                body["for"] = json!(lasts);
            }
            let answer = ask("POST", "freezes".to_owned(), body).await?;
            let freeze = serde_json::from_value::<Freeze>(answer["freeze"].clone());
            let until = freeze.map(|freeze| freeze.lasts()).unwrap_or_default();
            Ok(format!("frozen: {scope}. No new step starts {until}; to release: unfreeze {scope} REASON"))
        }
        "unfreeze" => {
            let (scope, why) = scope(rest);
            let answer = ask("POST", "unfreeze".to_owned(), json!({ "scope": scope, "why": why })).await?;
            Ok(match answer["asked"].is_string() {
                true => format!("{scope} is still frozen: a second person must confirm within 30 minutes"),
                false => format!("no longer frozen: {scope}"),
            })
        }
        "plan" => Ok(plan(&ask("POST", "simulate".to_owned(), wanted(rest)?).await?)),
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
    let (path, body) =
        (format!("runs/{}/judge", segment(id)), json!({ "verdict": verdict, "why": why, "first": first }));
    let answer = api::ask(app, caller.clone(), "POST", path, body).await?;
    let (run, verdict, card) = (text(&answer["run"]), text(&answer["verdict"]), &answer["scorecard"]);
    Ok(format!("{run}: {verdict}, says {}\n{}", text(&answer["by"]), scorecard(card)))
}

/// Starts a runbook with its parameters.
pub(super) async fn start(app: &App, caller: &Caller, wanted: Value) -> Result<String, Problem> {
    let answer = api::ask(app, caller.clone(), "POST", "runs".to_owned(), wanted).await?;
    Ok(format!("{} started; `show {0}` shows its progress", text(&answer["run"]["id"])))
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
fn wanted(rest: &str) -> Result<Value, Problem> {
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
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        params.insert(name.to_owned(), value);
    }
    Ok(json!({ "runbook": runbook, "params": params }))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn status(answer: &Value) -> String {
    let number = |name: &str| text(&answer[name]);
    format!(
        "{} {}: {} open incidents, {} unfinished runs, {} pending approvals, {} freezes; mode ceiling {}",
        text(&answer["install"]),
        text(&answer["version"]),
        number("incidents_open"),
        number("runs_unfinished"),
        number("approvals_open"),
        number("freezes"),
        number("mode_ceiling")
    )
}

fn incidents(answer: &Value) -> String {
    let line = |incident: &Value| {
        let seen = match &incident["acknowledged_by"] {
            Value::String(by) => format!(", acknowledged by {by}"),
            _ => String::new(),
        };
        let owner = incident["owner"].as_str().map(|owner| format!(", {owner}'s")).unwrap_or_default();
        let recovery = Incident::deserialize(incident).ok().and_then(|incident| incident.recovery());
        let owner = format!("{owner}{}", recovery.map(|recovery| format!(", {recovery}")).unwrap_or_default());
        format!("{} {} ({}{seen}{owner})", text(&incident["id"]), text(&incident["title"]), text(&incident["severity"]))
    };
    listed(answer["incidents"].as_array().into_iter().flatten().map(line), "no open incidents")
}

pub(super) fn guards(answer: &Value) -> String {
    let out = answer["nodes_out"].as_array().map_or(0, Vec::len);
    let mut lines = vec![match answer["nodes_total"].as_u64() {
        Some(total) => {
            format!("{out} of {total} nodes out of service, {} allowed at once", text(&answer["nodes_out_allowed"]))
        }
        None => "the number of nodes out of service is unknown, so steps that disturb a node are on hold".to_owned(),
    }];
    lines.extend(frozen(answer));
    for run in answer["held"].as_array().into_iter().flatten().take(limits::LIST_ROWS.min(limits::CHAT_LINES)) {
        lines.push(format!("{} is held by {}: {}", text(&run["run"]), text(&run["guard"]), text(&run["why"])));
    }
    for breaker in answer["breakers"].as_array().into_iter().flatten() {
        lines.push(format!("breaker {} has tripped: {}", text(&breaker["scope"]), text(&breaker["why"])));
    }
    lines.join("\n")
}

/// The freezes and switches that stop automation now, a line each.
pub(super) fn frozen(answer: &Value) -> Vec<String> {
    let stopped = answer["stopped"].as_str().map(|why| format!("everything is stopped: {why}"));
    let freezes = answer["freezes"].as_array().into_iter().flatten();
    let freezes = freezes.filter_map(|freeze| serde_json::from_value::<Freeze>(freeze.clone()).ok());
    let line = |freeze: Freeze| {
        let until = freeze.until.map(|_| format!(" {}", freeze.lasts())).unwrap_or_default();
        format!("frozen: {} by {}{until}: {}", freeze.scope, freeze.by, freeze.why)
    };
    stopped.into_iter().chain(freezes.map(line)).collect()
}

fn silenced(answer: &Value) -> String {
    let ids = answer["silences"].as_array().into_iter().flatten();
    let ids: Vec<String> = ids.map(|made| format!("{} at {}", text(&made["silence"]), text(&made["source"]))).collect();
    let until = text(&answer["until"]);
    let mut lines = vec![format!("silenced until {}: {}", until.get(..16).unwrap_or(&until), ids.join(", "))];
    lines.extend(answer["left"].as_array().into_iter().flatten().map(|left| format!("not: {}", text(left))));
    lines.join("\n")
}

fn story(answer: &Value) -> String {
    let line = |line: &Value| {
        let at = text(&line["at"]);
        format!("{} {}", at.get(11..16).unwrap_or_default(), text(&line["text"]))
    };
    let lines: Vec<String> = answer["story"].as_array().into_iter().flatten().map(line).collect();
    let older = lines.len().saturating_sub(limits::CHAT_LINES);
    let head = (older > 0).then(|| format!("… {older} earlier lines"));
    listed(head.into_iter().chain(lines.into_iter().skip(older)), "there is no timeline yet")
}

fn why(answer: &Value) -> String {
    let mut lines = Vec::new();
    for block in answer["blocks"].as_array().into_iter().flatten() {
        lines.push(text(&block["title"]));
        for line in block["lines"].as_array().into_iter().flatten() {
            lines.push(format!("  {}: {}", text(&line["what"]), text(&line["text"])));
        }
    }
    listed(lines.into_iter(), "there is no record of it")
}

/// The changes, a line each, and beneath it the guards' predicted decisions.
fn plan(answer: &Value) -> String {
    let guards: Vec<Foretold> = serde_json::from_value(answer["guards"].clone()).unwrap_or_default();
    let calls = answer["plan"]["calls"].as_array().into_iter().flatten().enumerate();
    let line = |(at, call): (usize, &Value)| {
        let args = call["call"]["args"].as_object().cloned().unwrap_or_default();
        let args: Vec<String> = args.iter().map(|(name, value)| format!("{name} {}", text(value))).collect();
        let line = format!("{} ({})", text(&call["call"]["action"]), args.join(", "));
        match guards.iter().find(|guard| guard.call == at).and_then(Foretold::words) {
            Some(words) => format!("{line}\n  ! {words}"),
            None => line,
        }
    };
    listed(calls.filter(|(_, call)| call["reach"] != "none").map(line), "no changes")
}

fn scorecard(card: &Value) -> String {
    match serde_json::from_value::<crate::model::Scorecard>(card.clone()) {
        Ok(card) => format!("rule {} is in {}\nstatistics: {}", card.rule, card.because(), card.card.words()),
        Err(_) => "its rule is no longer in force".to_owned(),
    }
}

fn decided(approval: &Value) -> String {
    let id = text(&approval["id"]);
    if approval["state"] == "open" {
        let given = approval["given"].as_array().map_or(0, Vec::len);
        return format!("{id}: your approval is counted, {given} of {}", text(&approval["needed"]));
    }
    format!("{id} is {} by {}", text(&approval["state"]), text(&approval["decided_by"]))
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
        assert_eq!(wanted["params"], json!({ "node": "gpu-3", "gpu": 5, "force": false }));
        assert!(super::wanted("drain gpu-3").is_err());
        assert!(super::wanted("").is_err());
    }
}
