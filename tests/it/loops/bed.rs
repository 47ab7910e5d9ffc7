//! A fleet, an engine's site, senders that repeat an alert until it is acknowledged, and the count at the target.
//!
//! Invariant: each alert has an id of its own and asks for one effect; the id is in the effect.

use super::Tally;
use crate::harness::{Engine, Site, alertmanager_body, eventually};
use crate::recording::Recording;
use nightshift::world::sim::{SimFleet, SimOptions, SimWorkload};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NODES: usize = 16;
const WORKLOADS: usize = 8;
/// Under which label an alert's id is found on its node.
const LABEL: &str = "nightshift.dev/loop";

const RULES: &str = "rules:\n  - { name: label, when: ['alertname=\"Label\"'], run: label, with: { id: { label: id } }, ALL }\n  \
                     - { name: post, when: ['alertname=\"Post\"'], run: post, with: { id: { label: id } }, ALL }\n  \
                     - { name: restart, when: ['alertname=\"Restart\"'], run: restart, with: { workload: { label: target } }, ALL }\n";
const ALL: &str = "mode: auto, group_by: [id], cooldown: 0s, attempts: 100000, demote: { auto: 0 }";

/// An idempotent step: it is judged by what the label is, so each alert has a label of its own.
const LABEL_BOOK: &str = "//! Labels.\n//!\n//! params:\n//!   node: Node\n//!   id: String\n//! scope: node\n//! undo: never\n\n\
                          k8s::label(node, `nightshift.dev/loop-${id}`, id);\n";
/// A step that cannot be repeated.
const POST_BOOK: &str = "//! Posts.\n//!\n//! params:\n//!   id: String\n//! scope: pod\n//! undo: never\n\n\
                         http::post(`URL/effect/${id}`, id);\n";
/// A step with a key.
const RESTART_BOOK: &str = "//! Restarts.\n//!\n//! params:\n//!   workload: Workload\n//! scope: workload\n//! undo: never\n\n\
                            k8s::rollout_restart(workload, #{ within: \"2m\" });\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Label,
    Post,
    Restart,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    kind: Kind,
    acknowledged: bool,
}

pub struct Bed {
    pub fleet: SimFleet,
    pub target: Recording,
    pub site: Site,
    /// Its file is away while a backup is put back.
    token: Mutex<String>,
    sent: Mutex<Vec<Sent>>,
    /// Alerts that may have been sent by now.
    allowed: AtomicUsize,
    only_labels: AtomicBool,
    /// Answers other than 200, silence included.
    refused: AtomicUsize,
    over: AtomicBool,
}

impl Bed {
    /// `more`: YAML for the end of the configuration.
    pub async fn new(more: &str) -> Arc<Bed> {
        let workload = |n| SimWorkload {
            min_available: None,
            ..SimWorkload::deployment(&format!("model-{n}"), &format!("acme/model-{n}"), 1, 1)
        };
        let fleet = SimFleet::start(SimOptions {
            nodes: NODES,
            workloads: (0..WORKLOADS).map(workload).collect(),
            lone_pod: false,
            pod_ready_after: Duration::from_millis(50),
            pod_stops_after: Duration::from_millis(20),
            ..SimOptions::default()
        })
        .unwrap();
        let target = Recording::start(200, |_, _| json!({})).await;
        let extra = format!(
            "sources:\n  am: {{ kind: alertmanager }}\nclusters:\n  sim: {{ url: '{}' }}\nhttp_allow: ['private+{}/']\n\
             mode_ceiling: auto\nguards: {{ nodes_at_once: 16, share_at_once: 1.0, share_per_hour: 1.0, share_per_day: 1.0, \
             correlated_share: 1.0, correlated_nodes: 1000, two_person_nodes: 0, domains: [], pools: [], serving_floor: 0 }}\n\
             {more}",
            fleet.url(),
            target.url
        );
        let post = POST_BOOK.replace("URL", &target.url);
        let books = [("label", LABEL_BOOK), ("post", post.as_str()), ("restart", RESTART_BOOK)];
        let site = Site::new(&extra, &RULES.replace("ALL", ALL), &books);
        let (token, sent) = (Mutex::default(), Mutex::default());
        let (allowed, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (only_labels, over) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Bed { fleet, target, site, token, sent, allowed, only_labels, refused, over })
    }

