//! Disruption budgets and evictions, in the words of a real API server.
//!
//! Invariant: an eviction that a budget does not allow changes nothing.

use super::answer::Answer;
use super::controllers::terminate;
use super::object::{Key, Kind, condition, controller, is_terminating, number, text};
use super::selector::Selector;
use super::state::State;
use super::workloads::{Round, amount};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The evictions that a budget allows now.
struct Budget {
    expected: i64,
    desired: i64,
    healthy: i64,
}

impl Budget {
    fn allowed(&self) -> i64 {
        (self.healthy - self.desired).max(0)
    }
}

/// A budget object with its status as it is now.
pub(super) fn with_status(state: &State, mut budget: Value) -> Value {
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

fn measure(state: &State, budget: &Value) -> Budget {
    let namespace = text(budget, "/metadata/namespace");
    let selector = Selector::from_object(&budget["spec"]["selector"]);
    let pods: Vec<&Value> = state
        .keys(Kind::Pod, namespace)
        .map(|(_, pod)| pod.as_ref())
        .filter(|pod| selector.matches(&pod["metadata"]["labels"]))
        .collect();
    let healthy = pods.iter().filter(|pod| !is_terminating(pod) && condition(pod, "Ready")).count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let live = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let spec = &budget["spec"];
    let (expected, desired) = if let Some(most) = spec.get("maxUnavailable") {
        let expected = wanted_replicas(state, namespace, &pods);
        (expected, (expected - amount(most, expected, Round::Up)).max(0))
    } else if let Some(least) = spec.get("minAvailable").filter(|v| v.is_string()) {
        let expected = wanted_replicas(state, namespace, &pods);
        (expected, amount(least, expected, Round::Up))
    } else {
        (live, number(spec, "/minAvailable"))
    };
    Budget { expected, desired, healthy }
}

/// The desired replicas of these pods' controllers.
fn wanted_replicas(state: &State, namespace: &str, pods: &[&Value]) -> i64 {
    let owners: BTreeSet<Key> = pods
        .iter()
        .filter_map(|pod| controller(pod).map(|(kind, name)| Key::new(kind, namespace, name)))
        .map(|owner| match state.get(&owner).and_then(controller) {
            Some((kind, name)) => Key::new(kind, namespace, name),
            None => owner,
        })
        .collect();
    owners.iter().filter_map(|owner| state.get(owner)).map(|owner| number(owner, "/spec/replicas")).sum()
}

/// POST …/eviction. The second value is whether the pod's end began with this request.
pub(super) fn evict(state: &mut State, key: &Key, body: &Value) -> (Answer, bool) {
    let Some(pod) = state.get(key) else { return (Answer::not_found(Kind::Pod, &key.name), false) };
    let (uid, wanted) = (text(pod, "/metadata/uid"), text(body, "/deleteOptions/preconditions/uid"));
    if !wanted.is_empty() && wanted != uid {
        return (Answer::precondition(Kind::Pod, &key.name, "UID", wanted, uid), false);
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
    (Answer::success(201, Value::Null), !was_terminating && !is_dry)
}

fn list_has_all(body: &Value) -> bool {
    super::object::list(body, "/deleteOptions/dryRun").iter().any(|v| v == "All")
}

fn budget_refusal(state: &State, key: &Key, pod: &Value) -> Option<Answer> {
    let budgets: Vec<&Value> = state
        .keys(Kind::DisruptionBudget, &key.namespace)
        .map(|(_, budget)| budget.as_ref())
        .filter(|budget| Selector::from_object(&budget["spec"]["selector"]).matches(&pod["metadata"]["labels"]))
        .collect();
    let budget = match budgets.as_slice() {
        [] => return None,
        [one] => *one,
        _ => {
            let message =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Some(Answer::refusal(500, "", message, Value::Null));
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
        Answer::refusal(429, "TooManyRequests", message, details)
    })
}
