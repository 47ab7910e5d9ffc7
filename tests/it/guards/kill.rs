//! The kill switch's bar: two seconds after it is engaged under load no effect starts, also while the disk is full.
//!
//! Invariant: when an effect started is said by the clock of the fleet that it reached.

use crate::agent::link::Disk;
use crate::harness::{Engine, Site, eventually};
use nightshift::model::Time;
use nightshift::world::sim::{SimFleet, SimOptions};
use serde_json::json;
use std::time::Duration;

const LOAD: &str = r#"//! Write labels, one after another.
//!
//! params:
//!   node: Node
//! scope: node

for i in range(0, 900) {
    k8s::label(node, "nightshift.dev/load", `v${i}`);
}
"#;
const NODES: usize = 12;
const BAR: Duration = Duration::from_secs(2);

fn ours(fleet: &SimFleet) -> Vec<Time> {
    let effects = fleet.effects().into_iter().filter(|effect| effect.changed && effect.by.contains("nightshift"));
    effects.filter(|effect| effect.resource == "nodes").map(|effect| effect.at).collect()
}

async fn grows(fleet: &SimFleet) {
    let before = ours(fleet).len();
    eventually("the load", async || (ours(fleet).len() > before + 2 * NODES).then_some(())).await;
}

/// Twice the bar after it was engaged, the last effect is not younger than the bar allows.
async fn stopped_by(fleet: &SimFleet, engaged: Time, how: &str) {
    eventually("twice the bar", async || (Time::now() > engaged + 2 * BAR).then_some(())).await;
    let last = ours(fleet).into_iter().max().unwrap();
    assert!(last <= engaged + BAR, "{how}: engaged at {engaged}, and an effect started at {last}");
    println!("{how}: the last effect {} ms after it was engaged", last.as_millisecond() - engaged.as_millisecond());
}

async fn load(engine: &Engine) {
    for node in 1..=NODES {
        let run = json!({ "runbook": "load", "params": { "node": format!("gpu-{node}") } });
        let (status, answer) = engine.post("/api/v1/runs", &run).await.unwrap();
        assert_eq!(status, 201, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_effect_starts_two_seconds_after_it_is_engaged_under_load_and_on_a_full_disk() {
    let fleet = SimFleet::start(SimOptions { nodes: NODES, ..SimOptions::default() }).unwrap();
    let switch = tempfile::tempdir().unwrap();
    let file = switch.path().join("stop");
    let extra =
        format!("clusters: {{ sim: {{ url: \"{}\" }} }}\nkill_switch: {{ file: {} }}\n", fleet.url(), file.display());
    let site = Site::new(&extra, "rules: []\n", &[("load", LOAD)]);
    let disk = Disk::of(&site.path().join("data"), "48m");
    let engine = site.start(&[]).await.unwrap();
    load(&engine).await;
    grows(&fleet).await;

    std::fs::write(&file, "").unwrap();
    stopped_by(&fleet, Time::now(), "by its file").await;
    std::fs::remove_file(&file).unwrap();
    grows(&fleet).await;

    let why = json!({ "scope": "all", "why": "a drill" });
    let asked = Time::now();
    let (status, answer) = engine.post("/api/v1/freezes", &why).await.unwrap();
    assert_eq!(status, 201, "{answer}");
    stopped_by(&fleet, asked, "by a freeze").await;
    let (status, answer) = engine.post("/api/v1/unfreeze", &why).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    grows(&fleet).await;

    // With a full disk nothing can be written, so nothing begins; and what is asked to stop still stops.
    disk.fill();
    std::fs::write(&file, "").unwrap();
    stopped_by(&fleet, Time::now(), "by its file, on a full disk").await;
    // The ballast makes room for a freeze, which holds when the file is gone.
    let (status, answer) = engine.post("/api/v1/freezes", &why).await.unwrap();
    assert_eq!(status, 201, "{answer}");
    disk.empty();
    std::fs::remove_file(&file).unwrap();
    stopped_by(&fleet, Time::now(), "by the freeze of the full disk").await;
    let (status, answer) = engine.post("/api/v1/unfreeze", &why).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    grows(&fleet).await;
    drop(engine);
    drop(disk);
}
