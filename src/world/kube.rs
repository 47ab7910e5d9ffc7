//! Kubernetes through the kube crate, with its silent retries off: a refusal is an answer.
//!
//! Invariant: every write carries a precondition where the API has one, and our field manager.

mod answer;
mod beside;
mod budgets;
mod devices;
mod fleet;
mod jobs;
mod lease;
mod protected;
mod pulse;
mod reach;
mod review;
mod seen;
mod send;
mod traffic;
mod watch;
mod wire;
mod workloads;

pub use beside::{EventNote, NIGHTSHIFT_CONDITION};
pub use budgets::{DisruptionBudget, WaitingPod};
pub(in crate::world) use fleet::{FleetCount, FleetScope};
pub use jobs::{CacheJob, Job, JobPod};
pub use lease::EngineLease;
pub(in crate::world) use protected::belongs_to_kubernetes;
pub use reach::KubeConfig;
pub use review::ReviewedToken;
pub use seen::{ConditionSeen, ContainerSeen, EventSeen, LeaseSeen, NodeSeen, PodSeen};
pub use traffic::TrafficSelector;
pub use watch::WatchEvent;

use super::WorldError;
use crate::limits;
use answer::KubeRequest;
use http::Method;
pub use pulse::ApiHealth;
use send::{conditional, decode, escape, pod_path, segment};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;
use wire::{NodeWire, PodWire};

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
    /// The taints as the API server sent them, for patches: they must keep fields that we do not parse.
    #[serde(skip)]
    pub taints_sent: Vec<Value>,
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
    #[serde(default)]
    pub resource_version: String,
    pub node: String,
    /// Its address; empty until it has one.
    #[serde(default)]
    pub ip: String,
    pub phase: String,
    pub ready: bool,
    pub terminating: bool,
    pub labels: BTreeMap<String, String>,
    /// Annotations of ours: those of `nightshift.dev/`.
    #[serde(default)]
    pub marks: BTreeMap<String, String>,
    /// Kind and name of the controlling owner.
    pub owner: Option<(String, String)>,
    pub mirror: bool,
    /// Has an emptyDir on disk. One in memory is shared memory of the processes and dies with them anyway.
    pub empty_dir: bool,
    /// GPUs (or MIG devices) requested over all containers.
    pub gpus: u32,
    /// From its priority class; others may be pushed out for a higher one.
    pub priority: i32,
}

/// A Deployment (or StatefulSet): desired replicas, ready ones, and its template's labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// `Deployment` or `StatefulSet`.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub resource_version: String,
    pub annotations: BTreeMap<String, String>,
    pub replicas: u32,
    /// Pods of any age and template.
    pub total: u32,
    pub ready: u32,
    /// Ready for as long as the workload requires.
    pub available: u32,
    pub updated: u32,
    pub generation: i64,
    pub observed_generation: i64,
    pub selector: BTreeMap<String, String>,
    /// How many ready pods a rollout may end before their followers are ready.
    pub may_lack: u32,
}

impl Pod {
    /// The Deployment behind a ReplicaSet, or the StatefulSet, DaemonSet or Job itself; empty for a pod without an
    /// owner.
    pub fn workload(&self) -> String {
        let Some((kind, name)) = &self.owner else { return String::new() };
        match (kind.as_str(), self.labels.get("pod-template-hash")) {
            ("ReplicaSet", Some(hash)) => name.strip_suffix(&format!("-{hash}")).unwrap_or(name).to_owned(),
            _ => name.clone(),
        }
    }
}

impl Node {
    /// Without fields that only its reader needs: for lists of all nodes.
    fn slim(&self, kept: &[String]) -> Node {
        let labels = self.labels.iter().filter(|(key, _)| kept.contains(key));
        Node {
            name: self.name.clone(),
            uid: String::new(),
            resource_version: self.resource_version.clone(),
            labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
            annotations: BTreeMap::new(),
            unschedulable: self.unschedulable,
            taints: Vec::new(),
            taints_sent: Vec::new(),
            ready: self.ready,
            boot_id: String::new(),
            gpus: self.gpus,
            gpus_allocatable: self.gpus_allocatable,
        }
    }
}

/// The eviction API's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvictAnswer {
    Accepted,
    Gone,
    /// 429: a disruption budget blocks it for now.
    Blocked {
        why: String,
    },
    /// 500: several budgets match the pod; only a user can fix that.
    Misconfigured {
        why: String,
    },
}

