//! Jobs of the simulated fleet: one pod each, on the node that it names, which ends as the test has set.
//!
//! Invariant: a Job that has ended stays as it is until its time to be kept is over.

use super::controllers::terminate;
use super::object::{
    ObjectKey, ObjectKind, condition, list, number, owner_reference, set_condition, short_hash, text, texts,
};
use super::state::{FleetState, FleetTimer};
use serde_json::{Value, json};
use std::time::Duration;

/// The time that a pod of a Job takes, once it runs.
const TAKES: Duration = Duration::from_secs(5);

/// How the next Jobs' pods end: with this code and these last words; or never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JobEnding {
    Exit(i64, String),
    Never,
}

pub(super) fn job(state: &mut FleetState, key: &ObjectKey) {
    let pods: Vec<ObjectKey> = state.owned.get(key).into_iter().flatten().cloned().collect();
    let Some(object) = state.get(key).cloned() else {
        pods.iter().for_each(|pod| terminate(state, pod, None));
        return;
    };
    if condition(&object, "Complete") || condition(&object, "Failed") {
        return;
    }
    let phase = |state: &FleetState, pod: &ObjectKey| state.get(pod).map(|pod| text(pod, "/status/phase").to_owned());
    match pods.first() {
        None => begin(state, key, &object),
        Some(pod) => match phase(state, pod).as_deref() {
            Some("Succeeded") => end(state, key, "Complete", "CompletionsReached", ""),
            Some("Failed") => {
                end(state, key, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit");
            }
            _ => {}
        },
    }
}

fn begin(state: &mut FleetState, key: &ObjectKey, job: &Value) {
    if let Some(seconds) = job.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_u64) {
        let uid = text(job, "/metadata/uid").to_owned();
        state.after(Duration::from_secs(seconds), FleetTimer::JobLate(key.clone(), uid));
    }
    let template = &job["spec"]["template"];
    let suffix = short_hash(&format!("{}{}", key.name, state.version));
    let mut labels = texts(template, "/metadata/labels");
    labels.insert("batch.kubernetes.io/job-name".to_owned(), key.name.clone());
    let mut pod = json!({
        "metadata": {
            "name": format!("{}-{}", key.name, &suffix[..5]), "namespace": key.namespace, "uid": state.uid(),
            "creationTimestamp": state.stamp(), "labels": labels, "ownerReferences": owner_reference(ObjectKind::Job, job),
        },
        "spec": template["spec"],
        "status": { "phase": "Pending", "conditions": [], "qosClass": "Burstable" },
    });
    if number(&pod, "/spec/terminationGracePeriodSeconds") == 0 {
        pod["spec"]["terminationGracePeriodSeconds"] = 30.into();
    }
    state.put(ObjectKind::Pod, pod);
}

fn end(state: &mut FleetState, key: &ObjectKey, kind: &str, reason: &str, message: &str) {
    let now = state.stamp();
    state.edit(key, |job| {
        set_condition(job, kind, "True", reason, &now);
        if let Some(conditions) = job["status"]["conditions"].as_array_mut() {
            conditions.iter_mut().filter(|one| one["type"] == kind).for_each(|one| one["message"] = message.into());
        }
    });
    let Some(job) = state.get(key) else { return };
    let uid = text(job, "/metadata/uid").to_owned();
    if let Some(seconds) = job.pointer("/spec/ttlSecondsAfterFinished").and_then(Value::as_u64) {
        state.after(Duration::from_secs(seconds), FleetTimer::JobForgotten(key.clone(), uid));
    }
}

/// The pod of a Job runs; it will end by itself.
pub(super) fn started(state: &mut FleetState, key: &ObjectKey) {
    let Some(pod) = state.get(key) else { return };
    let of_job = super::object::controller(pod).is_some_and(|(kind, _)| kind == ObjectKind::Job);
    if of_job && state.health.jobs != Some(JobEnding::Never) {
        let uid = text(pod, "/metadata/uid").to_owned();
        state.after(TAKES, FleetTimer::PodEnds(key.clone(), uid));
    }
}

pub(super) fn pod_ends(state: &mut FleetState, key: &ObjectKey) {
    let Some(pod) = state.get(key) else { return };
    let (code, words) = match state.health.jobs.clone() {
        Some(JobEnding::Exit(code, words)) => (code, words),
        Some(JobEnding::Never) => return,
        None => (0, report(pod).to_string()),
    };
    let now = state.stamp();
    state.edit(key, |pod| {
        pod["status"]["phase"] = if code == 0 { "Succeeded" } else { "Failed" }.into();
        let reason = if code == 0 { "Completed" } else { "Error" };
        let ended = json!({ "exitCode": code, "reason": reason, "message": words, "finishedAt": now });
        if let Some(containers) = pod["status"]["containerStatuses"].as_array_mut() {
            for container in containers {
                container["ready"] = false.into();
                container["state"] = json!({ "terminated": ended });
            }
        }
        set_condition(pod, "Ready", "False", "PodCompleted", &now);
    });
}

/// The log that the container of a Job's pod writes while it reads; other pods write nothing.
pub(super) fn log(pod: &Value) -> String {
    let of_job = super::object::controller(pod).is_some_and(|(kind, _)| kind == ObjectKind::Job);
    if !of_job || text(pod, "/status/phase") != "Running" {
        return String::new();
    }
    let (bytes, done) = (1_u64 << 30, 1_u64 << 28);
    let doing = "reading: 25 % of 1.0 GiB";
    let line = json!({ "done_bytes": done, "bytes": bytes, "read_bytes": done, "percent": 25, "doing": doing });
    format!("{line}\n")
}

/// As `nightshift cache warm --report` writes it.
fn report(pod: &Value) -> Value {
    let args = list(pod, "/spec/containers/0/args");
    let folders = args.iter().filter_map(Value::as_str).skip(2).take_while(|arg| !arg.starts_with("--"));
    let models: Vec<Value> = folders
        .map(|path| json!({ "path": path, "resident_before": 0.0, "resident": 1.0, "charged_to": "/kubepods/warm" }))
        .collect();
    json!({ "changed": true, "resident": 1.0, "bytes": 1 << 30, "read_bytes": 1 << 30, "seconds": 5.0, "models": models })
}

pub(super) fn late(state: &mut FleetState, key: &ObjectKey, uid: &str) {
    let Some(job) = state.get(key).filter(|job| text(job, "/metadata/uid") == uid) else { return };
    if condition(job, "Complete") || condition(job, "Failed") {
        return;
    }
    for pod in state.owned.get(key).cloned().unwrap_or_default() {
        terminate(state, &pod, None);
    }
    end(state, key, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline");
}

pub(super) fn forget(state: &mut FleetState, key: &ObjectKey, uid: &str) {
    if state.get(key).is_some_and(|job| text(job, "/metadata/uid") == uid) {
        state.remove(key);
        state.dirty.insert(key.clone());
    }
}

/// The one node that a pod names, if it does.
pub(super) fn pinned(pod: &Value) -> Option<&str> {
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let fields = list(pod, terms).iter().flat_map(|term| list(term, "/matchFields"));
    fields.filter(|field| text(field, "/key") == "metadata.name").find_map(|field| field["values"][0].as_str())
}
