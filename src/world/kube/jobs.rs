//! Jobs: the one kind of object that we make, each under a name by which it is found again.
//!
//! Invariant: a Job is made, looked at, or deleted by its uid; nothing here changes one.

use super::{KubeClient, KubeRequest, WorldError, escape, segment};
use crate::limits;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// How `cache::warm` is done by a Job where no agent serves a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CacheJob {
    /// Where the Jobs are made, and no others of ours.
    pub namespace: String,
    /// An image with this program in it, as deploy/Containerfile builds it.
    pub image: String,
    /// The folder on every node that models lie in …
    pub host_path: Option<PathBuf>,
    /// … or the claim of a volume that many nodes may mount.
    pub claim: Option<String>,
    /// Where the container sees it; left out with `host_path`: under the same name, so that paths mean the same everywhere.
    pub mount: Option<PathBuf>,
    /// The owner of the models' files: to others the kernel does not show which pages are in memory.
    pub user: u32,
    /// `400Gi`; left out: no limit. Pages that are read count against it, so it must be larger than the models
    /// together.
    pub memory_limit: Option<String>,
    /// Secrets for the image's registry.
    pub pull_secrets: Vec<String>,
}

impl Default for CacheJob {
    fn default() -> Self {
        CacheJob {
            namespace: String::new(),
            image: String::new(),
            host_path: None,
            claim: None,
            mount: None,
            // As the image's own user.
            user: 65_532,
            memory_limit: None,
            pull_secrets: Vec::new(),
        }
    }
}

impl CacheJob {
    /// The folder as the container sees it.
    pub fn folder(&self) -> &Path {
        self.mount.as_deref().or(self.host_path.as_deref()).unwrap_or(Path::new("/models"))
    }
}

/// A Job as far as it matters to who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub name: String,
    pub uid: String,
    pub annotations: std::collections::BTreeMap<String, String>,
    pub complete: bool,
    /// Why it failed: `DeadlineExceeded`, `BackoffLimitExceeded`, and more words.
    pub failed: Option<(String, String)>,
}

/// A pod of a Job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobPod {
    pub name: String,
    pub phase: String,
    /// Why it does not run, or did not end well.
    pub why: String,
    pub exit: Option<i64>,
    /// The container's termination message.
    pub said: String,
}

impl KubeClient {
    /// How models are warmed by a Job here, if they may be.
    pub fn cache_job(&self) -> Option<&CacheJob> {
        self.cache_job.as_deref()
    }

    /// Makes a Job; `Conflict` if one of that name is there.
    ///
    /// # Errors
    ///
    /// Fails with `Conflict` when a Job of that name exists, or when the API server is not reached or refuses.
    pub async fn create_job(&self, namespace: &str, name: &str, job: &Value) -> Result<Job, WorldError> {
        let path = format!("{}?fieldManager={}", jobs(namespace)?, self.manager);
        let asked = KubeRequest::new("create", "batch", "jobs", name).within(namespace);
        let made: Value = self.write(asked, Method::POST, path, job).await?;
        Ok(read(&made))
    }

    /// A Job, as the API server has it now.
    ///
    /// # Errors
    ///
    /// Fails when there is no such Job, or the API server is not reached or refuses.
    pub async fn job(&self, namespace: &str, name: &str) -> Result<Job, WorldError> {
        let path = format!("{}/{}", jobs(namespace)?, segment("Job", name)?);
        let found: Value = self.get(KubeRequest::new("get", "batch", "jobs", name).within(namespace), path).await?;
        Ok(read(&found))
    }

    /// Deletes exactly the Job with this uid, and its pods: `Conflict` if another one bears the name.
    ///
    /// # Errors
    ///
    /// Fails also with `NotFound` when there is none, or when the API server is not reached or refuses.
    pub async fn delete_job(&self, namespace: &str, name: &str, uid: &str) -> Result<(), WorldError> {
        let asked = KubeRequest::new("delete", "batch", "jobs", name).within(namespace);
        let path = format!("{}/{}", jobs(namespace)?, segment("Job", name)?);
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
            "preconditions": { "uid": uid },
        });
        self.write::<serde::de::IgnoredAny>(asked, Method::DELETE, path, &options).await.map(drop)
    }

    /// The last line of the log of a pod's only container, if the kubelet returns it in time.
    pub async fn last_line(&self, namespace: &str, pod: &str) -> Option<String> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/log?tailLines=1&limitBytes={}",
            segment("namespace", namespace).ok()?,
            segment("pod", pod).ok()?,
            limits::POD_LINE_BYTES
        );
        let asked = KubeRequest::new("get", "", "pods/log", pod).within(namespace);
        let asking = self.exchange(&asked, Method::GET, path, None);
        let (status, _, bytes) = tokio::time::timeout(limits::POD_LINE_WAIT, asking).await.ok()?.ok()?;
        let text = String::from_utf8(bytes.to_vec()).ok().filter(|_| status.is_success())?;
        Some(text.trim().to_owned())
    }

    /// The pods with that label, newest last.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses, or there are more than `PODS_PER_NODE`.
    pub async fn pods_of_job(&self, namespace: &str, label: &str, value: &str) -> Result<Vec<JobPod>, WorldError> {
        let path = format!("/api/v1/namespaces/{}/pods", segment("namespace", namespace)?);
        let filter = format!("labelSelector={}", escape(&format!("{label}={value}")));
        let asked = KubeRequest::new("list", "", "pods", "").within(namespace);
        let mut pods: Vec<(String, JobPod)> = Vec::new();
        let mut each = |pod: Value| pods.push((text(&pod, "/metadata/creationTimestamp"), pod_of(&pod)));
        self.pages(asked, &path, &filter, limits::PODS_PER_NODE, &mut each).await?;
        pods.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(pods.into_iter().map(|(_, pod)| pod).collect())
    }
}

