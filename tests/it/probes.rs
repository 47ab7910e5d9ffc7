//! Sources of kind inference: engines on this machine that freeze, hang, start anew or send nonsense, the engine's own
//! loops, and the simulated fleet where something is done about it.
//!
//! Invariant: the real clock; every wait is for a condition, and what was done is counted by the fleet.

use crate::camp::{Camp, Gear};
use crate::engines::{Engine, Manner};
use crate::harness::eventually;
use nightshift::model::{EpisodeState, Mode, Run, RunState};
use nightshift::store::Filter;
use nightshift::world::sim::{SimFleet, SimOptions, SimWorkload};
use nightshift::world::{EngineTarget, ProbeConfig, ProbedEngines, PrometheusClient};
use serde_json::{Value, json};
use std::time::Duration;

/// Everything is some hundred times faster than as it is shipped.
fn quick(targets: Vec<EngineTarget>) -> Value {
    let mut probe = serde_json::to_value(ProbeConfig { targets, ..ProbeConfig::default() }).unwrap();
    probe["every"] = json!("100ms");
    probe["within"] = json!("2s");
    let limits = json!({ "frozen_for": "600ms", "queue_for": "300ms", "cache_for": "300ms", "first_token_for": "300ms",
        "starting": "1s", "looks": 3, "queue": 50, "cache": 0.95, "first_token": "5s", "first_token_quantile": 0.9 });
    probe["limits"] = limits;
    probe
}

async fn pitch(fleet: &SimFleet, probe: Value, rules: &str) -> Camp {
    on(tempfile::tempdir().unwrap(), fleet, probe, rules).await
}

/// With the shipped runbooks, and rules that may act.
async fn on(dir: tempfile::TempDir, fleet: &SimFleet, probe: Value, rules: &str) -> Camp {
    let mut world = crate::watch::world(&[("eu", fleet)]).await;
    let probed: ProbeConfig = serde_json::from_value(probe.clone()).unwrap();
    world.engines = ProbedEngines::of([&probed]);
    world.prometheus = Some(PrometheusClient::connect(&fleet.url(), None).unwrap());
    let sources = json!({ "serving": { "kind": "inference", "probe": probe } });
    Camp::pitch(dir, Gear { rules, runbooks: &[], sources, world }).await
}

impl Camp {
    async fn ended_run(&self) -> Run {
        eventually("a run that has ended", async || {
            let filter = Filter { limit: 10, after: Some(-1), ..Filter::default() };
            let run = self.parts.store.runs(filter).await.unwrap().into_iter().next()?;
            run.state.is_final().then_some(run)
        })
        .await
    }

    fn metric(&self, line: &str) -> bool {
        self.parts.metrics.render().lines().any(|found| found == line)
    }
}

const TELL: &str = "rules: [{ name: told, when: ['alertname=~\"Inference.*\"'], tell: [oncall] }]";
/// The shipped rule, but it acts, and quickly.
fn acting(run: &str, more: &str) -> String {
    format!(
        "rules: [{{ name: frozen, when: ['alertname=\"InferenceNoProgress\"'], run: {run}, mode: auto, tell: [oncall], with: {{ {more} }} }}]"
    )
}

fn fleet(labels: &[(&str, String)]) -> SimFleet {
    let mut workload = SimWorkload::deployment("llama", "acme/llama", 2, 1);
    workload.labels = labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let quickly = Duration::from_millis(150);
    let options = SimOptions {
        nodes: 2,
        workloads: vec![workload],
        pod_ready_after: quickly,
        pod_stops_after: quickly,
        ..SimOptions::default()
    };
    SimFleet::start(options).unwrap()
}

fn changes(fleet: &SimFleet, what: &str) -> usize {
    let ours = fleet.changes().into_iter().filter(|change| change.by.contains("nightshift"));
    ours.filter(|change| format!("{} {}", change.verb, change.resource) == what).count()
}

