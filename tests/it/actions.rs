//! The action battery: every action against the simulated fleet, once, twice, and through every trouble of the API.
//!
//! Invariant: what happened is counted at the fleet, never believed from an outcome.

mod battery;
mod cases;
mod drain;
mod inference;
mod kube_cases;
mod mig;
mod outside;
mod warm;

use crate::engines::Engine;
use nightshift::actions::{Action, PerformResult, catalog, find};
use nightshift::clock::{Clock, SimClock};
use nightshift::limits;
use nightshift::model::{ActionCall, AgentCommand, AgentStatus, CommandStatus, FailureKind, Outcome, RunId, Step};
use nightshift::world::sim::{ApiFault, RequestFault, SimFault, SimFleet, SimOptions};
use nightshift::world::{
    AgentMailbox, HttpClient, KubeClient, KubeConfig, ProbeConfig, ProbedEngines, PrometheusClient, World,
};
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// A fleet, a world that reaches it, and the clock that both go by.
struct Stage {
    fleet: SimFleet,
    /// What its first pod of mistral-7b serves, where an action asks for it.
    engine: Option<Engine>,
    world: World,
    clock: Arc<SimClock>,
}

impl Stage {
    async fn new() -> Stage {
        Stage::with(SimOptions::default()).await
    }

    async fn with(options: SimOptions) -> Stage {
        let mut stage = Stage::of_kube(options).await;
        stage.world.prometheus = Some(PrometheusClient::connect(&stage.fleet.url(), None).unwrap());
        let allow = [format!("private+{}/", stage.fleet.url())];
        stage.world.http = HttpClient::new(&stage.world.identity, &allow).unwrap();
        stage
    }

