//! Kubelets that only pretend: they register nodes, renew leases, and let pods run, end, hang and crash, for a thousand
//! nodes on one thread.
//!
//! A pod does what its annotations say: `kubelet/never-ready`, `kubelet/hang` (stays when it is deleted), `kubelet/exit`
//! (ends by itself with this code), `kubelet/stops-after` and `kubelet/ready-after` (milliseconds).
//!
//! Invariant: what a kubelet does goes through the API server; nothing here writes to a test's own state.

mod api;

use api::{Wire, lease, registration, running, stamp, waiting};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;

/// Requests that are under way at a time.
const AT_ONCE: usize = 16;

/// A node to register.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    pub name: String,
    /// Capacity and allocatable: `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`, …
    pub devices: BTreeMap<String, u32>,
    pub labels: BTreeMap<String, String>,
}

impl NodeSpec {
    pub fn gpu(name: &str, gpus: u32) -> NodeSpec {
        let devices = [("nvidia.com/gpu".to_owned(), gpus)].into();
        NodeSpec { name: name.to_owned(), devices, labels: BTreeMap::new() }
    }

    pub fn label(mut self, key: &str, value: &str) -> NodeSpec {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// How a node treats its pods.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manners {
    pub ready_after: Duration,
    pub stops_after: Duration,
    /// Pods that are deleted stay until this ends.
    pub hangs: bool,
    /// Says nothing and does nothing: the machine is off, or the network is gone.
    pub silent: bool,
    /// How pods of Jobs end here, and their last words; left out: well.
    pub job: Option<(i32, &'static str)>,
}

pub struct Kubelet {
    inner: Arc<Inner>,
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Inner {
    wire: Wire,
    client: kube::Client,
    state: Mutex<State>,
    renew_every: Duration,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<String, Node>,
    /// Pods on our nodes by uid, as last seen.
    pods: BTreeMap<String, Pod>,
    /// Those that a task of ours is starting or ending.
    busy: BTreeSet<String>,
    addresses: u32,
}

struct Node {
    spec: NodeSpec,
    manners: Manners,
}

impl Kubelet {
    pub(super) fn start(kubeconfig: PathBuf, renew_every: Duration) -> Kubelet {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("kubelet".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = super::Admin::of(&kubeconfig).await.client();
                let wire = Wire::new(client.clone());
                let inner = Arc::new(Inner { wire, client, state: Mutex::default(), renew_every });
                ready.send((inner.clone(), tokio::runtime::Handle::current())).unwrap();
                tokio::select! {
                    () = inner.clone().follow() => {}
                    () = inner.renew() => {}
                    _ = stopped => {}
                }
            });
        });
        let (inner, runtime) = is_ready.recv().unwrap();
        Kubelet { inner, runtime, stop: Some(stop), thread: Some(thread.unwrap()) }
    }

    /// Registers nodes that are ready and empty, and waits until the node controller lets pods onto them.
    pub async fn add(&self, nodes: impl IntoIterator<Item = NodeSpec>) {
        let nodes: Vec<NodeSpec> = nodes.into_iter().collect();
        self.act(async move |inner: Arc<Inner>| {
            let register = |spec: NodeSpec| {
                let inner = inner.clone();
                async move { inner.register(spec).await }
            };
            futures::stream::iter(nodes).map(register).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        })
        .await;
    }

    /// Takes nodes away: the objects are deleted, and their pods go with them.
    pub async fn remove(&self, nodes: &[String]) {
        let nodes = nodes.to_vec();
        self.act(async move |inner: Arc<Inner>| inner.remove(nodes).await).await;
    }

    /// Takes nodes and a namespace away, some time soon.
    pub fn clear(&self, nodes: Vec<String>, namespace: Option<String>) {
        let inner = self.inner.clone();
        self.runtime.spawn(async move {
            if let Some(namespace) = namespace {
                inner.wire.delete(&format!("/api/v1/namespaces/{namespace}"), None).await;
            }
            inner.remove(nodes).await;
        });
    }

