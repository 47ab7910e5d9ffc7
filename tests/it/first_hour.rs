//! README's "Five minutes to the first useful message", as it stands: its blocks are written into files and its commands run,
//! with the real program, a real Alertmanager, the simulated fleet and a Slack that records.
//!
//! Invariant: what is written or run here and is not in README is an address, a path or a token that differs on this machine.

use crate::harness::{client, eventually, free_port, tool};
use crate::real::scene::Part;
use crate::recording::Recording;
use nightshift::world::sim::{SimFleet, SimOptions};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// One fenced block: its language, and its lines without the fence's indentation.
struct Block {
    language: String,
    lines: Vec<String>,
}

fn section() -> Vec<Block> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let text =
        readme.split("## Five minutes to the first useful message").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<usize> = None;
    for line in text.lines() {
        let bare = line.trim_start();
        match (open, bare.strip_prefix("```")) {
            (Some(_), Some(_)) => open = None,
            (Some(indent), None) => {
                let line = line.get(indent..).unwrap_or_default().to_owned();
                blocks.last_mut().unwrap().lines.push(line);
            }
            (None, Some(language)) => {
                open = Some(line.len() - bare.len());
                blocks.push(Block { language: language.to_owned(), lines: Vec::new() });
            }
            (None, None) => {}
        }
    }
    blocks
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A user's machine: a folder with the checkout's parts, a PATH, a home with a kubeconfig, and what differs from README.
struct Machine {
    dir: tempfile::TempDir,
    _fleet: SimFleet,
    slack: Recording,
    engine_port: u16,
    alertmanager_port: u16,
    engine: Option<Child>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(engine) = &mut self.engine {
            let _ = engine.kill();
            let _ = engine.wait();
        }
        if std::thread::panicking() {
            eprintln!("── serve\n{}", std::fs::read_to_string(self.dir.path().join("serve.log")).unwrap_or_default());
        }
    }
}