    /// Without Prometheus and HTTP: a client takes a while to build, and the battery sets up many stages.
    async fn of_kube(options: SimOptions) -> Stage {
        static NOWHERE: LazyLock<HttpClient> = LazyLock::new(|| HttpClient::new("nightshift/test", &[]).unwrap());
        let clock = Arc::new(SimClock::new("2026-03-29T00:30:00Z".parse().unwrap()));
        let fleet = SimFleet::start(SimOptions { clock: clock.clone(), ..options }).unwrap();
        let identity = "nightshift/test".to_owned();
        let cache_job = Some(kube_cases::cache_job("inference"));
        let config = KubeConfig { url: fleet.url(), cache_job, ..KubeConfig::default() };
        let world = World {
            clusters: [].into(),
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
        let mut stage = Stage { fleet, engine: None, world, clock };
        stage.reach(&config).await;
        stage
    }

    /// From now on the cluster is reached so.
    async fn reach(&mut self, config: &KubeConfig) {
        let kube = KubeClient::connect(config, &self.world.identity).await.unwrap();
        self.world.clusters = [("default".to_owned(), kube)].into();
    }

    /// An agent on that node, for as long as the test runs, that answers as it is told.
    fn agent(&self, node: &'static str, answer: impl Fn(&AgentCommand) -> Outcome + Send + 'static) {
        let agents = self.world.agents.clone();
        agents.heard(node, AgentStatus::default());
        tokio::spawn(async move {
            loop {
                for command in agents.take(node, AgentStatus::default(), limits::AGENT_POLL).await {
                    agents.answered(node, &command.key(), CommandStatus::Ended { outcome: answer(&command) });
                }
            }
        });
    }

    /// The same, of another boot once it was asked for one.
    fn agent_that_reboots(&self, node: &'static str) {
        let agents = self.world.agents.clone();
        let standing = |boot: u32| AgentStatus { boot: format!("boot-{boot}"), ..AgentStatus::default() };
        agents.heard(node, standing(0));
        tokio::spawn(async move {
            let mut boot = 0;
            loop {
                for command in agents.take(node, standing(boot), limits::AGENT_POLL).await {
                    boot = 1;
                    let outcome = Outcome::Ok(serde_json::json!({ "asked": true }));
                    agents.answered(node, &command.key(), CommandStatus::Ended { outcome });
                }
            }
        });
    }

    fn kube(&self) -> &KubeClient {
        self.world.kube(None).unwrap()
    }

    /// As the engine begins a step: the witness is read first.
    async fn begin(&self, call: ActionCall) -> Step {
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

    /// As the engine performs a step to its end: carries, waits and retries. Also says what it waited for.
    async fn finish(&self, step: &mut Step) -> (Outcome, Vec<String>) {
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
        }
        panic!("{} never ends: {:?}", step.call, waits.last());
    }

    async fn run(&self, call: ActionCall) -> Outcome {
        let mut step = self.begin(call).await;
        self.finish(&mut step).await.0
    }

    /// What the fleet says was changed: verb and resource, with how often, whatever the names.
    fn changes(&self) -> Vec<String> {
        let mut list: Vec<String> =
            self.fleet.changes().iter().map(|applied| format!("{} {}", applied.verb, applied.resource)).collect();
        list.sort();
        list
    }

    fn trouble(&self, times: u32, method: &str, path: &str, trouble: RequestFault) {
        self.fleet.fault(ApiFault::next(times, method, path, trouble)).unwrap();
    }

    /// What the battery needs for this action; it sets up many stages.
    async fn ready_for(name: &str) -> Stage {
        if battery::on_kube(name) {
            return Stage::of_kube(SimOptions::default()).await;
        }
        let mut stage = Stage::new().await;
        if name.starts_with("inference::") {
            stage.serve().await;
        }
        stage
    }

    /// Lets the first pod of mistral-7b serve an engine's pages; the configuration names it.
    async fn serve(&mut self) {
        let engine = Engine::start("vllm").await;
        let targets = vec![engine.target(&[("pod", &self.pod_of("mistral-7b"))])];
        self.world.engines = ProbedEngines::of([&ProbeConfig { targets, ..ProbeConfig::default() }]);
        self.engine = Some(engine);
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    fn node(&self, number: usize) -> String {
        format!("gpu-{number}")
    }

    fn workload(&self, name: &str) -> String {
        format!("inference/{name}")
    }

    /// How many pods of models are on a node.
    fn served_on(&self, node: &str) -> usize {
        self.fleet.pods_on(node).iter().filter(|(namespace, _)| namespace == "inference").count()
    }

    /// A moment, for `since`.
    fn mark(&self) -> usize {
        self.fleet.changes().len()
    }

    /// What was changed since then, as the target counts it.
    fn since(&self, mark: usize) -> Vec<String> {
        let changes = self.fleet.changes();
        let mut list: Vec<String> =
            changes[mark..].iter().map(|applied| format!("{} {}", applied.verb, applied.resource)).collect();
        list.sort();
        list
    }

    /// Takes every right to change something away.
    async fn deny_writes(&mut self) {
        for verb in ["patch", "create", "delete"] {
            for resource in ["nodes", "pods", "pods/eviction", "deployments", "deployments/scale", "jobs"] {
                self.fleet.fault(SimFault::Deny { verb: verb.to_owned(), resource: resource.to_owned() }).unwrap();
            }
        }
    }

    /// What an undo should restore, of node 1 and of the workload.
    async fn look(&self) -> Value {
        let node = self.fleet.node("gpu-1").unwrap();
        let replicas = self.fleet.deployment("inference", "mistral-7b").unwrap()["spec"]["replicas"].clone();
        let (metadata, spec) = (&node["metadata"], &node["spec"]);
        let (namespace, pod) =
            self.pod_of("mistral-7b").split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let pod = self.fleet.pod(&namespace, &pod).unwrap();
        let marks = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        let annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
        let taints = spec["taints"].as_array().cloned().unwrap_or_default();
        let pod = [pod["metadata"]["labels"].clone(), Value::Object(marks)];
        serde_json::json!([metadata["labels"], annotations, spec["unschedulable"] == true, taints, replicas, pod])
    }

    /// A moment, for `rights_since`.
    fn heard(&self) -> usize {
        self.fleet.requests().len()
    }

    /// The rights that were needed since then: verb and resource, as RBAC names them.
    fn rights_since(&self, heard: usize) -> Vec<(String, String)> {
        self.fleet.requests()[heard..].iter().map(|asked| right_of(&asked.method, &asked.path)).collect()
    }

    /// The first pod of a deployment on any node: `namespace/name`.
    fn pod_of(&self, deployment: &str) -> String {
        let nodes = ["gpu-1", "gpu-2", "gpu-3", "gpu-4"];
        let pods = nodes.iter().flat_map(|node| self.fleet.pods_on(node));
        let found = pods.map(|(namespace, name)| format!("{namespace}/{name}")).find(|pod| pod.contains(deployment));
        found.unwrap_or_else(|| panic!("no pod of {deployment}"))
    }
}

/// What the battery is about: the whole catalog, but for `approve`, which is answered by the engine, and containers, which
/// need a real Docker engine. Both have tests of their own.
fn names() -> Vec<&'static str> {
    let apart = |name: &&str| *name == "approve" || name.starts_with("docker::");
    catalog().iter().map(|action| action.spec().name).filter(|name| !apart(name)).collect()
}

/// One after another; on a real cluster, several at once.
async fn each<T, F: Future<Output = ()>>(items: impl IntoIterator<Item = T>, mut work: impl FnMut(T) -> F) {
    for item in items {
        work(item).await;
    }
}

fn action(name: &str) -> &'static dyn Action {
    find(name).unwrap_or_else(|| panic!("no action {name}"))
}

fn ok(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Ok(value) => value,
        Outcome::Failed(failure) => panic!("{:?}: {failure}", failure.kind),
    }
}

fn refused(outcome: Outcome, kind: FailureKind, words: &str) {
    match outcome {
        Outcome::Failed(failure) => {
            assert_eq!(failure.kind, kind, "{failure}");
            assert!(failure.message.contains(words), "`{words}` is not in: {failure}");
        }
        Outcome::Ok(value) => panic!("wanted a failure with `{words}`, got {value}"),
    }
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// The verb and resource, as RBAC names them, of a request to the API.
fn right_of(method: &str, path: &str) -> (String, String) {
    let parts: Vec<&str> = path.split('?').next().unwrap().trim_start_matches('/').split('/').collect();
    let at = if parts[0] == "api" { 2 } else { 3 };
    let rest = if parts[at] == "namespaces" { &parts[at + 2..] } else { &parts[at..] };
    let resource = if rest.len() > 2 { format!("{}/{}", rest[0], rest[2]) } else { rest[0].to_owned() };
    let verb = match (method, rest.len()) {
        ("GET", 1) => "list",
        ("GET", _) => "get",
        ("POST", _) => "create",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        other => panic!("{other:?}"),
    };
    (verb.to_owned(), resource)
}
