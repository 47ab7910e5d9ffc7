//! A file that is wrong when the engine starts: the last good one is in force, loudly, and the engine runs.
//!
//! Invariant: the engine is the real process, killed in between; what its rules do is counted by what the alert came to.

use crate::harness::{Engine, Site, alertmanager_body, eventually};

const RULES: &str = "rules:\n  - name: act\n    when: ['alertname=\"X\"']\n    run: look\n    mode: auto\n    tell: [oncall]\n    group_by: [id]\n";
const LOOK: &str = "//! Looks.\n//!\n//! scope: none\n//! undo: never\n\nnote(\"looked\");\n";

fn site() -> Site {
    Site::new("sources:\n  am: { kind: alertmanager }\n", RULES, &[("look", LOOK)])
}

/// An alert of the rule starts a run, and the run ends well.
async fn works(engine: &Engine, id: &str) {
    let body = alertmanager_body("firing", "2026-11-23T03:00:00Z", &[&[("alertname", "X"), ("id", id)]]);
    let (status, heard) = engine.post("/in/alertmanager/am", &body).await.unwrap();
    assert_eq!((status, heard["runs"].as_array().map(Vec::len)), (200, Some(1)), "{heard}");
    let run = heard["runs"][0].as_str().unwrap().to_owned();
    eventually("the run to end", async || {
        let all = engine.get("/api/v1/runs").await?;
        let run = all["runs"].as_array()?.iter().find(|one| one["id"] == run.as_str())?.clone();
        (run["state"]["is"] == "done").then_some(())
    })
    .await;
}

async fn is_loud(site: &Site, engine: &Engine, file: &str) {
    let ready = engine.get("/readyz").await.unwrap();
    assert!(ready["catalog"].as_str().unwrap().contains("last good version"), "{ready}");
    let entries = engine.get("/api/v1/entries?kind=catalog_refused").await.unwrap().to_string();
    assert!(entries.contains(file), "{entries}");
    assert!(site.log().contains("starts with its last good version"), "{}", site.log());
}

#[tokio::test]
async fn a_rule_file_that_broke_by_day_stops_no_start_at_night() {
    let site = site();
    let engine = site.start(&[]).await.unwrap();
    works(&engine, "before").await;
    engine.kill();
    std::fs::write(site.path().join("rules/test.yaml"), RULES.replace("'alertname=\"X\"'", "'alertname=X\"")).unwrap();
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("it did not start: {}", site.log()));
    works(&engine, "after").await;
    is_loud(&site, &engine, "test.yaml").await;
    // Once it is right again nothing is said any more.
    std::fs::write(site.path().join("rules/test.yaml"), RULES).unwrap();
    eventually("the file to be taken in", async || (engine.get("/readyz").await?["catalog"] == "ok").then_some(()))
        .await;
}

#[tokio::test]
async fn a_runbook_that_is_gone_stops_no_start() {
    let site = site();
    let engine = site.start(&[]).await.unwrap();
    works(&engine, "before").await;
    engine.kill();
    std::fs::remove_file(site.path().join("runbooks/look.rhai")).unwrap();
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("it did not start: {}", site.log()));
    works(&engine, "after").await;
    is_loud(&site, &engine, "test.yaml").await;
}

#[tokio::test]
async fn a_first_start_with_a_wrong_file_is_refused() {
    let site = site();
    std::fs::write(site.path().join("rules/test.yaml"), "rules: [").unwrap();
    assert!(site.start(&[]).await.is_none(), "there is nothing that was good");
    assert!(site.log().contains("test.yaml"), "{}", site.log());
    assert!(!site.path().join("data/nightshift.db").exists(), "and nothing was made");
}
