//! The program that ships, doing nothing: how soon it is ready, what it holds, what it burns.
//!
//! Invariant: it is the program itself, built with this bench's profile or named by `NIGHTSHIFT_BIN`, in a process of
//! its own, on an empty store.

use crate::rig::{folder, memory};
use crate::{ms, row, share, time_row};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WATCHED: Duration = Duration::from_secs(30);
const STARTS: usize = 7;
/// Clock ticks of `/proc/PID/stat` in a second, as Linux has them everywhere.
const TICKS: f64 = 100.0;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn measure() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let binary = std::env::var("NIGHTSHIFT_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_nightshift").to_owned());
    let binary = Path::new(&binary);
    let mut starts: Vec<Duration> = (0..STARTS).map(|_| start(binary, home).1).collect();
    time_row("start to ready on an empty store, p50", share(&mut starts, 0.5), Duration::from_millis(200));
    row("start to ready, the slowest", ms(share(&mut starts, 1.0)), "", None);
    let (engine, _, _folder) = start(binary, home);
    let pid = engine.0.id().to_string();
    std::thread::sleep(Duration::from_secs(2));
    let (before, begun) = (ticks(&pid), Instant::now());
    std::thread::sleep(WATCHED);
    let burnt = (ticks(&pid) - before) / TICKS / begun.elapsed().as_secs_f64() * 100.0;
    row("idle: share of a core, over 30 s", format!("{burnt:.2} %"), "0.5 %", Some(burnt / 0.5));
    let resident = memory(&pid, "VmRSS") as f64 / 1024.0;
    row("idle: resident", format!("{resident:.1} MiB"), "40 MiB", Some(resident / 40.0));
}

/// Starts it with the shipped runbooks, rules and integrations; returns when it reports ready.
fn start(binary: &Path, home: &Path) -> (Running, Duration, tempfile::TempDir) {
    let folder = folder();
    let config = folder.path().join("nightshift.yaml");
    let text = format!(
        "data_dir: {data}\nrunbooks_dir: {home}/runbooks\nrules_dir: {rules}\nintegrations_dir: {home}/integrations\n\
         sources:\n  prod: {{ kind: alertmanager }}\nchannels:\n  log: {{ kind: log }}\n",
        data = folder.path().join("data").display(),
        rules = folder.path().join("rules").display(),
        home = home.display()
    );
    std::fs::create_dir_all(folder.path().join("rules")).expect("a folder");
    std::fs::write(&config, text).expect("a configuration");
    let begun = Instant::now();
    let mut child = Command::new(binary)
        .arg("--config")
        .arg(&config)
        .args(["serve", "--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    let said = BufReader::new(child.stderr.take().expect("its stderr"));
    let running = Running(child);
    let mut lines = said.lines().map_while(Result::ok);
    let ready = lines.by_ref().find(|line| line.contains(" ready on ")).expect("it gets ready");
    let took = begun.elapsed();
    assert!(!ready.is_empty());
    // Somebody must read on, or the log fills the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (running, took, folder)
}

/// CPU time of all its threads, in ticks.
fn ticks(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> =
        after_name.split_whitespace().skip(11).take(2).filter_map(|text| text.parse().ok()).collect();
    fields.iter().sum()
}
