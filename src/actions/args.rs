//! Reading a call's arguments. The script host has checked types; the journal may be older than this program.
//!
//! Invariant: an argument that makes no sense is an `invalid` failure in words, never a default.

use crate::limits;
use crate::model::{Call, Failure, FailureKind, ParamSpec, ParamType, Span, Subject, Takes};
use serde_json::Value;

pub(super) const fn required(name: &'static str, ty: ParamType, doc: &'static str) -> ParamSpec {
    ParamSpec { name, ty, required: true, doc }
}

pub(super) const fn optional(name: &'static str, ty: ParamType, doc: &'static str) -> ParamSpec {
    ParamSpec { name, ty, required: false, doc }
}

pub(super) const NODE: ParamSpec = required("node", ParamType::Node, "the node's name");
pub(super) const POD: ParamSpec = required("pod", ParamType::Pod, "the pod, as `namespace/name`");
pub(super) const CONTAINER: ParamSpec = required("container", ParamType::String, "the container's name");
pub(super) const MODEL_PATH: ParamSpec = required("path", ParamType::String, "the model's folder on the node");
pub(super) const WORKLOAD: ParamSpec =
    required("workload", ParamType::Workload, "the Deployment or StatefulSet, as `namespace/name`");

pub(super) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Invalid, message)
}

/// A text that must be there and not be empty.
pub(super) fn text<'a>(call: &'a Call, name: &str) -> Result<&'a str, Failure> {
    match call.text(name) {
        "" => Err(invalid(format!("{}: `{name}` is missing or empty", call.action))),
        text => Ok(text),
    }
}

/// `namespace/name`.
pub(super) fn pair<'a>(call: &'a Call, name: &str) -> Result<(&'a str, &'a str), Failure> {
    let text = text(call, name)?;
    text.split_once('/')
        .filter(|(space, rest)| !space.is_empty() && !rest.is_empty() && !rest.contains('/'))
        .ok_or_else(|| {
            invalid(format!("{}: `{name}` is `{}`, but must be `namespace/name`", call.action, text.escape_debug()))
        })
}

/// A length of time such as `30m`, at most a week.
pub(super) fn span(call: &Call, name: &str, default: Span) -> Result<Span, Failure> {
    let span = match call.args.get(name) {
        None | Some(Value::Null) => default,
        Some(Value::String(text)) => {
            text.parse().map_err(|error| invalid(format!("{}: `{name}`: {error}", call.action)))?
        }
        Some(other) => {
            return Err(invalid(format!("{}: `{name}` is {other}, but must be a text like `30m`", call.action)));
        }
    };
    if span > limits::STEP_WAIT_MAX {
        return Err(invalid(format!(
            "{}: `{name}` is {span}, but may be {} at most",
            call.action,
            limits::STEP_WAIT_MAX
        )));
    }
    Ok(span)
}

/// One of a few words; the first is the default.
pub(super) fn choice<'a>(call: &'a Call, name: &str, words: &[&'static str]) -> Result<&'static str, Failure> {
    let given: &'a str = call.text(name);
    if given.is_empty() {
        return Ok(words[0]);
    }
    words.iter().find(|word| **word == given).copied().ok_or_else(|| {
        let list = words.join("`, `");
        invalid(format!("{}: `{name}` is `{}`, but must be one of `{list}`", call.action, given.escape_debug()))
    })
}

pub(super) fn flag(call: &Call, name: &str) -> bool {
    call.args.get(name).and_then(Value::as_bool).unwrap_or(false)
}

pub(super) fn node_target(call: &Call) -> Subject {
    Subject { node: some(call.text("node")), ..Subject::default() }
}

/// A GPU of a node, by an index, a UUID or a PCI address.
pub(super) fn gpu_target(call: &Call) -> Subject {
    let gpu = match call.args.get("gpu") {
        Some(Value::Number(index)) => Some(index.to_string()),
        _ => some(call.text("gpu")),
    };
    Subject { gpu, ..node_target(call) }
}

pub(super) fn pod_target(call: &Call) -> Subject {
    match pair(call, "pod") {
        Ok((namespace, name)) => Subject::pod(namespace, name),
        Err(_) => Subject { pod: some(call.text("pod")), ..Subject::default() },
    }
}

pub(super) fn workload_target(call: &Call) -> Subject {
    match pair(call, "workload") {
        Ok((namespace, name)) => Subject::workload(namespace, name),
        Err(_) => Subject { workload: some(call.text("workload")), ..Subject::default() },
    }
}

pub(super) fn container_target(call: &Call) -> Subject {
    Subject { container: some(call.text("container")), ..Subject::default() }
}

/// The pods of the call's node; none of them where it names no node.
pub(super) fn takes_of_node(call: &Call, gpu_only: bool) -> Takes {
    some(call.text("node")).map_or(Takes::Nothing, |name| Takes::Node { name, gpu_only })
}

pub(super) fn takes_pod(call: &Call) -> Takes {
    pair(call, "pod").map_or(Takes::Nothing, |(namespace, name)| Takes::Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_argument_that_makes_no_sense_is_refused_in_words() {
        let call = Call::new("k8s::evict", [("pod", json!("a/b/c")), ("within", json!("8d")), ("only", json!("some"))]);
        assert!(pair(&call, "pod").unwrap_err().message.contains("namespace/name"));
        assert!(span(&call, "within", Span::default()).unwrap_err().message.contains("7d at most"));
        assert!(choice(&call, "only", &["gpu-pods", "all"]).unwrap_err().message.contains("`gpu-pods`, `all`"));
        assert!(text(&call, "node").is_err());
        assert_eq!(choice(&call, "then", &["fail", "hold"]), Ok("fail"));
        assert_eq!(span(&call, "grace", Span::minutes(1)), Ok(Span::minutes(1)));
    }
}
