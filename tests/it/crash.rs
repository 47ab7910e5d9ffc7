//! The plug is pulled: the real process is killed around every commit in turn, and the target counts what was done.
//!
//! Invariant: whatever the moment, the world ends the same: each effect once, nothing acknowledged lost.

use crate::harness::{Engine, Site, alertmanager_body, eventually};
use nightshift::world::sim::{SimFleet, SimOptions};
use serde_json::Value;

const RULES: &str = r#"
rules:
  - name: pull-the-plug
    when: ['alertname="GpuXid"']
    run: pull-the-plug
    mode: auto
"#;

const RUNBOOK: &str = r#"//! Everything that a crash can leave open: converging and witnessed steps, a wait, a message.
//!
//! params:
//!   node: Node
//! reach: node
//! undo: never

k8s::cordon(node, "test");
k8s::label(node, "nightshift.dev/test", "yes");
k8s::drain(node, #{ within: "5m", only: "gpu-pods" });
sleep("50ms");
k8s::scale("inference/mistral-7b", 3);
note("the node is empty");
verify(|| k8s::node(node).unschedulable, #{ within: "1m" });
k8s::uncordon(node);
"#;

/// What must be so at the end, as the target counted it: (verb, resource, name) → number of real changes.
async fn effects(fleet: &SimFleet) -> Vec<(String, usize)> {
    let mut counted: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for effect in fleet.effects() {
        if effect.changed {
            *counted.entry(format!("{} {} {}", effect.verb, effect.resource, effect.name)).or_default() += 1;
        }
    }
    counted.into_iter().collect()
}

async fn deliver(engine: &Engine) -> bool {
    let body = alertmanager_body(
        "firing",
        "2026-11-23T03:00:00Z",
        &[&[("alertname", "GpuXid"), ("node", "gpu-2"), ("gpu", "1")]],
    );
    engine.post("/in/alertmanager/test", &body).await.is_some_and(|(status, _)| status == 200)
}

async fn is_done(engine: &Engine) -> Option<Value> {
    let runs = engine.get("/api/v1/runs").await?;
    let run = runs.as_array().or_else(|| runs["runs"].as_array())?.first()?.clone();
    let state = run["state"]["is"].as_str()?.to_owned();
    match state.as_str() {
        "done" => Some(run),
        "failed" | "stuck" | "denied" | "stopped" => panic!("the run ended badly: {run:#}"),
        _ => None,
    }
}

/// One life of the world: an engine that dies at `failpoint`, one that goes on. Returns the effects, and whether it died.
async fn live_through(failpoint: Option<String>) -> (Vec<(String, usize)>, bool) {
    let fleet = SimFleet::start(SimOptions::default()).unwrap();
    let extra = format!("sources:\n  test:\n    kind: alertmanager\nclusters:\n  sim:\n    url: {}\n", fleet.url());
    let site = Site::new(&extra, RULES, &[("pull-the-plug", RUNBOOK)]);
    let env: Vec<(&str, String)> = failpoint.iter().map(|point| ("NIGHTSHIFT_FAILPOINT", point.clone())).collect();
    let mut acknowledged = false;
    let mut died = true;
    if let Some(mut engine) = site.start(&env).await {
        acknowledged = deliver(&engine).await;
        // It dies somewhere on the way, or the failpoint lies beyond the story's last commit.
        died = eventually("the end of the first life", async || {
            if engine.is_dead() {
                return Some(true);
            }
            is_done(&engine).await.map(|_| false)
        })
        .await;
    }
    if died {
        let engine = site.start(&[]).await.unwrap_or_else(|| panic!("no second life; log:\n{}", site.log()));
        if !acknowledged {
            // What was not acknowledged is the source's to send again.
            assert!(deliver(&engine).await, "the second life refuses the alert; log:\n{}", site.log());
        }
        eventually("the run's end in the second life", async || is_done(&engine).await).await;
        let runs = engine.get("/api/v1/runs").await.unwrap();
        let runs = runs.as_array().or_else(|| runs["runs"].as_array()).unwrap().len();
        assert_eq!(runs, 1, "one episode starts one run");
        assert_eq!(engine.stop(), Some(0));
    }
    (effects(&fleet).await, died)
}

/// Kills just before and just after commit 1, 2, 3 … until the story is over before the failpoint comes.
async fn kill_at_every_commit(side: &str) {
    let (calm, died) = live_through(None).await;
    assert!(!died);
    assert!(calm.iter().any(|(effect, count)| effect == "patch nodes gpu-2" && *count >= 3), "{calm:#?}");
    let mut kills = 0;
    for commit in 1.. {
        let (effects, died) = live_through(Some(format!("{side}-commit:{commit}"))).await;
        assert_eq!(effects, calm, "killed {side} commit {commit}");
        if !died {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 15, "only {kills} commits were met: the battery tests less than it says");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_just_after_any_commit_the_world_ends_the_same() {
    kill_at_every_commit("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_just_before_any_commit_the_world_ends_the_same() {
    kill_at_every_commit("before").await;
}
