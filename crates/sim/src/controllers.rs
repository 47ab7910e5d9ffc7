//! The fleet's own will: timers, nodes, the scheduler and the lives of pods, run lazily before each request.
//!
//! Invariant: `settle` ends only when no controller changes anything more at this time.

use super::object::{ObjectKey, ObjectKind, condition, gpus_wanted, is_terminating, list, number, set_condition, text};
use super::state::{FleetState, FleetTimer, SchedulerNode, gpus};
use super::{jobs, workloads};
use crate::model::Time;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

/// Taints of a silent node are tolerated so long by ordinary pods, as on a real cluster.
const NOT_READY_TOLERATED: Duration = Duration::from_secs(300);

/// Lets everything happen that happens by itself until `now`.
pub(super) fn settle(state: &mut FleetState, now: Time) {
    loop {
        work(state);
        let Some((at, _)) = state.timers.first_key_value().map(|(key, _)| *key).filter(|(at, _)| *at <= now) else {
            break;
        };
        state.now = at;
        // Everything due at this instant, then the controllers once.
        while let Some(entry) = state.timers.first_entry().filter(|e| e.key().0 <= at) {
            let timer = entry.remove();
            fire(state, timer);
        }
    }
    state.now = now;
}

fn work(state: &mut FleetState) {
    loop {
        if let Some(key) = state.dirty.pop_first() {
            match key.kind {
                ObjectKind::Node => node(state, &key),
                ObjectKind::Deployment => workloads::deployment(state, &key),
                ObjectKind::StatefulSet => workloads::stateful_set(state, &key),
                ObjectKind::DaemonSet => workloads::daemon_set(state, &key),
                ObjectKind::Job => jobs::job(state, &key),
                _ => {}
            }
        } else if std::mem::take(&mut state.room) {
            schedule(state);
        } else {
            return;
        }
    }
}

fn fire(state: &mut FleetState, timer: FleetTimer) {
    match timer {
        FleetTimer::PodStarts(key, uid) => {
            if state.get(&key).is_some_and(|pod| text(pod, "/metadata/uid") == uid && !is_terminating(pod)) {
                start(state, &key);
                jobs::started(state, &key);
            }
        }
        FleetTimer::PodEnds(key, uid) => {
            if state.get(&key).is_some_and(|pod| text(pod, "/metadata/uid") == uid && !is_terminating(pod)) {
                jobs::pod_ends(state, &key);
            }
        }
        FleetTimer::JobLate(key, uid) => jobs::late(state, &key, &uid),
        FleetTimer::JobForgotten(key, uid) => jobs::forget(state, &key, &uid),
        FleetTimer::PodGone(key, uid) => {
            let Some(pod) = state.get(&key) else { return };
            // A silent kubelet confirms nothing: the pod stays until the node is back or its deletion is forced.
            let is_heard = !state.health.not_ready.contains(text(pod, "/spec/nodeName"));
            if text(pod, "/metadata/uid") == uid && is_heard {
                state.remove(&key);
            }
        }
        FleetTimer::NodeLost(name) => {
            if state.health.not_ready.contains(&name) {
                for key in state.pods_on.get(&name).cloned().unwrap_or_default() {
                    if !is_daemon(state, &key) {
                        terminate(state, &key, None);
                    }
                }
            }
        }
        FleetTimer::MigSettles(name, config) => super::mig::settles(state, &name, &config),
        FleetTimer::Heals(name) => {
            state.health.healing.remove(&name);
            if may_heal(state, &name) {
                repair(state, &name, None);
            }
            state.dirty.insert(ObjectKey::node(&name));
        }
    }
}

