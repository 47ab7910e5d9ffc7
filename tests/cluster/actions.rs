//! The action battery on a real API server: the tests and cases of tests/it/actions, from the same files.
//!
//! Time is simulated for the actions, and runs some five times faster than the cluster's; every stage has nodes, a
//! namespace and a proxy of its own, and is told from the others by its user agent.
//!
//! Invariant: what happened is counted from the API server's audit log, never believed from an outcome.

#[path = "../it/actions/battery.rs"]
mod battery;
#[path = "../it/actions/kube_cases.rs"]
mod kube_cases;
mod slow;
mod waiting;
mod warm;

/// The battery's own name for where its cases come from.
mod cases {
    pub(super) use super::kube_cases::{Case, call, cordon, kube_case as case};
}

use crate::harness::eventually;
use crate::plane::{Admin, ControlPlane, NodeSpec, shared};
use crate::proxy::Proxy;
use futures::StreamExt;
use nightshift::actions::{Action, PerformResult, catalog, find};
use nightshift::clock::{Clock, SimClock};
use nightshift::limits;
use nightshift::model::{ActionCall, FailureKind, Outcome, RunId, Step, Time};
use nightshift::world::sim::RequestFault;
use nightshift::world::{AgentMailbox, HttpClient, KubeClient, KubeConfig, ProbedEngines, World};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Stages that one test has at a time.
const AT_ONCE: usize = 6;
/// Nodes of a stage.
const NODES: usize = 2;
/// Of the namespace that holds the battery's ServiceAccounts.
const HOME: &str = "battery";

pub struct Stage {
    plane: &'static ControlPlane,
    pub admin: Admin,
    pub world: World,
    clock: Arc<SimClock>,
    proxy: Proxy,
    /// Also the namespace's name and the prefix of the nodes'.
    pub id: String,
    /// Pods of models, by node, as `namespace/name`.
    pods: BTreeMap<String, Vec<String>>,
}

/// Token files of two ServiceAccounts: one with every right that actions declare, and one that may only read.
struct Accounts {
    engine: PathBuf,
    reader: PathBuf,
}

async fn accounts(plane: &ControlPlane, admin: &Admin) -> &'static Accounts {
    static ACCOUNTS: OnceCell<Accounts> = OnceCell::const_new();
    let make = async || {
        admin.namespace(HOME).await;
        let rights = catalog().into_iter().flat_map(|action| action.spec().permissions);
        let all: Vec<_> = rights.map(|right| (right.group, right.resource, right.verb)).collect();
        let reads: Vec<_> =
            all.iter().filter(|(_, _, verb)| matches!(*verb, "get" | "list" | "watch")).copied().collect();
        let mut files = Vec::new();
        for (account, rights) in [("engine", &all), ("reader", &reads)] {
            let config = plane.reach(&admin.token(HOME, account, 3_600).await);
            admin.grant(HOME, account, rights).await;
            let kube = KubeClient::connect(&config, "nightshift/accounts").await.unwrap();
            eventually("the rights are known", async || kube.nodes().await.ok()).await;
            files.push(config.token_file.unwrap());
        }
        let reader = files.pop().unwrap();
        Accounts { engine: files.pop().unwrap(), reader }
    };
    ACCOUNTS.get_or_init(make).await
}

impl Stage {
    async fn ready_for(name: &str) -> Stage {
        let podless = ["annotate", "cordon", "label", "node", "spare_node", "taint", "uncordon", "untaint"];
        let action = name.strip_prefix("k8s::").unwrap_or(name);
        Stage::with(if podless.contains(&action) { vec![] } else { vec![Server::new("mistral-7b", 2)] }).await
    }

