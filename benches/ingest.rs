//! Durable ingest over loopback HTTP: how many alerts a second, and how long until each is acknowledged.
//!
//! Invariant: every alert is new, every 2xx is behind an fsync, and the peer gets the same bytes from the same generator
//! in the same run. `cargo bench --bench ingest`; `NIGHTSHIFT_TOOLS` says where `bin/alertmanager` is; `INGEST_SECONDS=10`,
//! `INGEST_ROUNDS=3`: each figure of the summary is the median of so many rounds.

use nightshift::catalog::{Catalog, CatalogFolders};
use nightshift::clock::RealClock;
use nightshift::config::{Config, Role, SourceConfig};
use nightshift::engine::{EngineParts, WakeSender};
use nightshift::model::Time;
use nightshift::script::HostApi;
use nightshift::server::{App, ConfiguredTokens, GivenToken, serve};
use nightshift::store::ledger::SigningKey;
use nightshift::store::{Ledger, SqliteOptions, SqliteStore, Store};
use nightshift::telemetry::Metrics;
use nightshift::world::{AgentMailbox, HttpClient, ProbedEngines, World};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOKEN: &str = "bench-token-0123456789abcdef";

/// The loads of the bar: (connections, alerts per request).
const LOADS: [(usize, usize); 2] = [(4, 100), (256, 1)];

struct Figure {
    alerts_per_second: f64,
    p50: Duration,
    p99: Duration,
    refused: u64,
}