#[tokio::test]
async fn a_page_that_freezes_while_requests_wait_becomes_a_restart_and_is_over_when_tokens_flow() {
    let fleet = fleet(&[]);
    let engine = Engine::start("vllm").await;
    let target = engine.target(&[("workload", "inference/llama"), ("model", "m")]);
    let rules = acting("inference-no-progress", "between: 1s, hold: 1s, ask: false");
    let camp = pitch(&fleet, quick(vec![target]), &rules).await;
    eventually("the first looks", async || (engine.page().asked > 3).then_some(())).await;
    assert!(camp.episodes().await.is_empty(), "an engine that works is no news");
    // It wedges, and its readiness says so too: two signals.
    engine.freeze(12);
    engine.set(|page| page.ready = false);
    let episode = camp.episode("InferenceNoProgress", true).await;
    assert_eq!(episode.event.subject.to_string(), "namespace inference workload llama model m");
    assert!(
        episode.event.summary.contains("12 requests wait and 0 run of m/0, and no step was made"),
        "{}",
        episode.event.summary
    );
    eventually("the restart at the fleet", async || (changes(&fleet, "patch deployments") == 1).then_some(())).await;
    engine.thaw();
    engine.set(|page| page.ready = true);
    camp.episode("InferenceNoProgress", false).await;
    camp.episode("InferenceNotReady", false).await;
    let run = camp.ended_run().await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.state);
    assert_eq!((run.mode, changes(&fleet, "patch deployments")), (Mode::Auto, 1));
    camp.strike().await;
}

#[tokio::test]
async fn a_pod_found_by_its_label_loses_its_traffic_and_is_replaced_while_another_one_serves() {
    let engine = Engine::start("vllm").await;
    let fleet =
        fleet(&[("nightshift.dev/probe", "vllm".to_owned()), ("nightshift.dev/probe-port", engine.port().to_string())]);
    let rules = acting("inference-engine-restart", "drain: 1s, between: 1s, hold: 1s");
    let camp = pitch(&fleet, quick(vec![]), &rules).await;
    eventually("both pods are looked at", async || {
        camp.metric("nightshift_probe_targets{engine=\"vllm\"} 2").then_some(())
    })
    .await;
    engine.freeze(5);
    let episode = camp.episode("InferenceNoProgress", true).await;
    let subject = &episode.event.subject;
    assert_eq!((subject.namespace.as_deref(), subject.workload.as_deref()), (Some("inference"), Some("llama")));
    assert!(subject.pod.as_ref().is_some_and(|pod| pod.starts_with("llama-")) && subject.node.is_some());
    eventually("its traffic is taken", async || (changes(&fleet, "patch pods") > 0).then_some(())).await;
    eventually("it is asked to leave", async || (changes(&fleet, "evict pods") > 0).then_some(())).await;
    engine.thaw();
    camp.episode("InferenceNoProgress", false).await;
    camp.strike().await;
}

#[tokio::test]
async fn engines_that_hang_never_keep_the_others_waiting() {
    let fleet = fleet(&[]);
    let hangs = Engine::start("vllm").await;
    hangs.set(|page| page.manner = Manner::Hangs);
    // More than are looked at at once; each is another address of this machine.
    let mut targets = Vec::new();
    for number in 1..=80 {
        let url = format!("http://127.0.1.{number}:{}", hangs.port());
        targets.push(serde_json::from_value(json!({ "url": url, "engine": "vllm" })).unwrap());
    }
    let good = Engine::start("tgi").await;
    targets.push(good.target(&[("workload", "inference/llama")]));
    let mut probe = quick(targets);
    probe["within"] = json!("30s");
    let camp = pitch(&fleet, probe, TELL).await;
    // Those that hang use up their 30 s; the other one is looked at ten times a second meanwhile.
    let began = std::time::Instant::now();
    eventually("thirty looks", async || (good.page().asked >= 30).then_some(())).await;
    good.freeze(3);
    let episode = camp.episode("InferenceNoProgress", true).await;
    assert_eq!(episode.event.labels.get("engine"), "tgi");
    assert!(began.elapsed() < Duration::from_secs(28), "{:?}", began.elapsed());
    camp.strike().await;
}

