//! A warm as a Job of Kubernetes: for nodes that no agent serves.
//!
//! Invariant: one step makes one Job, whose name is derived from it; it is found again after a crash, and deleted only when
//! the run is cancelled.

use super::super::PerformResult;
use super::super::answer::{ActionResult, done, failed, patient, poll, waited};
use super::super::args;
use crate::limits;
use crate::model::{ActionCall, FailureKind, Span, Step, StepFailure};
use crate::world::{CacheJob, Job, JobPod, World, WorldError};
use serde_json::{Value, json};
use std::path::{Component, Path};

/// A Job's own mark: the installation, run and step that it was made for.
const STEP: &str = "nightshift.dev/step";
/// On the pod, the Job's name.
const LABEL: &str = "nightshift.dev/job";

/// The settings of Jobs.
pub(super) fn settings(world: &World) -> ActionResult<&CacheJob> {
    world.kube(None)?.cache_job().ok_or_else(|| {
        let what = "cache::warm: `via` requests a Job, and Jobs are not configured: add `cache_job` to the cluster in the \
                    configuration (docs/caches.md), or run the agent on that node";
        StepFailure::new(FailureKind::Refused, what).into()
    })
}

pub(super) async fn perform(world: &World, step: &Step, within: Span) -> ActionResult<PerformResult> {
    let (kube, settings) = (world.kube(None)?, settings(world)?);
    let (name, owner) = (name(world, step), owner(world, step));
    let (gone, space) = (waited(world, step), settings.namespace.as_str());
    let most = Span(within.0 + limits::CACHE_JOB_SLACK);
    let (node, key) = (args::text(&step.call, "node")?, step.command_key());
    let carry = |pod: Option<&str>, progress: &Value| {
        let job = format!("{space}/{name}");
        let mut carry = json!({ "route": "job", "job": job, "made": true, "pod": pod });
        if !progress.is_null() {
            carry["progress"] = progress.clone();
        }
        carry
    };
    let job = match kube.job(space, &name).await {
        Ok(job) => job,
        Err(WorldError::NotFound(_)) if step.carry["made"] == true => {
            let what = format!("Job {space}/{name} is gone: it was deleted, or it ended long ago");
            return Ok(PerformResult::Done(failed(FailureKind::NotFound, what)));
        }
        Err(WorldError::NotFound(_)) => {
            let job = manifest(settings, &step.call, &name, &owner, within)?;
            // Made already by an attempt whose answer was lost: a conflict, and the next attempt finds it.
            kube.create_job(space, &name, &job).await?
        }
        Err(error) => return Ok(patient(error, gone, most, step.carry.clone())),
    };
    if job.annotations.get(STEP) != Some(&owner) {
        return Ok(PerformResult::Done(failed(FailureKind::Conflict, foreign(&job, space, &name))));
    }
    let pods = match kube.pods_of_job(space, LABEL, &name).await {
        Ok(pods) => pods,
        Err(error) => return Ok(patient(error, gone, most, carry(None, &Value::Null))),
    };
    let last = pods.last();
    if let Some(ended) = ended(&job, space, &name, last) {
        world.agents.elsewhere(&key, node, &step.call.action, Value::Null);
        return Ok(ended);
    }
    if last.is_none() && gone >= limits::CACHE_JOB_POD {
        let what = format!(
            "Job {space}/{name} has no pod after {}: a quota or the namespace's pod security keeps it from having one (a \
             host_path needs `pod-security.kubernetes.io/enforce: privileged`); see `kubectl --namespace {space} describe \
             job {name}`",
            Span(limits::CACHE_JOB_POD)
        );
        return Ok(PerformResult::Done(failed(FailureKind::Refused, what)));
    }
    let progress = match last.filter(|pod| pod.phase == "Running") {
        Some(pod) => progress(kube.last_line(space, &pod.name).await),
        None => Value::Null,
    };
    let doing = progress["doing"].as_str().unwrap_or_default();
    let why = match last {
        None => format!("Job {space}/{name} has no pod yet"),
        Some(pod) => match [pod.why.as_str(), doing].into_iter().find(|words| !words.is_empty()) {
            None => format!("pod {space}/{} is {}", pod.name, pod.phase),
            Some(words) => format!("pod {space}/{} is {}: {words}", pod.name, pod.phase),
        },
    };
    if gone >= most.0 {
        return Ok(PerformResult::Done(failed(FailureKind::Timeout, format!("not done within {most}: {why}"))));
    }
    if !progress.is_null() {
        world.agents.elsewhere(&key, node, &step.call.action, progress.clone());
    }
    Ok(poll(gone, why, carry(last.map(|pod| pod.name.as_str()), &progress)))
}

