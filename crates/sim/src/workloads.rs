//! Deployments, StatefulSets and DaemonSets: how pods are replaced and rolled.
//!
//! Invariant: one pass makes the next few pods or ends the next few; the pods' changes call for the next pass.

use super::controllers::{bind, terminate};
use super::object::{
    ObjectKey, ObjectKind, condition, is_terminating, number, owner_reference, set_condition, short_hash, text, texts,
};
use super::state::FleetState;
use serde_json::{Value, json};

/// A pod of a workload that counts.
struct WorkloadPod {
    key: ObjectKey,
    ready: bool,
    fresh: bool,
}

pub(super) fn deployment(state: &mut FleetState, key: &ObjectKey) {
    let sets: Vec<ObjectKey> = state.owned.get(key).into_iter().flatten().cloned().collect();
    let Some(object) = state.get(key).cloned() else {
        for set in sets {
            for pod in state.owned.get(&set).cloned().unwrap_or_default() {
                terminate(state, &pod, None);
            }
            state.remove(&set);
        }
        return;
    };
    let hash = template_hash(&object);
    let fresh_set = ObjectKey::new(ObjectKind::ReplicaSet, &key.namespace, &format!("{}-{hash}", key.name));
    if !sets.contains(&fresh_set) {
        let set = replica_set(state, &object, &hash);
        state.put(ObjectKind::ReplicaSet, set);
    }
    let mut pods = Vec::new();
    for set in state.owned.get(key).cloned().unwrap_or_default() {
        pods.extend(live(state, &set, set == fresh_set));
    }
    let wanted = number(&object, "/spec/replicas").max(0);
    let (surge, unavailable) = rolling_limits(&object, wanted);
    let fresh = count(&pods, |p| p.fresh);
    let total = count(&pods, |_| true);
    let make = (wanted - fresh).min(wanted + surge - total).max(0);
    for _ in 0..make {
        make_replica(state, &fresh_set, &object, &hash);
    }
    let mut doomed = surplus(&pods, wanted, unavailable);
    // Those that are not ready go first; then the newest names, so that the choice is the same every time.
    doomed.sort_by(|a, b| a.key.cmp(&b.key));
    for pod in &doomed {
        terminate(state, &pod.key, None);
    }
    if make == 0 && doomed.is_empty() {
        deployment_status(state, key, &pods, wanted);
        set_status(state, &fresh_set, fresh, count(&pods, |p| p.fresh && p.ready));
    }
}

/// Which pods a rolling update or a smaller scale may end now.
fn surplus(pods: &[WorkloadPod], wanted: i64, unavailable: i64) -> Vec<&WorkloadPod> {
    let old: Vec<&WorkloadPod> = pods.iter().filter(|p| !p.fresh).collect();
    let total = count(pods, |_| true);
    let floor = wanted - unavailable;
    if old.is_empty() {
        let mut fresh: Vec<&WorkloadPod> = pods.iter().collect();
        fresh.sort_by_key(|p| (p.ready, std::cmp::Reverse(&p.key)));
        fresh.truncate(usize::try_from(total - wanted).unwrap_or_default());
        return fresh;
    }
    let cleanup = total - floor - count(pods, |p| p.fresh && !p.ready);
    let (ready, unready): (Vec<&WorkloadPod>, Vec<&WorkloadPod>) = old.into_iter().partition(|p| p.ready);
    let spare = count(pods, |p| p.ready) - floor;
    let broken = unready.into_iter().take(usize::try_from(cleanup).unwrap_or_default());
    broken.chain(ready.into_iter().take(usize::try_from(spare).unwrap_or_default())).collect()
}

fn count(pods: &[WorkloadPod], which: impl Fn(&WorkloadPod) -> bool) -> i64 {
    i64::try_from(pods.iter().filter(|p| which(p)).count()).unwrap_or(i64::MAX)
}