    pub async fn start(&self) -> Engine {
        let started = self.site.start(&[]).await;
        let engine = started.unwrap_or_else(|| panic!("it does not start: {}", self.last_of_log()));
        *self.token.lock().unwrap() = self.site.token();
        engine
    }

    /// Begins to send; each sender repeats an alert until it is acknowledged, as Alertmanager does.
    pub fn begin(self: &Arc<Self>, senders: usize) {
        for _ in 0..senders {
            let bed = self.clone();
            tokio::spawn(async move {
                let client = crate::harness::client();
                while !bed.over.load(Ordering::Acquire) {
                    let Some((id, kind)) = bed.claim() else {
                        tokio::time::sleep(Duration::from_millis(5)).await; // polls
                        continue;
                    };
                    while !bed.deliver(&client, id, kind).await && !bed.over.load(Ordering::Acquire) {
                        bed.refused.fetch_add(1, Ordering::AcqRel);
                        tokio::time::sleep(Duration::from_millis(20)).await; // polls
                    }
                }
            });
        }
    }

    /// So many more alerts may be sent.
    pub fn allow(&self, alerts: usize) {
        self.allowed.fetch_add(alerts, Ordering::AcqRel);
    }

    pub fn only_labels(&self, only: bool) {
        self.only_labels.store(only, Ordering::Release);
    }

    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Acquire)
    }

    fn claim(&self) -> Option<(usize, Kind)> {
        let mut sent = self.sent.lock().unwrap();
        let id = sent.len();
        if id >= self.allowed.load(Ordering::Acquire) {
            return None;
        }
        let kind = match id % 4 {
            _ if self.only_labels.load(Ordering::Acquire) => Kind::Label,
            1 => Kind::Post,
            3 => Kind::Restart,
            _ => Kind::Label,
        };
        sent.push(Sent { kind, acknowledged: false });
        Some((id, kind))
    }

    async fn deliver(&self, client: &reqwest::Client, id: usize, kind: Kind) -> bool {
        let (node, target, text) = (format!("gpu-{}", id % NODES + 1), workload_of(id), id.to_string());
        let labels: &[(&str, &str)] = match kind {
            Kind::Label => &[("alertname", "Label"), ("node", &node), ("id", &text), ("severity", "critical")],
            Kind::Post => &[("alertname", "Post"), ("id", &text), ("severity", "critical")],
            Kind::Restart => &[("alertname", "Restart"), ("target", &target), ("id", &text), ("severity", "critical")],
        };
        let body = alertmanager_body("firing", "2026-11-23T03:00:00Z", &[labels]);
        let url = format!("http://127.0.0.1:{}/in/alertmanager/am", self.site.port);
        let token = self.token.lock().unwrap().clone();
        let sent = client.post(url).bearer_auth(token).json(&body).send().await;
        let is_taken = sent.is_ok_and(|answer| answer.status() == 200);
        if is_taken {
            self.sent.lock().unwrap()[id].acknowledged = true;
        }
        is_taken
    }

    /// Whether all that may be sent is.
    pub fn is_acknowledged(&self) -> bool {
        let sent = self.sent.lock().unwrap();
        sent.len() == self.allowed.load(Ordering::Acquire) && sent.iter().all(|alert| alert.acknowledged)
    }

    /// Waits until all that may be sent is acknowledged and every run has ended, as an operator who resets tripped breakers.
    pub async fn settle(&self, engine: &Engine) {
        let give_up = Instant::now() + Duration::from_secs(180);
        loop {
            let status = engine.get("/api/v1/status").await.unwrap_or_default();
            if self.is_acknowledged() && status["runs_unfinished"] == 0 {
                return;
            }
            if Instant::now() >= give_up {
                let open = engine.get("/api/v1/runs?open=true").await;
                panic!("not settled: {status:#}\n{open:#?}\n{}", self.last_of_log());
            }
            for breaker in
                engine.get("/api/v1/guards").await.unwrap_or_default()["breakers"].as_array().into_iter().flatten()
            {
                let body = json!({ "scope": breaker["scope"], "why": "looked at" });
                engine.post("/api/v1/breakers/reset", &body).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // polls
        }
    }

    /// Settles, ends the senders, and counts.
    pub async fn end(&self, engine: &Engine) -> Tally {
        self.settle(engine).await;
        self.over.store(true, Ordering::Release);
        self.count(engine).await
    }

    pub async fn count(&self, engine: &Engine) -> Tally {
        let seen = self.seen();
        let doubts = in_doubt(engine).await;
        let sent = self.sent.lock().unwrap().clone();
        let mut tally = Tally {
            effects: seen.ids.values().sum::<usize>() + seen.restarts.values().sum::<usize>(),
            ..Tally::default()
        };
        let mut wanted: BTreeMap<String, usize> = BTreeMap::new();
        for (id, alert) in sent.iter().enumerate().filter(|(_, alert)| alert.acknowledged) {
            tally.acknowledged += 1;
            if alert.kind == Kind::Restart {
                *wanted.entry(workload_of(id)).or_default() += 1;
                continue;
            }
            match seen.ids.get(&id).copied().unwrap_or(0) {
                0 if doubts.contains(&id) => tally.in_doubt += 1,
                0 => {
                    eprintln!("lost: {id} {alert:?}");
                    tally.lost += 1;
                }
                1 => {}
                more => {
                    eprintln!("{more} effects: {id} {alert:?}");
                    tally.doubled += more - 1;
                }
            }
        }
        for workload in (0..WORKLOADS).map(workload_of) {
            let (wanted, done) = (wanted.get(&workload), seen.restarts.get(&workload));
            let (wanted, done) = (wanted.copied().unwrap_or(0), done.copied().unwrap_or(0));
            if wanted != done {
                eprintln!("{workload}: {wanted} restarts wanted, {done} seen");
            }
            tally.lost += wanted.saturating_sub(done);
            tally.doubled += done.saturating_sub(wanted);
        }
        tally.unfounded = unfounded(engine, &seen).await;
        if tally.lost > 0 {
            eprintln!("runs by rule and state: {:#?}", ends(engine).await);
        }
        tally
    }

    /// What the target has seen.
    fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for effect in self.fleet.changes().into_iter().filter(|effect| effect.by.contains("nightshift")) {
            if effect.resource == "deployments" && effect.verb == "patch" {
                *seen.restarts.entry(format!("{}/{}", effect.namespace, effect.name)).or_default() += 1;
            }
            let labels = effect.change["metadata"]["labels"].as_object().into_iter().flatten();
            for (_, id) in labels.filter(|(key, _)| key.starts_with(LABEL)) {
                *seen.ids.entry(id.as_str().unwrap().parse().unwrap()).or_default() += 1;
            }
        }
        for post in self.target.seen() {
            *seen.ids.entry(post.text.parse().unwrap()).or_default() += 1;
        }
        seen
    }

    /// When the newest effect came: node, path or workload with it.
    pub fn last_effect_after(&self, since: nightshift::model::Time) -> Option<(nightshift::model::Time, String)> {
        let ours = self.fleet.changes().into_iter().filter(|effect| effect.by.contains("nightshift"));
        let acts = ours.filter(|effect| matches!(effect.resource.as_str(), "nodes" | "deployments"));
        let acts = acts.map(|effect| (effect.at, format!("{} {} {}", effect.verb, effect.resource, effect.name)));
        let posts = self.target.seen().into_iter().map(|seen| (seen.at, seen.path));
        acts.chain(posts).filter(|(at, _)| *at > since).max()
    }

    /// Waits until so many more alerts were acknowledged, or all that may be sent were.
    pub async fn taken(&self, more: usize) {
        let count = || self.sent.lock().unwrap().iter().filter(|alert| alert.acknowledged).count();
        let (before, allowed) = (count(), self.allowed.load(Ordering::Acquire));
        eventually("alerts to be taken", async || (count() >= (before + more).min(allowed)).then_some(())).await;
    }

    pub fn last_of_log(&self) -> String {
        let log = self.site.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn workload_of(id: usize) -> String {
    format!("inference/model-{}", id / 4 % WORKLOADS)
}

/// What the target has seen: effects by the alert's id, and restarts by workload.
#[derive(Default)]
struct Seen {
    ids: BTreeMap<usize, usize>,
    restarts: BTreeMap<String, usize>,
}

/// All entries of a kind.
pub async fn entries(engine: &Engine, kind: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = -1;
    loop {
        let page = engine.get(&format!("/api/v1/entries?kind={kind}&after={after}&limit=1000")).await.unwrap();
        let page = page["entries"].as_array().unwrap_or_else(|| panic!("{page}")).clone();
        let Some(last) = page.last() else { return all };
        after = number(&last["no"]);
        all.extend(page);
    }
}

/// How the runs ended, by rule, state and reason.
async fn ends(engine: &Engine) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut after = -1;
    loop {
        let page = engine.get(&format!("/api/v1/runs?after={after}&limit=1000")).await.unwrap();
        let runs = page["runs"].as_array().unwrap_or_else(|| panic!("{page}")).clone();
        let Some(last) = runs.last() else { return found };
        after = number(&last["id"]);
        for run in runs {
            *found.entry(format!("{} {}", run["rule"], run["state"])).or_default() += 1;
        }
    }
}

