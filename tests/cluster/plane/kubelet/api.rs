//! What kubelets say to the API server, as JSON, and how.
//!
//! Invariant: an answer that says the object is gone is no error, since objects go at any time.

use super::NodeSpec;
use crate::plane::Admin;
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::time::Duration;

pub(super) const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// A client that asks again while the API server is away or busy.
pub(super) struct Wire(Admin);

impl Wire {
    pub fn new(client: kube::Client) -> Wire {
        Wire(Admin::with(client))
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, None).await
    }

    pub async fn create(&self, path: &str, body: &Value) {
        self.ask(Method::POST, path, Some(body)).await;
    }

    pub async fn patch(&self, path: &str, body: &Value) {
        self.ask(Method::PATCH, path, Some(body)).await;
    }

    /// Once: the next one comes anyway, or the pod is seen again.
    pub async fn try_patch(&self, path: &str, body: &Value) {
        let _ = self.0.ask(Method::PATCH, path, Some(body)).await;
    }

    pub async fn delete(&self, path: &str, uid: Option<&str>) {
        let mut body = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0 });
        if let Some(uid) = uid {
            body["preconditions"] = json!({ "uid": uid });
        }
        self.ask(Method::DELETE, path, Some(&body)).await;
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        for _ in 0..3_000 {
            match self.0.ask(method.clone(), path, body).await {
                Ok((200..=299 | 404 | 409, answer)) => return answer,
                Ok((429 | 500..=599, _)) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await, // polls
                Ok((status, answer)) => panic!("the kubelet asked {method} {path}: {status}: {answer}"),
            }
        }
        panic!("the API server did not answer the kubelet's {method} {path} in a minute")
    }
}

pub(super) fn stamp() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

fn condition(kind: &str, holds: bool, reason: &str) -> Value {
    let (status, now) = (if holds { "True" } else { "False" }, format!("{:.0}", jiff::Timestamp::now()));
    json!({ "type": kind, "status": status, "reason": reason, "lastTransitionTime": now, "lastHeartbeatTime": now })
}

pub(super) fn conditions(ready: bool) -> Vec<Value> {
    vec![
        condition("MemoryPressure", false, "KubeletHasSufficientMemory"),
        condition("DiskPressure", false, "KubeletHasNoDiskPressure"),
        condition("PIDPressure", false, "KubeletHasSufficientPID"),
        condition("Ready", ready, if ready { "KubeletReady" } else { "KubeletNotReady" }),
    ]
}

pub(super) fn registration(spec: &NodeSpec) -> Value {
    let mut labels = json!({ "kubernetes.io/hostname": spec.name, "kubernetes.io/os": "linux" });
    let mut capacity = json!({ "cpu": "64", "memory": "1Ti", "pods": "250", "ephemeral-storage": "1Ti" });
    for (key, value) in &spec.labels {
        labels[key] = json!(value);
    }
    for (device, count) in &spec.devices {
        capacity[device] = json!(count.to_string());
    }
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": spec.name, "labels": labels },
        "status": {
            "capacity": capacity, "allocatable": capacity, "conditions": conditions(true),
            "addresses": [{ "type": "Hostname", "address": spec.name }],
            "nodeInfo": {
                "bootID": format!("boot-{}", spec.name), "machineID": spec.name, "systemUUID": spec.name,
                "kernelVersion": "6.12.0", "osImage": "a test", "containerRuntimeVersion": "containerd://2.0.0",
                "kubeletVersion": "v1.37.0", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            },
        },
    })
}

pub(super) fn lease(node: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": node, "namespace": "kube-node-lease" },
        "spec": { "holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": stamp() },
    })
}

/// The statuses of a pod's containers, all in one state.
fn containers(pod: &Pod, state: &Value, ready: bool, restarts: u32) -> Vec<Value> {
    let all = pod.spec.iter().flat_map(|spec| &spec.containers);
    all.map(|container| {
        let image = container.image.clone().unwrap_or_default();
        json!({
            "name": container.name, "image": image, "imageID": format!("sha256:{}", container.name), "ready": ready,
            "started": ready, "restartCount": restarts, "state": state,
        })
    })
    .collect()
}

fn pod_conditions(ready: bool) -> Value {
    json!([
        condition("PodScheduled", true, ""),
        condition("Initialized", true, ""),
        condition("ContainersReady", ready, ""),
        condition("Ready", ready, ""),
    ])
}

pub(super) fn running(pod: &Pod, address: &str, ready: bool) -> Value {
    let now = format!("{:.0}", jiff::Timestamp::now());
    json!({ "status": {
        "phase": "Running", "startTime": now, "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": pod_conditions(ready),
        "containerStatuses": containers(pod, &json!({ "running": { "startedAt": now } }), ready, 0),
    }})
}

/// What a container of a Job that is not told otherwise leaves as its last words.
pub(super) const WARMED: &str = r#"{"changed":true,"resident":1.0,"models":[]}"#;

pub(super) fn exited(pod: &Pod, code: i32, words: &str) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    let state = json!({ "terminated": { "exitCode": code, "reason": reason, "message": words } });
    json!({ "status": {
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "conditions": pod_conditions(false),
        "containerStatuses": containers(pod, &state, false, 0),
    }})
}

/// Containers that wait to be started again, or were never started.
pub(super) fn waiting(pod: &Pod, reason: &str) -> Value {
    let before = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let restarts = before.map(|status| status.restart_count).max().unwrap_or(0);
    let killed = reason == "OOMKilled";
    let shown = if killed { "CrashLoopBackOff" } else { reason };
    let state = json!({ "waiting": { "reason": shown, "message": format!("{reason}, says the test") } });
    let mut statuses = containers(pod, &state, false, u32::try_from(restarts).unwrap_or(0) + 1);
    if reason != "ImagePullBackOff" {
        let last = json!({ "terminated": { "exitCode": if killed { 137 } else { 1 }, "reason": if killed { reason } else { "Error" } } });
        statuses.iter_mut().for_each(|status| status["lastState"] = last.clone());
    }
    json!({ "status": { "conditions": pod_conditions(false), "containerStatuses": statuses } })
}
