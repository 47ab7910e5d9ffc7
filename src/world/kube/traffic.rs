//! How traffic comes to a pod: the Services that select it, and the labels by which its own controller selects it.
//!
//! Invariant: reads but for one conditional patch of one pod; a selector of another kind is not interpreted.

use super::answer::KubeRequest;
use super::wire::PodWire;
use super::{KubeClient, Pod, conditional, escape, pod_path, segment};
use crate::limits;
use crate::world::WorldError;
use http::Method;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A Service and its selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficSelector {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

impl TrafficSelector {
    /// Whether a pod with these labels gets its traffic. The endpoints of a Service without a selector have another
    /// owner.
    pub fn takes(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.labels.is_empty() && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SelectorObject<T> {
    metadata: ObjectName,
    spec: T,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ObjectName {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SelectorSpec {
    selector: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ControllerSpec {
    selector: LabelSelector,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct LabelSelector {
    match_labels: Option<BTreeMap<String, Value>>,
    match_expressions: Option<Vec<SelectorRequirement>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SelectorRequirement {
    key: String,
}

impl From<SelectorObject<SelectorSpec>> for TrafficSelector {
    fn from(wire: SelectorObject<SelectorSpec>) -> TrafficSelector {
        TrafficSelector { name: wire.metadata.name, labels: wire.spec.selector.unwrap_or_default() }
    }
}

impl KubeClient {
    /// The Services of a namespace.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses.
    pub async fn services(&self, namespace: &str) -> Result<Vec<TrafficSelector>, WorldError> {
        let path = format!("/api/v1/namespaces/{}/services", segment("namespace", namespace)?);
        let asked = KubeRequest::new("list", "", "services", "").within(namespace);
        self.list::<SelectorObject<SelectorSpec>, TrafficSelector>(asked, &path, "", limits::NODES as usize).await
    }

    /// The keys by which the controller of a pod selects its pods: without one of them it would let go of the pod and
    /// make another. None for a controller that is neither a ReplicaSet nor a StatefulSet.
    ///
    /// # Errors
    ///
    /// Fails when there is no such controller, or the API server is not reached or refuses.
    pub async fn keys_of_owner(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Result<Option<BTreeSet<String>>, WorldError> {
        let resource = match kind {
            "ReplicaSet" => "replicasets",
            "StatefulSet" => "statefulsets",
            _ => return Ok(None),
        };
        let (space, object) = (segment("namespace", namespace)?, segment("name", name)?);
        let asked = KubeRequest::new("get", "apps", resource, name).within(namespace);
        let owner: SelectorObject<ControllerSpec> =
            self.get(asked, format!("/apis/apps/v1/namespaces/{space}/{resource}/{object}")).await?;
        let selector = owner.spec.selector;
        let asked_for = selector.match_expressions.unwrap_or_default().into_iter().map(|term| term.key);
        Ok(Some(selector.match_labels.unwrap_or_default().into_keys().chain(asked_for).collect()))
    }

    /// A JSON merge patch of a pod, conditional on `resource_version`.
    ///
    /// # Errors
    ///
    /// Fails with `Conflict` when the pod has another version, with `NotFound` when there is none, or when the API
    /// server is not reached or refuses.
    pub async fn patch_pod(
        &self,
        namespace: &str,
        name: &str,
        patch: Value,
        resource_version: &str,
    ) -> Result<Pod, WorldError> {
        let path = format!("{}?fieldManager={}", pod_path(namespace, name)?, self.manager);
        let body = conditional(patch, Some(resource_version));
        let asked = KubeRequest::new("patch", "", "pods", name).within(namespace);
        let pod: PodWire = self.write(asked, Method::PATCH, path, &body).await?;
        Ok(pod.into())
    }

    /// Pods of the whole cluster that bear a label, whatever its value.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses, or there are more than `most`.
    pub async fn pods_with(&self, label: &str, most: usize) -> Result<Vec<Pod>, WorldError> {
        let filter = format!("labelSelector={}", escape(label));
        self.list::<PodWire, Pod>(KubeRequest::new("list", "", "pods", ""), "/api/v1/pods", &filter, most).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_takes_a_pod_that_bears_all_it_asks_for_and_one_without_a_selector_takes_none() {
        let read = |object: Value| {
            TrafficSelector::from(serde_json::from_value::<SelectorObject<SelectorSpec>>(object).unwrap())
        };
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let service =
            read(json!({ "metadata": { "name": "llm" }, "spec": { "selector": { "app": "llm", "x": "on" } } }));
        assert!(service.takes(&labels(&[("app", "llm"), ("x", "on"), ("y", "1")])));
        assert!(!service.takes(&labels(&[("app", "llm"), ("x", "off")])));
        assert!(!read(json!({ "spec": { "selector": null } })).takes(&labels(&[("app", "llm")])));
    }
}