    /// Changes how a node treats its pods; what waited for that goes on at once.
    pub async fn treat(&self, node: &str, change: impl FnOnce(&mut Manners)) {
        {
            let mut state = self.inner.state();
            change(&mut state.nodes.get_mut(node).unwrap_or_else(|| panic!("no node {node}")).manners);
        }
        let node = node.to_owned();
        self.act(async move |inner: Arc<Inner>| {
            if !inner.manners(&node).silent {
                inner.report(&node, true).await;
            }
            inner.look_again(&node);
        })
        .await;
    }

    /// Pods of this node that are deleted stay, until `hang(node, false)`.
    pub async fn hang(&self, node: &str, hangs: bool) {
        self.treat(node, |manners| manners.hangs = hangs).await;
    }

    /// The node says of itself that it is not ready.
    pub async fn not_ready(&self, node: &str) {
        let node = node.to_owned();
        self.act(async move |inner: Arc<Inner>| inner.report(&node, false).await).await;
    }

    /// The node is ready again.
    pub async fn ready(&self, node: &str) {
        let node = node.to_owned();
        self.act(async move |inner: Arc<Inner>| inner.report(&node, true).await).await;
    }

    /// A pod's container has ended: `CrashLoopBackOff`, `OOMKilled`, `ImagePullBackOff`, …
    pub async fn crash(&self, namespace: &str, pod: &str, reason: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/status");
        let reason = reason.to_owned();
        self.act(async move |inner: Arc<Inner>| {
            let found = inner.wire.get(path.trim_end_matches("/status")).await;
            let pod: Pod = serde_json::from_value(found).unwrap();
            inner.wire.patch(&path, &waiting(&pod, &reason)).await;
        })
        .await;
    }

    /// Writes into a node's status, as a device plugin or a problem detector would: a JSON merge patch of the node.
    pub async fn patch_status(&self, node: &str, patch: Value) {
        let path = format!("/api/v1/nodes/{node}/status");
        self.act(async move |inner: Arc<Inner>| inner.wire.patch(&path, &patch).await).await;
    }

