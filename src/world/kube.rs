//! Kubernetes through the kube crate, with its silent retries off: a refusal is an answer.
//!
//! Invariant: every write carries a precondition where the API has one, and our field manager.

use super::WorldError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// How to reach one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubeConfig {
    /// The API server; empty: in-cluster, else the kubeconfig file's current context.
    pub url: String,
    pub kubeconfig: Option<std::path::PathBuf>,
    pub context: Option<String>,
    pub token_file: Option<std::path::PathBuf>,
    pub ca_file: Option<std::path::PathBuf>,
}

/// The fields of a node that we use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub unschedulable: bool,
    /// key, value, effect
    pub taints: Vec<(String, String, String)>,
    pub ready: bool,
    pub boot_id: String,
    /// `nvidia.com/gpu` in capacity and allocatable.
    pub gpus: u32,
    pub gpus_allocatable: u32,
}

/// The fields of a pod that we use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node: String,
    pub phase: String,
    pub ready: bool,
    pub terminating: bool,
    pub labels: BTreeMap<String, String>,
    /// Kind and name of the controlling owner.
    pub owner: Option<(String, String)>,
    pub mirror: bool,
    pub empty_dir: bool,
    /// GPUs (or MIG devices) requested over all containers.
    pub gpus: u32,
}

/// A Deployment (or StatefulSet): replicas wanted, ready, and its template's labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    pub namespace: String,
    pub name: String,
    pub resource_version: String,
    pub annotations: BTreeMap<String, String>,
    pub replicas: u32,
    pub ready: u32,
    pub updated: u32,
    pub generation: i64,
    pub observed_generation: i64,
    pub selector: BTreeMap<String, String>,
}

/// What the eviction API said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvictAnswer {
    Accepted,
    Gone,
    /// 429: a disruption budget says not now.
    Blocked {
        why: String,
    },
    /// 500: several budgets match the pod; a human must mend that.
    Misconfigured {
        why: String,
    },
}

/// One cluster.
#[derive(Clone)]
pub struct Kube {
    // client
}

impl Kube {
    pub async fn connect(_config: &KubeConfig, _identity: &str) -> Result<Kube, WorldError> {
        todo!("world")
    }
    pub async fn node(&self, _name: &str) -> Result<Node, WorldError> {
        todo!("world")
    }
    pub async fn nodes(&self) -> Result<Vec<Node>, WorldError> {
        todo!("world")
    }
    /// A JSON merge patch of a node, conditional on `resource_version` if given. Returns the node as it is now.
    pub async fn patch_node(
        &self,
        _name: &str,
        _patch: Value,
        _resource_version: Option<&str>,
    ) -> Result<Node, WorldError> {
        todo!("world")
    }
    pub async fn pods_on(&self, _node: &str) -> Result<Vec<Pod>, WorldError> {
        todo!("world")
    }
    pub async fn pods(&self, _namespace: &str, _selector: &BTreeMap<String, String>) -> Result<Vec<Pod>, WorldError> {
        todo!("world")
    }
    pub async fn pod(&self, _namespace: &str, _name: &str) -> Result<Pod, WorldError> {
        todo!("world")
    }
    /// The eviction subresource, conditional on the pod's uid.
    pub async fn evict(
        &self,
        _namespace: &str,
        _name: &str,
        _uid: &str,
        _grace_seconds: Option<i64>,
    ) -> Result<EvictAnswer, WorldError> {
        todo!("world")
    }
    /// Deletes exactly the pod with this uid: `Conflict` if another one bears the name, `NotFound` if none does.
    pub async fn delete_pod(&self, _namespace: &str, _name: &str, _uid: &str) -> Result<(), WorldError> {
        todo!("world")
    }
    pub async fn workload(&self, _namespace: &str, _name: &str) -> Result<Workload, WorldError> {
        todo!("world")
    }
    /// A JSON merge patch of a Deployment, conditional on `resource_version` if given.
    pub async fn patch_workload(
        &self,
        _namespace: &str,
        _name: &str,
        _patch: Value,
        _resource_version: Option<&str>,
    ) -> Result<Workload, WorldError> {
        todo!("world")
    }
    /// The scale subresource.
    pub async fn scale(&self, _namespace: &str, _name: &str, _replicas: u32) -> Result<(), WorldError> {
        todo!("world")
    }
    /// Whether we may do this, by SelfSubjectAccessReview.
    pub async fn may(&self, _group: &str, _resource: &str, _verb: &str) -> Result<bool, WorldError> {
        todo!("world")
    }
}
