//! The Lease by which one of several engines of an installation acts on a cluster, and whether this one may.
//!
//! Invariant: a Lease is made, or changed at the version that was read; nothing else in the cluster is.

use super::answer::KubeRequest;
use super::{KubeClient, segment};
use crate::clock::Clock;
use crate::limits;
use crate::model::Time;
use crate::planted::planted;
use crate::world::WorldError;
use http::Method;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// A Lease as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineLease {
    /// Empty: it was given back.
    pub holder: String,
    /// How long it lasts without being renewed.
    pub seconds: u64,
    pub transitions: u64,
    /// Changes with each renewal; empty for one that is to be made.
    pub version: String,
}

/// Whether an engine may act on a cluster.
#[derive(Default)]
pub(super) struct LeaseState {
    only_watched: Option<String>,
    /// Until when another engine cannot have taken the Lease, by the running clock beside it; none: no Lease is kept.
    until: Option<(Duration, Arc<dyn Clock>)>,
}

impl KubeClient {
    /// Why this engine only watches the cluster, if it does. What was found at the last look holds no longer than the Lease: a
    /// process that was stopped meanwhile, or whose machine was suspended, acts only after it has looked again.
    pub fn only_watched(&self) -> Option<String> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let late = standing.until.as_ref().is_some_and(|(until, clock)| clock.monotonic() >= *until);
        let late = late && !planted("lease-outlives-a-stop");
        standing.only_watched.clone().or_else(|| {
            let held = limits::LEASE_HELD.as_secs();
            late.then(|| format!("its Lease was not renewed for {held} s, so another engine may act"))
        })
    }

    /// From now on steps about this cluster are held for this reason; none: they are not.
    pub fn only_watch(&self, why: Option<String>) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = LeaseState { only_watched: why, until: None };
    }

    /// From now on steps about this cluster are begun, and no more after this moment of `clock`, by its `monotonic`, unless it
    /// is moved on.
    pub fn act_until(&self, until: Duration, clock: &Arc<dyn Clock>) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) =
            LeaseState { only_watched: None, until: Some((until, clock.clone())) };
    }

    /// In which namespace the Lease lies, where one is kept.
    pub fn lease_namespace(&self) -> Option<&str> {
        self.lease_namespace.as_deref()
    }

    /// The Lease of an engine.
    ///
    /// # Errors
    ///
    /// Fails with `NotFound` when there is none, or when the API server is not reached or refuses.
    pub async fn engine_lease(&self, namespace: &str, name: &str) -> Result<EngineLease, WorldError> {
        let path = format!("{}/{}", leases(namespace)?, segment("Lease", name)?);
        let asked = KubeRequest::new("get", "coordination.k8s.io", "leases", name).within(namespace);
        Ok(read(&self.get::<Value>(asked, path).await?))
    }

    /// Makes the Lease, or changes it at the version that it bears. `Conflict`: another engine was quicker.
    ///
    /// # Errors
    ///
    /// Fails also when the API server is not reached or refuses.
    pub async fn keep_engine_lease(
        &self,
        namespace: &str,
        name: &str,
        lease: &EngineLease,
        now: Time,
    ) -> Result<EngineLease, WorldError> {
        let is_new = lease.version.is_empty();
        let verb = if is_new { "create" } else { "update" };
        let asked = KubeRequest::new(verb, "coordination.k8s.io", "leases", name).within(namespace);
        let stamp = now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let mut body = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "holderIdentity": lease.holder,
                "leaseDurationSeconds": lease.seconds,
                "leaseTransitions": lease.transitions,
                "renewTime": stamp,
            },
        });
        let folder = leases(namespace)?;
        let (method, path) = if is_new {
            (Method::POST, format!("{folder}?fieldManager={}", self.manager))
        } else {
            body["metadata"]["resourceVersion"] = json!(lease.version);
            (Method::PUT, format!("{folder}/{}?fieldManager={}", segment("Lease", name)?, self.manager))
        };
        Ok(read(&self.write::<Value>(asked, method, path, &body).await?))
    }
}

fn leases(namespace: &str) -> Result<String, WorldError> {
    Ok(format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", segment("namespace", namespace)?))
}

fn read(lease: &Value) -> EngineLease {
    let spec = &lease["spec"];
    EngineLease {
        holder: spec["holderIdentity"].as_str().unwrap_or_default().to_owned(),
        seconds: spec["leaseDurationSeconds"].as_u64().unwrap_or(0),
        transitions: spec["leaseTransitions"].as_u64().unwrap_or(0),
        version: lease["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned(),
    }
}