    /// Runs it on the kubelet's own thread, so that its connections outlive the test that asks.
    async fn act<F>(&self, work: impl FnOnce(Arc<Inner>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.spawn(work(self.inner.clone())).await.unwrap();
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    fn manners(&self, node: &str) -> Manners {
        self.state().nodes.get(node).map_or(Manners { silent: true, ..Manners::default() }, |node| node.manners)
    }

    async fn register(self: Arc<Self>, spec: NodeSpec) {
        let name = spec.name.clone();
        self.state().nodes.insert(name.clone(), Node { spec: spec.clone(), manners: Manners::default() });
        self.wire.create("/api/v1/nodes", &registration(&spec)).await;
        self.wire.create(api::LEASES, &lease(&name)).await;
        // A new node is tainted until the node controller has seen that it is ready.
        let path = format!("/api/v1/nodes/{name}");
        for _ in 0..3_000 {
            let node = self.wire.get(&path).await;
            let mut taints = node["spec"]["taints"].as_array().into_iter().flatten();
            if !taints.any(|taint| taint["key"] == "node.kubernetes.io/not-ready") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // polls
        }
        panic!("the node controller did not accept {name} in a minute");
    }

    async fn remove(&self, nodes: Vec<String>) {
        for node in nodes {
            self.state().nodes.remove(&node);
            self.wire.delete(&format!("/api/v1/nodes/{node}"), None).await;
            self.wire.delete(&format!("{}/{node}", api::LEASES), None).await;
        }
    }

    async fn report(&self, node: &str, ready: bool) {
        let Some(spec) = self.state().nodes.get(node).map(|node| node.spec.clone()) else { return };
        // The problem detector's conditions are its own.
        let path = format!("/api/v1/nodes/{node}");
        let mut conditions = self.wire.get(&path).await["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ours = api::conditions(ready);
        conditions.retain(|condition| !ours.iter().any(|own| own["type"] == condition["type"]));
        conditions.extend(ours);
        let body = json!({ "status": { "conditions": conditions } });
        self.wire.patch(&format!("{path}/status"), &body).await;
        self.wire.patch(&format!("{}/{}", api::LEASES, spec.name), &json!({ "spec": { "renewTime": stamp() } })).await;
    }

    /// Renews the leases of all nodes that speak, for ever.
    async fn renew(&self) {
        loop {
            tokio::time::sleep(self.renew_every).await; // polls
            let speaking: Vec<String> = {
                let state = self.state();
                let all = state.nodes.iter().filter(|(_, node)| !node.manners.silent);
                all.map(|(name, _)| name.clone()).collect()
            };
            let renew = |name: String| async move {
                let path = format!("{}/{name}", api::LEASES);
                self.wire.try_patch(&path, &json!({ "spec": { "renewTime": stamp() } })).await;
            };
            futures::stream::iter(speaking).map(renew).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        }
    }

    /// Follows all pods that have a node, through restarts of the API server, for ever.
    async fn follow(self: Arc<Self>) {
        use kube::runtime::WatchStreamExt;
        use kube::runtime::watcher::{Config, Event, watcher};
        let pods: kube::Api<Pod> = kube::Api::all(self.client.clone());
        let stream = watcher(pods, Config::default().fields("spec.nodeName!=")).default_backoff();
        let mut stream = std::pin::pin!(stream);
        loop {
            match stream.try_next().await {
                Ok(Some(Event::Apply(pod) | Event::InitApply(pod))) => self.clone().see(pod),
                Ok(Some(Event::Delete(pod))) => drop(self.state().pods.remove(uid(&pod))),
                Ok(Some(Event::Init)) => self.state().pods.clear(),
                Ok(Some(Event::InitDone)) | Err(_) => {}
                Ok(None) => return,
            }
        }
    }

    fn see(self: Arc<Self>, pod: Pod) {
        let node = node_of(&pod).to_owned();
        {
            let mut state = self.state();
            if !state.nodes.contains_key(&node) {
                return;
            }
            state.pods.insert(uid(&pod).to_owned(), pod.clone());
        }
        self.work_on(pod);
    }

    fn look_again(self: &Arc<Self>, node: &str) {
        let pods: Vec<Pod> = self.state().pods.values().filter(|pod| node_of(pod) == node).cloned().collect();
        for pod in pods {
            self.clone().work_on(pod);
        }
    }

    /// Starts or ends a pod, if it needs that and nobody is at it.
    fn work_on(self: Arc<Self>, pod: Pod) {
        let manners = self.manners(node_of(&pod));
        let ending = pod.metadata.deletion_timestamp.is_some();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        let hangs = manners.hangs || annotation(&pod, "kubelet/hang").is_some();
        let wanted = if ending { !hangs } else { phase == "Pending" };
        let key = format!("{} {ending}", uid(&pod));
        if manners.silent || !wanted || !self.state().busy.insert(key.clone()) {
            return;
        }
        tokio::spawn(async move {
            if ending {
                self.end(&pod, manners).await;
            } else {
                self.run(&pod, manners).await;
            }
            self.state().busy.remove(&key);
        });
    }

    async fn run(&self, pod: &Pod, manners: Manners) {
        pause(pod, "kubelet/ready-after", manners.ready_after).await;
        let address = {
            let mut state = self.state();
            state.addresses += 1;
            format!("10.{}.{}.{}", state.addresses >> 16, state.addresses >> 8 & 255, state.addresses & 255)
        };
        let path = format!("{}/status", pod_path(pod));
        let ready = annotation(pod, "kubelet/never-ready").is_none();
        self.wire.try_patch(&path, &running(pod, &address, ready)).await;
        let of_job = pod.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Job");
        let asked = annotation(pod, "kubelet/exit").and_then(|code| code.parse().ok());
        let ends = if of_job { manners.job.or(Some((0, api::WARMED))) } else { asked.map(|code| (code, "")) };
        if let Some((code, words)) = ends {
            self.wire.try_patch(&path, &api::exited(pod, code, words)).await;
        }
    }

    async fn end(&self, pod: &Pod, manners: Manners) {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
        let most = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        pause(pod, "kubelet/stops-after", manners.stops_after.min(most)).await;
        self.wire.delete(&pod_path(pod), Some(uid(pod))).await;
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str)
}

fn pod_path(pod: &Pod) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("/api/v1/namespaces/{}/pods/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
}

/// What the pod takes for it, or else the node.
async fn pause(pod: &Pod, key: &str, default: Duration) {
    let time = annotation(pod, key).and_then(|millis| millis.parse().ok()).map_or(default, Duration::from_millis);
    if !time.is_zero() {
        tokio::time::sleep(time).await; // polls: what a container takes
    }
}