/// Node lifecycle, device plugin and self-repair in one.
fn node(state: &mut FleetState, key: &ObjectKey) {
    let Some(old) = state.get(key) else { return };
    let was_ready = condition(old, "Ready");
    let is_ready = !state.health.not_ready.contains(&key.name);
    let out = state.health.gpus_out(&key.name);
    let now = state.stamp();
    state.edit(key, |node| {
        let unschedulable = node.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or_default();
        taint(node, "node.kubernetes.io/unschedulable", "NoSchedule", unschedulable, &now);
        taint(node, "node.kubernetes.io/unreachable", "NoSchedule", !is_ready, &now);
        taint(node, "node.kubernetes.io/unreachable", "NoExecute", !is_ready, &now);
        if was_ready != is_ready {
            let (word, reason) = if is_ready { ("True", "KubeletReady") } else { ("Unknown", "NodeStatusUnknown") };
            set_condition(node, "Ready", word, reason, &now);
        }
        let capacity = gpus(node, "/status/capacity/nvidia.com~1gpu");
        if capacity > 0 {
            node["status"]["allocatable"]["nvidia.com/gpu"] = capacity.saturating_sub(out).to_string().into();
        }
    });
    super::mig::look(state, &key.name);
    if was_ready != is_ready {
        readiness_changed(state, &key.name, is_ready);
    }
    let wait = state.options.self_heal;
    if let Some(wait) = wait.filter(|_| may_heal(state, &key.name) && !state.health.healing.contains(&key.name)) {
        state.health.healing.insert(key.name.clone());
        state.after(wait, FleetTimer::Heals(key.name.clone()));
    }
}

fn taint(node: &mut Value, key: &str, effect: &str, wanted: bool, now: &str) {
    let is_it = |t: &Value| text(t, "/key") == key && text(t, "/effect") == effect;
    let mut taints = list(node, "/spec/taints").to_vec();
    match (taints.iter().any(is_it), wanted) {
        (false, true) => taints.push(json!({"key": key, "effect": effect, "timeAdded": now})),
        (true, false) => taints.retain(|t| !is_it(t)),
        _ => return,
    }
    node["spec"]["taints"] = taints.into();
    super::api::tidy_node(node);
}

fn readiness_changed(state: &mut FleetState, node: &str, is_ready: bool) {
    if !is_ready {
        state.after(NOT_READY_TOLERATED, FleetTimer::NodeLost(node.to_owned()));
    }
    let now = state.stamp();
    for key in state.pods_on.get(node).cloned().unwrap_or_default() {
        let Some(pod) = state.get(&key) else { continue };
        let uid = text(pod, "/metadata/uid").to_owned();
        match (is_ready, is_terminating(pod), text(pod, "/status/phase")) {
            (true, true, _) => state.after(state.options.pod_stops_after, FleetTimer::PodGone(key, uid)),
            (true, false, "Pending") => state.after(state.options.pod_ready_after, FleetTimer::PodStarts(key, uid)),
            (true, false, _) => {
                state.edit(&key, |pod| set_condition(pod, "Ready", "True", "", &now));
            }
            (false, _, _) => {
                state.edit(&key, |pod| set_condition(pod, "Ready", "False", "", &now));
            }
        }
    }
}

/// A node repairs itself only when it is out of service and nothing uses its GPUs.
fn may_heal(state: &FleetState, node: &str) -> bool {
    let is_cordoned = state.seats.get(node).is_some_and(|seat| !seat.schedulable);
    let is_silent = state.health.not_ready.contains(node);
    let is_empty = state.seats.get(node).is_some_and(|seat| seat.slots.iter().all(Option::is_none));
    is_cordoned && (is_silent || is_empty) && state.health.is_ill(node)
}

/// Ends the illness of a node, or of one GPU. A whole node reboots: its boot id changes.
pub(super) fn repair(state: &mut FleetState, node: &str, gpu: Option<u32>) {
    state.health.gpus.retain(|(n, g), _| n != node || gpu.is_some_and(|gpu| gpu != *g));
    let key = ObjectKey::node(node);
    if gpu.is_none() {
        state.health.not_ready.remove(node);
        state.health.stale_weights.retain(|(n, _)| n != node);
        let boot = state.uid();
        state.edit(&key, |node| node["status"]["nodeInfo"]["bootID"] = boot.into());
    }
    state.dirty.insert(key);
}

fn is_daemon(state: &FleetState, key: &ObjectKey) -> bool {
    let pod = state.get(key);
    pod.is_some_and(|pod| {
        super::object::controller(pod).is_some_and(|(kind, _)| kind == ObjectKind::DaemonSet)
            || pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some()
    })
}

