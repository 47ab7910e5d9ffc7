//! A simulated fleet that serves the Kubernetes API, Prometheus' API and a metrics endpoint over HTTP, below the
//! actions.
//!
//! Invariant: it counts every effect itself, so a test never has to believe our own journal.

mod answer;
mod api;
mod build;
mod controllers;
mod disruption;
mod effects;
mod health;
mod jobs;
mod metrics;
mod mig;
mod object;
mod patch;
mod prometheus;
mod selector;
mod serve;
mod state;
mod watch;
mod workloads;
mod write;

pub use effects::{AppliedChange, ReceivedRequest};
pub use health::{ApiFault, RequestFault, SimFault};
pub use mig::MigBehaviour;
pub use prometheus::SimSample;

use nightshift_core::{limits, model};
use nightshift_runtime::clock::{self, Clock, RealClock};
use object::{ObjectKey, ObjectKind};
use serde_json::Value;
use serve::SharedFleet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// An inference workload of the simulated fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct SimWorkload {
    pub kind: WorkloadKind,
    pub namespace: String,
    pub name: String,
    /// As in vLLM's `--model` and `model_name`.
    pub model: String,
    pub replicas: u32,
    /// GPUs a replica.
    pub gpus: u32,
    /// A disruption budget with this `minAvailable`.
    pub min_available: Option<u32>,
    /// The pods keep something in an emptyDir.
    pub empty_dir: bool,
    /// More labels of its pods, beside `app`, `model` and `nightshift.dev/traffic`.
    pub labels: Vec<(String, String)>,
}

/// The kind of a simulated workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
}

impl SimWorkload {
    /// A Deployment in the namespace `inference`, whose budget keeps all but one replica.
    pub fn deployment(name: &str, model: &str, replicas: u32, gpus: u32) -> SimWorkload {
        SimWorkload {
            kind: WorkloadKind::Deployment,
            namespace: "inference".to_owned(),
            name: name.to_owned(),
            model: model.to_owned(),
            replicas,
            gpus,
            min_available: Some(replicas.saturating_sub(1)),
            empty_dir: false,
            labels: Vec::new(),
        }
    }

