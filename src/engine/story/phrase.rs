//! A call as people say it: `drain gpu-3 (within 30m)` before, `drained gpu-3 (within 30m)` after.
//!
//! Invariant: a call without a phrase of its own is shown as it is written in a runbook.

use crate::model::{Call, Effect, Subject};
use serde_json::Value;

/// Action, what to do, what was done. Data: an action without a line here is shown as its call.
const VERBS: &[(&str, &str, &str)] = &[
    ("k8s::cordon", "cordon", "cordoned"),
    ("k8s::uncordon", "uncordon", "uncordoned"),
    ("k8s::drain", "drain", "drained"),
    ("k8s::evict", "evict", "evicted"),
    ("k8s::delete_pod", "delete pod", "deleted pod"),
    ("k8s::taint", "taint", "tainted"),
    ("k8s::untaint", "remove a taint from", "removed a taint from"),
    ("k8s::label", "label", "labelled"),
    ("k8s::annotate", "annotate", "annotated"),
    ("k8s::rollout_restart", "restart", "restarted"),
    ("k8s::scale", "scale", "scaled"),
];

/// Arguments that the target already says.
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

/// `drain gpu-3 (within 30m)`.
pub fn todo(call: &Call, target: Option<&Subject>) -> String {
    match call.action.as_str() {
        "sleep" => format!("wait {}", first(call)),
        "note" => format!("note: {}", first(call)),
        "tell" => format!("tell {}: {}", call.text("channel"), call.text("text")),
        action => match verb(action) {
            Some((todo, _)) => format!("{todo} {}{}", name(call, target), details(call)),
            None => call.to_string(),
        },
    }
}

/// `drained gpu-3 (within 30m)`.
pub fn done(call: &Call, target: &Subject) -> String {
    match call.action.as_str() {
        "sleep" => format!("waited {}", first(call)),
        "note" => format!("note: {}", first(call)),
        action => match verb(action) {
            Some((_, done)) => format!("{done} {}{}", name(call, Some(target)), details(call)),
            None => format!("done: {call}"),
        },
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

/// What the target does not say: reason first, then the rest by name.
fn details(call: &Call) -> String {
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

/// The first argument as text.
fn first(call: &Call) -> String {
    match call.args.values().next() {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