/// The run was cancelled: the Job is deleted if it is still at work, and its pod receives the signal to end.
pub(super) async fn stop(world: &World, step: &Step, within: Span) -> ActionResult<PerformResult> {
    let (kube, settings) = (world.kube(None)?, settings(world)?);
    let (name, space) = (name(world, step), settings.namespace.as_str());
    let most = Span(within.0 + limits::CACHE_JOB_SLACK);
    let gone = waited(world, step);
    let cancelled =
        |what: String| Ok(PerformResult::Done(failed(FailureKind::Refused, format!("the run was cancelled: {what}"))));
    let job = match kube.job(space, &name).await {
        Ok(job) => job,
        // An attempt that a crash cut off may still make it.
        Err(WorldError::NotFound(_)) if step.carry["made"] != true && world.clock.now() < step.deadline => {
            let why = format!("Job {space}/{name} may still come to be");
            return Ok(PerformResult::Again { after: limits::CANCEL_AGAIN, why, carry: Value::Null });
        }
        Err(WorldError::NotFound(_)) => return cancelled(format!("Job {space}/{name} is not there")),
        Err(error) => return Ok(patient(error, gone, most, Value::Null)),
    };
    let owner = owner(world, step);
    if job.annotations.get(STEP) != Some(&owner) {
        return Ok(PerformResult::Done(failed(FailureKind::Conflict, foreign(&job, space, &name))));
    }
    if job.complete || job.failed.is_some() {
        let pods = match kube.pods_of_job(space, LABEL, &name).await {
            Ok(pods) => pods,
            Err(error) => return Ok(patient(error, gone, most, Value::Null)),
        };
        if let Some(ended) = ended(&job, space, &name, pods.last()) {
            return Ok(ended);
        }
    }
    match kube.delete_job(space, &name, &job.uid).await {
        Ok(()) | Err(WorldError::NotFound(_)) => {}
        Err(error) => return Ok(patient(error, gone, most, Value::Null)),
    }
    world.agents.elsewhere(&step.command_key(), args::text(&step.call, "node")?, &step.call.action, Value::Null);
    cancelled(format!("Job {space}/{name} was deleted, and the pages it has read stay in memory"))
}

/// How the Job ended, if it has.
fn ended(job: &Job, space: &str, name: &str, pod: Option<&JobPod>) -> Option<PerformResult> {
    if job.complete {
        return Some(done(report(&format!("{space}/{name}"), pod)));
    }
    let (reason, message) = job.failed.as_ref()?;
    Some(PerformResult::Done(failure(space, name, reason, message, pod)))
}

/// The progress in the pod's last line; an older image writes words, which are no figures.
fn progress(line: Option<String>) -> Value {
    let said: Option<Value> = line.and_then(|line| serde_json::from_str(&line).ok());
    said.filter(|said| said["doing"].is_string() && said["bytes"].is_u64()).unwrap_or_default()
}

fn foreign(job: &Job, space: &str, name: &str) -> String {
    let whose = job.annotations.get(STEP).map_or("no owner it names", String::as_str);
    format!("Job {space}/{name} belongs to {whose}, not to this step; it is left alone")
}

/// The installation, the run and the step; a store that was made anew begins to count at 1 again, so the time is in it.
fn owner(world: &World, step: &Step) -> String {
    format!("{} {} step {} of {}", world.identity, step.run, step.no, step.begun_at)
}

fn name(world: &World, step: &Step) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(owner(world, step).as_bytes());
    let short = hex::encode(&digest[..4]);
    format!("nightshift-warm-{}-{}-{short}", step.run, step.no)
}

