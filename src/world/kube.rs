//! Kubernetes through the kube crate, with its silent retries off: a refusal is an answer.
//!
//! Invariant: every write carries a precondition where the API has one, and our field manager.

mod answer;
mod beside;
mod budgets;
mod devices;
mod fleet;
mod jobs;
mod pulse;
mod review;
mod seen;
mod traffic;
mod watch;
mod wire;

pub use beside::{EventNote, NIGHTSHIFT_CONDITION};
pub use budgets::{Budget, WaitingPod};
pub(in crate::world) use fleet::{About, Level};
pub use jobs::{CacheJob, Job, JobPod};
pub use review::Reviewed;
pub use seen::{ConditionSeen, ContainerSeen, EventSeen, LeaseSeen, NodeSeen, PodSeen};
pub use traffic::Selects;
pub use watch::Told;

use super::WorldError;
use crate::limits;
use answer::{Asked, refusal, unanswered};
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
pub use pulse::Pulse;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use wire::{List, NodeWire, PodWire, WorkloadWire};

/// How to reach one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubeConfig {
    /// The API server; empty: in-cluster, else the kubeconfig file's current context.
    pub url: String,
    pub kubeconfig: Option<std::path::PathBuf>,
    pub context: Option<String>,
    /// Read again as it rotates, like the certificate.
    pub token_file: Option<std::path::PathBuf>,
    pub ca_file: Option<std::path::PathBuf>,
    /// How models are warmed by a Job on nodes without an agent; left out: they are not.
    pub cache_job: Option<CacheJob>,
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
    /// The taints as the API server sent them, for patches: they must keep fields that we do not know.
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
    /// As its priority class says; others may be pushed out for a higher one.
    pub priority: i32,
}

/// A Deployment (or StatefulSet): replicas wanted, ready, and its template's labels.
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
    /// Ready for as long as the workload asks.
    pub available: u32,
    pub updated: u32,
    pub generation: i64,
    pub observed_generation: i64,
    pub selector: BTreeMap<String, String>,
    /// How many ready pods a rollout may end before their followers are ready.
    pub may_lack: u32,
}

impl Pod {
    /// The Deployment behind a ReplicaSet, or the StatefulSet, DaemonSet or Job itself; empty where nobody owns it.
    pub fn workload(&self) -> String {
        let Some((kind, name)) = &self.owner else { return String::new() };
        match (kind.as_str(), self.labels.get("pod-template-hash")) {
            ("ReplicaSet", Some(hash)) => name.strip_suffix(&format!("-{hash}")).unwrap_or(name).to_owned(),
            _ => name.clone(),
        }
    }
}

impl Node {
    /// Without what only its reader needs: for lists of all nodes.
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
    client: kube::Client,
    /// The field manager, as a query parameter's value.
    manager: String,
    /// What all clones of this client know of the nodes.
    fleet: Arc<fleet::Fleet>,
    heard: Arc<Mutex<pulse::Heard>>,
    /// What was read last, for one who asks for it right after; see `noting`.
    noted: Option<Arc<Mutex<Noted>>>,
    notes: bool,
    cache_job: Option<Arc<CacheJob>>,
}

/// Reads that are handed on once.
#[derive(Default)]
struct Noted {
    node: Option<(Instant, Node)>,
    pods: Option<(Instant, String, Vec<Pod>)>,
}

fn fresh(at: Instant) -> bool {
    at.elapsed() < limits::NOTED_FOR
}

impl Kube {
    /// Builds the client; asks the API server nothing, so that a start does not depend on it.
    pub async fn connect(config: &KubeConfig, identity: &str) -> Result<Kube, WorldError> {
        super::install_tls();
        let mut settings = settings(config).await?;
        settings.default_retry = false;
        settings.connect_timeout = Some(limits::CONNECT_TIMEOUT);
        settings.write_timeout = Some(limits::KUBE_TIMEOUT);
        let agent = http::HeaderValue::from_str(identity)
            .map_err(|_| WorldError::Invalid(format!("`{identity}` cannot be a user agent: use plain ASCII")))?;
        settings.headers.push((http::header::USER_AGENT, agent));
        let client = kube::Client::try_from(settings)
            .map_err(|error| WorldError::Invalid(format!("no client for the cluster: {error}")))?;
        let cache_job = config.cache_job.clone().map(Arc::new);
        Ok(Kube {
            client,
            manager: escape(identity),
            fleet: Arc::default(),
            heard: Arc::default(),
            noted: None,
            notes: false,
            cache_job,
        })
    }

    /// The same client, which gives a node, or the pods on it, that it has just read to the next one who asks for them,
    /// once: guards, witness and first performance of one step look at the same moment.
    pub fn noting(&self) -> Kube {
        Kube { noted: Some(Arc::default()), notes: true, ..self.clone() }
    }

