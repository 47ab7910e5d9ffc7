//! A step that needs a node: done once, whoever dies in its middle.

use super::*;

const RUNBOOK: &str = "//! Reset a GPU.\n//!\n//! scope: node\n\ngpu::reset(\"gpu-1\", \"GPU-1\");\n";

/// Two nodes, so that one may be out of service; the tool waits for a pipe where a test wants that.
async fn fleet(gate: bool) -> (Place, Engine, Agent, Agent) {
    let place = Place::new("", "rules: []\n", &[("reset", RUNBOOK)]);
    let folder = place.folder("gpu-1");
    let wait = if gate { format!("read line <{}/gate\n", folder.display()) } else { String::new() };
    executable(
        &folder.join("nvidia-smi"),
        &format!("#!/bin/sh\necho \"$@\" >>{}/count\n{wait}exit 0\n", folder.display()),
    );
    if gate {
        assert!(Command::new("mkfifo").arg(folder.join("gate")).status().unwrap().success());
    }
    let engine = place.site.start(&[]).await.unwrap();
    let (one, two) = (place.agent(&engine, "gpu-1").await, place.agent(&engine, "gpu-2").await);
    connected(&engine, "gpu-1").await;
    connected(&engine, "gpu-2").await;
    (place, engine, one, two)
}

async fn start(engine: &Engine) -> String {
    let (status, run) = engine.post("/api/v1/runs", &json!({ "runbook": "reset" })).await.unwrap();
    assert_eq!(status, 201, "{run}");
    run["run"]["id"].as_str().unwrap().to_owned()
}

pub(super) async fn ended(engine: &Engine, run: &str) -> Value {
    eventually("the run's end", async || {
        let answer = engine.get(&format!("/api/v1/runs/{run}")).await?;
        let state = answer["run"]["state"]["is"].as_str().or(answer["run"]["state"].as_str())?.to_owned();
        (!["ready", "waiting", "held", "asking"].contains(&state.as_str())).then_some(answer)
    })
    .await
}

fn calls(place: &Place) -> Vec<String> {
    let text = std::fs::read_to_string(place.folder("gpu-1").join("count")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

async fn under_way(place: &Place) {
    eventually("the reset is under way", async || (!calls(place).is_empty()).then_some(())).await;
}

fn open_gate(place: &Place) -> std::thread::JoinHandle<()> {
    let gate = place.folder("gpu-1").join("gate");
    std::thread::spawn(move || std::fs::write(gate, "go\n").unwrap())
}

#[tokio::test]
async fn a_step_that_needs_a_node_is_done_by_its_agent() {
    let (place, engine, _one, _two) = fleet(false).await;
    let run = ended(&engine, &start(&engine).await).await;
    assert!(run.to_string().contains("\"done\""), "{run}");
    assert_eq!(calls(&place), ["--gpu-reset -i GPU-1"]);
}

#[tokio::test]
async fn an_agent_killed_in_the_middle_of_a_reset_does_not_reset_again() {
    let (place, engine, one, _two) = fleet(true).await;
    let run = start(&engine).await;
    under_way(&place).await;
    one.kill();
    let opened = open_gate(&place);
    let _one = place.start("gpu-1");
    let run = ended(&engine, &run).await;
    opened.join().unwrap();
    assert!(run.to_string().contains("\"done\""), "{run}");
    assert_eq!(calls(&place).len(), 1);
}

#[tokio::test]
async fn an_engine_killed_in_the_middle_of_a_reset_hears_how_it_ended() {
    let (place, engine, _one, _two) = fleet(true).await;
    let run = start(&engine).await;
    under_way(&place).await;
    engine.kill();
    let opened = open_gate(&place);
    opened.join().unwrap();
    let engine = place.site.start(&[]).await.unwrap();
    let run = ended(&engine, &run).await;
    assert!(run.to_string().contains("\"done\""), "{run}");
    assert_eq!(calls(&place).len(), 1);
}
