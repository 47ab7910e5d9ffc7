//! An engine in this process: real store, real clock, the simulated fleet, and a channel that only counts.
//!
//! Invariant: what stands here is what `serve` puts together, but for the channel and the fleet.

use nightshift::catalog::{Catalog, CatalogFolders};
use nightshift::clock::RealClock;
use nightshift::config::{Config, Role, SourceConfig};
use nightshift::engine::{self, EngineParts, WakeSender};
use nightshift::model::{DeliveryReceipt, DeliveryResult, IncidentDigest, IncidentId, IncidentNotice, Time};
use nightshift::notifiers::Notifier;
use nightshift::policy::GuardLimits;
use nightshift::server::{App, ConfiguredTokens, GivenToken, serve};
use nightshift::store::{SqliteOptions, SqliteStore, ledger::SigningKey};
use nightshift::telemetry::{ChannelKind, Metrics};
use nightshift::world::sim::{SimFleet, SimOptions};
use nightshift::world::{AgentMailbox, HttpClient, KubeClient, KubeConfig, ProbedEngines, World, install_tls};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub const TOKEN: &str = "bench-token-0123456789abcdef";

pub struct Rig {
    pub parts: EngineParts,
    pub fleet: SimFleet,
    pub told: Arc<Told>,
    pub folder: tempfile::TempDir,
}

/// What people heard.
#[derive(Default)]
pub struct Told {
    /// First messages of incidents; more than one each would be a repeat.
    pub first: Mutex<BTreeMap<IncidentId, usize>>,
    pub edits: Mutex<usize>,
    /// How many new digests were posted, and how many incidents the largest edition counts besides those with a message.
    pub digests: Mutex<(usize, usize)>,
}

struct Channel(Arc<Told>);

#[async_trait::async_trait]
impl Notifier for Channel {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Webhook
    }

    async fn deliver(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        if prior.is_none() {
            *self.0.first.lock().expect("nobody panics here").entry(notice.incident.id).or_default() += 1;
        } else {
            *self.0.edits.lock().expect("nobody panics here") += 1;
        }
        DeliveryResult::Delivered(DeliveryReceipt(serde_json::json!({ "message": notice.incident.id.0 })))
    }

    async fn digest(&self, digest: &IncidentDigest, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        let mut digests = self.0.digests.lock().expect("nobody panics here");
        digests.0 += usize::from(prior.is_none());
        digests.1 = digests.1.max(digest.total.saturating_sub(digest.own));
        DeliveryResult::Delivered(DeliveryReceipt(serde_json::json!({ "digest": "bench" })))
    }

    async fn probe(&self) -> Result<String, String> {
        Ok("it counts".to_owned())
    }
}

impl Rig {
    /// An engine with these rules (YAML) and runbooks, before so many GPU nodes. `store`: made by `filled` before.
    pub async fn new(nodes: usize, guards: GuardLimits, rules: &str, runbooks: &[(&str, &str)]) -> Rig {
        Rig::on(folder(), nodes, guards, rules, runbooks).await
    }

