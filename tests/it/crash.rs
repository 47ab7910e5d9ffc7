//! The plug is pulled: the real process is killed around every commit in turn, and the target counts what was done.
//!
//! Invariant: whatever the moment, the world ends the same: each effect once, nothing acknowledged lost.

use crate::engines;
use crate::harness::{Engine, Site, alertmanager_body, eventually};
use nightshift::world::sim::{ApiFault, RequestFault, SimFault, SimFleet, SimOptions};
use serde_json::{Value, json};

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
//! scope: node
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

/// Witnessed steps, a message, and a failure at the end that takes back what can be taken back.
const WITNESSED: &str = r#"//! Evicts, deletes, restarts, and fails.
//!
//! params:
//!   node: Node
//! scope: node
//! undo: on-failure

k8s::label(node, "nightshift.dev/test", "yes");
let pod = k8s::pods_on(node).filter(|pod| pod.gpus > 0 && !pod.daemon)[0];
k8s::evict(`${pod.namespace}/${pod.name}`, #{ within: "2m" });
k8s::scale("inference/mistral-7b", 5);
k8s::rollout_restart("inference/llama-70b", #{ within: "10m" });
tell("nobody", "half way");
verify(|| k8s::node(node).unschedulable, #{ within: "1s", every: "1s" });
"#;

/// One server's traffic goes and comes back; another's goes, and it starts anew. FIRST and SECOND are two pods of a set.
const TRAFFIC: &str = r#"//! Drains traffic, gives it back, drains and restarts.
//!
//! params:
//!   node: Node
//! scope: pod
//! undo: never

note(`asked for by ${node}`);
inference::drain_traffic("FIRST", #{ within: "5m" });
inference::return_traffic("FIRST");
inference::drain_traffic("SECOND", #{ within: "5m" });
inference::restart("SECOND", #{ signals: 1, window: "1s", within: "5m" });
inference::return_traffic("SECOND");
"#;

/// A runbook, how it ends, and something that the calm world must have counted.
struct Story {
    runbook: &'static str,
    ends: &'static str,
    counted: (&'static str, usize),
}

impl Story {
    /// The runbook and the configuration, for this fleet; with a pretended engine in two pods of a set where it has to
    /// do with traffic.
    async fn on(&self, fleet: &SimFleet) -> (String, String, Option<engines::Engine>) {
        let extra = format!("sources:\n  test:\n    kind: alertmanager\nclusters:\n  sim:\n    url: {}\n", fleet.url());
        if !self.runbook.contains("FIRST") {
            return (self.runbook.to_owned(), extra, None);
        }
        let engine = engines::Engine::start("vllm").await;
        // What makes a restart be allowed; it answers its metrics, so that it is seen to be without requests.
        engine.set(|page| page.ready = false);
        let pods = ["gpu-1", "gpu-2", "gpu-3", "gpu-4"].into_iter().flat_map(|node| fleet.pods_on(node));
        let pods =
            pods.filter(|(_, name)| name.starts_with("mistral-7b")).map(|(space, name)| format!("{space}/{name}"));
        let [first, second] = pods.take(2).collect::<Vec<_>>().try_into().unwrap();
        let target = |pod: &str, model: &str| json!(engine.target(&[("pod", pod), ("model", model)]));
        let targets = json!([target(&first, "one"), target(&second, "two")]);
        // So seldom that it has no part in the story.
        let long = json!({ "frozen_for": "2h", "queue_for": "2h", "cache_for": "2h", "first_token_for": "2h" });
        let probe = json!({ "every": "1h", "targets": targets, "limits": long });
        let extra = extra.replace("clusters:", &format!("  serving: {{ kind: inference, probe: {probe} }}\nclusters:"));
        (self.runbook.replace("FIRST", &first).replace("SECOND", &second), extra, Some(engine))
    }
}

const THERE_AND_GONE: Story = Story { runbook: TRAFFIC, ends: "done", counted: ("evict pods", 1) };
const THERE_AND_BACK: Story = Story { runbook: RUNBOOK, ends: "done", counted: ("patch nodes gpu-2", 3) };
const TAKEN_BACK: Story = Story { runbook: WITNESSED, ends: "failed", counted: ("patch nodes gpu-2", 2) };

/// What must be so at the end, as the target counted it: (verb, resource, name) → number of real changes.
async fn effects(fleet: &SimFleet) -> Vec<(String, usize)> {
    let mut counted: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for effect in fleet.effects() {
        // What Kubernetes is told (Events, a condition of the node) is news of what is so now, and no act.
        if effect.changed && effect.resource != "events" && !effect.resource.ends_with("/status") {
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

async fn has_ended(engine: &Engine, story: &Story) -> Option<Value> {
    let runs = engine.get("/api/v1/runs").await?;
    let run = runs.as_array().or_else(|| runs["runs"].as_array())?.first()?.clone();
    let state = run["state"]["is"].as_str()?.to_owned();
    match state.as_str() {
        ended if ended == story.ends => Some(run),
        "done" | "failed" | "stuck" | "denied" | "refused" | "withdrawn" | "stopped" => {
            panic!("the run ended badly: {run:#}")
        }
        _ => None,
    }
}

/// A remedy that failed has brought its rule down, once, whenever the process died between the two.
async fn goes_as_far_as_it_should(engine: &Engine, story: &Story) {
    let card = engine.get("/api/v1/rules/pull-the-plug/scorecard").await.unwrap();
    let (mode, moves) = if story.ends == "failed" { ("approve", 1) } else { ("auto", 0) };
    assert_eq!(card["scorecard"]["mode"], mode, "{card:#}");
    let entries = engine.get("/api/v1/entries?kind=rule_demoted").await.unwrap();
    assert_eq!(entries["entries"].as_array().map(Vec::len), Some(moves), "{entries:#}");
}

/// One life of the world: an engine that dies at `failpoint`, one that goes on. Returns the effects, and whether it died.
async fn live_through(story: &Story, failpoint: Option<String>) -> (Vec<(String, usize)>, bool) {
    let fleet = SimFleet::start(SimOptions::default()).unwrap();
    let (runbook, extra, _engine) = story.on(&fleet).await;
    let site = Site::new(&extra, RULES, &[("pull-the-plug", &runbook)]);
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
            has_ended(&engine, story).await.map(|_| false)
        })
        .await;
    }
    if died {
        let engine = site.start(&[]).await.unwrap_or_else(|| panic!("no second life; log:\n{}", site.log()));
        if !acknowledged {
            // What was not acknowledged is the source's to send again.
            assert!(deliver(&engine).await, "the second life refuses the alert; log:\n{}", site.log());
        }
        eventually("the run's end in the second life", async || has_ended(&engine, story).await).await;
        let runs = engine.get("/api/v1/runs").await.unwrap();
        let runs = runs.as_array().or_else(|| runs["runs"].as_array()).unwrap().len();
        assert_eq!(runs, 1, "one episode starts one run");
        goes_as_far_as_it_should(&engine, story).await;
        assert_eq!(engine.stop(), Some(0));
    }
    (effects(&fleet).await, died)
}

const LIVES_AT_ONCE: usize = 8;

/// Kills before or after commit 1, 2, 3 … until the story is over before the failpoint comes.
async fn kill_at_every_commit(story: &Story, side: &str) {
    let (calm, died) = live_through(story, None).await;
    assert!(!died);
    let (effect, least) = story.counted;
    assert!(calm.iter().any(|(what, count)| what.starts_with(effect) && *count >= least), "{calm:#?}");
    let mut kills = 0;
    // Lives are worlds of their own, and mostly wait: a few at a time.
    for first in (1..).step_by(LIVES_AT_ONCE) {
        let lives = (first..first + LIVES_AT_ONCE).map(async |commit| {
            let (effects, died) = live_through(story, Some(format!("{side}-commit:{commit}"))).await;
            assert_eq!(effects, calm, "killed {side} commit {commit}");
            usize::from(died)
        });
        let died: usize = futures::future::join_all(lives).await.into_iter().sum();
        kills += died;
        if died < LIVES_AT_ONCE {
            break;
        }
    }
    assert!(kills >= 15, "only {kills} commits were met: the battery tests less than it says");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_just_after_any_commit_the_world_ends_the_same() {
    kill_at_every_commit(&THERE_AND_BACK, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_just_before_any_commit_the_world_ends_the_same() {
    kill_at_every_commit(&THERE_AND_BACK, "before").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_just_after_any_commit_of_a_run_that_is_taken_back_the_world_ends_the_same() {
    kill_at_every_commit(&TAKEN_BACK, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_just_before_any_commit_of_a_run_that_is_taken_back_the_world_ends_the_same() {
    kill_at_every_commit(&TAKEN_BACK, "before").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_just_after_any_commit_while_traffic_goes_and_comes_back_the_world_ends_the_same() {
    kill_at_every_commit(&THERE_AND_GONE, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_just_before_any_commit_while_traffic_goes_and_comes_back_the_world_ends_the_same() {
    kill_at_every_commit(&THERE_AND_GONE, "before").await;
}

/// The process that was told to cancel dies before it could; the one that comes after it finds what is left to stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cancelled_run_left_under_way_is_stopped_by_whoever_comes_after_the_crash() {
    let fleet = SimFleet::start(SimOptions::default()).unwrap();
    fleet.fault(SimFault::Jobs { exit: None, message: String::new() }).unwrap();
    let job = "{ namespace: warm, image: r/n:1, host_path: /models }";
    let extra = format!("clusters:\n  sim:\n    url: {}\n    cache_job: {job}\n", fleet.url());
    let warm = "//! Warms.\n//!\n//! scope: none\n\ncache::warm(\"/models/a\", \"gpu-1\", #{ via: \"job\" });\n";
    let site = Site::new(&extra, "rules: []\n", &[("warm", warm)]);
    let engine = site.start(&[]).await.unwrap();
    let (status, run) = engine.post("/api/v1/runs", &json!({ "runbook": "warm", "mode": "auto" })).await.unwrap();
    assert_eq!(status, 201, "{run}");
    let id = run["run"]["id"].as_str().unwrap().to_owned();
    let jobs = || fleet.effects().into_iter().filter(|effect| effect.resource == "jobs" && effect.changed);
    eventually("the Job is made", async || jobs().next()).await;
    // Its first try to take the Job away does not arrive.
    fleet.fault(ApiFault::next(1, "DELETE", "/jobs/", RequestFault::Cut)).unwrap();
    let cancel = format!("/api/v1/runs/{id}/cancel");
    let (status, answer) = engine.post(&cancel, &json!({ "why": "another node will do" })).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    eventually("it has tried", async || fleet.requests().iter().find(|asked| asked.method == "DELETE").map(drop)).await;
    engine.kill();
    let engine = site.start(&[]).await.unwrap();
    let ended = eventually("the step has its outcome", async || {
        let run = engine.get(&format!("/api/v1/runs/{id}")).await?;
        run["steps"][0]["outcome"].is_object().then_some(run)
    })
    .await;
    assert_eq!(ended["run"]["state"]["is"], "cancelled", "{ended}");
    let failed = ended["steps"][0]["outcome"]["failed"]["message"].as_str().unwrap_or_default();
    assert!(failed.contains("the run was cancelled"), "{ended}");
    let done: Vec<String> = jobs().map(|effect| effect.verb).collect();
    assert_eq!(done, ["create", "delete"], "the Job is made once and taken away once");
}
