//! A call in words: `drain gpu-3 (GPU pods only, up to 30m)` before, `drained gpu-3: 4 GPU pods moved` after.
//!
//! Invariant: a call without a phrase of its own is shown as it is written in a runbook.

use crate::limits::NAMES_SHOWN;
use crate::model::{Call, Effect, Outcome, PlannedCall, Reach, Subject};
use serde_json::Value;

/// Action, imperative, past tense. Data: an action without a line here is shown as its call.
const VERBS: &[(&str, &str, &str)] = &[
    ("k8s::cordon", "cordon", "cordoned"),
    ("k8s::uncordon", "uncordon", "uncordoned"),
    ("k8s::drain", "drain", "drained"),
    ("k8s::evict", "evict", "evicted"),
    ("k8s::delete_pod", "delete pod", "deleted pod"),
    ("k8s::taint", "taint", "tainted"),
    ("k8s::untaint", "remove a taint from", "removed a taint from"),
    ("k8s::label", "label", "labeled"),
    ("k8s::annotate", "annotate", "annotated"),
    ("k8s::rollout_restart", "restart", "restarted"),
    ("k8s::scale", "scale", "scaled"),
    ("gpu::reset", "reset", "reset"),
    ("gpu::sharing", "change the sharing of", "changed the sharing of"),
    ("node::reboot", "reboot", "rebooted"),
    ("node::collect", "collect diagnostics from", "collected diagnostics from"),
    ("mig::rebalance", "change the MIG layout of", "changed the MIG layout of"),
    ("docker::restart", "restart container", "restarted container"),
    ("inference::restart", "restart", "restarted"),
    ("inference::drain_traffic", "take traffic off", "took traffic off"),
    ("inference::return_traffic", "return traffic to", "returned traffic to"),
    ("cache::warm", "warm model weights on", "warmed model weights on"),
    ("cache::verify", "check model weights on", "checked model weights on"),
    ("http::post", "post to", "posted to"),
];

/// Reads, for the lists of steps; an action without a line here is shown as its call.
const READS: &[(&str, &str)] = &[
    ("k8s::node", "read the state of"),
    ("k8s::pods_on", "list the pods on"),
    ("k8s::ready_replicas", "count the ready replicas of"),
    ("k8s::spare_node", "look for a spare node for"),
    ("gpu::health", "read the health of"),
    ("gpu::processes", "list the processes on"),
    ("gpu::recovery_action", "read the recovery action of"),
    ("inference::health", "read the health of"),
    ("inference::models_on", "list the models on"),
    ("cache::status", "read the cached weights on"),
    ("docker::containers", "list the containers of"),
];

/// Arguments that the target already names.
const SAID: &[&str] = &["node", "pod", "workload", "namespace", "name", "gpu", "model", "cluster"];

/// Steps of a runbook's own flow: they have entries and words of their own, and a `verify` sleeps many times.
const SILENT: &[&str] = &["now", "sleep", "tell", "approve"];

/// Whether the beginning is worth a line: it may take long and change something.
pub fn announced(call: &Call, effect: Effect) -> bool {
    reported(call, effect) && call.action != "note"
}

/// Whether a good end is worth a line.
pub fn reported(call: &Call, effect: Effect) -> bool {
    call.action == "note" || (effect != Effect::Read && !SILENT.contains(&call.action.as_str()))
}

/// `drain gpu-3 (GPU pods only, up to 30m)`.
pub fn todo(call: &Call, target: Option<&Subject>) -> String {
    match call.action.as_str() {
        "sleep" => format!("wait {}", first(call)),
        "note" => format!("note: {}", first(call)),
        "tell" => format!("notify {}: {}", call.text("channel"), call.text("text")),
        "approve" => format!("ask: {}", call.text("question")),
        "now" => "read the time".to_owned(),
        action => match verb(action) {
            Some((todo, _)) => format!("{todo} {}{}", name(call, target), details(call)),
            None => match READS.iter().find(|(read, _)| *read == action) {
                Some((_, words)) => format!("{words} {}", name(call, target)),
                None => call.to_string(),
            },
        },
    }
}

/// `drained gpu-3: 4 pods moved in 5s`; `value` is the step's return value.
pub fn done(call: &Call, target: &Subject, value: &Value) -> String {
    match call.action.as_str() {
        "sleep" => format!("waited {}", first(call)),
        "note" => format!("note: {}", first(call)),
        "k8s::drain" if value["evicted"].is_array() => drained(call, target, value),
        action => match verb(action) {
            Some((_, done)) => format!("{done} {}{}", name(call, Some(target)), details(call)),
            None => format!("done: {call}"),
        },
    }
}

fn drained(call: &Call, target: &Subject, value: &Value) -> String {
    let moved = value["evicted"].as_array().map_or(0, Vec::len);
    let gpu = if call.text("only") == "all" { "" } else { "GPU " };
    let noun = if moved == 1 { "pod" } else { "pods" };
    let within = value["waited"].as_str().map(|waited| format!(" in {waited}")).unwrap_or_default();
    let forced = match value["forced"].as_array().map_or(0, Vec::len) {
        0 => String::new(),
        forced => format!(", {forced} deleted against their disruption budget"),
    };
    format!("drained {}: {moved} {gpu}{noun} moved{within}{forced}", name(call, Some(target)))
}

