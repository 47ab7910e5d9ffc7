//! Rules that are added or changed while their alerts are open: by a reload, and by a start.
//!
//! Invariant: the engine is the real process, and its files are edited as users edit them; what a rule did is counted by its runs.

use crate::harness::{Engine, Site, alertmanager_body, eventually};
use nightshift::world::sim::{SimFleet, SimOptions};
use serde_json::Value;

const LOOK: &str = "//! Looks.\n//!\n//! scope: none\n//! undo: never\n\nnote(\"looked\");\n";
const OTHER: &str = "rules:\n  - name: other\n    when: ['alertname=\"Y\"']\n    tell: [oncall]\n";

fn rule(name: &str, more: &str) -> String {
    format!(
        "  - name: {name}\n    when: ['alertname=\"X\"']\n    run: look\n    mode: auto\n    tell: [oncall]\n    group_by: [id]\n{more}"
    )
}

fn write(site: &Site, rules: &str) {
    let (file, new) = (site.path().join("rules/test.yaml"), site.path().join("rules/test.yaml.new"));
    std::fs::write(&new, rules).unwrap();
    std::fs::rename(new, file).unwrap();
}

async fn alert(engine: &Engine, status: &str, id: &str) -> Value {
    let body = alertmanager_body(status, "2026-11-23T03:00:00Z", &[&[("alertname", "X"), ("id", id)]]);
    let (status, heard) = engine.post("/in/alertmanager/am", &body).await.unwrap();
    assert_eq!(status, 200, "{heard}");
    heard
}

/// The runs of a rule that have ended well.
async fn done(engine: &Engine, rule: &str) -> Option<usize> {
    let runs = engine.get("/api/v1/runs?limit=100").await?;
    let runs = runs["runs"].as_array()?.iter().filter(|run| run["rule"] == rule);
    Some(runs.filter(|run| run["state"]["is"] == "done").count())
}

async fn loaded(engine: &Engine) -> usize {
    let entries = engine.get("/api/v1/entries?kind=catalog_loaded&limit=100").await.unwrap();
    entries["entries"].as_array().unwrap().len()
}

/// What the ledger says of alerts that met a changed rule while they were open.
async fn reconsidered(engine: &Engine) -> Vec<Value> {
    let entries = engine.get("/api/v1/entries?kind=heard&limit=100").await.unwrap();
    let events =
        entries["entries"].as_array().unwrap().iter().flat_map(|entry| entry["events"].as_array().unwrap().clone());
    events.filter(|event| event["change"] == "reconsidered").collect()
}

/// A rule file was broken for an hour: the alerts of that hour were left alone until they ended and came again.
#[tokio::test]
async fn a_rule_that_is_added_while_its_alert_is_open_is_evaluated_for_it_once() {
    let site = Site::new("mode_ceiling: auto\nsources:\n  am: { kind: alertmanager }\n", OTHER, &[("look", LOOK)]);
    let engine = site.start(&[]).await.unwrap();
    let heard = alert(&engine, "firing", "a").await;
    assert_eq!(heard["runs"].as_array().map(Vec::len), Some(0), "no rule is for it yet: {heard}");
    alert(&engine, "firing", "over").await;
    alert(&engine, "resolved", "over").await;
    let incidents = engine.get("/api/v1/status").await.unwrap()["incidents_open"].clone();
    write(&site, &(OTHER.to_owned() + &rule("act", "")));
    eventually("the run of the alert that is open", async || (done(&engine, "act").await? == 1).then_some(())).await;
    let said = reconsidered(&engine).await;
    assert_eq!(said.len(), 1, "and none of the one that is over: {said:?}");
    assert_eq!(said[0]["runs"].as_array().map(Vec::len), Some(1), "{said:?}");
    assert_eq!(engine.get("/api/v1/status").await.unwrap()["incidents_open"], incidents, "within its incident");
    // An edit of the rule starts no second run, and says why.
    let before = loaded(&engine).await;
    write(&site, &(OTHER.to_owned() + &rule("act", "    cooldown: 7m\n")));
    eventually("the edit", async || (loaded(&engine).await > before).then_some(())).await;
    eventually("its reason", async || {
        let said = reconsidered(&engine).await;
        let edited = said.iter().find(|event| event["reasons"].as_array().is_some_and(|all| !all.is_empty()))?;
        (edited["reasons"][0]["code"] == "already_handled").then_some(())
    })
    .await;
    // Nor does a file that is saved unchanged, or another rule that changes.
    let before = loaded(&engine).await;
    write(&site, &(OTHER.replace("[oncall]", "[oncall] # seen") + &rule("act", "    cooldown: 7m\n")));
    eventually("the save", async || (loaded(&engine).await > before).then_some(())).await;
    assert_eq!((done(&engine, "act").await, reconsidered(&engine).await.len()), (Some(1), 2));
    // A rule that came while the engine was away.
    engine.kill();
    write(&site, &(OTHER.to_owned() + &rule("act", "    cooldown: 7m\n") + &rule("second", "")));
    let engine = site.start(&[]).await.unwrap();
    eventually("the run of the second rule", async || (done(&engine, "second").await? == 1).then_some(())).await;
    assert_eq!(done(&engine, "act").await, Some(1));
    assert_eq!(engine.stop(), Some(0));
    let engine = site.start(&[]).await.unwrap();
    alert(&engine, "firing", "b").await;
    eventually("both for a new one", async || (done(&engine, "second").await? == 2).then_some(())).await;
    assert_eq!(
        (done(&engine, "act").await, reconsidered(&engine).await.len()),
        (Some(2), 3),
        "a start alone is no change"
    );
}