#[tokio::main]
async fn main() {
    let set = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let span = Duration::from_secs(set("INGEST_SECONDS", 10));
    let tools =
        std::env::var("NIGHTSHIFT_TOOLS").unwrap_or_else(|_| format!("{}/.cache/tools", env!("CARGO_MANIFEST_DIR")));
    let peer = Some(format!("{tools}/bin/alertmanager")).filter(|binary| Path::new(binary).exists());
    println!("| target | form | connections × alerts | alerts/s | ack p50 | ack p99 | not 2xx |");
    println!("|---|---|---|---|---|---|---|");
    let mut summary = Vec::new();
    for (connections, per_request) in LOADS {
        let (mut webhooks, mut directs, mut peers_, mut bares, mut slowest) = (vec![], vec![], vec![], vec![], vec![]);
        for _ in 0..set("INGEST_ROUNDS", 3) {
            let webhook = ours("/in/alertmanager/bench", Form::Webhook, connections, per_request, span).await;
            row("nightshift", "webhook", connections, per_request, &webhook);
            let direct =
                ours("/in/alertmanager/bench/api/v2/alerts", Form::Direct, connections, per_request, span).await;
            row("nightshift", "api/v2", connections, per_request, &direct);
            webhooks.push(webhook.alerts_per_second);
            directs.push(direct.alerts_per_second);
            slowest.push(webhook.p99.max(direct.p99).as_secs_f64() * 1e3);
            if let Some(binary) = &peer {
                let theirs = peers(binary, connections, per_request, span).await;
                row("alertmanager", "api/v2", connections, per_request, &theirs);
                peers_.push(theirs.alerts_per_second);
            }
            bares.push(bare(connections * per_request, span.min(Duration::from_secs(3))));
        }
        let (webhook, direct, theirs, bare) = (median(webhooks), median(directs), median(peers_), median(bares));
        summary.push(format!(
            "| {connections} × {per_request} | {webhook:.0} | {direct:.0} | {theirs:.0} | {:.2} | {:.2} | {:.0} ms | {bare:.0} | {:.2} |",
            webhook / theirs,
            direct / theirs,
            median(slowest),
            webhook / bare
        ));
    }
    println!("\nmedians of the rounds:\n");
    println!(
        "| connections × alerts | webhook/s | api/v2/s | Alertmanager/s | webhook ÷ Alertmanager | api/v2 ÷ Alertmanager \
         | ack p99, the slower form | bare SQLite rows/s | webhook ÷ bare |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    summary.iter().for_each(|line| println!("{line}"));
    println!("\nresident at the end: {} MiB (generator and server in one process)", resident_mib());
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What the same disk gives a bare SQLite: one thread, one table, a row of an event's size each, so many in a commit.
fn bare(rows: usize, span: Duration) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let mut conn = rusqlite::Connection::open(folder.path().join("bare.db")).expect("a database");
    conn.pragma_update(None, "journal_mode", "WAL").expect("a log");
    conn.pragma_update(None, "synchronous", "FULL").expect("durability");
    conn.execute_batch("CREATE TABLE event (id INTEGER PRIMARY KEY, json BLOB NOT NULL)").expect("a table");
    let (begun, mut written) = (Instant::now(), 0_u64);
    while begun.elapsed() < span {
        let change = conn.transaction().expect("a transaction");
        for _ in 0..rows {
            let sql = "INSERT INTO event (json) VALUES (?1)";
            change.prepare_cached(sql).and_then(|mut insert| insert.execute([[b'x'; 600]])).expect("an insert");
            written += 1;
        }
        change.commit().expect("a commit");
    }
    written as f64 / begun.elapsed().as_secs_f64()
}

fn row(target: &str, form: &str, connections: usize, per_request: usize, figure: &Figure) {
    println!(
        "| {target} | {form} | {connections} × {per_request} | {:.0} | {:.1} ms | {:.1} ms | {} |",
        figure.alerts_per_second,
        figure.p50.as_secs_f64() * 1e3,
        figure.p99.as_secs_f64() * 1e3,
        figure.refused
    );
}

async fn ours(path: &str, form: Form, connections: usize, per_request: usize, span: Duration) -> Figure {
    let folder = tempfile::tempdir().expect("a folder");
    let store =
        Arc::new(SqliteStore::open(SqliteOptions::new(folder.path().join("bench.db")), Time::now()).expect("a store"));
    let source: SourceConfig = serde_json::from_value(serde_json::json!({ "kind": "alertmanager" })).expect("a source");
    let config = Config { sources: BTreeMap::from([("bench".to_owned(), source)]), ..Config::default() };
    let at = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    };
    let folders = CatalogFolders { runbooks: at("runbooks"), rules: at("rules"), integrations: at("integrations") };
    let (catalog, _) = Catalog::load_with(folders, HostApi { specs: Vec::new() }).unwrap_or_else(|p| panic!("{p:?}"));
    let clock = Arc::new(RealClock);
    let parts = EngineParts {
        config: Arc::new(config),
        store: Arc::clone(&store) as Arc<dyn Store>,
        catalog: Arc::new(catalog),
        world: World {
            clusters: BTreeMap::new(),
            default_cluster: "none".to_owned(),
            prometheus: None,
            http: HttpClient::new("nightshift/bench", &[]).expect("a client"),
            docker: None,
            agents: AgentMailbox::default(),
            engines: ProbedEngines::default(),
            clock: clock.clone(),
            kill: Arc::default(),
            identity: "nightshift/bench".to_owned(),
        },
        notifiers: Arc::default(),
        clock,
        metrics: Arc::new(Metrics::new()),
        nudge: WakeSender::default(),
        key: Arc::new(SigningKey::open_or_create(&folder.path().join("key"), "bench").expect("a key")),
    };
    let token = GivenToken {
        name: "bench".to_owned(),
        role: Role::Source,
        sources: vec!["bench".to_owned()],
        clusters: None,
        text: TOKEN.to_owned(),
    };
    let app = App::new(parts, ConfiguredTokens::new(vec![token]).expect("a token"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(app, listener, async move {
        let _ = stopped.await;
    }));
    let figure = load(address, path, form, connections, per_request, span).await;
    let _ = stop.send(());
    let _ = server.await;
    store.close().await.expect("the store closes");
    figure
}

async fn peers(binary: &str, connections: usize, per_request: usize, span: Duration) -> Figure {
    struct Killed(Child);
    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("alertmanager.yml");
    std::fs::write(&config, "route: { receiver: none }\nreceivers: [{ name: none }]\n").expect("a configuration");
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let _peer = Killed(
        Command::new(binary)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--cluster.listen-address=", "--log.level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("alertmanager starts"),
    );
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let begun = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "alertmanager did not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    load(address, "/api/v2/alerts", Form::Direct, connections, per_request, span).await
}

#[derive(Clone, Copy)]
enum Form {
    Webhook,
    Direct,
}

/// Each connection sends its next request when the last one is answered. Every alert is a new one.
async fn load(
    address: SocketAddr,
    path: &str,
    form: Form,
    connections: usize,
    per_request: usize,
    span: Duration,
) -> Figure {
    let number = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(client(address, path.to_owned(), form, per_request, Arc::clone(&number), begun + span)))
        .collect();
    let (mut times, mut refused) = (Vec::new(), 0);
    for client in clients {
        let (taken, bad) = client.await.expect("a client ends");
        times.extend(taken);
        refused += bad;
    }
    let took = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    Figure { alerts_per_second: (times.len() * per_request) as f64 / took, p50: at(0.50), p99: at(0.99), refused }
}

