//! A call in words: `drain gpu-3 (GPU pods only, up to 30m)` before, `drained gpu-3: 4 GPU pods moved` after.
//!
//! Invariant: the words are those that the action declares; a call of an action that this program does not have is shown as
//! it is written in a runbook.

use crate::actions::{self, Action};
use crate::limits::NAMES_SHOWN;
use crate::model::{ActionCall, EffectClass, ImpactScope, Outcome, PlannedCall, Subject};
use serde_json::Value;

/// Arguments that the target already names.
const SAID: &[&str] = &["node", "pod", "workload", "namespace", "name", "gpu", "model", "cluster"];

/// Whether the beginning is worth a line: it may take long and change something.
pub fn announced(call: &ActionCall, effect: EffectClass) -> bool {
    reported(call, effect) && effect != EffectClass::Read
}

/// Whether a good end is worth a line.
pub fn reported(call: &ActionCall, effect: EffectClass) -> bool {
    actions::find(&call.action).map_or(effect != EffectClass::Read, |action| action.spec().phrases.done.is_some())
}

/// `drain gpu-3 (GPU pods only, up to 30m)`.
pub fn todo(call: &ActionCall, target: Option<&Subject>) -> String {
    match actions::find(&call.action) {
        Some(action) => fill(action.spec().phrases.todo, call, &name(call, target), || details(action, call, None)),
        None => call.to_string(),
    }
}

/// `drained gpu-3: 4 pods moved in 5s`; `value` is the step's return value.
pub fn done(call: &ActionCall, target: &Subject, value: &Value) -> String {
    let known = actions::find(&call.action).and_then(|action| Some((action, action.spec().phrases.done?)));
    match known {
        Some((action, done)) => fill(done, call, &name(call, Some(target)), || details(action, call, Some(value))),
        None => format!("done: {call}"),
    }
}

/// A phrase with its braces filled in.
fn fill(phrase: &str, call: &ActionCall, thing: &str, details: impl Fn() -> String) -> String {
    let mut text = String::new();
    let mut rest = phrase;
    while let Some((before, (slot, after))) = rest.split_once('{').and_then(|(b, a)| Some((b, a.split_once('}')?))) {
        text.push_str(before);
        match (slot, call.args.get(slot)) {
            ("target", _) => text.push_str(thing),
            ("details", _) => text.push_str(&details()),
            ("call", _) => text.push_str(&call.to_string()),
            (_, Some(Value::String(argument))) => text.push_str(argument),
            (_, Some(argument)) => text.push_str(&argument.to_string()),
            (_, None) => {}
        }
        rest = after;
    }
    text + rest
}

/// The calls of a plan that change something, in half a sentence: `cordon gpu-1, drain it (4 pods move) and reset GPU 2`.
pub fn brief(calls: &[PlannedCall]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut before: Option<&str> = None;
    for planned in
        calls.iter().filter(|planned| planned.reach > ImpactScope::None && planned.effect != EffectClass::Read)
    {
        let node = planned.target.part("node");
        let same = node.is_some() && node == before;
        let mut thing = name(&planned.call, Some(&planned.target));
        if let (true, Some(node)) = (same, node) {
            thing = if thing == node { "it".to_owned() } else { thing.replace(&format!(" on {node}"), "") };
        }
        before = node.or(before);
        let what = match actions::find(&planned.call.action) {
            Some(action) => fill(action.spec().phrases.todo, &planned.call, &thing, String::new),
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

/// The thing itself, as short as it can be called.
fn name(call: &ActionCall, target: Option<&Subject>) -> String {
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
fn details(action: &dyn Action, call: &ActionCall, value: Option<&Value>) -> String {
    if let Some(details) = action.details(call, value) {
        return details;
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