/// One cluster.
#[derive(Clone)]
pub struct KubeClient {
    link: Arc<reach::ClusterClient>,
    /// The field manager, as a query parameter's value.
    manager: String,
    /// The record of the nodes, shared by all clones of this client.
    fleet: Arc<fleet::FleetView>,
    heard: Arc<Mutex<pulse::ApiContact>>,
    /// The last read, for the caller that needs it right after; see `noting`.
    noted: Option<Arc<Mutex<ReadHandoff>>>,
    notes: bool,
    cache_job: Option<Arc<CacheJob>>,
    /// See `protect`.
    protected: Arc<OnceLock<Vec<String>>>,
    /// Where the Lease lies by which one of several engines acts; none: no Lease is kept.
    lease_namespace: Option<Arc<str>>,
    /// Whether this engine may act, for all clones of this client.
    standing: Arc<Mutex<lease::LeaseState>>,
    /// Of the step that this client is for; see `World::gated`.
    gate: Option<super::KillSwitchGate>,
}

/// Reads that are handed on once.
#[derive(Default)]
struct ReadHandoff {
    node: Option<(Instant, Node)>,
    pods: Option<(Instant, String, Vec<Pod>)>,
}

fn fresh(at: Instant) -> bool {
    at.elapsed() < limits::NOTED_FOR
}

impl KubeClient {
    /// Builds the client; sends nothing to the API server, so that a start does not depend on it.
    ///
    /// # Errors
    ///
    /// Fails when the settings or the files that they name are wrong.
    pub async fn connect(config: &KubeConfig, identity: &str) -> Result<KubeClient, WorldError> {
        let kube = KubeClient::late(config, identity);
        kube.link.connect().await?;
        Ok(kube)
    }

    /// The same for a cluster whose kubeconfig or token is not there yet: each request tries again to build the client, and
    /// until it can every request fails with [`WorldError::Unreached`].
    pub fn late(config: &KubeConfig, identity: &str) -> KubeClient {
        KubeClient {
            link: Arc::new(reach::ClusterClient::new(config, identity)),
            manager: escape(identity),
            fleet: Arc::default(),
            heard: Arc::default(),
            noted: None,
            notes: false,
            cache_job: config.cache_job.clone().map(Arc::new),
            protected: Arc::default(),
            lease_namespace: config.lease_namespace().map(Arc::from),
            standing: Arc::default(),
            gate: None,
        }
    }

    /// The same client, which returns a node, or the pods on it, that it has just read to the next caller that needs
    /// them, once: guards, witness and first performance of one step look at the same moment.
    pub fn noting(&self) -> KubeClient {
        KubeClient { noted: Some(Arc::default()), notes: true, ..self.clone() }
    }

    /// The same client, whose requests that change something pass this gate.
    pub(in crate::world) fn gated(&self, gate: &super::KillSwitchGate) -> KubeClient {
        KubeClient { gate: Some(gate.clone()), ..self.clone() }
    }

    /// The same client, which returns noted reads, and notes nothing more.
    pub fn handing_on(&self) -> KubeClient {
        KubeClient { notes: false, ..self.clone() }
    }

    /// A node, as the API server has it now.
    ///
    /// # Errors
    ///
    /// Fails when there is no such node, or the API server is not reached or refuses.
    pub async fn node(&self, name: &str) -> Result<Node, WorldError> {
        let noted = self.noted(|noted| noted.node.take()).filter(|(at, node)| fresh(*at) && node.name == name);
        if let Some((_, node)) = noted {
            return Ok(node);
        }
        let path = format!("/api/v1/nodes/{}", segment("node", name)?);
        let node: NodeWire = self.get(KubeRequest::new("get", "", "nodes", name), path).await?;
        let node = Node::from(node);
        self.fleet.observe(&node);
        if self.notes {
            self.noted(|noted| noted.node.replace((Instant::now(), node.clone())));
        }
        Ok(node)
    }