/// An edit must not bring up what an approver denied, also where the alert has come back as another episode meanwhile.
#[tokio::test]
async fn an_edit_of_a_rule_does_not_perform_the_plan_that_an_approver_denied() {
    let fleet = SimFleet::start(SimOptions { nodes: 40, ..SimOptions::default() }).unwrap();
    let label = "//! Labels.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\nk8s::label(node, \"a.b/c\", \"d\");\n";
    let rules = |mode: &str| {
        format!(
            "rules:\n  - {{ name: act, when: ['alertname=\"X\"', 'node!=\"\"'], run: label, mode: {mode}, cooldown: 0s }}\n"
        )
    };
    let extra = format!(
        "mode_ceiling: auto\nsources:\n  am: {{ kind: alertmanager }}\nincidents: {{ resolve_after: 5m }}\nclusters:\n  sim: {{ url: '{}' }}\n",
        fleet.url()
    );
    let site = Site::new(&extra, &rules("approve"), &[("label", label)]);
    site.add_token("ann", "approver", "");
    let engine = site.start(&[]).await.unwrap();
    let alert = async |status: &str| {
        let labels: &[(&str, &str)] = &[("alertname", "X"), ("node", "gpu-1")];
        let body = alertmanager_body(status, "2026-11-23T03:00:00Z", &[labels]);
        let (status, heard) = engine.post("/in/alertmanager/am", &body).await.unwrap();
        assert_eq!(status, 200, "{heard}");
    };
    alert("firing").await;
    let asked = async || engine.get("/api/v1/approvals").await?["approvals"][0]["id"].as_str().map(str::to_owned);
    let id = eventually("the question", asked).await;
    let no = serde_json::json!({ "approve": false, "why": "not now" });
    let token = crate::harness::secret("ann");
    let (status, said) = engine.ask("POST", &format!("/api/v1/approvals/{id}"), Some(&token), &no).await;
    assert_eq!(status, 200, "{said}");
    let runs = async || engine.get("/api/v1/runs").await.map(|runs| runs["runs"].as_array().unwrap().len());
    alert("resolved").await;
    alert("firing").await;
    assert_eq!(runs().await, Some(1), "the alert only came back");
    write(&site, &rules("auto"));
    let reason = async || {
        let said = reconsidered(&engine).await;
        (!said.is_empty()).then_some(said)
    };
    let said = eventually("its reason", reason).await;
    assert_eq!(said[0]["reasons"][0]["code"], "already_handled", "{said:?}");
    assert_eq!(runs().await, Some(1));
    assert!(fleet.node("gpu-1").unwrap()["metadata"]["labels"]["a.b/c"].is_null(), "and nothing is done");
}