/// Seats every waiting pod that fits somewhere: on the node with the most free GPUs, of equals the first by name, so that
/// the same fleet is always laid out alike.
fn schedule(state: &mut FleetState) {
    let open = state.seats.iter().filter(|(_, seat)| seat.ready && seat.schedulable);
    let mut order: BTreeSet<(Reverse<u32>, String)> =
        open.map(|(name, seat)| (Reverse(seat.free()), name.clone())).collect();
    for key in state.unscheduled.clone() {
        let Some(pod) = state.get(&key) else { continue };
        let wanted = gpus_wanted(pod);
        let tolerated: Vec<&str> = list(pod, "/spec/tolerations").iter().map(|t| text(t, "/key")).collect();
        let pin = jobs::pinned(pod);
        let is_welcome = |name: &str| {
            // A toleration without a key is one of all.
            let suffers = |taint: &String| tolerated.contains(&"") || tolerated.contains(&taint.as_str());
            pin.is_none_or(|pin| pin == name) && state.seats.get(name).is_some_and(|s| s.taints.iter().all(suffers))
        };
        let best = order.iter().take_while(|(free, _)| free.0 >= wanted).find(|(_, name)| is_welcome(name)).cloned();
        if let Some(seat) = best {
            order.remove(&seat);
            let node = seat.1;
            bind(state, &key, &node);
            let free = state.seats.get(&node).map_or(0, SchedulerNode::free);
            order.insert((Reverse(free), node));
        } else {
            let now = state.stamp();
            state.edit(&key, |pod| set_condition(pod, "PodScheduled", "False", "Unschedulable", &now));
        }
        // Binding and marking are no new room.
        state.room = false;
    }
}

/// Puts a pod on a node; it is up a little later.
pub(super) fn bind(state: &mut FleetState, key: &ObjectKey, node: &str) {
    let Some(pod) = state.get(key).cloned() else { return };
    state.occupy(key, &pod, node);
    let now = state.stamp();
    state.edit(key, |pod| {
        pod["spec"]["nodeName"] = node.into();
        set_condition(pod, "PodScheduled", "True", "", &now);
    });
    if state.is_building {
        start(state, key);
    } else {
        state.after(
            state.options.pod_ready_after,
            FleetTimer::PodStarts(key.clone(), text(&pod, "/metadata/uid").into()),
        );
    }
}

fn start(state: &mut FleetState, key: &ObjectKey) {
    let now = state.stamp();
    let Some(node) = state.get(key).map(|pod| text(pod, "/spec/nodeName").to_owned()) else { return };
    if state.health.not_ready.contains(&node) {
        return;
    }
    state.edit(key, |pod| {
        pod["status"]["phase"] = "Running".into();
        // The whole fleet is on this machine, and so is a server that a test lets a pod run.
        pod["status"]["podIP"] = "127.0.0.1".into();
        pod["status"]["startTime"] = now.clone().into();
        pod["status"]["containerStatuses"] = list(pod, "/spec/containers")
            .iter()
            .map(|c| {
                json!({"name": text(c, "/name"), "image": text(c, "/image"), "imageID": "", "ready": true, "started": true,
                    "restartCount": 0, "state": {"running": {"startedAt": now}}})
            })
            .collect();
        set_condition(pod, "Ready", "True", "", &now);
    });
}

/// Begins the end of a pod, as a DELETE does. `grace` in seconds; the pod's own if none.
pub(super) fn terminate(state: &mut FleetState, key: &ObjectKey, grace: Option<i64>) {
    let Some(pod) = state.get(key) else { return };
    let own = number(pod, "/spec/terminationGracePeriodSeconds");
    let was = pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    let grace = grace.unwrap_or(own).max(0);
    let grace = was.map_or(grace, |was| was.min(grace));
    if grace == 0 || text(pod, "/spec/nodeName").is_empty() {
        state.remove(key);
        return;
    }
    if was == Some(grace) {
        return;
    }
    let uid = text(pod, "/metadata/uid").to_owned();
    let whole = Duration::from_secs(grace.unsigned_abs());
    let end = (state.now + whole).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    state.edit(key, |pod| {
        pod["metadata"]["deletionTimestamp"] = end.into();
        pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    });
    state.after(state.options.pod_stops_after.min(whole), FleetTimer::PodGone(key.clone(), uid));
}
