//! A server on a free port with an intake in memory that decides with the real policy, and a client that speaks raw HTTP.
//!
//! Invariant: nothing here waits for the wall clock but with a deadline.

use nightshift::catalog::{Catalog, CatalogFolders, CatalogSnapshot};
use nightshift::clock::{Clock, SimClock};
use nightshift::config::{Config, Role, SourceConfig};
use nightshift::engine::{EngineParts, WakeSender};
use nightshift::model::*;
use nightshift::policy::{EpisodeChange, PriorEpisode, hear};
use nightshift::script::HostApi;
use nightshift::server::{App, ConfiguredTokens, GivenToken, ListenerTimeouts, serve};
use nightshift::store::ledger::SigningKey;
use nightshift::store::{
    EventBatch, Intake, IntakeResult, NumberedBatch, SqliteOptions, SqliteStore, Store, StoreError,
};
use nightshift::telemetry::Metrics;
use nightshift::world::{AgentMailbox, HttpClient, ProbedEngines, World};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};

pub const NOW: &str = "2026-11-02T03:00:00Z";
pub const SOURCE_TOKEN: &str = "source-token-0123456789abcdef";
pub const LAB_TOKEN: &str = "lab-token-0123456789abcdef";
pub const VIEWER_TOKEN: &str = "viewer-token-0123456789abcdef";
pub const AM: &str = "/in/alertmanager/prod";

pub fn now() -> Time {
    NOW.parse().unwrap()
}

/// The intake: what it answers, and what it was given. Everything else of the server reads a real store.
#[derive(Default)]
pub struct FakeIntake {
    pub batches: Mutex<Vec<EventBatch>>,
    episodes: Mutex<HashMap<(String, String), PriorEpisode>>,
    pub error: Mutex<Option<fn() -> StoreError>>,
    /// Set: an intake waits for a permit before it commits.
    pub gate: Mutex<Option<Arc<Semaphore>>>,
    pub waiting: watch::Sender<usize>,
}

impl FakeIntake {
    pub fn events(&self) -> Vec<Event> {
        self.batches.lock().unwrap().iter().flat_map(|batch| batch.events.clone()).collect()
    }

    pub fn gaps(&self) -> Vec<String> {
        self.batches.lock().unwrap().iter().flat_map(|batch| batch.gaps.clone()).collect()
    }
}

pub struct Rig {
    pub address: std::net::SocketAddr,
    pub store: Arc<FakeIntake>,
    /// Everything that is not intake.
    pub durable: Arc<dyn Store>,
    pub key: Arc<SigningKey>,
    pub clock: Arc<SimClock>,
    pub metrics: Arc<Metrics>,
    pub stop: Option<oneshot::Sender<()>>,
    pub served: tokio::task::JoinHandle<std::io::Result<()>>,
    _folder: tempfile::TempDir,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Answer {
    pub fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }
}

pub async fn rig() -> Rig {
    rig_with(ListenerTimeouts::default(), CatalogSnapshot::default()).await
}

pub async fn rig_with(pace: ListenerTimeouts, loaded: CatalogSnapshot) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(FakeIntake::default());
    let database = SqliteStore::open(SqliteOptions::new(folder.path().join("store.db")), now()).unwrap();
    let durable: Arc<dyn Store> = Arc::new(database);
    let key = Arc::new(SigningKey::open_or_create(&folder.path().join("key"), "test").unwrap());
    let clock = Arc::new(SimClock::new(now()));
    let metrics = Arc::new(Metrics::new());
    let mut config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
    for (name, kind) in [
        ("prod", "alertmanager"),
        ("lab", "alertmanager"),
        ("dash", "grafana"),
        ("dd", "datadog"),
        ("nr", "newrelic"),
        ("ce", "cloudevents"),
    ] {
        let source: SourceConfig = serde_json::from_value(json!({ "kind": kind })).unwrap();
        config.sources.insert(name.to_owned(), source);
    }
    config.sources.get_mut("lab").unwrap().add_labels = BTreeMap::from([("cluster".to_owned(), "lab-1".to_owned())]);
    let parts = EngineParts {
        config: Arc::new(config),
        store: Arc::clone(&durable),
        catalog: Arc::new(catalog(folder.path())),
        world: world(Arc::clone(&clock) as Arc<dyn Clock>),
        notifiers: Arc::default(),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        metrics: Arc::clone(&metrics),
        nudge: WakeSender::default(),
        key: Arc::clone(&key),
    };
    let loaded = Arc::new(loaded);
    let intake: Arc<dyn Intake> = store.clone();
    let app = App::new(parts, tokens())
        .with_intake(intake)
        .with_pace(pace)
        .with_current(Arc::new(move || Arc::clone(&loaded)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(serve(app, listener, async move {
        let _ = stopped.await;
    }));
    Rig { address, store, durable, key, clock, metrics, stop: Some(stop), served, _folder: folder }
}

/// The server reads rules through `with_current`, so the catalog itself stays empty.
fn catalog(folder: &std::path::Path) -> Catalog {
    let at = |name: &str| {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        folder.join(name)
    };
    let folders = CatalogFolders { runbooks: at("runbooks"), rules: at("rules"), integrations: at("integrations") };
    let loaded = Catalog::load_with(folders, HostApi { specs: Vec::new() });
    loaded.unwrap_or_else(|problems| panic!("{problems:?}")).0
}

fn world(clock: Arc<dyn Clock>) -> World {
    World {
        clusters: BTreeMap::new(),
        default_cluster: "sim".to_owned(),
        prometheus: None,
        http: HttpClient::new("nightshift/test", &[]).unwrap(),
        docker: None,
        agents: AgentMailbox::default(),
        engines: ProbedEngines::default(),
        clock,
        kill: Arc::default(),
        identity: "nightshift/test".to_owned(),
    }
}

fn tokens() -> ConfiguredTokens {
    let token = |name: &str, role, sources: &[&str], text: &str| GivenToken {
        name: name.to_owned(),
        role,
        sources: sources.iter().map(|s| (*s).to_owned()).collect(),
        clusters: None,
        text: text.to_owned(),
    };
    ConfiguredTokens::new(vec![
        token("am", Role::Source, &["prod", "dash", "dd", "nr", "ce"], SOURCE_TOKEN),
        token("lab", Role::Source, &["lab"], LAB_TOKEN),
        token("eve", Role::Viewer, &[], VIEWER_TOKEN),
    ])
    .unwrap()
}

impl Rig {
    /// Posts JSON as a source does.
    pub async fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.request("POST", path, SOURCE_TOKEN, &[("Content-Type", "application/json")], body).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.request("GET", path, token, &[], b"").await
    }

    pub async fn request(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        if !token.is_empty() {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !headers.iter().any(|(name, _)| matches!(*name, "Content-Length" | "Transfer-Encoding")) {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.raw(&bytes).await
    }

    /// Sends bytes as they are and reads until the server closes.
    pub async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server that refuses early may close while we still write; its answer counts all the same.
        let _ = stream.write_all(bytes).await;
        read_answer(stream).await
    }
}

pub async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an answer");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    Answer { status, head: head.to_owned(), body }
}