    /// With these workloads, ready.
    pub async fn with(servers: Vec<Server>) -> Stage {
        static STAGES: AtomicU32 = AtomicU32::new(0);
        static NOWHERE: LazyLock<HttpClient> = LazyLock::new(|| HttpClient::new("nightshift/test", &[]).unwrap());
        let plane = shared().await;
        let admin = plane.admin().await;
        let accounts = accounts(plane, &admin).await;
        let id = format!("stage-{:04}", STAGES.fetch_add(1, Ordering::Relaxed));
        let proxy = Proxy::start(&plane.url(), &plane.ca_file()).await;
        let identity = format!("nightshift/{id}");
        let clock = Arc::new(SimClock::new(Time::now()));
        let config =
            KubeConfig { url: proxy.url(), token_file: Some(accounts.engine.clone()), ..KubeConfig::default() };
        let config = KubeConfig { cache_job: Some(kube_cases::cache_job(&id)), ..config };
        let kube = KubeClient::connect(&config, &identity).await.unwrap();
        let world = World {
            clusters: [("default".to_owned(), kube)].into(),
            default_cluster: "default".to_owned(),
            prometheus: None,
            kill: Arc::default(),
            http: NOWHERE.clone(),
            docker: None,
            agents: AgentMailbox::default(),
            engines: ProbedEngines::default(),
            clock: clock.clone(),
            identity,
        };
        let mut stage = Stage { plane, admin, world, clock, proxy, id, pods: BTreeMap::new() };
        let nodes = (1..=NODES).map(|number| NodeSpec::gpu(&stage.node(number), 8).label("stage", &stage.id));
        plane.kubelet().add(nodes.collect::<Vec<_>>()).await;
        if !servers.is_empty() {
            stage.admin.namespace(&stage.id).await;
            for server in servers {
                stage.serve(&server).await;
            }
            stage.pods = stage.pods_now().await;
        }
        stage
    }

    /// A Deployment and its budget, if it has one; waits until all is ready and counted.
    pub async fn serve(&self, server: &Server) {
        for object in server.objects(&self.id) {
            self.admin.apply(&object).await;
        }
        let path = format!("/apis/apps/v1/namespaces/{}/deployments/{}", self.id, server.name);
        let unready = server.annotations.iter().any(|(key, _)| *key == "kubelet/never-ready");
        let field = if unready { "replicas" } else { "readyReplicas" };
        eventually("the replicas", async || {
            (self.admin.get(&path).await["status"][field] == server.replicas).then_some(())
        })
        .await;
        if server.min_available.is_some() && !unready {
            let path = format!("/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{}", self.id, server.name);
            eventually("the budget is counted", async || {
                (self.admin.get(&path).await["status"]["currentHealthy"] == server.replicas).then_some(())
            })
            .await;
        }
    }

    /// The pods of this stage's namespace, by node.
    pub async fn pods_now(&self) -> BTreeMap<String, Vec<String>> {
        let list = self.admin.get(&format!("/api/v1/namespaces/{}/pods", self.id)).await;
        let mut pods: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in list["items"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let name = format!("{}/{}", self.id, text(&pod["metadata"]["name"]));
            pods.entry(text(&pod["spec"]["nodeName"])).or_default().push(name);
        }
        pods
    }

    pub fn kube(&self) -> &KubeClient {
        self.world.kube(None).unwrap()
    }

    pub fn node(&self, number: usize) -> String {
        format!("{}-{number}", self.id)
    }

    pub fn workload(&self, name: &str) -> String {
        format!("{}/{name}", self.id)
    }

    pub fn pod_of(&self, deployment: &str) -> String {
        let mut all = self.pods.values().flatten();
        all.find(|pod| pod.contains(deployment)).unwrap_or_else(|| panic!("no pod of {deployment}")).clone()
    }

    pub fn served_on(&self, node: &str) -> usize {
        self.pods.get(node).map_or(0, Vec::len)
    }

    /// As the engine begins a step: the witness is read first.
    pub async fn begin(&self, call: ActionCall) -> Step {
        let action = find(&call.action).unwrap();
        let carry = action.witness(&self.world, &call).await.unwrap_or_default();
        let now = self.clock.now();
        Step {
            run: RunId(7),
            no: 0,
            effect: action.spec().effect,
            call,
            undoes: None,
            begun_at: now,
            deadline: now + action.spec().deadline.0,
            attempt: 1,
            carry,
            outcome: None,
            ended_at: None,
            incarnation: String::new(),
        }
    }