/// maxSurge (rounded up) and maxUnavailable (rounded down), as Kubernetes resolves them.
fn rolling_limits(object: &Value, wanted: i64) -> (i64, i64) {
    if text(object, "/spec/strategy/type") == "Recreate" {
        return (0, wanted);
    }
    let read = |field: &str| object.pointer(&format!("/spec/strategy/rollingUpdate/{field}")).cloned();
    let surge = amount(&read("maxSurge").unwrap_or(json!("25%")), wanted, RoundDirection::Up);
    let unavailable = amount(&read("maxUnavailable").unwrap_or(json!("25%")), wanted, RoundDirection::Down);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

#[derive(Clone, Copy)]
pub(super) enum RoundDirection {
    Up,
    Down,
}

/// An int-or-percent of a whole.
pub(super) fn amount(value: &Value, whole: i64, round: RoundDirection) -> i64 {
    let Some(percent) = value.as_str().and_then(|s| s.strip_suffix('%')).and_then(|s| s.parse::<i64>().ok()) else {
        return value.as_i64().unwrap_or_default();
    };
    match round {
        RoundDirection::Up => (percent * whole + 99) / 100,
        RoundDirection::Down => percent * whole / 100,
    }
}

fn deployment_status(state: &mut FleetState, key: &ObjectKey, pods: &[WorkloadPod], wanted: i64) {
    let (total, ready) = (count(pods, |_| true), count(pods, |p| p.ready));
    let updated = count(pods, |p| p.fresh);
    let now = state.stamp();
    state.edit(key, |object| {
        let mut status = json!({
            "observedGeneration": number(object, "/metadata/generation"),
            "replicas": total, "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": ready,
            "conditions": object["status"]["conditions"].take(),
        });
        if wanted > ready {
            status["unavailableReplicas"] = (wanted - ready).into();
        }
        // Zero counts are left out, as the real API does.
        if let Some(fields) = status.as_object_mut() {
            fields.retain(|name, value| name == "observedGeneration" || (!value.is_null() && *value != 0));
        }
        object["status"] = status;
        let (word, reason) = match ready >= wanted {
            true => ("True", "MinimumReplicasAvailable"),
            false => ("False", "MinimumReplicasUnavailable"),
        };
        set_condition(object, "Available", word, reason, &now);
        let done = updated == wanted && total == wanted && ready == wanted;
        let reason = if done { "NewReplicaSetAvailable" } else { "ReplicaSetUpdated" };
        set_condition(object, "Progressing", "True", reason, &now);
    });
}

fn set_status(state: &mut FleetState, key: &ObjectKey, total: i64, ready: i64) {
    state.edit(key, |object| {
        object["spec"]["replicas"] = total.into();
        object["status"] = json!({"replicas": total, "readyReplicas": ready, "availableReplicas": ready});
    });
}

pub(super) fn stateful_set(state: &mut FleetState, key: &ObjectKey) {
    let pods = live(state, key, true);
    let Some(object) = state.get(key).cloned() else {
        pods.iter().for_each(|pod| terminate(state, &pod.key, None));
        return;
    };
    let hash = template_hash(&object);
    let wanted = number(&object, "/spec/replicas").max(0);
    let revision = format!("{}-{hash}", key.name);
    let mut changed = false;
    for ordinal in 0..wanted {
        let pod_key = ObjectKey::new(ObjectKind::Pod, &key.namespace, &format!("{}-{ordinal}", key.name));
        if state.get(&pod_key).is_none() {
            let labels = [("controller-revision-hash", revision.as_str())];
            let pod = pod_of(state, &object, &pod_key.name, ObjectKind::StatefulSet, &object, &labels);
            changed |= state.put(ObjectKind::Pod, pod);
        }
    }
    let ordinal =
        |p: &WorkloadPod| p.key.name.rsplit_once('-').and_then(|(_, n)| n.parse::<i64>().ok()).unwrap_or_default();
    let is_old = |state: &FleetState, p: &WorkloadPod| {
        state.get(&p.key).is_some_and(|pod| text(pod, "/metadata/labels/controller-revision-hash") != revision)
    };
    let all_ready = count(&pods, |p| p.ready) >= wanted;
    for pod in pods.iter().filter(|p| ordinal(p) >= wanted) {
        terminate(state, &pod.key, None);
        changed = true;
    }
    // One at a time, the highest first, and only while all others stand.
    let next = pods.iter().filter(|p| is_old(state, p)).max_by_key(|p| (!p.ready, ordinal(p)));
    if let Some(pod) = next.filter(|p| all_ready || !p.ready) {
        terminate(state, &pod.key, None);
        changed = true;
    }
    if !changed {
        let updated = count(&pods, |p| !is_old(state, p));
        let (total, ready) = (count(&pods, |_| true), count(&pods, |p| p.ready));
        state.edit(key, |object| {
            object["status"] = json!({
                "observedGeneration": number(object, "/metadata/generation"), "replicas": total,
                "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": updated,
                "currentReplicas": total - updated, "updateRevision": revision,
            });
        });
    }
}

pub(super) fn daemon_set(state: &mut FleetState, key: &ObjectKey) {
    let pods = live(state, key, true);
    let Some(object) = state.get(key).cloned() else {
        pods.iter().for_each(|pod| terminate(state, &pod.key, None));
        return;
    };
    let wanted_labels = texts(&object, "/spec/template/spec/nodeSelector");
    let taken: std::collections::BTreeSet<String> = state
        .owned
        .get(key)
        .into_iter()
        .flatten()
        .filter_map(|pod| Some(text(state.get(pod)?, "/spec/nodeName").to_owned()))
        .collect();
    let nodes: Vec<String> = state
        .keys(ObjectKind::Node, "")
        .filter(|(node, _)| !taken.contains(&node.name))
        .filter(|(_, node)| wanted_labels.iter().all(|(k, v)| node["metadata"]["labels"][k] == v.as_str()))
        .map(|(node, _)| node.name.clone())
        .collect();
    for node in &nodes {
        let suffix = short_hash(&format!("{}{node}{}", key.name, state.version));
        let name = format!("{}-{}", key.name, &suffix[..5]);
        let pod = pod_of(state, &object, &name, ObjectKind::DaemonSet, &object, &[]);
        if state.put(ObjectKind::Pod, pod) {
            bind(state, &ObjectKey::new(ObjectKind::Pod, &key.namespace, &name), node);
        }
    }
    if nodes.is_empty() {
        let (total, ready) = (count(&pods, |_| true), count(&pods, |p| p.ready));
        state.edit(key, |object| {
            object["status"] = json!({
                "observedGeneration": number(object, "/metadata/generation"), "desiredNumberScheduled": total,
                "currentNumberScheduled": total, "numberReady": ready, "numberAvailable": ready, "numberMisscheduled": 0,
            });
        });
    }
}

/// The pods that an owner controls and that are neither ending nor over.
fn live(state: &FleetState, owner: &ObjectKey, fresh: bool) -> Vec<WorkloadPod> {
    let pods = state.owned.get(owner).into_iter().flatten();
    pods.filter_map(|key| {
        let pod = state.get(key)?;
        let over = is_terminating(pod) || matches!(text(pod, "/status/phase"), "Failed" | "Succeeded");
        (!over).then(|| WorkloadPod { key: key.clone(), ready: condition(pod, "Ready"), fresh })
    })
    .collect()
}

fn template_hash(object: &Value) -> String {
    short_hash(&object["spec"]["template"].to_string())
}

fn replica_set(state: &mut FleetState, deployment: &Value, hash: &str) -> Value {
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"]["pod-template-hash"] = hash.into();
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"]["pod-template-hash"] = hash.into();
    json!({
        "metadata": {
            "name": format!("{}-{hash}", text(deployment, "/metadata/name")),
            "namespace": deployment["metadata"]["namespace"],
            "uid": state.uid(),
            "creationTimestamp": state.stamp(),
            "generation": 1,
            "labels": template["metadata"]["labels"],
            "ownerReferences": owner_reference(ObjectKind::Deployment, deployment),
        },
        "spec": {"replicas": 0, "selector": selector, "template": template},
        "status": {"replicas": 0},
    })
}

fn make_replica(state: &mut FleetState, set: &ObjectKey, deployment: &Value, hash: &str) {
    let Some(owner) = state.get(set).cloned() else { return };
    let suffix = short_hash(&format!("{}{}", set.name, state.version));
    let name = format!("{}-{}", set.name, &suffix[..5]);
    let pod = pod_of(state, deployment, &name, ObjectKind::ReplicaSet, &owner, &[("pod-template-hash", hash)]);
    state.put(ObjectKind::Pod, pod);
}

/// A waiting pod from a workload's template.
fn pod_of(
    state: &mut FleetState,
    workload: &Value,
    name: &str,
    owner_kind: ObjectKind,
    owner: &Value,
    more_labels: &[(&str, &str)],
) -> Value {
    let template = &workload["spec"]["template"];
    let mut labels = template["metadata"]["labels"].clone();
    for (label, value) in more_labels {
        labels[*label] = (*value).into();
    }
    let mut pod = json!({
        "metadata": {
            "name": name,
            "namespace": workload["metadata"]["namespace"],
            "uid": state.uid(),
            "creationTimestamp": state.stamp(),
            "labels": labels,
            "ownerReferences": owner_reference(owner_kind, owner),
        },
        "spec": template["spec"],
        "status": {"phase": "Pending", "conditions": [], "qosClass": "Burstable"},
    });
    if let Some(annotations) = template["metadata"].get("annotations") {
        pod["metadata"]["annotations"] = annotations.clone();
    }
    if pod.pointer("/spec/terminationGracePeriodSeconds").is_none() {
        pod["spec"]["terminationGracePeriodSeconds"] = 30.into();
    }
    pod
}