    /// The same client, which gives on what is noted, and notes nothing more.
    pub fn handing_on(&self) -> Kube {
        Kube { notes: false, ..self.clone() }
    }

    pub async fn node(&self, name: &str) -> Result<Node, WorldError> {
        let noted = self.noted(|noted| noted.node.take()).filter(|(at, node)| fresh(*at) && node.name == name);
        if let Some((_, node)) = noted {
            return Ok(node);
        }
        let path = format!("/api/v1/nodes/{}", segment("node", name)?);
        let node: NodeWire = self.get(Asked::new("get", "", "nodes", name), path).await?;
        let node = Node::from(node);
        self.fleet.observe(&node);
        if self.notes {
            self.noted(|noted| noted.node.replace((Instant::now(), node.clone())));
        }
        Ok(node)
    }

    fn noted<T>(&self, work: impl FnOnce(&mut Noted) -> Option<T>) -> Option<T> {
        work(&mut self.noted.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub async fn nodes(&self) -> Result<Vec<Node>, WorldError> {
        self.nodes_and_version().await.map(|(nodes, _)| nodes)
    }

    async fn nodes_and_version(&self) -> Result<(Vec<Node>, String), WorldError> {
        let asked = Asked::new("list", "", "nodes", "");
        let mut nodes = Vec::new();
        let mut each = |node: NodeWire| nodes.push(node.into());
        let version = self.pages(asked, "/api/v1/nodes", "", limits::NODES as usize, &mut each).await?;
        Ok((nodes, version))
    }

    /// A JSON merge patch of a node, conditional on `resource_version` if given. Returns the node as it is now.
    pub async fn patch_node(
        &self,
        name: &str,
        patch: Value,
        resource_version: Option<&str>,
    ) -> Result<Node, WorldError> {
        let path = format!("/api/v1/nodes/{}?fieldManager={}", segment("node", name)?, self.manager);
        let body = conditional(patch, resource_version);
        let node: NodeWire = self.write(Asked::new("patch", "", "nodes", name), Method::PATCH, path, &body).await?;
        let node = Node::from(node);
        self.fleet.observe(&node);
        Ok(node)
    }

    pub async fn pods_on(&self, node: &str) -> Result<Vec<Pod>, WorldError> {
        let filter = format!("fieldSelector={}", escape(&format!("spec.nodeName={}", segment("node", node)?)));
        let asked = Asked::new("list", "", "pods", "");
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

    pub async fn pods(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Result<Vec<Pod>, WorldError> {
        let terms: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let filter = format!("labelSelector={}", escape(&terms.join(",")));
        let path = format!("/api/v1/namespaces/{}/pods", segment("namespace", namespace)?);
        self.list::<PodWire, Pod>(Asked::new("list", "", "pods", ""), &path, &filter, limits::NODES as usize).await
    }

    /// Pods of all namespaces that bear a label with that value.
    pub async fn pods_labelled(&self, label: &str, value: &str) -> Result<Vec<Pod>, WorldError> {
        let filter = format!("labelSelector={}", escape(&format!("{label}={value}")));
        self.list::<PodWire, Pod>(Asked::new("list", "", "pods", ""), "/api/v1/pods", &filter, limits::PODS).await
    }

    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Pod, WorldError> {
        let asked = Asked::new("get", "", "pods", name).within(namespace);
        let pod: PodWire = self.get(asked, pod_path(namespace, name)?).await?;
        Ok(pod.into())
    }

    /// The data of a ConfigMap.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, WorldError> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            data: BTreeMap<String, String>,
        }
        let asked = Asked::new("get", "", "configmaps", name).within(namespace);
        let (space, name) = (segment("namespace", namespace)?, segment("ConfigMap", name)?);
        let map: Wire = self.get(asked, format!("/api/v1/namespaces/{space}/configmaps/{name}")).await?;
        Ok(map.data)
    }

    /// The eviction subresource, conditional on the pod's uid.
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
        let asked = Asked::new("create", "", "pods/eviction", name).within(namespace);
        let path = format!("{}/eviction", pod_path(namespace, name)?);
        let (status, headers, bytes) =
            self.exchange(&asked, Method::POST, path, Some((&body, "application/json"))).await?;
        answer::eviction(&asked, status, &headers, &bytes)
    }

    /// Deletes exactly the pod with this uid: `Conflict` if another one bears the name, `NotFound` if none does.
    pub async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), WorldError> {
        let asked = Asked::new("delete", "", "pods", name).within(namespace);
        let body = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": uid } });
        self.write::<serde::de::IgnoredAny>(asked, Method::DELETE, pod_path(namespace, name)?, &body).await.map(drop)
    }

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
        // Nothing of that name was there, so nothing happened, and the other kind may be asked.
        let second: WorkloadWire = self.patch_workload_of(STATEFUL_SET, namespace, name, "", &body).await?;
        Ok(second.named(STATEFUL_SET.name).into())
    }

    /// The scale subresource.
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

    /// Whether we may do this, by SelfSubjectAccessReview. A resource such as `pods/eviction` names a subresource.
    pub async fn may(&self, group: &str, resource: &str, verb: &str) -> Result<bool, WorldError> {
        self.may_within("", group, resource, verb).await
    }

    /// The same in one namespace; an empty one means all.
    pub async fn may_within(
        &self,
        namespace: &str,
        group: &str,
        resource: &str,
        verb: &str,
    ) -> Result<bool, WorldError> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = json!({
            "namespace": namespace, "group": group, "resource": resource, "subresource": subresource, "verb": verb,
        });
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
        let asked = Asked::new("create", "authorization.k8s.io", "selfsubjectaccessreviews", "");
        let review: Value = self.write(asked, Method::POST, path, &body).await?;
        Ok(review["status"]["allowed"].as_bool().unwrap_or(false))
    }

    async fn workload_of(&self, kind: Kind, namespace: &str, name: &str) -> Result<Workload, WorldError> {
        let asked = Asked::new("get", "apps", kind.resource, name).within(namespace);
        let sent: WorkloadWire = self.get(asked, kind.path(namespace, name)?).await?;
        Ok(sent.named(kind.name).into())
    }

    async fn patch_workload_of<T: DeserializeOwned>(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        part: &str,
        body: &Value,
    ) -> Result<T, WorldError> {
        let path = format!("{}{part}?fieldManager={}", kind.path(namespace, name)?, self.manager);
        let resource = if part.is_empty() { kind.resource } else { kind.scale };
        self.write(Asked::new("patch", "apps", resource, name).within(namespace), Method::PATCH, path, body).await
    }

    /// All pages of a list. More than `most` objects is an error: a list cut short would look like the truth.
    async fn list<W, T>(&self, asked: Asked<'_>, path: &str, filter: &str, most: usize) -> Result<Vec<T>, WorldError>
    where
        W: DeserializeOwned + Into<T>,
        T: Send,
    {
        let mut all = Vec::new();
        self.pages(asked, path, filter, most, &mut |item: W| all.push(item.into())).await?;
        Ok(all)
    }

    /// A list page by page, each object as it is read, so that a large one is never in memory as a whole. Returns its
    /// version.
    async fn pages<W: DeserializeOwned>(
        &self,
        asked: Asked<'_>,
        path: &str,
        filter: &str,
        most: usize,
        each: &mut (dyn FnMut(W) + Send),
    ) -> Result<String, WorldError> {
        let (mut count, mut from) = (0, String::new());
        loop {
            let mut page = format!("{path}?limit={}", limits::KUBE_PAGE);
            if !filter.is_empty() {
                page.push('&');
                page.push_str(filter);
            }
            if !from.is_empty() {
                page.push_str("&continue=");
                page.push_str(&escape(&from));
            }
            let list: List<W> = self.get(asked, page).await?;
            let items = list.items.unwrap_or_default();
            count += items.len();
            if count > most {
                return Err(WorldError::Invalid(format!("{asked}: more than {most} objects, which is our bound")));
            }
            items.into_iter().for_each(&mut *each);
            from = list.metadata.more;
            if from.is_empty() {
                return Ok(list.metadata.resource_version);
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, asked: Asked<'_>, path: String) -> Result<T, WorldError> {
        let (status, headers, bytes) = self.exchange(&asked, Method::GET, path, None).await?;
        decode(&asked, status, &headers, &bytes)
    }

    async fn write<T: DeserializeOwned>(
        &self,
        asked: Asked<'_>,
        method: Method,
        path: String,
        body: &Value,
    ) -> Result<T, WorldError> {
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        self.send(asked, method, path, body, content_type).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        asked: Asked<'_>,
        method: Method,
        path: String,
        body: &Value,
        content_type: &str,
    ) -> Result<T, WorldError> {
        let (status, headers, bytes) = self.exchange(&asked, method, path, Some((body, content_type))).await?;
        decode(&asked, status, &headers, &bytes)
    }

    /// One request and its answer, whatever its status; silence is the only error. A body comes with its type.
    async fn exchange(
        &self,
        asked: &Asked<'_>,
        method: Method,
        path: String,
        body: Option<(&Value, &str)>,
    ) -> Result<(http::StatusCode, http::HeaderMap, bytes::Bytes), WorldError> {
        let content_type = body.map_or("application/json", |(_, content_type)| content_type);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, content_type)
            .body(Body::from(body.map(|(value, _)| value.to_string().into_bytes()).unwrap_or_default()))
            .map_err(|error| WorldError::Invalid(format!("{asked}: {error}")))?;
        let talk = async {
            let answer = self.client.send(request).await.map_err(|error| unanswered(asked, &error))?;
            let (head, body) = answer.into_parts();
            self.note_date(&head.headers);
            let bytes = Limited::new(body, limits::KUBE_BODY_BYTES)
                .collect()
                .await
                .map_err(|error| WorldError::Unavailable(format!("{asked}: the answer broke off: {error}")))?;
            Ok((head.status, head.headers, bytes.to_bytes()))
        };
        let answer = tokio::time::timeout(limits::KUBE_TIMEOUT, talk).await.unwrap_or_else(|_| {
            let seconds = limits::KUBE_TIMEOUT.as_secs();
            Err(WorldError::Unavailable(format!("{asked}: no answer within {seconds} s")))
        });
        match &answer {
            Ok((status, _, bytes)) if self.was_away() => answer::not_yet(asked, *status, bytes).map_or(answer, Err),
            Ok(_) => answer,
            Err(error) => {
                self.note_away(error);
                answer
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    resource: &'static str,
    scale: &'static str,
}

const DEPLOYMENT: Kind = Kind { name: "Deployment", resource: "deployments", scale: "deployments/scale" };
const STATEFUL_SET: Kind = Kind { name: "StatefulSet", resource: "statefulsets", scale: "statefulsets/scale" };

impl Kind {
    fn path(self, namespace: &str, name: &str) -> Result<String, WorldError> {
        let (namespace, name) = (segment("namespace", namespace)?, segment("name", name)?);
        Ok(format!("/apis/apps/v1/namespaces/{namespace}/{}/{name}", self.resource))
    }
}

async fn settings(config: &KubeConfig) -> Result<kube::Config, WorldError> {
    use kube::config::{KubeConfigOptions, Kubeconfig};
    if !config.url.is_empty() {
        let url = config.url.parse().map_err(|error| {
            WorldError::Invalid(format!("`{}` is not the URL of an API server: {error}", config.url))
        })?;
        let mut settings = kube::Config::new(url);
        settings.root_cert_file = config.ca_file.clone();
        if config.ca_file.is_none() && settings.cluster_url.scheme_str() == Some("http") {
            // Nobody is to be trusted, so the system need not have CA certificates.
            settings.root_cert = Some(Vec::new());
        }
        settings.auth_info.token_file = config.token_file.as_ref().map(|path| path.to_string_lossy().into_owned());
        return Ok(settings);
    }
    let options = KubeConfigOptions { context: config.context.clone(), ..KubeConfigOptions::default() };
    let unread = |what: &str, error: &dyn std::fmt::Display| {
        WorldError::Invalid(format!("{what}: {error}; set `url` or `kubeconfig` of the cluster in the configuration"))
    };
    if let Some(path) = &config.kubeconfig {
        let file = Kubeconfig::read_from(path).map_err(|error| unread(&path.display().to_string(), &error))?;
        return kube::Config::from_custom_kubeconfig(file, &options)
            .await
            .map_err(|error| unread(&path.display().to_string(), &error));
    }
    if config.context.is_none()
        && let Ok(settings) = kube::Config::incluster()
    {
        return Ok(settings);
    }
    kube::Config::from_kubeconfig(&options)
        .await
        .map_err(|error| unread("neither in a cluster nor with a kubeconfig file", &error))
}

fn decode<T: DeserializeOwned>(
    asked: &Asked<'_>,
    status: http::StatusCode,
    headers: &http::HeaderMap,
    bytes: &[u8],
) -> Result<T, WorldError> {
    if !status.is_success() {
        return Err(refusal(asked, status, headers, bytes));
    }
    // The effect of a write has happened, but what answered may be a proxy: let the step ask again.
    serde_json::from_slice(bytes)
        .map_err(|error| WorldError::Unavailable(format!("{asked}: the answer is not what the API sends: {error}")))
}

fn conditional(mut patch: Value, resource_version: Option<&str>) -> Value {
    if let Some(version) = resource_version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    patch
}

fn pod_path(namespace: &str, name: &str) -> Result<String, WorldError> {
    Ok(format!("/api/v1/namespaces/{}/pods/{}", segment("namespace", namespace)?, segment("pod", name)?))
}

/// A name that is one path segment and nothing more: DNS-1123 letters only, so that no label can bend the path.
fn segment<'a>(what: &str, name: &'a str) -> Result<&'a str, WorldError> {
    let fits = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && !name.starts_with(['.', '-'])
        && !name.ends_with(['.', '-']);
    if fits {
        return Ok(name);
    }
    let shown: String = name.chars().take(64).collect();
    Err(WorldError::Invalid(format!("{shown:?} is no {what}: Kubernetes allows small letters, digits, `-` and `.`")))
}

fn escape(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