    pub async fn on(
        folder: tempfile::TempDir,
        nodes: usize,
        guards: GuardLimits,
        rules: &str,
        runbooks: &[(&str, &str)],
    ) -> Rig {
        install_tls();
        let at = |name: &str| folder.path().join(name);
        for name in ["rules", "runbooks", "integrations"] {
            std::fs::create_dir_all(at(name)).expect("a folder");
        }
        std::fs::write(at("rules/bench.yaml"), rules).expect("rules");
        for (name, text) in runbooks {
            std::fs::write(at(&format!("runbooks/{name}.rhai")), text).expect("a runbook");
        }
        let folders = CatalogFolders { runbooks: at("runbooks"), rules: at("rules"), integrations: at("integrations") };
        let (catalog, problems) = tokio::task::spawn_blocking(move || on_deep_stack(|| Catalog::load(folders)))
            .await
            .expect("loading ends")
            .unwrap_or_else(|problems| panic!("{problems:#?}"));
        assert!(problems.iter().all(|problem| !problem.fatal), "{problems:#?}");
        let fleet =
            SimFleet::start(SimOptions { nodes, workloads: Vec::new(), lone_pod: false, ..SimOptions::default() })
                .expect("a fleet");
        let clock = Arc::new(RealClock);
        let kube = KubeConfig { url: fleet.url(), ..KubeConfig::default() };
        let kube = KubeClient::connect(&kube, "nightshift/bench").await.expect("a client");
        let store = SqliteStore::open(SqliteOptions::new(at("bench.db")), Time::now()).expect("a store");
        let source: SourceConfig =
            serde_json::from_value(serde_json::json!({ "kind": "alertmanager" })).expect("a source");
        let sources = BTreeMap::from([("bench".to_owned(), source)]);
        let told = Arc::new(Told::default());
        let channel: Box<dyn Notifier> = Box::new(Channel(told.clone()));
        let parts = EngineParts {
            config: Arc::new(Config { sources, guards, ..Config::default() }),
            store: Arc::new(store),
            catalog: Arc::new(catalog),
            world: World {
                clusters: BTreeMap::from([("sim".to_owned(), kube)]),
                default_cluster: "sim".to_owned(),
                prometheus: None,
                http: HttpClient::new("nightshift/bench", &[]).expect("a client"),
                docker: None,
                agents: AgentMailbox::default(),
                engines: ProbedEngines::default(),
                clock: clock.clone(),
                kill: Arc::default(),
                identity: "nightshift/bench".to_owned(),
            },
            notifiers: Arc::new(BTreeMap::from([("people".to_owned(), channel)])),
            clock,
            metrics: Arc::new(Metrics::new()),
            nudge: WakeSender::default(),
            key: Arc::new(SigningKey::open_or_create(&at("key"), "bench").expect("a key")),
        };
        engine::take_in(&parts).await;
        Rig { parts, fleet, told, folder }
    }

    /// Serves HTTP and runs the loops until `stop` turns true.
    pub async fn start(&self) -> (SocketAddr, watch::Sender<bool>) {
        self.start_with(|app| app).await
    }

    /// The same with more doors.
    pub async fn start_with(&self, doors: impl FnOnce(App) -> App) -> (SocketAddr, watch::Sender<bool>) {
        let token = GivenToken {
            name: "bench".to_owned(),
            role: Role::Source,
            sources: vec!["bench".to_owned()],
            clusters: None,
            text: TOKEN.to_owned(),
        };
        let app = doors(App::new(self.parts.clone(), ConfiguredTokens::new(vec![token]).expect("a token")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = watch::channel(false);
        let mut until = stopped.clone();
        tokio::spawn(serve(app, listener, async move {
            let _ = until.wait_for(|stop| *stop).await;
        }));
        tokio::spawn(engine::run(self.parts.clone(), stopped));
        (address, stop)
    }

    pub fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("bench.db")).expect("the database opens")
    }
}

/// On the disk of the working folder: `/tmp` may be memory.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(std::env::var("BENCH_DIR").unwrap_or_else(|_| ".".to_owned())).expect("a folder")
}

/// A runtime whose threads have the stack that scripts need, as `serve` makes it.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(nightshift::limits::SCRIPT_STACK_BYTES)
        .enable_all()
        .build()
        .expect("a runtime");
    // Scripts run on the runtime's blocking threads; this one only waits.
    runtime.block_on(work)
}

fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let deep = std::thread::Builder::new().stack_size(nightshift::limits::SCRIPT_STACK_BYTES);
        deep.spawn_scoped(scope, work).expect("a thread").join().expect("no panic")
    })
}

/// What one small durable append costs on this disk: the median of 200.
pub fn fsync(folder: &Path) -> Duration {
    let mut file = File::create(folder.join("fsync")).expect("a file");
    file.write_all(&vec![0; 1 << 20]).expect("a file of 1 MiB");
    file.sync_all().expect("it is synced");
    let mut times = Vec::new();
    for at in 0..200 {
        let begun = Instant::now();
        file.write_all_at(&[at as u8; 4096], at * 4096).expect("a page is written");
        file.sync_data().expect("it is synced");
        times.push(begun.elapsed());
    }
    crate::share(&mut times, 0.5)
}

/// A line of `/proc/PID/status`, in KiB.
pub fn memory(pid: &str, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Waits until it holds; false when that took too long.
pub async fn until(most: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < most {
        if holds().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}