/// The calls of a plan that change something, in half a sentence: `cordon gpu-1, drain it (4 pods move) and reset GPU 2`.
pub fn brief(calls: &[PlannedCall]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut before: Option<&str> = None;
    for planned in calls.iter().filter(|planned| planned.reach > Reach::None && planned.effect != Effect::Read) {
        let node = planned.target.part("node");
        let same = node.is_some() && node == before;
        let mut thing = name(&planned.call, Some(&planned.target));
        if let (true, Some(node)) = (same, node) {
            thing = if thing == node { "it".to_owned() } else { thing.replace(&format!(" on {node}"), "") };
        }
        before = node.or(before);
        let what = match verb(&planned.call.action) {
            Some((todo, _)) => format!("{todo} {thing}"),
            None => planned.call.to_string(),
        };
        let moved = match moves(planned).map_or(0, |pods| pods.len()) {
            0 => String::new(),
            1 => " (1 pod moves)".to_owned(),
            pods => format!(" ({pods} pods move)"),
        };
        parts.push(format!("{what}{moved}"));
    }
    let more = parts.len().saturating_sub(NAMES_SHOWN);
    if more > 0 {
        parts.truncate(NAMES_SHOWN);
        return format!("{} and {more} more steps", parts.join(", "));
    }
    match parts.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// The pods that a planned call moves, by `namespace/name`.
fn moves(planned: &PlannedCall) -> Option<Vec<&str>> {
    let Outcome::Ok(value) = &planned.predicted else { return None };
    Some(value["evicted"].as_array()?.iter().filter_map(Value::as_str).collect())
}

/// The gain or cost of a planned call where it is more than the call: `evicts 4 pods: inference/llm-0, …`.
pub fn predicted(planned: &PlannedCall) -> Option<String> {
    match &planned.predicted {
        Outcome::Failed(failure) => Some(format!("cannot run now: {}", failure.message)),
        Outcome::Ok(value) if value["changed"] == false => Some("already in that state".to_owned()),
        Outcome::Ok(_) => {
            let pods = moves(planned).filter(|pods| !pods.is_empty())?;
            let shown = pods[..pods.len().min(NAMES_SHOWN)].join(", ");
            let more = match pods.len().saturating_sub(NAMES_SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let noun = if pods.len() == 1 { "pod" } else { "pods" };
            Some(format!("evicts {} {noun}: {shown}{more}", pods.len()))
        }
    }
}

fn verb(action: &str) -> Option<(&'static str, &'static str)> {
    VERBS.iter().find(|(name, ..)| *name == action).map(|(_, todo, done)| (*todo, *done))
}

/// The thing itself, as short as it can be called.
fn name(call: &Call, target: Option<&Subject>) -> String {
    let part = |part: &str| target.and_then(|target| target.part(part)).map(str::to_owned);
    let spaced = |name: String| match part("namespace") {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    };
    let gpu =
        || part("gpu").map(|gpu| part("node").map_or(format!("GPU {gpu}"), |node| format!("GPU {gpu} on {node}")));
    part("pod")
        .map(spaced)
        .or_else(|| part("workload").map(spaced))
        .or_else(gpu)
        .or_else(|| part("node"))
        .or_else(|| part("model"))
        .or_else(|| SAID.iter().map(|arg| call.text(arg)).find(|text| !text.is_empty()).map(str::to_owned))
        .or_else(|| part("cluster"))
        .unwrap_or_else(|| "the fleet".to_owned())
}

/// The arguments beyond the target: reason first, then the rest by name.
fn details(call: &Call) -> String {
    if call.action == "k8s::drain" {
        return drain_details(call);
    }
    let mut parts = Vec::new();
    let why = call.text("why");
    if !why.is_empty() {
        parts.push(why.to_owned());
    }
    for (name, value) in &call.args {
        let said = name == "why" || SAID.contains(&name.as_str());
        match value {
            _ if said => {}
            Value::Null => {}
            Value::String(text) => parts.push(format!("{name} {text}")),
            Value::Number(_) | Value::Bool(_) => parts.push(format!("{name} {value}")),
            Value::Array(_) | Value::Object(_) => parts.push(format!("{name} {value}")),
        }
    }
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// ` (GPU pods only, up to 30m)`, with the options that allow more than the gentle way.
fn drain_details(call: &Call) -> String {
    let mut parts = vec![if call.text("only") == "all" { "all pods" } else { "GPU pods only" }.to_owned()];
    let within = call.text("within");
    if !within.is_empty() {
        parts.push(format!("up to {within}"));
    }
    match call.text("then") {
        "force" => parts.push("then deleted despite disruption budgets".to_owned()),
        "hold" => parts.push("then waits on".to_owned()),
        _ => {}
    }
    for (option, words) in [("delete_empty_dir", "also pods that lose local data"), ("evict_bare", "also bare pods")] {
        if call.args.get(option) == Some(&Value::Bool(true)) {
            parts.push(words.to_owned());
        }
    }
    format!(" ({})", parts.join(", "))
}

/// The first argument as text.
fn first(call: &Call) -> String {
    match call.args.values().next() {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