    /// As the engine performs a step to its end, with a fifth of the waits. Also says what it waited for.
    pub async fn finish(&self, step: &mut Step) -> (Outcome, Vec<String>) {
        let action = find(&step.call.action).unwrap();
        let mut waits = Vec::new();
        for _ in 0..5_000 {
            let (wait, why) = match action.perform(&self.world, step).await {
                PerformResult::Done(outcome) | PerformResult::Tell(outcome, _) => {
                    step.outcome = Some(outcome.clone());
                    return (outcome, waits);
                }
                PerformResult::Again { after, why, carry } => {
                    step.carry = carry;
                    (after, why)
                }
                // Here as the outcome that a runbook would never see: the run is stuck.
                PerformResult::InDoubt { why } => {
                    let failure = nightshift::model::StepFailure::new(FailureKind::Unavailable, why);
                    return (Outcome::Failed(failure), waits);
                }
                PerformResult::Retry { why, after } => {
                    step.attempt += 1;
                    if step.attempt > limits::STEP_ATTEMPTS {
                        let failure = nightshift::model::StepFailure::new(FailureKind::Unavailable, why);
                        return (Outcome::Failed(failure), waits);
                    }
                    (after.unwrap_or(limits::BACKOFF_FIRST), why)
                }
            };
            waits.push(why);
            self.clock.advance(wait);
            let pause = (wait / 5).clamp(Duration::from_millis(10), Duration::from_millis(500));
            tokio::time::sleep(pause).await; // polls, as the engine does
        }
        panic!("{} never ends: {:?}", step.call, waits.last());
    }

    pub async fn run(&self, call: ActionCall) -> Outcome {
        let mut step = self.begin(call).await;
        self.finish(&mut step).await.0
    }

    /// Lets so much time pass for the actions.
    pub fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    pub async fn hang(&self, node: &str, hangs: bool) {
        self.plane.kubelet().hang(node, hangs).await;
    }

    pub fn trouble(&self, times: u32, method: &str, path: &str, trouble: RequestFault) {
        self.proxy.trouble(times, method, path, trouble);
    }

    fn asked(&self) -> Vec<crate::plane::Asked> {
        let agent = &self.world.identity;
        self.plane.audit().select(|asked| asked.agent == *agent)
    }

    /// A moment, for `since`.
    pub fn mark(&self) -> usize {
        self.asked().iter().filter_map(crate::plane::Asked::change).count()
    }

    /// What was changed since then, as the API server counts it.
    pub fn since(&self, mark: usize) -> Vec<String> {
        let mut list: Vec<String> = self.asked().iter().filter_map(crate::plane::Asked::change).skip(mark).collect();
        list.sort();
        list
    }

    /// A moment, for `rights_since`.
    fn heard(&self) -> usize {
        self.asked().len()
    }

    fn rights_since(&self, heard: usize) -> Vec<(String, String)> {
        self.asked().into_iter().skip(heard).map(|asked| (asked.verb, asked.resource)).collect()
    }

    /// From now on the stage is an account that may only read.
    async fn deny_writes(&mut self) {
        let accounts = accounts(self.plane, &self.admin).await;
        let token_file = Some(accounts.reader.clone());
        let cache_job = Some(kube_cases::cache_job(&self.id));
        let config = KubeConfig { url: self.proxy.url(), token_file, cache_job, ..KubeConfig::default() };
        let kube = KubeClient::connect(&config, &self.world.identity).await.unwrap();
        self.world.clusters = [("default".to_owned(), kube)].into();
    }

