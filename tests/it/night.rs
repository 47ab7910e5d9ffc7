//! A whole night in a box: simulated fleet, real store, real engine loops driven by hand, a clock that a test moves.
//!
//! Invariant: nothing here waits on the wall clock; time passes when a test says so.

use nightshift::catalog::{Catalog, CatalogFolders};
use nightshift::clock::{Clock, SimClock};
use nightshift::config::{Config, SourceConfig};
use nightshift::engine::{EngineParts, Runner, WakeSender};
use nightshift::model::{ActionCall, Entry, Event, Mode, Outcome, Run, RunId, RunInput, RunState, Step, Time};
use nightshift::notifiers::slack::ButtonSeal;
use nightshift::policy::RuleSet;
use nightshift::store::{
    CommitFollower, EventBatch, Filter, IntakeResult, NewRun, SqliteOptions, SqliteStore, Store, ledger::SigningKey,
};
use nightshift::telemetry::Metrics;
use nightshift::world::sim::{SimFleet, SimOptions};
use nightshift::world::{
    AgentMailbox, EngineTarget, HttpClient, KubeClient, KubeConfig, ProbeConfig, ProbedEngines, PrometheusClient,
    World, install_tls,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// 03:00 in the night of the tests.
pub const NIGHT: &str = "2026-11-23T03:00:00Z";

/// What the buttons of the tests are sealed with.
pub fn seal() -> Arc<ButtonSeal> {
    Arc::new(ButtonSeal::new(&[7; 32], "test"))
}

pub struct Night {
    pub fleet: SimFleet,
    pub clock: Arc<SimClock>,
    pub parts: EngineParts,
    pub runner: Runner,
    dir: tempfile::TempDir,
}

impl Night {
    /// Rules as YAML, runbooks by name and text.
    pub async fn fall(rules: &str, runbooks: &[(&str, &str)]) -> Night {
        Night::fall_with(rules, runbooks, |_| {}).await
    }

    /// The shipped runbooks, with these rules.
    pub async fn fall_on_shipped(rules: &str) -> Night {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("rules")).unwrap();
        std::fs::write(dir.path().join("rules/test.yaml"), rules).unwrap();
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = CatalogFolders {
            runbooks: home.join("runbooks"),
            rules: dir.path().join("rules"),
            integrations: home.join("integrations"),
        };
        Night::fall_on(folders, dir).await
    }

    /// With the store's options changed, as for what a configuration says of incidents.
    pub async fn fall_with(rules: &str, runbooks: &[(&str, &str)], change: impl FnOnce(&mut SqliteOptions)) -> Night {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["rules", "runbooks", "integrations"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("rules/test.yaml"), rules).unwrap();
        for (name, text) in runbooks {
            std::fs::write(dir.path().join(format!("runbooks/{name}.rhai")), text).unwrap();
        }
        let folders = CatalogFolders {
            runbooks: dir.path().join("runbooks"),
            rules: dir.path().join("rules"),
            integrations: dir.path().join("integrations"),
        };
        let mut options = SqliteOptions::new(dir.path().join("nightshift.db"));
        change(&mut options);
        Night::fall_by(folders, dir, options).await
    }

    /// The shipped runbooks, with the rules that `write` puts into a folder.
    pub async fn fall_on_rules(write: fn(&Path), change: impl FnOnce(&mut SqliteOptions)) -> Night {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("rules"));
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = CatalogFolders {
            runbooks: home.join("runbooks"),
            rules: dir.path().join("rules"),
            integrations: home.join("integrations"),
        };
        let mut options = SqliteOptions::new(dir.path().join("nightshift.db"));
        change(&mut options);
        Night::fall_by(folders, dir, options).await
    }

    async fn fall_on(folders: CatalogFolders, dir: tempfile::TempDir) -> Night {
        let options = SqliteOptions::new(dir.path().join("nightshift.db"));
        Night::fall_by(folders, dir, options).await
    }

    async fn fall_by(folders: CatalogFolders, dir: tempfile::TempDir, options: SqliteOptions) -> Night {
        install_tls();
        let clock = Arc::new(SimClock::new(NIGHT.parse().unwrap()));
        let fleet = SimFleet::start(SimOptions { clock: clock.clone(), ..SimOptions::default() }).unwrap();
        let metrics = Arc::new(Metrics::default());
        let counting = metrics.clone();
        let counted = CommitFollower::new(move |commit| nightshift::engine::measure(&counting, &commit));
        let follower = options.follower.clone().or(Some(counted));
        let options = SqliteOptions { follower, ..options };
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(options, clock.now()).unwrap());
        let loading = tokio::task::spawn_blocking(move || Catalog::load(folders)).await.unwrap();
        let (catalog, _) = loading.unwrap_or_else(|problems| panic!("{problems:#?}"));
        let kube = KubeConfig { url: fleet.url(), ..KubeConfig::default() };
        let kube = KubeClient::connect(&kube, "nightshift/test").await.unwrap();
        kube.keep_labels(Config::default().guards.labels());
        let world = World {
            clusters: BTreeMap::from([("sim".to_owned(), kube)]),
            default_cluster: "sim".to_owned(),
            prometheus: Some(PrometheusClient::connect(&fleet.url(), None).unwrap()),
            http: HttpClient::new("nightshift/test", &[format!("private+{}", fleet.url())]).unwrap(),
            docker: None,
            agents: AgentMailbox::default(),
            engines: ProbedEngines::default(),
            clock: clock.clone(),
            kill: Arc::default(),
            identity: "nightshift/test".to_owned(),
        };
        let key = SigningKey::open_or_create(&dir.path().join("key"), "test").unwrap();
        let mut config = Config::default();
        config.sources.insert(
            "test".to_owned(),
            serde_json::from_value::<SourceConfig>(json!({"kind": "alertmanager"})).unwrap(),
        );
        // A fleet of four would use up its day with one node; the level at once stays as it ships.
        config.guards.share_per_hour = 1.0;
        config.guards.share_per_day = 1.0;
        // Three of four are no storm here; the breaker against one is shown by the tests of the store.
        config.guards.correlated_share = 1.0;
        let parts = EngineParts {
            config: Arc::new(config),
            store,
            catalog: Arc::new(catalog),
            world,
            notifiers: Arc::default(),
            clock: clock.clone(),
            metrics,
            nudge: WakeSender::default(),
            key: Arc::new(key),
        };
        nightshift::engine::take_in(&parts).await;
        let runner = Runner::new(parts.clone());
        Night { fleet, clock, parts, runner, dir }
    }

    /// From now on this stops everything, too.
    pub fn kill_by(&mut self, config: nightshift::world::KillSwitchConfig) {
        self.parts.world.kill = Arc::new(nightshift::world::KillSwitch::new(config));
        self.runner = Runner::new(self.parts.clone());
    }

    /// The configuration names these engines.
    pub fn know(&mut self, targets: Vec<EngineTarget>) {
        self.parts.world.engines = ProbedEngines::of([&ProbeConfig { targets, ..ProbeConfig::default() }]);
        self.runner = Runner::new(self.parts.clone());
    }

    /// From now on the guards have these limits.
    pub fn guard_by(&mut self, change: impl FnOnce(&mut nightshift::policy::GuardLimits)) {
        self.configure(|config| change(&mut config.guards));
    }

    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(Arc::make_mut(&mut self.parts.config));
        self.runner = Runner::new(self.parts.clone());
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The webhook says that an alert with these labels fires (or has ended).
    pub async fn hear(&self, status: &str, labels: &[(&str, &str)]) -> IntakeResult {
        let body = crate::harness::alertmanager_body(status, NIGHT, &[labels]);
        let source = &self.parts.config.sources["test"];
        let bytes = serde_json::to_vec(&body).unwrap();
        let decoded = nightshift::sources::alertmanager::decode(&bytes, "test", source, self.now()).unwrap();
        self.hear_events(decoded.events).await
    }

    pub async fn hear_events(&self, events: Vec<Event>) -> IntakeResult {
        let rules: Arc<RuleSet> = self.parts.catalog.current().rules.clone();
        let origin = nightshift::store::BatchOrigin::of_kind("alertmanager");
        let batch = EventBatch { source: "test".to_owned(), events, gaps: Vec::new(), rules, now: self.now(), origin };
        self.parts.store.intake(batch).await.unwrap()
    }

    /// A run by hand.
    pub async fn start(&self, runbook: &str, mode: Mode, params: Value) -> RunId {
        let loaded = self.parts.catalog.current();
        let runbook = loaded.runbooks.get(runbook).unwrap_or_else(|| panic!("no runbook {runbook}"));
        let given: Map<String, Value> = params.as_object().cloned().unwrap_or_default();
        let input: RunInput = RuleSet::bind(&runbook.header, &given, None).unwrap();
        let new = NewRun {
            pin: runbook.pin.clone(),
            subject: nightshift::policy::subject_of(&runbook.header, &input.params, None),
            input,
            mode,
            rule: None,
            terms: None,
            requested_by: "a test".to_owned(),
            once: None,
            now: self.now(),
        };
        self.parts.store.start(new).await.unwrap().unwrap()
    }

    /// Does everything that is due now.
    pub async fn settle(&self) {
        self.parts.store.tick(self.now()).await.unwrap();
        self.runner.drain().await;
    }

    /// Lets time pass in small steps, doing what falls due, until the run is final, asks, or `most` is over.
    pub async fn until_rest(&self, run: RunId, most: Duration) -> Run {
        let end = self.now() + most;
        loop {
            self.settle().await;
            let now = self.run(run).await;
            if now.state.is_final() || matches!(now.state, RunState::Asking { .. }) || self.now() >= end {
                return now;
            }
            let wake = now.wake_at.unwrap_or(self.now()).max(self.now() + Duration::from_millis(100));
            let step = Duration::from_micros((wake.as_microsecond() - self.now().as_microsecond()).unsigned_abs());
            self.pass(step.min(Duration::from_secs(5))).await;
        }
    }

    /// Time passes for the engine and for the fleet.
    pub async fn pass(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// As a person with kubectl would: cordon or uncordon a node.
    pub async fn by_hand(&self, node: &str, unschedulable: bool) {
        self.patch(&format!("/api/v1/nodes/{node}"), json!({"spec": {"unschedulable": unschedulable}})).await;
    }

    /// As a person with kubectl would: a merge patch of any object.
    pub async fn patch(&self, path: &str, patch: Value) {
        let request = crate::harness::client().patch(format!("{}{path}", self.fleet.url()));
        let request = request.header("content-type", "application/merge-patch+json").header("user-agent", "kubectl");
        assert!(request.body(patch.to_string()).send().await.unwrap().status().is_success());
    }

    pub async fn run(&self, id: RunId) -> Run {
        let runs = self.parts.store.runs(Filter { run: Some(id), limit: 1, ..Filter::default() }).await.unwrap();
        runs.into_iter().next().unwrap_or_else(|| panic!("no run {id}"))
    }

    pub async fn runs(&self) -> Vec<Run> {
        self.parts.store.runs(Filter { limit: 1_000, after: Some(-1), ..Filter::default() }).await.unwrap()
    }

    pub async fn steps(&self, id: RunId) -> Vec<Step> {
        self.parts.store.steps(id).await.unwrap()
    }

    /// The calls of a run, a line each with how they ended.
    pub async fn story(&self, id: RunId) -> Vec<String> {
        self.steps(id)
            .await
            .iter()
            .map(|step| format!("{}{} → {}", undo_mark(step), short(&step.call), ended(step)))
            .collect()
    }

    pub async fn entries(&self) -> Vec<Entry> {
        self.parts.store.entries(Filter { after: Some(-1), limit: 1_000, ..Filter::default() }).await.unwrap()
    }

    /// Real changes that the fleet counted, by verb, resource and name, done by us.
    pub fn effects(&self) -> BTreeMap<String, usize> {
        let mut counted = BTreeMap::new();
        for effect in
            self.fleet.effects().into_iter().filter(|effect| effect.changed && effect.by.contains("nightshift"))
        {
            *counted.entry(format!("{} {} {}", effect.verb, effect.resource, effect.name)).or_default() += 1;
        }
        counted
    }
}

fn undo_mark(step: &Step) -> &'static str {
    if step.undoes.is_some() { "undo: " } else { "" }
}

fn short(call: &ActionCall) -> String {
    let arguments: Vec<String> = call.args.values().filter_map(Value::as_str).map(str::to_owned).collect();
    format!("{}({})", call.action, arguments.join(", "))
}

fn ended(step: &Step) -> String {
    match &step.outcome {
        Some(Outcome::Ok(_)) => "ok".to_owned(),
        Some(Outcome::Failed(failure)) => failure.kind.name().to_owned(),
        None => "open".to_owned(),
    }
}
