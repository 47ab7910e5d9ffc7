//! The engine before a real API server: from an event to the cordon, a thousand nodes at once, what one node costs.
//!
//! Invariant: the engine is the program itself with a ServiceAccount's token; times end where the API server's audit log
//! says that it has answered; etcd waits for the disk. `make bench-cluster`.

#[path = "../tests/it/harness.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod harness;
#[path = "../tests/cluster/plane/mod.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod plane;
#[path = "../tests/cluster/rig.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod rig;
#[path = "engine/table.rs"]
mod table;

use harness::eventually;
use nightshift::model::Time;
use nightshift::world::{KubeClient, Node};
use plane::{ControlPlane, NodeSpec, Options};
use rig::{CORDON, OPEN, REMEDIATE, Rig, crowded};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use table::{ms, row, share, time_row};

const EVENTS: usize = 200;
const NODES: usize = 1_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let folder = PathBuf::from(std::env::var("BENCH_DIR").unwrap_or_else(|_| ".".to_owned()));
        let options = Options { node_grace: Duration::from_secs(1_200), durable: true, folder: Some(folder) };
        let begun = Instant::now();
        let plane = ControlPlane::start(options).await;
        println!("| what | figure | bar | of bar |\n|---|---|---|---|");
        row("the control plane starts in", ms(begun.elapsed()), "", None);
        one_by_one(&plane).await;
        remediation(&plane).await;
        drain(&plane).await;
        all_at_once(&plane).await;
    });
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}-{number}")).collect()
}

async fn with_nodes(plane: &ControlPlane, names: &[String]) {
    plane.kubelet().add(names.iter().map(|name| NodeSpec::gpu(name, 8))).await;
}

/// From the 2xx for an event to the answer to the PATCH, one event after another; and the floor in the same run.
async fn one_by_one(plane: &ControlPlane) {
    // One stays in service: the guards never give away the last node.
    with_nodes(plane, &names("one", EVENTS + 1)).await;
    let names = names("one", EVENTS);
    let rig = Rig::new(plane, "one-by-one", CORDON, OPEN).await;
    let (mut took, mut slowest) = (Vec::new(), Duration::ZERO);
    for name in &names {
        rig.complain(&[name]).await;
        let acknowledged = Time::now().as_microsecond();
        let patch = rig.until_patched(plane, name).await;
        let time = Duration::from_micros(u64::try_from(patch.answered - acknowledged).unwrap_or(0));
        slowest = slowest.max(time);
        took.push(time);
    }
    let (mut floor, mut bare) = floor(plane, &names).await;
    time_row("acknowledged event → cordon PATCH answered, p50", share(&mut took, 0.5), Duration::from_millis(12));
    time_row("… p99", share(&mut took, 0.99), Duration::from_millis(60));
    row("… the slowest of 200", ms(slowest), "", None);
    row("floor: fsync of 4 KiB + a bare PATCH, p50", ms(share(&mut floor, 0.5)), "", None);
    row("floor, p99", ms(share(&mut floor, 0.99)), "", None);
    row("of which the bare PATCH, p50", ms(share(&mut bare, 0.5)), "", None);
}

/// What nobody can be faster than: one durable write, and the PATCH alone.
async fn floor(plane: &ControlPlane, names: &[String]) -> (Vec<Duration>, Vec<Duration>) {
    let admin = plane.admin().await;
    admin.namespace("floor").await;
    let token = admin.token("floor", "bare", 3_600).await;
    admin.grant("floor", "bare", &[("", "nodes", "get"), ("", "nodes", "patch")]).await;
    let kube = KubeClient::connect(&plane.reach(&token), "nightshift/floor").await.expect("a client");
    let first: Node = eventually("the right", async || kube.node(&names[0]).await.ok()).await;
    let mut file =
        tempfile::tempfile_in(std::env::var("BENCH_DIR").unwrap_or_else(|_| ".".to_owned())).expect("a file");
    let (mut both, mut bare) = (Vec::new(), Vec::new());
    assert!(!first.name.is_empty());
    for (number, name) in names.iter().enumerate() {
        let begun = Instant::now();
        file.write_all(&[7; 4_096]).expect("a page is written");
        file.sync_data().expect("it is synced");
        let synced = Instant::now();
        let patch = json!({ "metadata": { "annotations": { "example.com/floor": number.to_string() } } });
        kube.patch_node(name, patch, None).await.expect("a patch");
        bare.push(synced.elapsed());
        both.push(begun.elapsed());
    }
    (both, bare)
}

/// Calls for one node: cordon, drain of five pods, uncordon.
async fn remediation(plane: &ControlPlane) {
    crowded(plane, "cost", 5).await;
    let rig = Rig::new(plane, "bill", REMEDIATE, OPEN).await;
    let before = rig.asked(plane).len();
    rig.complain(&["cost-1"]).await;
    rig.until_run("cost-1", |state| state == "done").await;
    let asked = rig.asked(plane).split_off(before);
    let of_all =
        |asked: &plane::Asked| matches!(asked.verb.as_str(), "list" | "watch") && !asked.path.contains("Selector");
    let people = |asked: &plane::Asked| matches!(asked.resource.as_str(), "events" | "nodes/status");
    let own = asked.iter().filter(|asked| !of_all(asked) && !people(asked)).count();
    let told = asked.iter().filter(|asked| people(asked)).count();
    row("API calls for one node: cordon, drain of 5 pods, uncordon", own.to_string(), "14", Some(own as f64 / 14.0));
    row("… and written for people (Events, our condition)", told.to_string(), "", None);
}