    /// What an undo should restore, of node 1 and of the workload; what Kubernetes itself writes there is left out.
    async fn look(&self) -> Value {
        let node = self.admin.get(&format!("/api/v1/nodes/{}", self.node(1))).await;
        let path = format!("/apis/apps/v1/namespaces/{}/deployments/mistral-7b", self.id);
        let replicas = self.admin.find(&path).await.map(|found| found["spec"]["replicas"].clone());
        let ours = |map: &Value| -> Value {
            let entries = map.as_object().into_iter().flatten();
            entries.filter(|(key, _)| !key.contains("kubernetes.io")).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        let taints: Vec<&Value> =
            taints.filter(|taint| !taint["key"].as_str().unwrap_or_default().contains("kubernetes.io")).collect();
        let (metadata, cordoned) = (&node["metadata"], node["spec"]["unschedulable"] == true);
        json!([ours(&metadata["labels"]), ours(&metadata["annotations"]), cordoned, taints, replicas])
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let nodes = (1..=NODES).map(|number| self.node(number)).collect();
        let namespace = (!self.pods.is_empty()).then(|| self.id.clone());
        self.plane.kubelet().clear(nodes, namespace);
    }
}

/// A Deployment of pods with one GPU each on the stage's nodes.
#[derive(Clone)]
pub struct Server {
    pub name: &'static str,
    pub replicas: u32,
    pub min_available: Option<u32>,
    pub annotations: Vec<(&'static str, &'static str)>,
    pub empty_dir: bool,
    pub unhealthy_policy: Option<&'static str>,
}

impl Server {
    /// Its budget keeps all but one replica.
    pub fn new(name: &'static str, replicas: u32) -> Server {
        let min_available = Some(replicas - 1);
        Server { name, replicas, min_available, annotations: vec![], empty_dir: false, unhealthy_policy: None }
    }

    fn objects(&self, namespace: &str) -> Vec<Value> {
        let metadata = json!({ "namespace": namespace, "name": self.name });
        let selector = json!({ "matchLabels": { "app": self.name } });
        let mut objects = vec![json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": { "replicas": self.replicas, "selector": selector, "template": self.template(namespace) },
        })];
        if let Some(least) = self.min_available {
            let mut budget = json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata,
                "spec": { "minAvailable": least, "selector": selector },
            });
            if let Some(policy) = self.unhealthy_policy {
                budget["spec"]["unhealthyPodEvictionPolicy"] = json!(policy);
            }
            objects.push(budget);
        }
        objects
    }

    /// Labels, annotations and spec of its pods.
    pub fn template(&self, stage: &str) -> Value {
        let annotations: serde_json::Map<String, Value> =
            self.annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let mut template = json!({
            "metadata": { "labels": { "app": self.name }, "annotations": annotations },
            "spec": {
                "nodeSelector": { "stage": stage },
                "containers": [{
                    "name": "server", "image": "example/server",
                    "resources": { "limits": { "nvidia.com/gpu": "1" } },
                }],
            },
        });
        if self.empty_dir {
            template["spec"]["volumes"] = json!([{ "name": "scratch", "emptyDir": {} }]);
        }
        template
    }
}

/// What the battery is about here: everything that acts on Kubernetes.
fn names() -> Vec<&'static str> {
    catalog().iter().map(|action| action.spec().name).filter(|name| battery::on_kube(name)).collect()
}

/// Several at once: nearly all the time is spent waiting for the cluster.
async fn each<T, F: Future<Output = ()>>(items: impl IntoIterator<Item = T>, work: impl FnMut(T) -> F) {
    futures::stream::iter(items).map(work).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

pub fn action(name: &str) -> &'static dyn Action {
    find(name).unwrap_or_else(|| panic!("no action {name}"))
}

pub fn ok(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Ok(value) => value,
        Outcome::Failed(failure) => panic!("{:?}: {failure}", failure.kind),
    }
}

pub fn refused(outcome: Outcome, kind: FailureKind, words: &str) {
    match outcome {
        Outcome::Failed(failure) => {
            assert_eq!(failure.kind, kind, "{failure}");
            assert!(failure.message.contains(words), "`{words}` is not in: {failure}");
        }
        Outcome::Ok(value) => panic!("wanted a failure with `{words}`, got {value}"),
    }
}