    /// A model's name may hold letters that no label may.
    fn model_label(&self) -> String {
        self.model.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

/// The fleet to simulate.
#[derive(Clone)]
pub struct SimOptions {
    /// GPU nodes `gpu-1` … `gpu-N`; one node `control-1` without GPUs comes with them.
    pub nodes: usize,
    pub gpus_per_node: u32,
    pub workloads: Vec<SimWorkload>,
    /// A notebook with one GPU and no owner, in `research`, on the last node.
    pub lone_pod: bool,
    pub clock: Arc<dyn Clock>,
    /// Of faults with a probability, and of UIDs.
    pub seed: u64,
    /// From being scheduled to Ready.
    pub pod_ready_after: Duration,
    /// From being deleted to gone, unless the grace period is shorter.
    pub pod_stops_after: Duration,
    /// A cordoned node whose GPUs are unused repairs itself after this.
    pub self_heal: Option<Duration>,
    /// Where `SimFleet::start` listens; port 0 is any free one.
    pub listen: SocketAddr,
}

impl Default for SimOptions {
    fn default() -> Self {
        SimOptions {
            nodes: 4,
            gpus_per_node: 8,
            workloads: vec![
                SimWorkload::deployment("llama-70b", "meta-llama/Llama-3.3-70B-Instruct", 2, 4),
                SimWorkload::deployment("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3", 4, 1),
                SimWorkload::deployment("qwen-32b", "Qwen/Qwen2.5-32B-Instruct", 2, 2),
            ],
            lone_pod: true,
            clock: Arc::new(RealClock),
            seed: 1,
            pod_ready_after: Duration::from_secs(2),
            pod_stops_after: Duration::from_secs(1),
            self_heal: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }
}

impl SimOptions {
    /// A fleet of so many nodes, with one deployment of 8 × 1 GPU for every two of them.
    pub fn large(nodes: usize) -> SimOptions {
        let workload = |n| SimWorkload::deployment(&format!("model-{n}"), &format!("acme/model-{n}"), 8, 1);
        SimOptions { nodes, workloads: (0..nodes / 2).map(workload).collect(), ..SimOptions::default() }
    }
}

/// A running simulated fleet; it ends when this is dropped.
///
/// It lives on a thread of its own, so a test may block without stopping it.
pub struct SimFleet {
    shared: SharedFleet,
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl SimFleet {
    /// Builds the fleet and listens.
    ///
    /// # Errors
    ///
    /// Fails when the socket cannot be bound, or the thread cannot be started.
    pub fn start(options: SimOptions) -> std::io::Result<SimFleet> {
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = SharedFleet::new(build::build(options));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = shared.clone();
        let thread = std::thread::Builder::new().name("sim-fleet".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = serve::run(listener, served) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(SimFleet { shared, address, stop: Some(stop), thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`, for the Kubernetes API, for Prometheus' API, and for `/metrics`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Injects a fault.
    ///
    /// # Errors
    ///
    /// Fails when the fault names an object that does not exist.
    pub fn fault(&self, fault: SimFault) -> Result<(), String> {
        api::inject(&mut self.shared.lock(), fault)
    }

    /// Ends the illness of a node (it reboots), or of one GPU.
    ///
    /// # Errors
    ///
    /// Fails when the node or the GPU does not exist.
    pub fn repair(&self, node: &str, gpu: Option<u32>) -> Result<(), String> {
        api::mend(&mut self.shared.lock(), node, gpu)
    }

    /// Ends all faults of the API and gives denied rights back.
    pub fn calm(&self) {
        let mut state = self.shared.lock();
        state.health.clear_api();
        state.health.denied.clear();
    }

    /// Every mutating request that was accepted, in order.
    pub fn effects(&self) -> Vec<AppliedChange> {
        self.shared.lock().effects.applied.clone()
    }

    /// Those that changed something.
    pub fn changes(&self) -> Vec<AppliedChange> {
        self.effects().into_iter().filter(|applied| applied.changed).collect()
    }

    /// The last requests as they arrived, whatever became of them.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared.lock().effects.asked.iter().cloned().collect()
    }

    /// A node as JSON, as the API would show it.
    pub fn node(&self, name: &str) -> Option<Value> {
        self.object(ObjectKey::node(name))
    }

    /// The pod as the API serves it now.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Value> {
        self.object(ObjectKey::new(ObjectKind::Pod, namespace, name))
    }

    /// The Deployment as the API serves it now.
    pub fn deployment(&self, namespace: &str, name: &str) -> Option<Value> {
        self.object(ObjectKey::new(ObjectKind::Deployment, namespace, name))
    }

    /// A Job as JSON, as the API would show it.
    pub fn job(&self, namespace: &str, name: &str) -> Option<Value> {
        self.object(ObjectKey::new(ObjectKind::Job, namespace, name))
    }

    /// Namespace and name of the pods on a node, those that are ending included.
    pub fn pods_on(&self, node: &str) -> Vec<(String, String)> {
        let state = self.shared.lock();
        let pods = state.pods_on.get(node).into_iter().flatten();
        pods.map(|key| (key.namespace.clone(), key.name.clone())).collect()
    }

    /// Sets the answer of Prometheus' API to exactly this expression (white space does not count).
    pub fn set_prometheus(&self, expression: &str, samples: Vec<SimSample>) {
        self.shared.lock().table.set(expression, samples);
    }

    fn object(&self, key: ObjectKey) -> Option<Value> {
        let state = self.shared.lock();
        state.get(&key).map(|object| api::shown(&state, key.kind, object))
    }
}

impl Drop for SimFleet {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread's own panic was printed already; dropping must not panic.
            let _ = thread.join();
        }
    }
}

/// Serves a fleet on this listener until it is dropped: for a process of its own.
pub async fn serve(listener: tokio::net::TcpListener, options: SimOptions) {
    serve::run(listener, SharedFleet::new(build::build(options))).await;
}
