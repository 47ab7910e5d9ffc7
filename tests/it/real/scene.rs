//! One scene: the simulated fleet, a real Prometheus and Alertmanager, an engine's site, and the people's servers.
//!
//! Invariant: every child is killed when its scene ends, also by a panic, and then its log's end is printed.

use crate::harness::{Engine, Site, client, eventually, free_port, tool};
use crate::notifiers::mail;
use crate::recording::{Recording, Seen};
use nightshift::world::sim::{SimFault, SimFleet, SimOptions, SimWorkload};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const RULES: &str = r#"
rules:
  - name: gpu-fell-off-the-bus
    when: ['alertname="GpuXid"', 'xid="79"']
    run: gpu-fell-off-the-bus
    mode: auto
    tell: [oncall, pager, mail]
"#;

/// Who hears Prometheus.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    ByAlertmanager,
    /// By two that know nothing of each other, as a pair does while its gossip is cut.
    ByTwo,
    /// Prometheus takes the engine for an Alertmanager.
    Directly,
}

/// How Alertmanager notifies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    Hourly,
    /// It says everything again each second.
    Always,
}

/// A real Prometheus or Alertmanager.
pub struct Part {
    child: Child,
    pub url: String,
    log: PathBuf,
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("── {}\n{}", self.log.display(), tail(&self.log));
        }
    }
}

impl Part {
    pub async fn start(name: &str, dir: &Path, port: u16, flags: &[String]) -> Part {
        let log = dir.join(format!("{name}-{port}.log"));
        let out = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(tool(name));
        command.arg(format!("--config.file={}", dir.join(format!("{name}.yml")).display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).args(flags);
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let mut part = Part { child: command.spawn().unwrap(), url: format!("http://127.0.0.1:{port}"), log };
        let client = client();
        eventually(&format!("{name} to be ready"), async || {
            let ended = part.child.try_wait().unwrap();
            assert!(ended.is_none(), "{name} has ended ({ended:?}):\n{}", tail(&part.log));
            let ready = client.get(format!("{}/-/ready", part.url)).send().await;
            ready.is_ok_and(|answer| answer.status().is_success()).then_some(())
        })
        .await;
        part
    }

    pub async fn get(&self, path: &str) -> Option<Value> {
        client().get(format!("{}{path}", self.url)).send().await.ok()?.json().await.ok()
    }

    /// The sum of a metric over all its series that name `with`; 0 where there is none.
    pub async fn metric(&self, name: &str, with: &str) -> f64 {
        let Ok(answer) = client().get(format!("{}/metrics", self.url)).send().await else { return 0.0 };
        sum(&answer.text().await.unwrap_or_default(), name, with)
    }
}

/// The sum of the series of one metric on a page.
pub fn sum(page: &str, name: &str, with: &str) -> f64 {
    let series = page
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(with));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

pub struct Scene {
    // Dropped from the top: those who knock go before those who answer.
    _prometheus: Part,
    pub alertmanager: Part,
    pub second: Option<Part>,
    pub fleet: SimFleet,
    pub site: Site,
    pub slack: Recording,
    pub pagerduty: Recording,
    pub mail: mail::Server,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("── the engine\n{}", tail(&self.site.path().join("log")));
        }
    }
}

