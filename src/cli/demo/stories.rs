//! The scenarios: a fault, its expected consequences, and the counts of the fleet and the inboxes.
//!
//! Invariant: a scenario passes by the target's counts, not by the engine's own reports.

use super::Stage;
use crate::api::{ApprovalList, RunList};
use crate::model::Run;
use crate::world::sim::Fault;
use std::time::{Duration, Instant};

/// Plays every scenario; returns the expectations that failed.
pub(super) async fn all(stage: &mut Stage) -> Vec<String> {
    let mut failed = Vec::new();
    for (name, ended) in [
        ("a GPU falls off the bus, and the plug is pulled in the middle", fell_off_the_bus(stage).await),
        ("a second node while one is out: the budget holds it", budget_holds(stage).await),
        ("a model makes no progress, and an approval is requested", a_person_is_asked(stage).await),
        ("the ledger is unaltered", the_ledger_is_whole(stage).await),
    ] {
        if let Err(why) = ended {
            failed.push(format!("{name}: {why}"));
        }
    }
    failed
}

async fn fell_off_the_bus(stage: &mut Stage) -> Result<(), String> {
    stage.say.heading("1. XID 79 on gpu-2, GPU 3; the engine is killed in the middle of the drain");
    stage.fleet.fault(Fault::Xid { node: "gpu-2".into(), gpu: 3, code: 79 })?;
    stage.say.say("fleet", "GPU 3 on gpu-2 has fallen off the bus");
    wait(stage, "the first eviction on gpu-2", async |stage| (!evictions(stage).is_empty()).then_some(())).await?;
    stage.children.pull_the_plug();
    stage.say.say("you", "kill -9 of the engine, in the middle of the drain");
    stage.children.start_engine(&stage.say).await.map_err(|error| error.to_string())?;
    let run = run_in_state(stage, "gpu-fell-off-the-bus", &["stopped"]).await?;
    let cordons = changes(stage, "patch", "nodes", "gpu-2");
    stage.say.say("fleet", &format!("counted: gpu-2 was changed {cordons} time(s)"));
    expect(cordons == 1, format!("gpu-2 was changed {cordons} times instead of once"))?;
    let mut evicted: Vec<String> = evictions(stage);
    let all = evicted.len();
    evicted.sort();
    evicted.dedup();
    expect(all == evicted.len(), format!("{all} evictions of {} pods: something was done twice", evicted.len()))?;
    stage.say.say("fleet", &format!("counted: {all} pods evicted, each once"));
    wait(stage, "Slack to say it", async |stage| (stage.people.messages_about("gpu-2") > 0).then_some(())).await?;
    let about = stage.people.messages_about("gpu-2");
    expect(about <= 2, format!("{about} top-level messages about one incident"))?;
    wait(stage, "PagerDuty to be told", async |stage| (stage.people.counts().3 == 1).then_some(())).await?;
    stage.say.say("look closer", &stage.children.command_line(&format!("show {}", run.id)));
    Ok(())
}

async fn budget_holds(stage: &mut Stage) -> Result<(), String> {
    stage.say.heading("2. gpu-3 stops answering while gpu-2 is still out: one node at once is the limit");
    stage.fleet.fault(Fault::NodeNotReady { node: "gpu-3".into() })?;
    stage.say.say("fleet", "the kubelet of gpu-3 is silent");
    run_in_state(stage, "node-not-ready", &["held"]).await?;
    expect(changes(stage, "patch", "nodes", "gpu-3") == 0, "gpu-3 was touched although the budget was used up".into())?;
    let why = stage.children.cli(&["why", "gpu-3"]).await.map_err(|error| error.to_string())?;
    for line in why.lines().filter(|line| line.contains("blast_radius")).take(1) {
        stage.say.say("why gpu-3", line.trim());
    }
    stage.say.say("you", "reset GPU 3, then `kubectl uncordon gpu-2`");
    stage.fleet.repair("gpu-2", None)?;
    stage.children.uncordon_by_hand(&stage.fleet.url(), "gpu-2").await?;
    run_in_state(stage, "node-not-ready", &["waiting"]).await?;
    wait(stage, "gpu-3 to be cordoned", async |stage| (changes(stage, "patch", "nodes", "gpu-3") == 1).then_some(()))
        .await?;
    stage.say.say("fleet", "gpu-3 is back");
    stage.fleet.repair("gpu-3", None)?;
    run_in_state(stage, "node-not-ready", &["done"]).await?;
    let changed = changes(stage, "patch", "nodes", "gpu-3");
    expect(changed == 2, format!("gpu-3 was changed {changed} times instead of twice (cordon, uncordon)"))
}

async fn a_person_is_asked(stage: &mut Stage) -> Result<(), String> {
    stage.say.heading("3. mistral-7b takes requests and makes no token; its rule requires an approval");
    stage.fleet.fault(Fault::Stalled { namespace: "inference".into(), deployment: "mistral-7b".into() })?;
    stage.say.say("fleet", "mistral-7b stands still, requests wait");
    let ask = wait(stage, "an approval request", async |stage| {
        let list: ApprovalList = stage.children.get("/api/v1/approvals?open=true").await?;
        list.approvals.first().map(|approval| approval.id.to_string())
    })
    .await?;
    let touched = changes(stage, "patch", "deployments", "mistral-7b");
    expect(touched == 0, "mistral-7b was restarted before it was approved".into())?;
    stage.say.say("you", &format!("nightshift approve {ask} --why 'go ahead'"));
    stage.children.cli(&["approve", &ask, "--yes", "--why", "go ahead"]).await.map_err(|error| error.to_string())?;
    run_in_state(stage, "inference-no-progress", &["done"]).await?;
    let touched = changes(stage, "patch", "deployments", "mistral-7b");
    expect(touched == 1, format!("mistral-7b was restarted {touched} times instead of once"))
}

async fn the_ledger_is_whole(stage: &mut Stage) -> Result<(), String> {
    stage.say.heading("4. the ledger");
    let verdict = stage.children.cli(&["audit", "verify"]).await.map_err(|error| error.to_string())?;
    for line in verdict.lines() {
        stage.say.say("audit verify", line);
    }
    Ok(())
}

async fn run_in_state(stage: &Stage, runbook: &str, states: &[&str]) -> Result<Run, String> {
    wait(stage, &format!("run of {runbook} to be {}", states.join(" or ")), async |stage| {
        let list: RunList = stage.children.get("/api/v1/runs").await?;
        list.runs.into_iter().find(|run| run.runbook.name == runbook && states.contains(&run.state.name()))
    })
    .await
}

async fn wait<T>(stage: &Stage, what: &str, ask: impl AsyncFn(&Stage) -> Option<T>) -> Result<T, String> {
    loop {
        if let Some(answer) = ask(stage).await {
            return Ok(answer);
        }
        if Instant::now() > stage.deadline {
            return Err(format!("waited in vain for {what}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn changes(stage: &Stage, verb: &str, resource: &str, name: &str) -> usize {
    let by_us = |by: &str| by.contains("nightshift");
    let effects = stage.fleet.effects();
    effects
        .iter()
        .filter(|e| e.changed && e.verb == verb && e.resource == resource && e.name == name && by_us(&e.by))
        .count()
}

fn evictions(stage: &Stage) -> Vec<String> {
    let effects = stage.fleet.effects();
    effects.iter().filter(|e| e.changed && e.verb == "evict").map(|e| e.name.clone()).collect()
}

fn expect(holds: bool, otherwise: String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise) }
}