async fn client(
    address: SocketAddr,
    path: String,
    form: Form,
    per_request: usize,
    number: Arc<AtomicU64>,
    until: Instant,
) -> (Vec<Duration>, u64) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let (mut times, mut refused) = (Vec::new(), 0);
    let (mut request, mut body, mut answer) = (String::new(), String::new(), vec![0_u8; 16 * 1024]);
    while Instant::now() < until {
        body.clear();
        write_body(&mut body, form, per_request, number.fetch_add(per_request as u64, Ordering::Relaxed));
        request.clear();
        let _ = write!(
            request,
            "POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).await.expect("a request is sent");
        if read_status(&mut stream, &mut answer).await / 100 == 2 {
            times.push(sent.elapsed());
        } else {
            refused += 1;
        }
    }
    (times, refused)
}

fn write_body(body: &mut String, form: Form, per_request: usize, first: u64) {
    let status = match form {
        Form::Webhook => {
            body.push_str(r#"{"version":"4","groupKey":"{}:{}","truncatedAlerts":0,"status":"firing","receiver":"bench","groupLabels":{},"commonLabels":{},"commonAnnotations":{},"externalURL":"","alerts":["#);
            r#""status":"firing","#
        }
        Form::Direct => {
            body.push('[');
            ""
        }
    };
    for at in 0..per_request as u64 {
        let comma = if at == 0 { "" } else { "," };
        let no = first + at;
        let _ = write!(
            body,
            r#"{comma}{{{status}"labels":{{"alertname":"GpuXid","cluster":"eu-1","node":"gpu-{}","gpu":"{}","severity":"critical","job":"dcgm","no":"{no}"}},"annotations":{{"summary":"XID 79 on a GPU","description":"The GPU has fallen off the bus"}},"startsAt":"2026-11-02T02:50:00.123Z","generatorURL":"http://prometheus:9090/graph?g0.expr=xid"}}"#,
            no % 1000,
            no % 8
        );
    }
    body.push_str(match form {
        Form::Webhook => "]}",
        Form::Direct => "]",
    });
}

/// Reads one answer with a Content-Length, whole, and returns its status.
async fn read_status(stream: &mut TcpStream, buffer: &mut [u8]) -> u16 {
    let mut have = 0;
    loop {
        let read = stream.read(&mut buffer[have..]).await.expect("an answer");
        assert!(read > 0, "the connection was closed");
        have += read;
        let Some(end) = buffer[..have].windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..end]).expect("a head in ASCII").to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        if have >= end + 4 + length.unwrap_or(0_usize) {
            return head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        }
    }
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