impl Scene {
    /// Everything but the engine.
    pub async fn set(heard: Heard, repeats: Repeats) -> Scene {
        // Two small pods on each node, of which the budget lets one go at a time: a drain takes a few passes.
        let options = SimOptions {
            workloads: vec![
                SimWorkload::deployment("llama-70b", "meta-llama/Llama-3.3-70B-Instruct", 4, 4),
                SimWorkload::deployment("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3", 8, 1),
            ],
            pod_ready_after: Duration::from_millis(500),
            pod_stops_after: Duration::from_millis(200),
            ..SimOptions::default()
        };
        let fleet = SimFleet::start(options).unwrap();
        let (slack, pagerduty) = (Recording::slack().await, Recording::pagerduty().await);
        let mail = mail::server(false);
        let ports = Ports { prometheus: free_port(), alertmanager: free_port(), second: free_port() };
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let runbook = std::fs::read_to_string(home.join("runbooks/gpu-fell-off-the-bus.rhai")).unwrap();
        let extra = configuration(&fleet, &slack, &pagerduty, &mail, &ports);
        let site = Site::new(&extra, RULES, &[("gpu-fell-off-the-bus", &runbook)]);
        std::fs::write(site.path().join("slack-token"), "xoxb-test\n").unwrap();
        std::fs::write(site.path().join("pagerduty-key"), "0123456789abcdef0123456789abcdef\n").unwrap();
        write_parts(&site, &fleet, &ports, heard, repeats);
        let flags = [
            format!("--storage.path={}", site.path().join("alertmanager").display()),
            "--cluster.listen-address=".to_owned(),
        ];
        let alertmanager = Part::start("alertmanager", site.path(), ports.alertmanager, &flags).await;
        let second = match heard {
            Heard::ByTwo => {
                let flags = [
                    format!("--storage.path={}", site.path().join("second").display()),
                    "--cluster.listen-address=".to_owned(),
                ];
                Some(Part::start("alertmanager", site.path(), ports.second, &flags).await)
            }
            Heard::ByAlertmanager | Heard::Directly => None,
        };
        let flags = [
            format!("--storage.tsdb.path={}", site.path().join("prometheus").display()),
            "--rules.alert.resend-delay=1s".to_owned(),
        ];
        let prometheus = Part::start("prometheus", site.path(), ports.prometheus, &flags).await;
        Scene { _prometheus: prometheus, alertmanager, second, fleet, site, slack, pagerduty, mail }
    }

    pub async fn engine(&self) -> Engine {
        self.site.start(&[]).await.unwrap_or_else(|| panic!("the engine has ended at once:\n{}", self.site.log()))
    }

    pub fn xid(&self, node: &str, gpu: u32, code: u32) {
        self.fleet.fault(SimFault::Xid { node: node.to_owned(), gpu, code }).unwrap();
    }

    /// What the fleet counted of our real changes, by verb, resource and name.
    pub fn changes(&self) -> BTreeMap<(String, String, String), usize> {
        let mut counted = BTreeMap::new();
        // What we tell Kubernetes (Events, a condition of the node) is news, and no act.
        let acts = |resource: &str| resource != "events" && !resource.ends_with("/status");
        let ours = self.fleet.changes().into_iter().filter(|change| change.by.contains("nightshift"));
        for change in ours.filter(|change| acts(&change.resource)) {
            *counted.entry((change.verb, change.resource, change.name)).or_default() += 1;
        }
        counted
    }

    /// Evictions that the fleet counted, by pod.
    pub fn evictions(&self) -> BTreeMap<String, usize> {
        let evictions = self.changes().into_iter().filter(|((verb, ..), _)| verb == "evict");
        evictions.map(|((_, _, pod), times)| (pod, times)).collect()
    }

    pub fn cordons(&self, node: &str) -> usize {
        let key = ("patch".to_owned(), "nodes".to_owned(), node.to_owned());
        self.changes().get(&key).copied().unwrap_or_default()
    }

    /// Slack's messages that stand for themselves.
    pub fn messages(&self) -> Vec<Seen> {
        let posts = self.slack.seen().into_iter().filter(|seen| seen.path == "/chat.postMessage");
        posts.filter(|seen| seen.body["thread_ts"].is_null()).collect()
    }

    /// What PagerDuty was told: action and dedup key.
    pub fn pages(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let seen = self.pagerduty.seen().into_iter();
        seen.map(|seen| (text(&seen.body["event_action"]), text(&seen.body["dedup_key"]))).collect()
    }

    /// Waits until the only run has ended well, and returns it.
    pub async fn run_ends(&self, engine: &Engine) -> Value {
        eventually("the run's end", async || {
            let runs = runs(engine).await?;
            assert!(runs.len() <= 1, "one episode starts one run: {runs:#?}");
            let run = runs.into_iter().next()?;
            match run["state"]["is"].as_str()? {
                "stopped" => Some(run),
                "failed" | "stuck" | "denied" | "refused" | "withdrawn" | "cancelled" | "expired" | "done" => {
                    panic!("the run ended otherwise than it should: {run:#}")
                }
                _ => None,
            }
        })
        .await
    }

    /// The node is repaired, and the incident ends by itself.
    pub async fn repaired(&self, engine: &Engine, node: &str) {
        self.fleet.repair(node, None).unwrap();
        eventually("the incident's end", async || {
            (incidents(engine).await?.iter().all(|one| one["state"] == "resolved")).then_some(())
        })
        .await;
    }

