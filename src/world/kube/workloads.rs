//! Deployments and StatefulSets, read by one name.
//!
//! Invariant: the second kind is tried only where the first has nothing of that name, so nothing happens twice.

use super::answer::KubeRequest;
use super::send::{conditional, segment};
use super::wire::WorkloadWire;
use super::{KubeClient, Workload, WorldError};
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[derive(Clone, Copy)]
struct WorkloadResource {
    name: &'static str,
    resource: &'static str,
    scale: &'static str,
}

const DEPLOYMENT: WorkloadResource =
    WorkloadResource { name: "Deployment", resource: "deployments", scale: "deployments/scale" };
const STATEFUL_SET: WorkloadResource =
    WorkloadResource { name: "StatefulSet", resource: "statefulsets", scale: "statefulsets/scale" };

impl WorkloadResource {
    fn path(self, namespace: &str, name: &str) -> Result<String, WorldError> {
        let (namespace, name) = (segment("namespace", namespace)?, segment("name", name)?);
        Ok(format!("/apis/apps/v1/namespaces/{namespace}/{}/{name}", self.resource))
    }
}

impl KubeClient {
    /// A Deployment or, where there is none of that name, a StatefulSet.
    ///
    /// # Errors
    ///
    /// Fails when there is neither, or the API server is not reached or refuses.
    pub async fn workload(&self, namespace: &str, name: &str) -> Result<Workload, WorldError> {
        let first = self.workload_of(DEPLOYMENT, namespace, name).await;
        match first {
            Err(WorldError::NotFound(_)) => match self.workload_of(STATEFUL_SET, namespace, name).await {
                Err(WorldError::NotFound(_)) => {
                    Err(WorldError::NotFound(format!("Deployment or StatefulSet {namespace}/{name}")))
                }
                second => second,
            },
            first => first,
        }
    }

    /// A JSON merge patch of a Deployment or StatefulSet, conditional on `resource_version` if given.
    ///
    /// # Errors
    ///
    /// Fails with `Conflict` when the object has another version, with `NotFound` when there is neither, or when the
    /// API server is not reached or refuses.
    pub async fn patch_workload(
        &self,
        namespace: &str,
        name: &str,
        patch: Value,
        resource_version: Option<&str>,
    ) -> Result<Workload, WorldError> {
        let body = conditional(patch, resource_version);
        let first: Result<WorkloadWire, _> = self.patch_workload_of(DEPLOYMENT, namespace, name, "", &body).await;
        if !matches!(first, Err(WorldError::NotFound(_))) {
            return Ok(first?.named(DEPLOYMENT.name).into());
        }
        // Nothing of that name was there, so nothing happened, and the other kind may be tried.
        let second: WorkloadWire = self.patch_workload_of(STATEFUL_SET, namespace, name, "", &body).await?;
        Ok(second.named(STATEFUL_SET.name).into())
    }

    /// Sets the number of replicas, by the scale subresource.
    ///
    /// # Errors
    ///
    /// Fails when there is neither a Deployment nor a StatefulSet, or the API server is not reached or refuses.
    pub async fn scale(&self, namespace: &str, name: &str, replicas: u32) -> Result<(), WorldError> {
        let body = json!({ "spec": { "replicas": replicas } });
        let first = self.patch_workload_of::<serde::de::IgnoredAny>(DEPLOYMENT, namespace, name, "/scale", &body);
        match first.await {
            Err(WorldError::NotFound(_)) => self
                .patch_workload_of::<serde::de::IgnoredAny>(STATEFUL_SET, namespace, name, "/scale", &body)
                .await
                .map(drop),
            first => first.map(drop),
        }
    }

    async fn workload_of(&self, kind: WorkloadResource, namespace: &str, name: &str) -> Result<Workload, WorldError> {
        let asked = KubeRequest::new("get", "apps", kind.resource, name).within(namespace);
        let sent: WorkloadWire = self.get(asked, kind.path(namespace, name)?).await?;
        Ok(sent.named(kind.name).into())
    }

    async fn patch_workload_of<T: DeserializeOwned>(
        &self,
        kind: WorkloadResource,
        namespace: &str,
        name: &str,
        part: &str,
        body: &Value,
    ) -> Result<T, WorldError> {
        let path = format!("{}{part}?fieldManager={}", kind.path(namespace, name)?, self.manager);
        let resource = if part.is_empty() { kind.resource } else { kind.scale };
        self.write(KubeRequest::new("patch", "apps", resource, name).within(namespace), Method::PATCH, path, body).await
    }
}