/// The folders of a call, as the container sees them.
fn folders(settings: &CacheJob, call: &ActionCall) -> Result<Vec<String>, StepFailure> {
    let given = call.args.get("models").unwrap_or(&Value::Null);
    let list = match given {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    if list.is_empty() || list.len() > limits::CACHE_MODELS {
        let most = limits::CACHE_MODELS;
        return Err(args::invalid(format!("cache::warm: {} models; name 1 to {most}", list.len())));
    }
    let mut folders = Vec::new();
    for item in list {
        let path = match item {
            Value::Object(model) => model.get("path").unwrap_or(&Value::Null),
            other => other,
        };
        let path = path.as_str().filter(|path| !path.contains('\0') && path.len() <= limits::PATH_BYTES);
        let path = path.ok_or_else(|| args::invalid(format!("cache::warm: {item} is no path, and has none")))?;
        let (asked, root) = (Path::new(path), settings.folder());
        if !asked.starts_with(root) || asked.components().any(|part| part == Component::ParentDir) {
            let what = format!(
                "{path} is outside {}, which is where the Job sees models (`cache_job` in the configuration)",
                root.display()
            );
            return Err(StepFailure::new(FailureKind::Refused, what));
        }
        if !folders.iter().any(|folder| folder == path) {
            folders.push(path.to_owned());
        }
    }
    Ok(folders)
}

fn manifest(
    settings: &CacheJob,
    call: &ActionCall,
    name: &str,
    owner: &str,
    within: Span,
) -> Result<Value, StepFailure> {
    let root = settings.folder().display().to_string();
    let mut command = vec!["cache".to_owned(), "warm".to_owned()];
    command.extend(folders(settings, call)?);
    command.extend(["--root".to_owned(), root.clone(), "--within".to_owned(), within.to_string()]);
    command.extend([
        "--report".to_owned(),
        "/dev/termination-log".to_owned(),
        "--output".to_owned(),
        "json".to_owned(),
    ]);
    if let Some(rate) = call.args.get("mib_per_second").and_then(Value::as_u64) {
        command.extend(["--mib-per-second".to_owned(), rate.to_string()]);
    }
    let volume = match (&settings.host_path, &settings.claim) {
        (Some(path), _) => json!({ "name": "models", "hostPath": { "path": path, "type": "Directory" } }),
        (None, claim) => json!({ "name": "models", "persistentVolumeClaim": { "claimName": claim, "readOnly": true } }),
    };
    let mut resources = json!({ "requests": { "cpu": "100m", "memory": "64Mi" } });
    if let Some(limit) = &settings.memory_limit {
        resources["limits"] = json!({ "memory": limit });
    }
    let labels = json!({ "app.kubernetes.io/managed-by": "nightshift", "app.kubernetes.io/component": "cache-warm" });
    let mut pod_labels = labels.clone();
    pod_labels[LABEL] = json!(name);
    let container = json!({
        "name": "warm", "image": settings.image, "args": command, "resources": resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{ "name": "models", "mountPath": root, "readOnly": true }],
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        },
    });
    let here = json!([{ "key": "metadata.name", "operator": "In", "values": [args::text(call, "node")?] }]);
    let secrets: Vec<Value> = settings.pull_secrets.iter().map(|name| json!({ "name": name })).collect();
    let pod = json!({
        "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 10, "imagePullSecrets": secrets,
        "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchFields": here }],
        } } },
        // GPU nodes keep others away by a taint; one that also throws pods out is respected.
        "tolerations": [{ "operator": "Exists", "effect": "NoSchedule" }],
        "securityContext": {
            "runAsNonRoot": settings.user != 0, "runAsUser": settings.user, "runAsGroup": settings.user,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container], "volumes": [volume],
    });
    Ok(json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": name, "namespace": settings.namespace, "labels": labels, "annotations": { STEP: owner },
        },
        "spec": {
            "backoffLimit": 0, "completions": 1, "parallelism": 1, "activeDeadlineSeconds": within.0.as_secs().max(1),
            "ttlSecondsAfterFinished": limits::CACHE_JOB_KEPT.as_secs(),
            "template": { "metadata": { "labels": pod_labels }, "spec": pod },
        },
    }))
}

/// As the agent answers, with the Job beside it. Words that are lost cost the figures, not the success.
fn report(job: &str, pod: Option<&JobPod>) -> Value {
    let said: Value = pod.and_then(|pod| serde_json::from_str(&pod.said).ok()).unwrap_or_default();
    let mut value = match said {
        Value::Object(map) if map.contains_key("resident") => Value::Object(map),
        _ => {
            json!({ "changed": true, "remarks": ["the pod's final output is lost: only its successful exit is known"] })
        }
    };
    value["via"] = json!("job");
    value["job"] = json!(job);
    value
}

