//! Reading a call's arguments. The script host has checked types; the journal may be older than this program.
//!
//! Invariant: an argument that makes no sense is an `invalid` failure in words, never a default.

use crate::limits;
use crate::model::{
    ActionCall, CapacityKind, CapacityLoss, FailureKind, ParamSpec, ParamType, Span, StepFailure, Subject, TargetKind,
};
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

pub(super) fn invalid(message: impl Into<String>) -> StepFailure {
    StepFailure::new(FailureKind::Invalid, message)
}

/// A text that must be there and not be empty.
pub(super) fn text<'a>(call: &'a ActionCall, name: &str) -> Result<&'a str, StepFailure> {
    match call.text(name) {
        "" => Err(invalid(format!("{}: `{name}` is missing or empty", call.action))),
        text => Ok(text),
    }
}

/// `namespace/name`.
pub(super) fn pair<'a>(call: &'a ActionCall, name: &str) -> Result<(&'a str, &'a str), StepFailure> {
    let text = text(call, name)?;
    text.split_once('/')
        .filter(|(space, rest)| !space.is_empty() && !rest.is_empty() && !rest.contains('/'))
        .ok_or_else(|| {
            invalid(format!("{}: `{name}` is `{}`, but must be `namespace/name`", call.action, text.escape_debug()))
        })
}

/// A length of time such as `30m`, at most a week.
pub(super) fn span(call: &ActionCall, name: &str, default: Span) -> Result<Span, StepFailure> {
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
pub(super) fn choice<'a>(
    call: &'a ActionCall,
    name: &str,
    words: &[&'static str],
) -> Result<&'static str, StepFailure> {
    let given: &'a str = call.text(name);
    if given.is_empty() {
        return Ok(words[0]);
    }
    words.iter().find(|word| **word == given).copied().ok_or_else(|| {
        let list = words.join("`, `");
        invalid(format!("{}: `{name}` is `{}`, but must be one of `{list}`", call.action, given.escape_debug()))
    })
}

pub(super) fn flag(call: &ActionCall, name: &str) -> bool {
    call.args.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// The thing that the call is about.
pub(super) fn target(kind: TargetKind, call: &ActionCall) -> Subject {
    let node = || some(call.text("node"));
    match kind {
        TargetKind::Nothing => Subject::default(),
        TargetKind::Node => Subject { node: node(), ..Subject::default() },
        // By an index, a UUID or a PCI address.
        TargetKind::Gpu => {
            let gpu = match call.args.get("gpu") {
                Some(Value::Number(index)) => Some(index.to_string()),
                _ => some(call.text("gpu")),
            };
            Subject { gpu, node: node(), ..Subject::default() }
        }
        TargetKind::Pod => pair(call, "pod").map_or_else(
            |_| Subject { pod: some(call.text("pod")), ..Subject::default() },
            |(namespace, name)| Subject::pod(namespace, name),
        ),
        TargetKind::Workload => pair(call, "workload").map_or_else(
            |_| Subject { workload: some(call.text("workload")), ..Subject::default() },
            |(namespace, name)| Subject::workload(namespace, name),
        ),
        TargetKind::Container => Subject { container: some(call.text("container")), ..Subject::default() },
    }
}

/// The part of the declared capacity that the call takes; none where its arguments make no sense, for then it is refused.
pub(super) fn takes(capacity: CapacityKind, call: &ActionCall) -> CapacityLoss {
    let named = |param: &str| pair(call, param).map(|(space, name)| (space.to_owned(), name.to_owned())).ok();
    let taken = match capacity {
        CapacityKind::Nothing | CapacityKind::Gpu => None,
        CapacityKind::Node(_) => return takes_of_node(call, false),
        CapacityKind::Pod(_) => named("pod").map(|(namespace, name)| CapacityLoss::Pod { namespace, name }),
        CapacityKind::Rollout(_) => {
            named("workload").map(|(namespace, name)| CapacityLoss::Rollout { namespace, name })
        }
        CapacityKind::Replicas(_) => replicas(call)
            .ok()
            .zip(named("workload"))
            .map(|(to, (namespace, name))| CapacityLoss::Scale { namespace, name, to }),
        CapacityKind::Container(_) => some(call.text("container")).map(|name| CapacityLoss::Container { name }),
    };
    taken.unwrap_or_default()
}

/// How many replicas there are to be; zero only where it is meant.
pub(super) fn replicas(call: &ActionCall) -> Result<u32, StepFailure> {
    let given = call.args.get("replicas").and_then(Value::as_i64);
    let wanted = given
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number <= limits::REPLICAS)
        .ok_or_else(|| invalid(format!("{}: `replicas` must be from 0 to {}", call.action, limits::REPLICAS)))?;
    if wanted == 0 && !flag(call, "allow_zero") {
        let what =
            format!("{} to 0 takes the workload away; write `#{{ allow_zero: true }}` if that is meant", call.action);
        return Err(StepFailure::new(FailureKind::Refused, what));
    }
    Ok(wanted)
}

/// The pods of the call's node; none of them where it names no node.
pub(super) fn takes_of_node(call: &ActionCall, gpu_only: bool) -> CapacityLoss {
    some(call.text("node")).map_or(CapacityLoss::Nothing, |name| CapacityLoss::Node { name, gpu_only })
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
        let call =
            ActionCall::new("k8s::evict", [("pod", json!("a/b/c")), ("within", json!("8d")), ("only", json!("some"))]);
        assert!(pair(&call, "pod").unwrap_err().message.contains("namespace/name"));
        assert!(span(&call, "within", Span::default()).unwrap_err().message.contains("7d at most"));
        assert!(choice(&call, "only", &["gpu-pods", "all"]).unwrap_err().message.contains("`gpu-pods`, `all`"));
        assert!(text(&call, "node").is_err());
        assert_eq!(choice(&call, "then", &["fail", "hold"]), Ok("fail"));
        assert_eq!(span(&call, "grace", Span::minutes(1)), Ok(Span::minutes(1)));
    }
}
