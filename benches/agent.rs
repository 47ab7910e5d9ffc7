//! The agent as a process of its own beside its engine: what it costs, and how soon a fault that it hears is known and
//! answered. `cargo bench --bench agent -- --seconds 600 [cost] [events] [cordon]`.
//!
//! Invariant: the agent is the program itself, stripped of its symbols as it ships, over TLS with a certificate; what it
//! sends is counted on the wire, and a time ends where another user (the engine's ledger, the fleet) shows the effect.

#[path = "../tests/it/gpus.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod gpus;
#[path = "../tests/it/harness.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod harness;
#[path = "engine/table.rs"]
mod table;

use gpus::Gpus;
use harness::{Engine, Site, eventually, free_port};
use nightshift::node::KMSG;
use nightshift::world::sim::{SimFleet, SimOptions};
use nightshift::world::{KubeClient, KubeConfig};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use table::{ms, row, share, time_row};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const EVENTS: usize = 200;
const CORDONS: usize = 200;
/// Codes whose meaning is not in the kernel's words, that end by themselves, and that no poll sees as well.
const CODES: [u32; 25] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 18, 19, 25, 31, 43, 57, 58, 59, 60, 68, 92, 94];
/// Where the imitated GPUs are.
const BUSES: [u32; 8] = [0x0f, 0x2d, 0x44, 0x5b, 0x89, 0xa8, 0xc0, 0xd8];
/// Clock ticks of `/proc/PID/stat` in a second, as Linux has them everywhere.
const TICKS: f64 = 100.0;

const RULES: &str = "rules:\n  - name: cordon\n    when: ['alertname=\"GpuXid\"', 'xid=\"79\"']\n    run: cordon\n    \
                     mode: auto\n    cooldown: 0s\n    attempts: 1000000\n    group_by: [node, pci]\n    demote: { auto: 0, approve: 0 }\n";
const CORDON: &str = "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\n\
                      k8s::cordon(node, \"a bench\");\n";
const OPEN: &str = "guards:\n  nodes_at_once: 100000\n  share_at_once: 1.0\n  share_per_hour: 1.0\n  \
                    share_per_day: 1.0\n  correlated_share: 1.0\n";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let seconds = words.iter().position(|word| word == "--seconds").and_then(|at| words.get(at + 1)?.parse().ok());
    let seconds: u64 = seconds.unwrap_or(120);
    let parts = ["cost", "events", "cordon"];
    let named = |part: &&str| words.iter().any(|word| word == part);
    let all = !parts.iter().any(named);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        println!("| what | figure | bar | of bar |\n|---|---|---|---|");
        for part in parts.iter().filter(|part| all || named(part)) {
            match *part {
                "cost" => cost(Duration::from_secs(seconds)).await,
                "events" => events().await,
                _ => cordon().await,
            }
        }
    });
}

/// An engine before a fleet of four nodes, and the agent of `gpu-1` with eight H100 made of software.
struct Scene {
    site: Site,
    engine: Engine,
    fleet: SimFleet,
    gpus: Gpus,
    agent: Child,
    wire: Arc<Wire>,
}

/// Bytes between agent and engine, TLS and all.
#[derive(Default)]
struct Wire {
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicU64,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

impl Scene {
    /// `kernel_log`: what the agent follows; left out: a FIFO of this scene.
    async fn new(kernel_log: Option<&Path>) -> Scene {
        let fleet = SimFleet::start(SimOptions { workloads: Vec::new(), lone_pod: false, ..SimOptions::default() });
        let fleet = fleet.expect("a fleet");
        let (door, front) = (free_port(), free_port());
        let extra = format!("agents:\n  listen: 127.0.0.1:{door}\nclusters:\n  sim:\n    url: {}\n{OPEN}", fleet.url());
        let site = Site::new(&extra, RULES, &[("cordon", CORDON)]);
        let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
        let wire = Arc::new(Wire::default());
        let listener = TcpListener::bind(("127.0.0.1", front)).await.expect("a port");
        tokio::spawn(between(listener, door, Arc::clone(&wire)));
        let gpus = Gpus::new("machine h100 gpus 8");
        let folder = site.path().join("agent");
        std::fs::create_dir(&folder).expect("a folder");
        let log = kernel_log.map_or_else(|| fifo(&folder.join("kmsg")), Path::to_path_buf);
        let config = format!(
            "node: gpu-1\nengine: https://127.0.0.1:{front}\ndata_dir: {f}/data\nkill_file: {f}/stop\nkernel_log: {}\n\
             nvml:\n  library: {}\n  poll: 1s\n",
            log.display(),
            gpus.library().display(),
            f = folder.display()
        );
        std::fs::write(folder.join("agent.yaml"), config).expect("its configuration");
        let binary = stripped(&folder.join("nightshift"));
        let command = || {
            let mut command = Command::new(&binary);
            command.arg("--config").arg(folder.join("agent.yaml")).arg("agent").stdin(Stdio::null());
            command.stdout(Stdio::null());
            command
        };
        let (status, made) = engine.post("/api/v1/agents/join-tokens", &json!({})).await.expect("an answer");
        assert_eq!(status, 201, "{made}");
        let joined = command().arg("--join").arg(made["token"].as_str().expect("a token")).status();
        assert!(joined.expect("it starts").success(), "the agent cannot join");
        let errors = File::create(folder.join("log")).expect("its log");
        let agent = command().stderr(errors).spawn().expect("the agent starts");
        eventually("the agent", async || {
            let list = engine.get("/api/v1/agents").await?;
            list["agents"].as_array()?.iter().any(|agent| agent["connected"] == true).then_some(())
        })
        .await;
        let scene = Scene { site, engine, fleet, gpus, agent, wire };
        eventually("NVML", async || scene.log().contains("NVML session started").then_some(())).await;
        scene
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.site.path().join("agent/log")).unwrap_or_default()
    }