impl Machine {
    /// `mode`: that of the rule for XID 79, which is `observe` as shipped.
    async fn new(mode: &str) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["bin", "home/.kube", "alertmanager", "rules"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for folder in ["runbooks", "integrations"] {
            std::os::unix::fs::symlink(root().join(folder), at(folder)).unwrap();
        }
        std::os::unix::fs::symlink(root().join("rules/prometheus"), at("rules/prometheus")).unwrap();
        for file in std::fs::read_dir(root().join("rules")).unwrap().flatten().filter(|file| file.path().is_file()) {
            std::fs::copy(file.path(), at("rules").join(file.file_name())).unwrap();
        }
        let gpu = std::fs::read_to_string(at("rules/gpu.yaml")).unwrap();
        let (before, after) = gpu.split_once("name: gpu-fell-off-the-bus").unwrap();
        let after = after.replacen("mode: observe", &format!("mode: {mode}"), 1);
        std::fs::write(at("rules/gpu.yaml"), format!("{before}name: gpu-fell-off-the-bus{after}")).unwrap();
        let fleet = SimFleet::start(SimOptions::default()).unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "sim",
            "clusters": [{ "name": "sim", "cluster": { "server": fleet.url() } }],
            "contexts": [{ "name": "sim", "context": { "cluster": "sim", "user": "sim" } }],
            "users": [{ "name": "sim", "user": {} }],
        });
        std::fs::write(at("home/.kube/config"), kubeconfig.to_string()).unwrap();
        for (name, program) in [
            ("nightshift", PathBuf::from(env!("CARGO_BIN_EXE_nightshift"))),
            ("amtool", tool("amtool")),
            ("promtool", tool("promtool")),
        ] {
            std::os::unix::fs::symlink(program, at("bin").join(name)).unwrap();
        }
        // This machine need not have a user `alertmanager`, nor sudo.
        let sudo = "#!/bin/bash\nargs=()\nwhile [ $# -gt 0 ]; do if [ \"$1\" = -o ]; then shift 2; else args+=(\"$1\"); shift; fi; done\n\
                    exec \"${args[@]}\"\n";
        std::fs::write(at("bin/sudo"), sudo).unwrap();
        std::fs::set_permissions(at("bin/sudo"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let slack = Recording::slack().await;
        Machine { dir, _fleet: fleet, slack, engine_port: free_port(), alertmanager_port: free_port(), engine: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// README's text with this machine's addresses, paths and token.
    fn here(&self, text: &str) -> String {
        text.replace("127.0.0.1:9093", &format!("127.0.0.1:{}", self.alertmanager_port))
            .replace("127.0.0.1:7676", &format!("127.0.0.1:{}", self.engine_port))
            .replace("/etc/alertmanager", &self.path("alertmanager").display().to_string())
            .replace("xoxb-…", "xoxb-test")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.path("bin").display());
        command.args(["-euo", "pipefail", "-c", &self.here(line)]).current_dir(self.dir.path()).env_clear();
        command.env("PATH", path).env("HOME", self.path("home")).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Each command of a block, and that its printed lines come as README shows them; `…` stands for anything.
    async fn follow(&mut self, block: &Block) {
        let mut lines = block.lines.iter().peekable();
        while let Some(line) = lines.next() {
            let line = line.strip_prefix("$ ").unwrap_or_else(|| panic!("no command: {line}")).to_owned();
            let mut line = line;
            while line.ends_with('\\') {
                line.pop();
                line.push_str(lines.next().unwrap().trim_start());
            }
            let mut shown = Vec::new();
            while let Some(printed) = lines.next_if(|line| !line.starts_with("$ ")) {
                shown.push(self.here(printed));
            }
            let said = match line.as_str() {
                // The tests' own build stands for it.
                line if line.starts_with("cargo build") || line.contains("target/release/nightshift") => continue,
                "nightshift serve" => self.serve().await,
                line => {
                    let output = self.run(line);
                    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
                    // What doctor finds odd on this machine is its business; that it runs is README's.
                    let good = output.status.success() || line.starts_with("nightshift doctor");
                    assert!(good, "{line} ended with {:?}:\n{said}", output.status.code());
                    said
                }
            };
            for printed in shown {
                assert!(fits(&said, &printed), "{line} does not print `{printed}` but:\n{said}");
            }
        }
    }

    async fn serve(&mut self) -> String {
        let log = std::fs::File::create(self.path("serve.log")).unwrap();
        let mut command = self.command("exec nightshift serve");
        self.engine = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let url = format!("http://127.0.0.1:{}/readyz", self.engine_port);
        eventually("the engine to be ready", async || {
            let ended = self.engine.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "serve has ended: {ended:?}");
            client().get(&url).send().await.ok().filter(|answer| answer.status().is_success())?;
            let log = std::fs::read_to_string(self.dir.path().join("serve.log")).unwrap();
            log.contains("ready on").then_some(log)
        })
        .await
    }

    /// Seconds from the webhook to the message about the fault, and that message.
    async fn first_message(&self) -> (f64, String) {
        let message = eventually("the message", async || {
            let messages = self.slack.seen();
            let first = messages.iter().find(|seen| seen.path == "/chat.postMessage" && seen.text.contains("gpu-3"))?;
            Some((jiff::Timestamp::now(), first.text.clone()))
        });
        let (at, text) = message.await;
        let received = eventually("the webhook", async || self.received().await).await;
        (at.duration_since(received).as_secs_f64(), text)
    }

    /// When the engine received the alert.
    async fn received(&self) -> Option<jiff::Timestamp> {
        let token = std::fs::read_to_string(self.path("data/token")).unwrap();
        let url = format!("http://127.0.0.1:{}/api/v1/entries?kind=heard", self.engine_port);
        let answer: Value = client().get(url).bearer_auth(token.trim()).send().await.ok()?.json().await.ok()?;
        let entries = answer["entries"].as_array()?.clone();
        let heard = entries.iter().find(|entry| entry.to_string().contains("gpu-3"))?;
        heard["at"].as_str()?.parse().ok()
    }
}

/// Whether a line has these pieces in this order.
fn fits(said: &str, shown: &str) -> bool {
    said.lines().any(|line| {
        let mut rest = Some(line);
        for piece in shown.trim().split('…') {
            rest = rest.and_then(|rest| rest.split_once(piece)).map(|(_, after)| after);
        }
        rest.is_some()
    })
}

async fn the_first_message_comes_in_time(mode: &str) {
    let blocks = section();
    let mut machine = Machine::new(mode).await;
    let mut alertmanager = None;
    let (mut consoles, mut took) = (0, None);
    for block in &blocks {
        let text = block.lines.join("\n") + "\n";
        match block.language.as_str() {
            "yaml" if text.contains("channels:") => {
                let api = format!("kind: slack\n    api: {}\n", machine.slack.url);
                let listen = format!("server: {{ listen: '127.0.0.1:{}' }}\n", machine.engine_port);
                let text = machine.here(&text).replacen("kind: slack\n", &api, 1) + &listen;
                std::fs::write(machine.path("nightshift.yaml"), text).unwrap();
            }
            "yaml" if text.contains("receivers:") => {
                std::fs::write(machine.path("alertmanager.yml"), machine.here(&text)).unwrap();
                let checked = machine.run("amtool check-config alertmanager.yml");
                assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
                let storage = format!("--storage.path={}", machine.path("alertmanager").display());
                let flags = [storage, "--cluster.listen-address=".to_owned()];
                alertmanager =
                    Some(Part::start("alertmanager", machine.dir.path(), machine.alertmanager_port, &flags).await);
            }
            "yaml" if text.contains("rule_files:") => {
                std::fs::write(machine.path("prometheus.yml"), &text).unwrap();
                let checked = machine.run("promtool check config prometheus.yml");
                let said = String::from_utf8_lossy(&checked.stdout).into_owned();
                assert!(
                    checked.status.success() && said.contains("rules/prometheus/nightshift-hardware.yml"),
                    "{said}"
                );
            }
            "console" => {
                consoles += 1;
                machine.follow(block).await;
                if text.contains("amtool alert add") {
                    took = Some(machine.first_message().await);
                }
            }
            other => panic!("nothing follows a block of {other}:\n{text}"),
        }
    }
    assert!(alertmanager.is_some() && consoles >= 4, "{consoles} blocks of commands");
    let (seconds, message) = took.unwrap();
    assert!(seconds <= 2.0, "the message came {seconds} s after the webhook: {message}");
    assert!(message.contains("79"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readme_is_literally_true_and_the_first_message_comes_within_two_seconds_in_suggest() {
    the_first_message_comes_in_time("suggest").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readme_is_literally_true_and_the_first_message_comes_within_two_seconds_in_approve() {
    the_first_message_comes_in_time("approve").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readme_is_literally_true_and_the_first_message_comes_within_two_seconds_in_auto() {
    the_first_message_comes_in_time("auto").await;
}

/// Starts an engine with this configuration in a folder that has the shipped runbooks, rules and integrations.
async fn starts(what: &str, config: &str) {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["runbooks", "rules", "integrations"] {
        std::os::unix::fs::symlink(root().join(folder), dir.path().join(folder)).unwrap();
    }
    // The server's own secrets are the only ones that a start needs.
    let (port, own) = (free_port(), dir.path().join("own"));
    std::fs::write(&own, "0123456789".repeat(7)).unwrap();
    let config = config
        .replace("listen: 127.0.0.1:7676", &format!("listen: 127.0.0.1:{port}"))
        .replace("/run/secrets/nightshift-alertmanager", &own.display().to_string())
        .replace("/run/secrets/nightshift-oidc", &own.display().to_string());
    std::fs::write(dir.path().join("nightshift.yaml"), config).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command.arg("serve").current_dir(dir.path()).env("NIGHTSHIFT_ONCALL_TOKEN", "9876543210".repeat(7));
    let mut engine = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let read = || std::fs::read_to_string(dir.path().join("log")).unwrap();
    eventually(&format!("{what} to start an engine"), async || {
        assert!(engine.try_wait().unwrap().is_none(), "{what}: serve has ended:\n{}", read());
        let ready = client().get(format!("http://127.0.0.1:{port}/readyz")).send().await;
        ready.ok().filter(|answer| answer.status().is_success())
    })
    .await;
    let _ = engine.kill();
    let _ = engine.wait();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_example_starts_an_engine_verbatim_although_no_secret_is_there() {
    starts("the example", include_str!("../../nightshift.example.yaml")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_example_starts_an_engine_with_every_line_on_although_no_secret_is_there() {
    let everything = crate::cli::everything_on(include_str!("../../nightshift.example.yaml"));
    starts("the example with everything on", &everything).await;
}

#[test]
fn what_readme_builds_is_what_it_puts_into_the_path() {
    let commands: Vec<String> = section().into_iter().flat_map(|block| block.lines).collect();
    let build = commands.iter().position(|line| line.starts_with("$ cargo build --release")).unwrap();
    let install = commands.iter().position(|line| line.contains("target/release/nightshift /usr/local/bin")).unwrap();
    assert!(build < install);
    let serve = commands.iter().position(|line| line == "$ nightshift serve").unwrap();
    let doctor = commands.iter().position(|line| line.starts_with("$ nightshift doctor")).unwrap();
    assert!(doctor < serve, "doctor comes before what blocks");
}

/// What is said without a repository, at the first try.
#[test]
fn the_demo_outside_of_the_source_folder_says_where_it_runs_and_what_else_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    let output = command.arg("demo").current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("source folder") && said.contains("--home") && said.contains("nightshift sim"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulated_fleet_is_in_the_help_and_a_command_makes_a_fault_in_it() {
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_nightshift")).args(args).output().unwrap();
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(help.lines().any(|line| line.trim_start().starts_with("sim ")), "{help}");
    let fleet = SimFleet::start(SimOptions::default()).unwrap();
    let at = fleet.url().strip_prefix("http://").unwrap().to_owned();
    let made = run(&["sim", "fault", "xid", "node=gpu-3", "gpu=5", "code=79", "--at", &at]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let page = client().get(format!("{}/metrics", fleet.url())).send().await.unwrap().text().await.unwrap();
    let xid = page.lines().any(|line| line.contains("XID") && line.contains("gpu-3") && line.contains("\"79\""));
    assert!(xid, "{page}");
    let wrong = run(&["sim", "fault", "xid", "node=gpu-99", "gpu=5", "code=79", "--at", &at]);
    assert_eq!(wrong.status.code(), Some(2), "{}", String::from_utf8_lossy(&wrong.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readme_is_literally_true_and_the_first_message_comes_within_two_seconds_in_observe() {
    the_first_message_comes_in_time("observe").await;
}
