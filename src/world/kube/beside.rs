//! Our marks for others on the cluster: a node condition while a run holds the node, and Events with its timeline.
//!
//! Invariant: for users and other controllers to read; no code of ours ever decides by it.

use super::answer::KubeRequest;
use super::{KubeClient, segment};
use crate::limits;
use crate::model::Time;
use crate::world::WorldError;
use http::Method;
use serde::de::IgnoredAny;
use serde_json::json;

/// True while a run of ours holds the node, False after.
pub const NIGHTSHIFT_CONDITION: &str = "NightshiftRemediation";

/// One Event about a node or a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNote {
    /// The same name is the same Event: written twice, it is there once.
    pub name: String,
    /// `Node` or `Pod`.
    pub kind: &'static str,
    /// Of the pod; empty for a node.
    pub namespace: String,
    pub object: String,
    /// `StepBegun`, `StepEnded`, `StepFailed`, `StepHeld`, `StepDenied`.
    pub reason: &'static str,
    /// The action, as a word.
    pub action: String,
    pub note: String,
    pub is_warning: bool,
    pub at: Time,
}

impl KubeClient {
    /// Sets our condition on a node; no other part of its status is touched.
    ///
    /// # Errors
    ///
    /// Fails when there is no such node, or the API server is not reached or refuses.
    pub async fn set_condition(
        &self,
        node: &str,
        is_held: bool,
        reason: &str,
        message: &str,
        now: Time,
    ) -> Result<(), WorldError> {
        let path = format!("/api/v1/nodes/{}/status?fieldManager={}", segment("node", node)?, self.manager);
        let stamp = stamp(now);
        let body = json!({ "status": { "conditions": [{
            "type": NIGHTSHIFT_CONDITION,
            "status": if is_held { "True" } else { "False" },
            "reason": reason,
            "message": cut(message),
            "lastHeartbeatTime": stamp,
            "lastTransitionTime": stamp,
        }] } });
        let asked = KubeRequest::new("patch", "", "nodes/status", node);
        // Merged by its type, so that the kubelet's own conditions stay whatever version we last saw.
        self.send::<IgnoredAny>(asked, Method::PATCH, path, &body, "application/strategic-merge-patch+json").await?;
        Ok(())
    }

    /// Writes an Event.
    ///
    /// # Errors
    ///
    /// Fails with `Conflict` when it exists already, or when the API server is not reached or refuses.
    pub async fn write_event(&self, event: &EventNote) -> Result<(), WorldError> {
        // Events about nodes live in `default`, where `kubectl describe node` looks for them.
        let namespace = if event.namespace.is_empty() { "default" } else { segment("namespace", &event.namespace)? };
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events?fieldManager={}", self.manager);
        let mut regarding = json!({ "apiVersion": "v1", "kind": event.kind, "name": event.object });
        if event.namespace.is_empty() {
            // As the kubelet has it: a node's Events are found by its name in the place of its uid.
            regarding["uid"] = json!(event.object);
        } else {
            regarding["namespace"] = json!(event.namespace);
        }
        let body = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "name": event.name, "namespace": namespace },
            "eventTime": event.at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            "reportingController": "nightshift.dev/engine",
            "reportingInstance": "nightshift",
            "type": if event.is_warning { "Warning" } else { "Normal" },
            "reason": event.reason,
            "action": event.action,
            "regarding": regarding,
            "note": cut(&event.note),
        });
        let asked = KubeRequest::new("create", "events.k8s.io", "events", &event.name).within(namespace);
        self.send::<IgnoredAny>(asked, Method::POST, path, &body, "application/json").await.map(drop)
    }
}

fn stamp(at: Time) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The API takes a note of 1,024 bytes.
fn cut(text: &str) -> String {
    let mut end = text.len().min(limits::EVENT_NOTE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