    /// Runs the real command line; its exit code, output and errors.
    pub fn cli(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.arg("--config").arg(self.site.path().join("nightshift.yaml")).args(args).stdin(Stdio::null());
        let output = command.env_remove("NIGHTSHIFT_TOKEN").output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The ledger proves itself by the command line that a person uses.
    pub fn verify_ledger(&self) {
        let (code, text) = self.cli(&["audit", "verify"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("none altered"), "{text}");
    }
}

/// All runs; `None` if nobody answered.
pub async fn runs(engine: &Engine) -> Option<Vec<Value>> {
    Some(engine.get("/api/v1/runs").await?["runs"].as_array()?.clone())
}

pub async fn incidents(engine: &Engine) -> Option<Vec<Value>> {
    Some(engine.get("/api/v1/incidents").await?["incidents"].as_array()?.clone())
}

/// The episodes of an incident.
pub async fn episodes(engine: &Engine, incident: &str) -> Option<Vec<Value>> {
    Some(engine.get(&format!("/api/v1/incidents/{incident}")).await?["episodes"].as_array()?.clone())
}

struct Ports {
    prometheus: u16,
    alertmanager: u16,
    second: u16,
}

fn configuration(
    fleet: &SimFleet,
    slack: &Recording,
    pagerduty: &Recording,
    mail: &mail::Server,
    ports: &Ports,
) -> String {
    format!(
        r#"install: real
sources:
  demo: {{ kind: alertmanager, api: "http://127.0.0.1:{alertmanager}" }}
clusters:
  sim: {{ url: "{fleet}" }}
prometheus: {{ url: "http://127.0.0.1:{prometheus}" }}
channels:
  oncall: {{ kind: slack, channel: C1, token: {{ file: @DIR@/slack-token }}, api: "{slack}" }}
  pager: {{ kind: pagerduty, routing_key: {{ file: @DIR@/pagerduty-key }}, api: "{pagerduty}/v2/enqueue" }}
  mail:
    kind: email
    server: "smtp+plain://127.0.0.1:{mail}"
    from: "Nightshift <night@ns.example>"
    to: [ana@ns.example]
"#,
        alertmanager = ports.alertmanager,
        prometheus = ports.prometheus,
        fleet = fleet.url(),
        slack = slack.url,
        pagerduty = pagerduty.url,
        mail = mail.port,
    )
}

/// The demo's own configurations, so that what is shipped is what is tested.
fn write_parts(site: &Site, fleet: &SimFleet, ports: &Ports, heard: Heard, repeats: Repeats) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/demo");
    let dir = site.path().display().to_string();
    let engine = format!("127.0.0.1:{}", site.port);
    let alertmanager = format!("127.0.0.1:{}", ports.alertmanager);
    let token = format!("{dir}/data/token");
    let read = |name: &str| std::fs::read_to_string(demo.join(name)).unwrap();
    let mut text = read("alertmanager.yml.in").replace("@NIGHTSHIFT@", &engine).replace("@TOKEN_FILE@", &token);
    if repeats == Repeats::Always {
        text = swap(
            &swap(&text, "repeat_interval: 1h", "repeat_interval: 1s"),
            "group_interval: 5s",
            "group_interval: 1s",
        );
    }
    std::fs::write(site.path().join("alertmanager.yml"), text).unwrap();
    let mut text = read("prometheus.yml.in");
    if heard == Heard::Directly {
        let ours = format!(
            "- scheme: http\n      path_prefix: /in/alertmanager/demo\n      authorization: {{ credentials_file: \"{token}\" }}"
        );
        text = swap(&swap(&text, "- scheme: http", &ours), "@ALERTMANAGER@", &engine);
    }
    if heard == Heard::ByTwo {
        let both = format!("[\"@ALERTMANAGER@\", \"127.0.0.1:{}\"]", ports.second);
        text = swap(&text, "[\"@ALERTMANAGER@\"]", &both);
    }
    let text = text
        .replace("@FLEET@", fleet.url().trim_start_matches("http://"))
        .replace("@ALERTMANAGER@", &alertmanager)
        .replace("@RULES@", &demo.join("rules.yml").display().to_string());
    std::fs::write(site.path().join("prometheus.yml"), text).unwrap();
    let file = site.path().join("nightshift.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("@DIR@", &dir);
    std::fs::write(file, text).unwrap();
}

/// Replaces what must be there.
fn swap(text: &str, from: &str, to: &str) -> String {
    let place = text.rfind(from).unwrap_or_else(|| panic!("`{from}` is not in:\n{text}"));
    format!("{}{to}{}", &text[..place], &text[place + from.len()..])
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
