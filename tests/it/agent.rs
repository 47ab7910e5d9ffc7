//! The agent as a process of its own against the engine as another one: what is heard arrives once, what is asked is done
//! once, and nobody speaks for another node.
//!
//! Invariant: every process that a test starts ends with it.

mod collect;
mod commands;
mod identity;
mod kernel;
mod layout;
pub mod link;
mod programs;
mod reboot;
mod tokens;
mod warm;

use crate::harness::{Engine, Site, eventually, free_port};
use link::Disk;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// An engine with a door for agents, and a folder for their things.
struct Place {
    site: Site,
    door: u16,
}

/// One agent process, and the pipe through which a test lets it hear things.
struct Agent {
    child: Child,
    ears: std::fs::File,
}

impl Place {
    fn new(extra: &str, rules: &str, runbooks: &[(&str, &str)]) -> Place {
        let door = free_port();
        let extra = format!("agents:\n  listen: 127.0.0.1:{door}\n  silent_after: 2s\n{extra}");
        Place { site: Site::new(&extra, rules, runbooks), door }
    }

    fn folder(&self, node: &str) -> PathBuf {
        let folder = self.site.path().join(node);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// `agent.yaml` of a node, with a stand-in for NVIDIA's tool.
    fn write_config(&self, node: &str, extra: &str) -> PathBuf {
        let folder = self.folder(node);
        // The machine's own kernel log has lines of other tests.
        std::fs::write(folder.join("kernel.log"), "").unwrap();
        let text = format!(
            "node: {node}\nengine: https://127.0.0.1:{}\ndata_dir: {f}/data\nnvidia_smi: {f}/nvidia-smi\nkill_file: {f}/stop\n\
             kernel_log: {f}/kernel.log\n{extra}",
            self.door,
            f = folder.display()
        );
        std::fs::write(folder.join("agent.yaml"), text).unwrap();
        folder.join("agent.yaml")
    }

    fn command(&self, node: &str) -> Command {
        let config = self.folder(node).join("agent.yaml");
        if !config.exists() {
            self.write_config(node, "");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.arg("--config").arg(config).arg("agent").stdin(Stdio::null());
        command
    }

    fn join(&self, node: &str, token: &str) -> Output {
        self.command(node).arg("--join").arg(token).output().unwrap()
    }

    /// Joins with a new token and starts.
    async fn agent(&self, engine: &Engine, node: &str) -> Agent {
        let token = token(engine, json!({})).await;
        let joined = self.join(node, &token);
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        self.start(node)
    }

    fn start(&self, node: &str) -> Agent {
        let folder = self.folder(node);
        let pipe = folder.join("ears");
        if !pipe.exists() {
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        }
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = self.command(node);
        command.arg("--findings").arg(&pipe).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        // For reading too, so that it opens whoever comes first.
        let ears = std::fs::File::options().read(true).write(true).open(pipe).unwrap();
        Agent { child, ears }
    }

    fn log(&self, node: &str) -> String {
        std::fs::read_to_string(self.folder(node).join("log")).unwrap_or_default()
    }
}

impl Agent {
    fn hears(&mut self, complaints: impl IntoIterator<Item = String>) {
        for complaint in complaints {
            let mut line = finding(&complaint).to_string();
            line.push('\n');
            self.ears.write_all(line.as_bytes()).unwrap();
        }
    }

    fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn finding(complaint: &str) -> Value {
    json!({
        "complaint": complaint, "status": "firing", "at": "2026-11-02T03:00:00Z", "severity": "critical",
        "gpu": { "index": 3, "uuid": "GPU-1", "pci": "0000:65:00.0" },
        "labels": { "alertname": "GpuXid", "xid": "79", "node": "gpu-forged" },
        "summary": "GPU 3 has fallen off the bus", "detail": "NVRM: Xid (PCI:0000:65:00): 79",
    })
}

async fn token(engine: &Engine, wanted: Value) -> String {
    let (status, made) = engine.post("/api/v1/agents/join-tokens", &wanted).await.unwrap();
    assert_eq!(status, 201, "{made}");
    made["token"].as_str().unwrap().to_owned()
}

/// How an agent of that node is listed.
async fn listed(engine: &Engine, node: &str) -> Option<Value> {
    let answer = engine.get("/api/v1/agents").await?;
    answer["agents"].as_array()?.iter().find(|agent| agent["node"] == node).cloned()
}

async fn connected(engine: &Engine, node: &str) {
    eventually(&format!("the agent of {node}"), async || {
        listed(engine, node).await.filter(|agent| agent["connected"] == true)
    })
    .await;
}

/// Complaints that the ledger has heard from agents, in order, each with its node.
async fn heard(engine: &Engine) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut after = -1;
    loop {
        let path = format!("/api/v1/entries?after={after}&limit=1000&kind=heard");
        let Some(answer) = engine.get(&path).await else { return found };
        let entries = answer["entries"].as_array().cloned().unwrap_or_default();
        let Some(last) = entries.last() else { return found };
        after = last["no"].as_str().unwrap().trim_start_matches('#').parse().unwrap();
        for event in entries.iter().flat_map(|entry| entry["events"].as_array().cloned().unwrap_or_default()) {
            let event = &event["event"];
            if event["labels"]["alertname"] == "GpuXid" {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                found.push((text(&event["fingerprint"]), text(&event["labels"]["node"])));
            }
        }
    }
}

async fn gaps(engine: &Engine) -> Vec<String> {
    let answer = engine.get("/api/v1/entries?limit=1000&kind=gap").await.unwrap();
    let entries = answer["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["text"].as_str().unwrap_or_default().to_owned()).collect()
}

fn executable(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