/// A drain of one pod that ends at once, beside an eviction by hand: median of seven each.
async fn drain(plane: &ControlPlane) {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let admin = plane.admin().await;
    for number in 0..7 {
        let pool = format!("alone-{number}");
        crowded(plane, &pool, 1).await;
        let list = admin.get(&format!("/api/v1/namespaces/{pool}/pods")).await;
        let name = list["items"][0]["metadata"]["name"].as_str().expect("a pod").to_owned();
        let path = format!("/api/v1/namespaces/{pool}/pods/{name}");
        let begun = Instant::now();
        let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name } });
        admin.create(&format!("{path}/eviction"), &eviction).await;
        while admin.find(&path).await.is_some() {}
        bare.push(begun.elapsed());
    }
    let rig = Rig::new(plane, "drains", REMEDIATE, OPEN).await;
    for number in 0..7 {
        let pool = format!("single-{number}");
        crowded(plane, &pool, 1).await;
        let node = format!("{pool}-1");
        rig.complain(&[&node]).await;
        let run = rig.until_run(&node, |state| state == "done").await;
        let id =
            run["id"].as_u64().map_or_else(|| run["id"].as_str().unwrap_or_default().to_owned(), |id| format!("r{id}"));
        let shown = rig.engine.get(&format!("/api/v1/runs/{id}")).await.expect("the run");
        let steps = shown["steps"].as_array().expect("steps").clone();
        let drain = steps.iter().find(|step| step["call"].to_string().contains("k8s::drain")).expect("a drain");
        let time = |key: &str| drain[key].as_str().and_then(|text| text.parse::<Time>().ok()).expect("a time");
        let took = time("ended_at").as_microsecond() - time("begun_at").as_microsecond();
        ours.push(Duration::from_micros(u64::try_from(took).unwrap_or(0)));
    }
    let (ours, bare) = (share(&mut ours, 0.5), share(&mut bare, 0.5));
    time_row("a drain of one pod adds to an eviction by hand", ours.saturating_sub(bare), Duration::from_millis(300));
    row("… the drain, and the eviction until the pod is gone", format!("{}, {}", ms(ours), ms(bare)), "", None);
}

/// A thousand nodes fail in one request, with budgets opened, and with the default ones.
async fn all_at_once(plane: &ControlPlane) {
    // What was cordoned above would count against the budgets.
    plane.kubelet().remove(&names("one", EVENTS)).await;
    let open = names("all", NODES);
    with_nodes(plane, &open).await;
    let nodes: Vec<&str> = open.iter().map(String::as_str).collect();
    held(plane, &nodes, "defaults", "").await;
    // Without the breaker for correlated failures, which stops them all, the budgets decide.
    held(plane, &nodes, "budgets-alone", "guards:\n  correlated_share: 1.0\n").await;

    let rig = Rig::new(plane, "all-at-once", CORDON, OPEN).await;
    rig.complain(&nodes).await;
    let acknowledged = Time::now().as_microsecond();
    let mut patched = rig.patched(plane).len();
    while patched < NODES && acknowledged + 60_000_000 > Time::now().as_microsecond() {
        // Seldom, since reading the audit log takes from the two cores what the engine could use.
        tokio::time::sleep(Duration::from_millis(250)).await;
        patched = rig.patched(plane).len();
    }
    assert_eq!(patched, NODES, "every node is cordoned");
    let agent = rig.agent();
    let last = plane.audit().last(|asked| asked.agent == agent && asked.is_patch_of_node()).expect("a cordon").answered;
    let took = Duration::from_micros(u64::try_from(last - acknowledged).unwrap_or(0));
    time_row("1,000 nodes at once, budgets open: last cordon", took, Duration::from_secs(5));
}

/// What becomes of all of them when the guards are the default ones, but for `guards`.
async fn held(plane: &ControlPlane, nodes: &[&str], name: &str, guards: &str) {
    let rig = Rig::new(plane, name, CORDON, guards).await;
    rig.complain(nodes).await;
    let settled = eventually("every run is held or over", async || {
        let runs = rig.engine.get("/api/v1/runs?limit=1000").await?["runs"].as_array()?.clone();
        let busy = |run: &serde_json::Value| matches!(run["state"]["is"].as_str(), Some("ready" | "waiting"));
        (runs.len() >= NODES && !runs.iter().any(busy)).then_some(runs)
    })
    .await;
    let mut states = std::collections::BTreeMap::<String, usize>::new();
    for run in &settled {
        let words =
            [&run["state"]["is"], &run["state"]["reason"]["code"]].map(|word| word.as_str().unwrap_or_default());
        *states.entry(words.join(" ").trim().to_owned()).or_default() += 1;
    }
    let taken = rig.patched(plane).len();
    row(&format!("1,000 nodes at once, {name}: cordoned"), taken.to_string(), "1 at most", Some(taken as f64));
    // Given back, as another user's cordon would be respected by the next engine.
    let admin = plane.admin().await;
    for node in rig.patched(plane) {
        admin.patch(&format!("/api/v1/nodes/{node}"), &json!({ "spec": { "unschedulable": null } })).await;
    }
    let digests = rig.site.log().matches("many incidents at once").count();
    row("… the runs; digests on the channel", format!("{states:?}; {digests}"), "", None);
}