    fn noted<T>(&self, work: impl FnOnce(&mut ReadHandoff) -> Option<T>) -> Option<T> {
        work(&mut self.noted.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All nodes of the cluster.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses, or there are more than `NODES`.
    pub async fn nodes(&self) -> Result<Vec<Node>, WorldError> {
        self.nodes_and_version().await.map(|(nodes, _)| nodes)
    }

    async fn nodes_and_version(&self) -> Result<(Vec<Node>, String), WorldError> {
        let asked = KubeRequest::new("list", "", "nodes", "");
        let mut nodes = Vec::new();
        let mut each = |node: NodeWire| nodes.push(node.into());
        let version = self.pages(asked, "/api/v1/nodes", "", limits::NODES as usize, &mut each).await?;
        Ok((nodes, version))
    }

    /// A JSON merge patch of a node, conditional on `resource_version` if given. Returns the node as it is now.
    ///
    /// # Errors
    ///
    /// Fails with `Conflict` when the node has another version, with `NotFound` when there is none, or when the API
    /// server is not reached or refuses.
    pub async fn patch_node(
        &self,
        name: &str,
        patch: Value,
        resource_version: Option<&str>,
    ) -> Result<Node, WorldError> {
        let path = format!("/api/v1/nodes/{}?fieldManager={}", segment("node", name)?, self.manager);
        let body = conditional(patch, resource_version);
        let node: NodeWire =
            self.write(KubeRequest::new("patch", "", "nodes", name), Method::PATCH, path, &body).await?;
        let node = Node::from(node);
        self.fleet.observe(&node);
        Ok(node)
    }

    /// The pods of a node, in all namespaces.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses, or there are more than `PODS_PER_NODE`.
    pub async fn pods_on(&self, node: &str) -> Result<Vec<Pod>, WorldError> {
        let filter = format!("fieldSelector={}", escape(&format!("spec.nodeName={}", segment("node", node)?)));
        let asked = KubeRequest::new("list", "", "pods", "");
        let noted = self.noted(|noted| noted.pods.take()).filter(|(at, of, _)| fresh(*at) && of == node);
        if let Some((_, _, pods)) = noted {
            return Ok(pods);
        }
        let pods = self.list::<PodWire, Pod>(asked, "/api/v1/pods", &filter, limits::PODS_PER_NODE).await?;
        if self.notes {
            self.noted(|noted| noted.pods.replace((Instant::now(), node.to_owned(), pods.clone())));
        }
        Ok(pods)
    }

    /// The pods of a namespace with these labels.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses.
    pub async fn pods(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Result<Vec<Pod>, WorldError> {
        let terms: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let filter = format!("labelSelector={}", escape(&terms.join(",")));
        let path = format!("/api/v1/namespaces/{}/pods", segment("namespace", namespace)?);
        self.list::<PodWire, Pod>(KubeRequest::new("list", "", "pods", ""), &path, &filter, limits::NODES as usize)
            .await
    }

    /// Pods of all namespaces that bear a label with that value.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses, or there are more than `PODS`.
    pub async fn pods_labelled(&self, label: &str, value: &str) -> Result<Vec<Pod>, WorldError> {
        let filter = format!("labelSelector={}", escape(&format!("{label}={value}")));
        self.list::<PodWire, Pod>(KubeRequest::new("list", "", "pods", ""), "/api/v1/pods", &filter, limits::PODS).await
    }

    /// A pod, as the API server has it now.
    ///
    /// # Errors
    ///
    /// Fails when there is no such pod, or the API server is not reached or refuses.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Pod, WorldError> {
        let asked = KubeRequest::new("get", "", "pods", name).within(namespace);
        let pod: PodWire = self.get(asked, pod_path(namespace, name)?).await?;
        Ok(pod.into())
    }

    /// The data of a ConfigMap.
    ///
    /// # Errors
    ///
    /// Fails when there is no such ConfigMap, or the API server is not reached or refuses.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, WorldError> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            data: BTreeMap<String, String>,
        }
        let asked = KubeRequest::new("get", "", "configmaps", name).within(namespace);
        let (space, name) = (segment("namespace", namespace)?, segment("ConfigMap", name)?);
        let map: Wire = self.get(asked, format!("/api/v1/namespaces/{space}/configmaps/{name}")).await?;
        Ok(map.data)
    }

    /// The eviction subresource, conditional on the pod's uid.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses for another reason than a budget or the pod's state.
    pub async fn evict(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        grace_seconds: Option<i64>,
    ) -> Result<EvictAnswer, WorldError> {
        let mut options = json!({ "preconditions": { "uid": uid } });
        if let Some(seconds) = grace_seconds {
            options["gracePeriodSeconds"] = json!(seconds);
        }
        let body = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "namespace": namespace, "name": name },
            "deleteOptions": options,
        });
        let asked = KubeRequest::new("create", "", "pods/eviction", name).within(namespace);
        let path = format!("{}/eviction", pod_path(namespace, name)?);
        let (status, headers, bytes) =
            self.exchange(&asked, Method::POST, path, Some((&body, "application/json"))).await?;
        answer::eviction(&asked, status, &headers, &bytes)
    }

    /// Deletes exactly the pod with this uid: `Conflict` if another one bears the name, `NotFound` if none does.
    ///
    /// # Errors
    ///
    /// Fails also when the API server is not reached or refuses.
    pub async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), WorldError> {
        let asked = KubeRequest::new("delete", "", "pods", name).within(namespace);
        let body = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": uid } });
        self.write::<serde::de::IgnoredAny>(asked, Method::DELETE, pod_path(namespace, name)?, &body).await.map(drop)
    }
}