fn jobs(namespace: &str) -> Result<String, WorldError> {
    Ok(format!("/apis/batch/v1/namespaces/{}/jobs", segment("namespace", namespace)?))
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn read(job: &Value) -> Job {
    let holds =
        |kind: &str| items(job, "/status/conditions").find(|one| one["type"] == kind && one["status"] == "True");
    let notes = job.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten();
    Job {
        name: text(job, "/metadata/name"),
        uid: text(job, "/metadata/uid"),
        annotations: notes.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
        complete: holds("Complete").is_some(),
        failed: holds("Failed").map(|one| (text(one, "/reason"), text(one, "/message"))),
    }
}

fn pod_of(pod: &Value) -> JobPod {
    let words = |reason: String, message: String| match (reason.is_empty(), message.is_empty()) {
        (_, true) => reason,
        (true, false) => message,
        (false, false) => format!("{reason}: {message}"),
    };
    let container = items(pod, "/status/containerStatuses").next().cloned().unwrap_or_default();
    let unseated =
        items(pod, "/status/conditions").find(|one| one["type"] == "PodScheduled" && one["status"] == "False");
    let of_pod = words(text(pod, "/status/reason"), text(pod, "/status/message"));
    let waiting = words(text(&container, "/state/waiting/reason"), text(&container, "/state/waiting/message"));
    let seat = unseated.map(|one| words(text(one, "/reason"), text(one, "/message"))).unwrap_or_default();
    let ended = text(&container, "/state/terminated/reason");
    JobPod {
        name: text(pod, "/metadata/name"),
        phase: text(pod, "/status/phase"),
        why: [of_pod, waiting, seat, ended].into_iter().find(|why| !why.is_empty()).unwrap_or_default(),
        exit: container.pointer("/state/terminated/exitCode").and_then(Value::as_i64),
        said: text(&container, "/state/terminated/message"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_says_why_it_does_not_run_and_what_its_last_words_were() {
        let check = |status: Value, why: &str, exit: Option<i64>, said: &str| {
            let pod = pod_of(&json!({ "metadata": { "name": "w-x" }, "status": status }));
            assert_eq!((pod.why.as_str(), pod.exit, pod.said.as_str()), (why, exit, said), "{status}");
        };
        let state = |state: Value| json!({ "containerStatuses": [{ "name": "warm", "state": state }] });
        check(json!({ "phase": "Pending" }), "", None, "");
        check(
            state(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } })),
            "ImagePullBackOff: no such image",
            None,
            "",
        );
        check(
            json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3" }] }),
            "Unschedulable: 0/3",
            None,
            "",
        );
        let killed = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled", "message": "last" } });
        check(state(killed), "OOMKilled", Some(137), "last");
        check(json!({ "reason": "Evicted", "message": "low on memory" }), "Evicted: low on memory", None, "");
    }

    #[test]
    fn only_a_condition_that_holds_ends_a_job() {
        let job = |kind: &str, status: &str| {
            read(&json!({ "metadata": { "name": "w" }, "status": { "conditions": [
                { "type": kind, "status": status, "reason": "DeadlineExceeded", "message": "too long" },
            ] } }))
        };
        assert!(job("Complete", "True").complete && !job("Complete", "False").complete);
        assert_eq!(job("Failed", "True").failed, Some(("DeadlineExceeded".to_owned(), "too long".to_owned())));
        // Kubernetes sets these first, and the other one once the pods are gone.
        assert_eq!((job("FailureTarget", "True").failed, job("SuccessCriteriaMet", "True").complete), (None, false));
    }
}