    fn kernel(&self) -> File {
        let path = self.site.path().join("agent/kmsg");
        File::options().read(true).write(true).open(path).expect("the agent's kernel log")
    }

    /// A number of kilobytes of the agent's status file.
    fn memory(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.agent.id())).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// Seconds of processor that all its threads have had.
    fn busy(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.agent.id())).unwrap_or_default();
        let behind = stat.rsplit(')').next().unwrap_or_default();
        let fields = behind.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<f64>().ok());
        fields.sum::<f64>() / TICKS
    }

    fn sent(&self) -> (u64, u64) {
        (self.wire.up.load(Ordering::Relaxed), self.wire.down.load(Ordering::Relaxed))
    }

    /// Whether the ledger has this complaint.
    async fn is_durable(&self, complaint: &str) -> Option<()> {
        let answer = self.engine.get("/api/v1/entries?kind=heard&limit=2").await?;
        answer.to_string().contains(complaint).then_some(())
    }
}

/// A copy of the program without symbols, as a release has it.
fn stripped(to: &Path) -> PathBuf {
    let binary = std::env::var("NIGHTSHIFT_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_nightshift").to_owned());
    std::fs::copy(binary, to).expect("a copy of the program");
    let ended = Command::new("strip").arg(to).status().expect("`strip`, of binutils");
    assert!(ended.success(), "`strip` failed");
    to.to_owned()
}

fn fifo(path: &Path) -> PathBuf {
    assert!(Command::new("mkfifo").arg(path).status().expect("`mkfifo`").success());
    path.to_owned()
}

