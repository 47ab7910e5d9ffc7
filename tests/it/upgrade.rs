//! A store, rules and a configuration of the version before, taken over by this one in place.
//!
//! Invariant: what the old version wrote is a file that no test edits; what follows is counted at the fleet.

use crate::harness::{Site, alertmanager_body, eventually};
use nightshift::world::sim::{SimFleet, SimOptions};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Migrations that the old version had applied.
const OLD: i64 = 23;

fn old(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/upgrade").join(name)
}

/// The data folder as the old version left it, beside its rules and a configuration with its names of keys.
fn site(fleet: &SimFleet) -> Site {
    let text = |name: &str| std::fs::read_to_string(old(name)).unwrap();
    let extra = format!(
        "install: old\nmode_ceiling: auto\nsources:\n  prod: {{ kind: alertmanager }}\n\
         clusters:\n  sim: {{ url: '{}' }}\n\
         channels:\n  pager: {{ kind: webhook, shape: webhook-json, url: {{ env: HOOK_URL }}, patience: 5m }}\n\
         incidents: {{ resolve_after: 0s, group_wait: 0s }}\n",
        fleet.url()
    );
    let site = Site::new(&extra, &text("rules.yaml"), &[("cordon", &text("cordon.rhai"))]);
    let shape = site.path().join("integrations/webhook-json");
    std::fs::create_dir_all(&shape).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations/webhook-json/encode.rhai");
    std::fs::copy(shipped, shape.join("encode.rhai")).unwrap();
    let data = site.path().join("data");
    for name in ["signing.key", "signing.pub", "signing.mark"] {
        std::fs::copy(old(name), data.join(name)).unwrap();
    }
    let store = rusqlite::Connection::open(data.join("nightshift.db")).unwrap();
    // The dump names tables in the order of their names, children before parents.
    store.pragma_update(None, "foreign_keys", "off").unwrap();
    store.execute_batch(&text("schema-23.sql")).unwrap();
    store.pragma_update(None, "journal_mode", "wal").unwrap();
    site
}

fn is_cordoned(fleet: &SimFleet, node: &str) -> bool {
    fleet.node(node).unwrap()["spec"]["unschedulable"] == json!(true)
}

fn schema(database: &Path) -> i64 {
    let store = rusqlite::Connection::open(database).unwrap();
    store.query_row("SELECT max(version) FROM migration", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_store_of_the_version_before_goes_on_where_it_was_and_a_copy_is_kept() {
    let fleet = SimFleet::start(SimOptions { nodes: 40, ..SimOptions::default() }).unwrap();
    let site = site(&fleet);
    let engine = site.start(&[("HOOK_URL", "http://127.0.0.1:9/".to_owned())]).await;
    let engine = engine.unwrap_or_else(|| panic!("it did not start: {}", site.log()));
    let data = site.path().join("data");
    let copy = data.join("nightshift.db.before-upgrade");
    assert_eq!(schema(&copy), OLD, "as it was");
    assert!(schema(&data.join("nightshift.db")) > OLD);

    let incidents = engine.get("/api/v1/incidents").await.unwrap()["incidents"].clone();
    let titles: Vec<&str> = incidents.as_array().unwrap().iter().map(|one| one["title"].as_str().unwrap()).collect();
    assert!(titles.contains(&"gpu-1: GPU 3 fell off the bus (XID 79)"), "{titles:?}");
    let freezes = engine.get("/api/v1/freezes").await.unwrap()["freezes"].clone();
    assert_eq!(freezes[0]["scope"], "rule:ask-first", "{freezes}");
    let card = engine.get("/api/v1/rules/ask-first/scorecard").await.unwrap();
    assert!(card.to_string().contains("\"right\":1"), "the review counts: {card}");
    let done = engine.get("/api/v1/runs/r2").await.unwrap();
    assert_eq!(done["run"]["state"]["is"], "done", "{done}");

    // The question that the old version asked is answered here, held by the old freeze, and done once that is released.
    let (status, answer) = engine.post("/api/v1/approvals/a1", &json!({ "approve": true, "why": "" })).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let state = async || engine.get("/api/v1/runs/r1").await.map(|run| run["run"]["state"].clone());
    let held = async || state().await.filter(|state| state["is"] == "held");
    let held = eventually("the freeze to hold the step", held).await;
    assert!(held.to_string().contains("frozen"), "{held}");
    assert!(!is_cordoned(&fleet, "gpu-1"));
    let release = json!({ "scope": "rule:ask-first", "why": "replaced" });
    let (status, answer) = engine.post("/api/v1/unfreeze", &release).await.unwrap();
    assert_eq!(status / 100, 2, "{answer}");
    eventually("the run to end", async || state().await.filter(|state| state["is"] == "done")).await;
    assert!(is_cordoned(&fleet, "gpu-1"), "done at the fleet");

    // An alert that the old version opened is resolved by its source.
    let labels: &[(&str, &str)] = &[("alertname", "GpuHot"), ("node", "gpu-2"), ("severity", "warning")];
    let mut body = alertmanager_body("resolved", "2026-11-30T18:00:00Z", &[labels]);
    body["alerts"][0]["fingerprint"] = json!("a2");
    assert_eq!(engine.post("/in/alertmanager/prod", &body).await.unwrap().0, 200);
    let closed = async || {
        let incident = engine.get("/api/v1/incidents/i2").await?;
        (incident["incident"]["state"] == "resolved").then_some(())
    };
    eventually("the old incident to be resolved", closed).await;

    let verify = Command::new(env!("CARGO_BIN_EXE_nightshift"))
        .arg("--config")
        .arg(site.path().join("nightshift.yaml"))
        .args(["audit", "verify"])
        .env_remove("NIGHTSHIFT_TOKEN")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&verify.stdout);
    assert!(verify.status.success() && text.contains("good"), "one ledger over both versions: {text}");
    assert_eq!(engine.stop(), Some(0));
}

#[test]
fn old_names_of_keys_work_and_check_says_the_new_ones() {
    let fleet = SimFleet::start(SimOptions { nodes: 40, ..SimOptions::default() }).unwrap();
    let site = site(&fleet);
    let check = Command::new(env!("CARGO_BIN_EXE_nightshift"))
        .arg("--config")
        .arg(site.path().join("nightshift.yaml"))
        .args(["check"])
        .env("HOOK_URL", "http://127.0.0.1:9/")
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&check.stdout), String::from_utf8_lossy(&check.stderr));
    for (file, new) in [("test.yaml", "min_approvers"), ("nightshift.yaml", "notify_after"), ("cordon.rhai", "scope")] {
        assert!(text.contains(file) && text.contains(new), "{file}: {new}: {text}");
    }
}
