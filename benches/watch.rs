//! What watching eight GPUs costs: processor time and memory of a process that does nothing else, polls one second apart.
//!
//! `cargo bench --bench watch -- --seconds 300`; the imitated library is in the figures, the rest of the agent is not.

use nightshift::config::{AgentConfig, NvmlConfig};
use nightshift::model::Finding;
use nightshift::node::{self, Machine};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Time on a processor of all threads that are alive.
fn busy() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is there");
    let of = |path: &Path| {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(tasks.flatten().map(|task| of(&task.path())).sum())
}

fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().collect();
    let seconds = words.iter().position(|word| word == "--seconds").and_then(|at| words.get(at + 1)?.parse().ok());
    let seconds: u64 = seconds.unwrap_or(60);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let library = dir.path().join("libnvidia-ml.so.1");
    let built = std::env::current_exe().expect("our own path").with_file_name("libnvml_imitation.so");
    std::fs::copy(&built, &library).expect("cargo builds the imitated library with the benches");
    std::fs::write(dir.path().join("machine.txt"), "machine h100 gpus 8\n").expect("the timeline");
    let before = status("VmRSS:");
    let nvml = NvmlConfig { library: Some(library), ..NvmlConfig::default() };
    let settings = AgentConfig { nvml, data_dir: dir.path().join("data"), ..AgentConfig::default() };
    let machine = Machine::here("gpu-1".to_owned(), Arc::new(settings));
    let (out, mut heard) = mpsc::channel::<Finding>(64);
    let (stop, stopped) = watch::channel(false);
    let watched = machine.clone();
    let task = tokio::spawn(async move {
        let watcher = node::watchers().find(|watcher| watcher.name() == "nvml").expect("the watch of NVML");
        watcher.watch(&watched, out, stopped).await;
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (since, spent) = (Instant::now(), busy());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (passed, spent) = (since.elapsed(), busy() - spent);
    println!(
        "8 GPUs, polls at 1 s, {:.0} s: {:.3} % of a core; resident {:.1} MiB ({:.1} MiB before the watch began), {} threads",
        passed.as_secs_f64(),
        100.0 * spent.as_secs_f64() / passed.as_secs_f64(),
        status("VmRSS:") as f64 / 1024.0,
        before as f64 / 1024.0,
        status("Threads:"),
    );
    assert!(heard.try_recv().is_err(), "GPUs that are well were complained about");
    stop.send_replace(true);
    task.await.expect("the watch ends when told");
}