/// Passes bytes on and counts them.
async fn between(listener: TcpListener, door: u16, wire: Arc<Wire>) {
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(("127.0.0.1", door)).await else { continue };
        wire.connections.fetch_add(1, Ordering::Relaxed);
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (near, far) = (near.into_split(), far.into_split());
        tokio::spawn(pump(near.0, far.1, Arc::clone(&wire), |wire| &wire.up));
        tokio::spawn(pump(far.0, near.1, Arc::clone(&wire), |wire| &wire.down));
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    wire: Arc<Wire>,
    count: fn(&Wire) -> &AtomicU64,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        count(&wire).fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Half of the time at rest, half with an XID a minute.
async fn cost(time: Duration) {
    let scene = Scene::new(None).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    row("agent, 8 GPUs, polls at 1 s: resident after 10 s", split(&scene), "", None);
    let rest = phase(&scene, time / 2, None).await;
    let mut kernel = scene.kernel();
    let ill = phase(&scene, time / 2, Some(&mut kernel)).await;
    let cpu = 100.0 * (rest.busy + ill.busy) / (rest.seconds + ill.seconds);
    let whole = format!("{:.0} s", rest.seconds + ill.seconds);
    row(&format!("… share of a core over {whole}"), format!("{cpu:.3} %"), "0.3 %", Some(cpu / 0.3));
    row("… at rest, with an XID a minute", format!("{:.3} %, {:.3} %", rest.share(), ill.share()), "", None);
    let most = rest.most.max(ill.most) as f64 / 1024.0;
    row(&format!("… resident, the most in {whole}"), format!("{most:.1} MiB"), "25 MiB", Some(most / 25.0));
    row("… at the end", split(&scene), "", None);
    row("… sent an hour at rest: to the engine, from it", rest.hourly(), "", None);
    row("… sent an hour with an XID a minute", ill.hourly(), "", None);
    let connections = scene.wire.connections.load(Ordering::Relaxed);
    row("… connections, threads", format!("{connections}, {}", scene.memory("Threads:")), "", None);
}

struct Phase {
    seconds: f64,
    busy: f64,
    most: u64,
    up: u64,
    down: u64,
}

impl Phase {
    fn share(&self) -> f64 {
        100.0 * self.busy / self.seconds
    }

    fn hourly(&self) -> String {
        let kib = |bytes: u64| bytes as f64 / 1024.0 * 3_600.0 / self.seconds;
        format!("{:.0} KiB, {:.0} KiB", kib(self.up), kib(self.down))
    }
}

fn split(scene: &Scene) -> String {
    let mib = |name: &str| scene.memory(name) as f64 / 1024.0;
    let (all, own, file) = (mib("VmRSS:"), mib("RssAnon:"), mib("RssFile:"));
    format!("{all:.1} MiB: {own:.1} of its own, {file:.1} pages of files")
}

async fn phase(scene: &Scene, time: Duration, mut kernel: Option<&mut File>) -> Phase {
    let (began, busy, sent) = (Instant::now(), scene.busy(), scene.sent());
    let (mut most, mut number) = (0, 0);
    while began.elapsed() < time {
        let minute = usize::try_from(began.elapsed().as_secs() / 60).unwrap_or(0);
        if let Some(kernel) = kernel.as_mut().filter(|_| minute >= number) {
            // Another GPU and code each minute.
            let (gpu, code) = (number % 8, CODES[number / 8 % CODES.len()]);
            writeln!(
                kernel,
                "3,{},{},-;NVRM: Xid (PCI:0000:{:02x}:00): {code}, pid=1, name=x, words",
                1 + number,
                number * 60_000_000,
                BUSES[gpu]
            )
            .expect("a line");
            number += 1;
        }
        most = most.max(scene.memory("VmRSS:"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let now = scene.sent();
    Phase {
        seconds: began.elapsed().as_secs_f64(),
        busy: scene.busy() - busy,
        most,
        up: now.0 - sent.0,
        down: now.1 - sent.1,
    }
}

/// From the line that makes NVML tell an event to the moment at which the ledger shows it.
async fn events() {
    let scene = Scene::new(None).await;
    let mut took = Vec::new();
    for number in 0..EVENTS {
        let (gpu, code) = (number % 8, CODES[number / 8]);
        let began = Instant::now();
        scene.gpus.say(&format!("gpu {gpu} xid {code}"));
        let complaint = format!("xid-{code} 0000:{:02x}:00.0", BUSES[gpu]);
        until(&complaint, async || scene.is_durable(&complaint).await).await;
        took.push(began.elapsed());
        // Each on its own, and none in step with the polls.
        tokio::time::sleep(Duration::from_millis(53 + (number as u64 * 37) % 200)).await;
    }
    time_row("NVML event → shown by the engine's ledger, p50", share(&mut took, 0.5), Duration::from_millis(30));
    row("… p99, slowest", format!("{}, {}", ms(share(&mut took, 0.99)), ms(share(&mut took, 1.0))), "", None);
}

/// From a line written to the kernel log to the cordon at the fleet's API. Each line is of another address, which NVML
/// does not know.
async fn cordon() {
    let device = File::options().write(true).open(KMSG).is_ok();
    let scene = Scene::new(device.then_some(Path::new(KMSG))).await;
    let mut fifo = (!device).then(|| scene.kernel());
    let kube = KubeConfig { url: scene.fleet.url(), ..KubeConfig::default() };
    let kube = KubeClient::connect(&kube, "nightshift/bench").await.expect("a client");
    // A PCI domain for this run alone; machines count theirs from zero.
    let domain = 0xa000 | (std::process::id() & 0xfff);
    let (mut took, mut unanswered) = (Vec::new(), 0);
    for number in 0..CORDONS {
        let words = format!(
            "NVRM: Xid (PCI:{domain:04x}:{:02x}:{:02x}): 79, pid=1, name=x, GPU has fallen off the bus.",
            number / 32,
            number % 32
        );
        let began = Instant::now();
        match &mut fifo {
            Some(fifo) => writeln!(fifo, "3,{},1,-;{words}", number + 1).expect("a line"),
            None => {
                // The kernel takes ten lines of one opening within five seconds.
                let log = File::options().write(true).open(KMSG);
                log.and_then(|mut log| log.write_all(format!("<3>{words}\n").as_bytes())).expect("a line");
            }
        }
        let cordoned = || scene.fleet.node("gpu-1").is_some_and(|node| node["spec"]["unschedulable"] == json!(true));
        let give_up = began + Duration::from_secs(5);
        while !cordoned() && Instant::now() < give_up {
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        if cordoned() {
            took.push(began.elapsed());
        } else {
            unanswered += 1;
        }
        let open = json!({
            "metadata": { "annotations": { nightshift::world::CORDONED_BY: null } },
            "spec": { "unschedulable": false },
        });
        kube.patch_node("gpu-1", open, None).await.expect("the node is given back");
        tokio::time::sleep(Duration::from_millis(53 + (number as u64 * 37) % 200)).await;
    }
    let what = if device { KMSG } else { "a FIFO" };
    let bars = (Duration::from_millis(60), Duration::from_millis(250));
    time_row(&format!("XID line written to {what} → cordon, p50 of {}", took.len()), share(&mut took, 0.5), bars.0);
    time_row("… p99", share(&mut took, 0.99), bars.1);
    row("… slowest", ms(share(&mut took, 1.0)), "", None);
    row("… not answered within 5 s", unanswered.to_string(), "0", Some(f64::from(unanswered)));
    if unanswered > 0 {
        println!("{}\n{}", scene.site.log(), scene.log());
    }
}

/// Asks every millisecond.
async fn until(what: &str, mut ask: impl AsyncFnMut() -> Option<()>) {
    let give_up = Instant::now() + Duration::from_secs(10);
    while ask().await.is_none() {
        assert!(Instant::now() < give_up, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
