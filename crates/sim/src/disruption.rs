//! Disruption budgets and evictions, in the words of a real API server.
//!
//! Invariant: an eviction that a budget does not allow changes nothing.

use super::answer::SimResponse;
use super::controllers::terminate;
use super::object::{ObjectKey, ObjectKind, condition, controller, is_terminating, number, text};
use super::selector::ObjectSelector;
use super::state::FleetState;
use super::workloads::{RoundDirection, amount};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The evictions that a budget allows now.
struct EvictionBudget {
    expected: i64,
    desired: i64,
    healthy: i64,
}

impl EvictionBudget {
    fn allowed(&self) -> i64 {
        (self.healthy - self.desired).max(0)
    }
}

/// A budget object with its status as it is now.
pub(super) fn with_status(state: &FleetState, mut budget: Value) -> Value {
    let now = measure(state, &budget);
    let generation = number(&budget, "/metadata/generation").max(1);
    let (word, reason) = if now.allowed() > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    budget["status"] = json!({
        "observedGeneration": generation, "currentHealthy": now.healthy, "desiredHealthy": now.desired,
        "disruptionsAllowed": now.allowed(), "expectedPods": now.expected,
        "conditions": [{"type": "DisruptionAllowed", "status": word, "reason": reason, "message": "",
            "observedGeneration": generation, "lastTransitionTime": state.stamp()}],
    });
    budget
}

fn measure(state: &FleetState, budget: &Value) -> EvictionBudget {
    let namespace = text(budget, "/metadata/namespace");
    let selector = ObjectSelector::from_object(&budget["spec"]["selector"]);
    let pods: Vec<&Value> = state
        .keys(ObjectKind::Pod, namespace)
        .map(|(_, pod)| pod.as_ref())
        .filter(|pod| selector.matches(&pod["metadata"]["labels"]))
        .collect();
    let healthy = pods.iter().filter(|pod| !is_terminating(pod) && condition(pod, "Ready")).count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let live = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let spec = &budget["spec"];
    let (expected, desired) = if let Some(most) = spec.get("maxUnavailable") {
        let expected = wanted_replicas(state, namespace, &pods);
        (expected, (expected - amount(most, expected, RoundDirection::Up)).max(0))
    } else if let Some(least) = spec.get("minAvailable").filter(|v| v.is_string()) {
        let expected = wanted_replicas(state, namespace, &pods);
        (expected, amount(least, expected, RoundDirection::Up))
    } else {
        (live, number(spec, "/minAvailable"))
    };
    EvictionBudget { expected, desired, healthy }
}

/// The desired replicas of these pods' controllers.
fn wanted_replicas(state: &FleetState, namespace: &str, pods: &[&Value]) -> i64 {
    let owners: BTreeSet<ObjectKey> = pods
        .iter()
        .filter_map(|pod| controller(pod).map(|(kind, name)| ObjectKey::new(kind, namespace, name)))
        .map(|owner| match state.get(&owner).and_then(controller) {
            Some((kind, name)) => ObjectKey::new(kind, namespace, name),
            None => owner,
        })
        .collect();
    owners.iter().filter_map(|owner| state.get(owner)).map(|owner| number(owner, "/spec/replicas")).sum()
}

/// POST …/eviction. The second value is whether the pod's end began with this request.
pub(super) fn evict(state: &mut FleetState, key: &ObjectKey, body: &Value) -> (SimResponse, bool) {
    let Some(pod) = state.get(key) else { return (SimResponse::not_found(ObjectKind::Pod, &key.name), false) };
    let (uid, wanted) = (text(pod, "/metadata/uid"), text(body, "/deleteOptions/preconditions/uid"));
    if !wanted.is_empty() && wanted != uid {
        return (SimResponse::precondition(ObjectKind::Pod, &key.name, "UID", wanted, uid), false);
    }
    let was_terminating = is_terminating(pod);
    let needs_budget = !was_terminating && text(pod, "/status/phase") == "Running";
    if let Some(refusal) = needs_budget.then(|| budget_refusal(state, key, pod)).flatten() {
        return (refusal, false);
    }
    let is_dry = list_has_all(body);
    if !is_dry {
        terminate(state, key, body.pointer("/deleteOptions/gracePeriodSeconds").and_then(Value::as_i64));
    }
    (SimResponse::success(201, Value::Null), !was_terminating && !is_dry)
}

fn list_has_all(body: &Value) -> bool {
    super::object::list(body, "/deleteOptions/dryRun").iter().any(|v| v == "All")
}

fn budget_refusal(state: &FleetState, key: &ObjectKey, pod: &Value) -> Option<SimResponse> {
    let budgets: Vec<&Value> = state
        .keys(ObjectKind::DisruptionBudget, &key.namespace)
        .map(|(_, budget)| budget.as_ref())
        .filter(|budget| ObjectSelector::from_object(&budget["spec"]["selector"]).matches(&pod["metadata"]["labels"]))
        .collect();
    let budget = match budgets.as_slice() {
        [] => return None,
        [one] => *one,
        _ => {
            let message =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Some(SimResponse::refusal(500, "", message, Value::Null));
        }
    };
    let now = measure(state, budget);
    if !condition(pod, "Ready") {
        let is_always = text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
        if is_always || (now.desired > 0 && now.healthy >= now.desired) {
            return None;
        }
    }
    (now.allowed() == 0).then(|| {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        let cause = format!(
            "The disruption budget {} needs {} healthy pods and has {} currently",
            text(budget, "/metadata/name"),
            now.desired,
            now.healthy
        );
        let details = json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]});
        SimResponse::refusal(429, "TooManyRequests", message, details)
    })
}
