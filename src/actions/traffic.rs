//! Taking a pod's traffic away by one label, and giving it back: whose it is, and whether the label may be changed.
//!
//! Invariant: the removed label is one that every Service of the pod selects by and its controller does not, so that
//! the pod stays its controller's; the mark of the owner is written in the same conditional patch.

use super::answer::ActionResult;
use super::args;
use super::keys;
use crate::model::{ActionCall, FailureKind, StepFailure};
use crate::world::{KubeClient, Pod, TRAFFIC_TAKEN_BY, World};
use serde_json::{Value, json};

/// The label that Services select by unless the runbook names another.
pub(super) const LABEL: &str = "nightshift.dev/traffic";
/// The label's value while the traffic is away.
const OFF: &str = "off";

/// Whose a pod's drained traffic is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DrainedTraffic {
    No,
    /// By this installation: the label, and its value before.
    Ours {
        label: String,
        before: String,
    },
    Theirs(String),
}

pub(super) fn taken(pod: &Pod, identity: &str) -> DrainedTraffic {
    let Some(mark) = pod.marks.get(TRAFFIC_TAKEN_BY) else { return DrainedTraffic::No };
    let mut words = mark.splitn(3, ' ');
    let (who, what) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
    match what.split_once('=') {
        Some((label, before)) if who == identity => {
            DrainedTraffic::Ours { label: label.to_owned(), before: before.to_owned() }
        }
        _ => DrainedTraffic::Theirs(who.to_owned()),
    }
}

/// The label that the call means.
pub(super) fn label(call: &ActionCall) -> Result<&str, StepFailure> {
    let given = call.text("label");
    let label = if given.is_empty() { LABEL } else { given };
    keys::check_key(label)?;
    Ok(label)
}

/// Why the pod's traffic cannot be taken away by this label, if it cannot.
pub(super) async fn may_take(kube: &KubeClient, call: &ActionCall, pod: &Pod, label: &str) -> ActionResult<String> {
    let name = format!("{}/{}", pod.namespace, pod.name);
    let refused = |why: String| Err(StepFailure::new(FailureKind::Refused, why).into());
    let Some(before) = pod.labels.get(label) else {
        return refused(format!(
            "{name} has no label {label}: add `{label}: \"on\"` to the pod template and to the Service's selector (not to \
             the Deployment's)"
        ));
    };
    let except = exceptions(call)?;
    let services = kube.services(&pod.namespace).await?;
    let takes = services.iter().filter(|service| service.takes(&pod.labels) && !except.contains(&service.name));
    let (by, not_by): (Vec<_>, Vec<_>) = takes.partition(|service| service.labels.contains_key(label));
    if !not_by.is_empty() {
        let names: Vec<&str> = not_by.iter().map(|service| service.name.as_str()).collect();
        return refused(format!(
            "{name} gets traffic through Services that do not select the label {label}: {}; add it to their selectors, or list \
             under `except` those that carry no requests",
            names.join(", ")
        ));
    }
    if by.is_empty() {
        return refused(format!("no Service sends traffic to {name} by the label {label}"));
    }
    if let Some((kind, owner)) = &pod.owner {
        match kube.keys_of_owner(&pod.namespace, kind, owner).await? {
            None => return refused(format!("{name} belongs to {kind} {owner}, whose selector is not read")),
            Some(keys) if keys.contains(label) => {
                return refused(format!(
                    "{kind} {owner} selects its pods by the label {label} too: without it, the controller would release {name} \
                     and start another; choose a label that only the Service selects"
                ));
            }
            Some(_) => {}
        }
    }
    Ok(before.clone())
}

/// Label and mark as they are while the traffic is away.
pub(super) fn away(world: &World, run: &str, label: &str, before: &str) -> Value {
    let mark = format!("{} {run} {label}={before}", world.identity);
    json!({ "metadata": { "labels": { label: OFF }, "annotations": { TRAFFIC_TAKEN_BY: mark } } })
}

/// As it was before; a label that was changed since by another owner stays, and only the mark goes.
pub(super) fn back(pod: &Pod, label: &str, before: &str) -> (Value, bool) {
    let is_off = pod.labels.get(label).is_some_and(|value| value == OFF);
    let mark = json!({ TRAFFIC_TAKEN_BY: null });
    if is_off {
        return (json!({ "metadata": { "labels": { label: before }, "annotations": mark } }), true);
    }
    (json!({ "metadata": { "annotations": mark } }), false)
}

fn exceptions(call: &ActionCall) -> Result<Vec<String>, StepFailure> {
    let wrong = || args::invalid(format!("{}: `except` must be a list of names of Services", call.action));
    match call.args.get("except") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            list.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}