/// Why it failed, in the pod's own words if it left any.
fn failure(space: &str, name: &str, reason: &str, message: &str, pod: Option<&JobPod>) -> crate::model::Outcome {
    let said = pod.map(|pod| pod.said.trim()).unwrap_or_default();
    let own = serde_json::from_str::<Value>(said)
        .ok()
        .and_then(|said| serde_json::from_value::<StepFailure>(said["failed"].clone()).ok());
    if let Some(own) = own {
        return failed(own.kind, format!("{} (Job {space}/{name})", own.message));
    }
    let kind = if reason == "DeadlineExceeded" { FailureKind::Timeout } else { FailureKind::Unavailable };
    let of_pod = match pod {
        None => String::new(),
        Some(pod) => {
            let exit = pod.exit.map(|code| format!(" exit {code}")).unwrap_or_default();
            let words: String =
                said.chars().rev().take(limits::REASON_CHARS).collect::<Vec<_>>().into_iter().rev().collect();
            format!("; pod {}:{exit} {} {words}", pod.name, pod.why).trim_end().to_owned()
        }
    };
    failed(kind, format!("Job {space}/{name} failed: {reason}: {message}{of_pod}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Outcome;

    fn settings() -> CacheJob {
        CacheJob {
            namespace: "night".to_owned(),
            image: "r/nightshift:1".to_owned(),
            host_path: Some("/models".into()),
            ..CacheJob::default()
        }
    }

    fn call(models: Value) -> ActionCall {
        ActionCall::new("cache::warm", [("models", models), ("node", json!("gpu-7"))])
    }

    #[test]
    fn a_job_reads_one_folder_on_one_node_and_can_do_nothing_else() {
        let job = manifest(
            &settings(),
            &call(json!(["/models/a", { "path": "/models/b" }, "/models/a"])),
            "w",
            "o",
            Span::minutes(5),
        );
        let job = job.unwrap();
        let pod = &job["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(
            container["args"],
            json!([
                "cache",
                "warm",
                "/models/a",
                "/models/b",
                "--root",
                "/models",
                "--within",
                "5m",
                "--report",
                "/dev/termination-log",
                "--output",
                "json"
            ])
        );
        assert_eq!(container["volumeMounts"], json!([{ "name": "models", "mountPath": "/models", "readOnly": true }]));
        assert_eq!(
            pod["volumes"],
            json!([{ "name": "models", "hostPath": { "path": "/models", "type": "Directory" } }])
        );
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(container["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert!(container["resources"].get("limits").is_none(), "what is read would count against it");
        assert_eq!(job["spec"]["activeDeadlineSeconds"], 300);
        let claimed = CacheJob {
            host_path: None,
            claim: Some("weights".to_owned()),
            memory_limit: Some("9Gi".to_owned()),
            ..settings()
        };
        let job = manifest(&claimed, &call(json!("/models/a")), "w", "o", Span::minutes(5)).unwrap();
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["volumes"][0]["persistentVolumeClaim"], json!({ "claimName": "weights", "readOnly": true }));
        assert_eq!(pod["containers"][0]["resources"]["limits"], json!({ "memory": "9Gi" }));
    }

    #[test]
    fn folders_elsewhere_and_things_that_are_none_are_refused() {
        for (models, kind) in [
            (json!("/etc"), FailureKind::Refused),
            (json!("/models/../etc"), FailureKind::Refused),
            (json!("/modelsx/a"), FailureKind::Refused),
            (json!([]), FailureKind::Invalid),
            (json!(7), FailureKind::Invalid),
            (json!([{ "model": "a" }]), FailureKind::Invalid),
            (json!(vec!["/models/a"; 65]), FailureKind::Invalid),
        ] {
            assert_eq!(folders(&settings(), &call(models.clone())).unwrap_err().kind, kind, "{models}");
        }
    }

    #[test]
    fn a_failure_is_told_in_the_pods_own_words() {
        let said = |said: &str, why: &str| JobPod {
            name: "w-x".to_owned(),
            exit: Some(1),
            said: said.to_owned(),
            why: why.to_owned(),
            ..JobPod::default()
        };
        let check = |reason: &str, pod: Option<&JobPod>, kind: FailureKind, words: &str| {
            let Outcome::Failed(failure) = failure("night", "w", reason, "more", pod) else { panic!() };
            assert!(failure.kind == kind && failure.message.contains(words), "{failure:?}");
        };
        let own = said(r#"{"failed":{"kind":"invalid","message":"a shard lacks a byte"}}"#, "Error");
        check("BackoffLimitExceeded", Some(&own), FailureKind::Invalid, "a shard lacks a byte (Job night/w)");
        check(
            "BackoffLimitExceeded",
            Some(&said("killed", "OOMKilled")),
            FailureKind::Unavailable,
            "exit 1 OOMKilled killed",
        );
        check("DeadlineExceeded", None, FailureKind::Timeout, "Job night/w failed: DeadlineExceeded: more");
    }
}