/// Asks until it is so, or fails after ten seconds.
pub async fn eventually<F: Future<Output = bool>>(mut so: impl FnMut() -> F) {
    tokio::time::timeout(Duration::from_secs(10), async {
        while !so().await {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it came true in time");
}

/// An alert as Alertmanager writes it.
pub fn alert(name: &str, status: &str) -> Value {
    let ends = if status == "resolved" { "2026-11-02T02:59:30.5Z" } else { "0001-01-01T00:00:00Z" };
    json!({
        "status": status,
        "labels": { "alertname": name, "Hostname": "gpu-3", "gpu": "1", "severity": "critical" },
        "annotations": { "summary": format!("{name} on gpu-3") },
        "startsAt": "2026-11-02T02:50:00.123456789Z",
        "endsAt": ends,
        "generatorURL": "http://prometheus:9090/graph?g0.expr=up",
        "fingerprint": "0123456789abcdef",
    })
}

/// A whole notification.
pub fn body(alerts: &[Value]) -> Value {
    json!({
        "version": "4",
        "groupKey": "{}/{team=\"gpu\"}:{alertname=\"XidError\"}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "web\\.hook",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://am:9093",
        "alerts": alerts,
    })
}

pub fn bytes(value: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).unwrap();
    bytes.push(b'\n');
    bytes
}

#[async_trait::async_trait]
impl Intake for FakeIntake {
    async fn reconsider(
        &self,
        _: EventBatch,
        _: std::collections::BTreeSet<String>,
    ) -> Result<IntakeResult, StoreError> {
        unimplemented!("no rule changes here")
    }

    async fn applied_rules(&self) -> Result<Option<std::collections::BTreeMap<String, String>>, StoreError> {
        unimplemented!("no rule changes here")
    }

    async fn apply_rules(&self, _: std::collections::BTreeMap<String, String>) -> Result<(), StoreError> {
        unimplemented!("no rule changes here")
    }

    async fn intake(&self, batch: EventBatch) -> Result<IntakeResult, StoreError> {
        if let Some(error) = *self.error.lock().unwrap() {
            return Err(error());
        }
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            self.waiting.send_modify(|count| *count += 1);
            gate.acquire().await.unwrap().forget();
        }
        let mut heard = IntakeResult::default();
        let mut episodes = self.episodes.lock().unwrap();
        for event in &batch.events {
            let key = (event.source.clone(), event.fingerprint.clone());
            let change = hear(episodes.get(&key), event);
            let starts_at = episodes.get(&key).map_or(event.starts_at, |prior| match change {
                EpisodeChange::Opened => event.starts_at,
                _ => prior.starts_at.min(event.starts_at),
            });
            let state = match change {
                EpisodeChange::Opened | EpisodeChange::Reopened | EpisodeChange::Refreshed => EpisodeState::Open,
                EpisodeChange::Resolved | EpisodeChange::Late => EpisodeState::Resolved,
            };
            match change {
                EpisodeChange::Opened => heard.opened += 1,
                EpisodeChange::Reopened => heard.reopened += 1,
                EpisodeChange::Refreshed => heard.refreshed += 1,
                EpisodeChange::Resolved => heard.resolved += 1,
                EpisodeChange::Late => heard.late += 1,
            }
            if change != EpisodeChange::Late {
                episodes.insert(key, PriorEpisode { state, starts_at });
            }
        }
        drop(episodes);
        self.batches.lock().unwrap().push(batch);
        Ok(heard)
    }

    async fn intake_reports(&self, numbered: NumberedBatch) -> Result<(u64, IntakeResult), StoreError> {
        let upto = numbered.numbers.last().copied().unwrap_or_default();
        Ok((upto, self.intake(numbered.batch).await?))
    }
}