#[tokio::test]
async fn whatever_a_page_says_is_a_reason_and_never_the_end() {
    let fleet = fleet(&[]);
    let manners = [Manner::Garbage, Manner::Huge, Manner::Status(500), Manner::Hangs];
    let reasons = ["garbage", "too-large", "status", "silent"];
    let mut engines = Vec::new();
    let mut targets = Vec::new();
    for _ in manners {
        let engine = Engine::start("vllm").await;
        targets.push(engine.target(&[]));
        engines.push(engine);
    }
    let camp = pitch(&fleet, quick(targets), TELL).await;
    eventually("all are up", async || camp.metric("nightshift_probe_up{engine=\"vllm\"} 4").then_some(())).await;
    for (engine, manner) in engines.iter().zip(manners) {
        engine.set(|page| page.manner = manner);
    }
    for (engine, reason) in engines.iter().zip(reasons) {
        let endpoint = format!("127.0.0.1:{}", engine.port());
        let words = eventually(reason, async || {
            let all = camp.episodes().await.into_iter();
            all.into_iter()
                .find(|episode| {
                    episode.event.name() == "InferenceUnreadable" && episode.event.labels.get("endpoint") == endpoint
                })
                .map(|episode| episode.event.summary)
        })
        .await;
        assert!(words.contains(&format!("({reason})")), "{words}");
    }
    for engine in &engines {
        engine.set(|page| page.manner = Manner::Well);
    }
    eventually("all are read again", async || {
        let all = camp.episodes().await;
        all.iter().all(|episode| episode.state != EpisodeState::Open).then_some(())
    })
    .await;
    camp.strike().await;
}

#[tokio::test]
async fn each_engine_is_heard_in_its_own_words_and_a_restart_of_it_is_no_standstill() {
    let fleet = fleet(&[]);
    let (tgi, triton, vllm) = (Engine::start("tgi").await, Engine::start("triton").await, Engine::start("vllm").await);
    let targets = vec![tgi.target(&[]), triton.target(&[]), vllm.target(&[])];
    let camp = pitch(&fleet, quick(targets), TELL).await;
    vllm.set(|page| (page.waiting, page.cache) = (70, 0.99));
    camp.episode("InferenceQueueLong", true).await;
    camp.episode("InferenceCacheFull", true).await;
    vllm.set(|page| (page.waiting, page.cache) = (1, 0.2));
    camp.episode("InferenceQueueLong", false).await;
    camp.episode("InferenceCacheFull", false).await;
    triton.freeze(4);
    let episode = camp.episode("InferenceNoProgress", true).await;
    assert_eq!(episode.event.labels.get("engine"), "triton");
    // The process starts anew: its counters are back at nothing.
    triton.set(|page| page.steps = 0);
    camp.episode("InferenceNoProgress", false).await;
    triton.thaw();
    // Requests come, and their first tokens late.
    for _ in 0..400 {
        vllm.set(|page| page.first_tokens.1 += 20);
        let said = camp.episodes().await.iter().any(|episode| episode.event.name() == "InferenceSlowFirstToken");
        if said {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await; // polls
    }
    camp.episode("InferenceSlowFirstToken", true).await;
    assert!(camp.metric("nightshift_probe_targets{engine=\"tgi\"} 1"));
    camp.strike().await;
}

#[tokio::test]
async fn what_ended_while_nobody_looked_is_over_at_the_next_start_and_what_lasts_stays_one_episode() {
    let fleet = fleet(&[]);
    let (mended, lasting) = (Engine::start("vllm").await, Engine::start("tgi").await);
    let probe = quick(vec![mended.target(&[]), lasting.target(&[])]);
    let camp = pitch(&fleet, probe.clone(), TELL).await;
    eventually("the first looks", async || (mended.page().asked > 3 && lasting.page().asked > 3).then_some(())).await;
    mended.freeze(1);
    lasting.freeze(2);
    eventually("both", async || (camp.episodes().await.len() == 2).then_some(())).await;
    let dir = camp.strike().await;
    mended.thaw();
    let camp = on(dir, &fleet, probe, TELL).await;
    let over = camp.episode("InferenceNoProgress", false).await;
    assert_eq!(over.event.labels.get("engine"), "vllm");
    let all = camp.episodes().await;
    assert_eq!(all.len(), 2, "{all:#?}");
    assert_eq!(all.iter().filter(|episode| episode.state == EpisodeState::Open).count(), 1);
    camp.strike().await;
}

#[tokio::test]
async fn a_pod_whose_label_makes_no_sense_is_said() {
    let fleet = fleet(&[("nightshift.dev/probe", "vlm".to_owned())]);
    let camp = pitch(&fleet, quick(vec![]), TELL).await;
    let episode = camp.episode("InferenceProbeWrong", true).await;
    assert!(episode.event.summary.contains("write vllm, tgi or triton"), "{}", episode.event.summary);
    camp.strike().await;
}