/// The alerts of runs that ended because nothing tells whether their step happened.
async fn in_doubt(engine: &Engine) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut after = -1;
    loop {
        let page = engine.get(&format!("/api/v1/runs?state=stuck&after={after}&limit=1000")).await.unwrap();
        let runs = page["runs"].as_array().unwrap_or_else(|| panic!("{page}")).clone();
        let Some(last) = runs.last() else { return found };
        after = number(&last["id"]);
        for run in runs.iter().filter(|run| run["state"]["reason"]["code"] == "in_doubt") {
            found.extend(run["input"]["params"]["id"].as_str().and_then(|id| id.parse::<usize>().ok()));
        }
    }
}

/// `r17`, `#17`, or 17.
fn number(id: &Value) -> i64 {
    id.as_i64()
        .unwrap_or_else(|| id.as_str().unwrap().trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap())
}

/// Steps that the ledger has as done although the target has not seen them.
async fn unfounded(engine: &Engine, seen: &Seen) -> usize {
    let key = |entry: &Value| (entry["about"]["run"].to_string(), entry["step"].as_i64());
    let begun: BTreeMap<_, Value> =
        entries(engine, "step_begun").await.iter().map(|entry| (key(entry), entry["call"].clone())).collect();
    let (mut count, mut restarts) = (0, BTreeMap::<String, usize>::new());
    for ended in entries(engine, "step_ended").await.iter().filter(|entry| !entry["outcome"]["ok"].is_null()) {
        let Some(call) = begun.get(&key(ended)) else { continue };
        let text = |name: &str| call["args"][name].as_str().unwrap_or_default().to_owned();
        let id = match call["action"].as_str().unwrap() {
            "k8s::rollout_restart" => {
                *restarts.entry(text("workload")).or_default() += 1;
                continue;
            }
            "k8s::label" => text("value"),
            "http::post" => text("body"),
            _ => continue,
        };
        if !seen.ids.contains_key(&id.parse::<usize>().unwrap()) {
            eprintln!("recorded as done, not seen at the target: {call}");
            count += 1;
        }
    }
    let more = restarts.iter().map(|(name, done)| done.saturating_sub(seen.restarts.get(name).copied().unwrap_or(0)));
    count + more.sum::<usize>()
}

/// Returns at that moment, or as soon as `end` says so.
pub async fn at_a_moment(after: Duration, mut end: impl FnMut() -> bool) {
    let at = Instant::now() + after;
    eventually("a moment", async || (Instant::now() >= at || end()).then_some(())).await;
}
