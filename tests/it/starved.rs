//! What hangs keeps its own runs waiting and no others; what may have happened is in doubt, whether a crash or a silence says so.

use crate::harness::{Site, alertmanager_body, eventually, eventually_within, number_of};
use crate::night::{NIGHT, Night};
use crate::throttle::Throttle;
use nightshift::engine::Runner;
use nightshift::model::{Mode, ReasonCode, RunId, RunInput, RunState, Subject};
use nightshift::policy::RuleSet;
use nightshift::store::NewRun;
use nightshift::world::sim::{ApiFault, RequestFault, SimFleet, SimOptions};
use nightshift::world::{KubeClient, KubeConfig};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CORDON: &str = "//! Cordons.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\n\
                      k8s::cordon(node, \"a test\");\n";

/// A run by hand about a node of that cluster.
async fn begin(night: &Night, cluster: &str, node: &str) -> RunId {
    let loaded = night.parts.catalog.current();
    let runbook = &loaded.runbooks["cordon"];
    let given = json!({ "node": node }).as_object().cloned().unwrap();
    let input: RunInput = RuleSet::bind(&runbook.header, &given, None).unwrap();
    let new = NewRun {
        pin: runbook.pin.clone(),
        subject: Subject { cluster: Some(cluster.to_owned()), ..Subject::node(node) },
        input,
        mode: Mode::Auto,
        rule: None,
        terms: None,
        requested_by: "a test".to_owned(),
        once: None,
        now: night.now(),
    };
    night.parts.store.start(new).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_cluster_whose_api_hangs_keeps_no_run_of_another_cluster_waiting() {
    let mut night = Night::fall("rules: []\n", &[("cordon", CORDON)]).await;
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = KubeConfig { url: format!("http://{}", hanging.local_addr().unwrap()), ..KubeConfig::default() };
    // Connections are taken and never answered.
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = hanging.accept().await {
            kept.push(stream);
        }
    });
    night.parts.world.clusters.insert("hangs".to_owned(), KubeClient::late(&config, "nightshift/test"));
    let mut hung = Vec::new();
    for number in 0..100 {
        hung.push(begin(&night, "hangs", &format!("n{number}")).await);
    }
    let well = begin(&night, "sim", "gpu-1").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(Runner::new(night.parts.clone()).run(stopped));
    eventually("the run in the healthy cluster", async || {
        (night.run(well).await.state == RunState::Done).then_some(())
    })
    .await;
    assert_eq!(night.effects().get("patch nodes gpu-1"), Some(&1));
    // It had no slot of a run that hangs: not one of those has come back yet.
    for run in hung {
        assert_eq!(night.run(run).await.state, RunState::Ready, "{run}");
    }
    let _ = stop.send(true);
    running.abort();
}

#[tokio::test]
async fn an_alertmanager_that_hangs_keeps_no_run_of_another_source_waiting() {
    let rules = "rules:\n  - name: act\n    when: ['alertname=\"Act\"']\n    run: cordon\n    mode: auto\n    group_by: [node]\n";
    let mut night = Night::fall(rules, &[("cordon", CORDON)]).await;
    let well = crate::recording::Recording::start(200, |_, _| json!([])).await;
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = hanging.local_addr().unwrap();
    // Connections are taken and never answered.
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = hanging.accept().await {
            kept.push(stream);
        }
    });
    night.configure(|config| {
        let mut lab = config.sources["test"].clone();
        lab.api = Some(format!("http://{address}"));
        config.sources.get_mut("test").unwrap().api = Some(well.url.clone());
        config.sources.insert("lab".to_owned(), lab);
    });
    let mut hung = Vec::new();
    for number in 2..5 {
        let node = format!("gpu-{number}");
        let body = alertmanager_body("firing", NIGHT, &[&[("alertname", "Act"), ("node", &node)]]);
        let (bytes, source) = (serde_json::to_vec(&body).unwrap(), &night.parts.config.sources["lab"]);
        let decoded = nightshift::sources::alertmanager::decode(&bytes, "lab", source, night.now()).unwrap();
        hung.extend(night.hear_events(decoded.events).await.runs);
    }
    let run = night.hear("firing", &[("alertname", "Act"), ("node", "gpu-1")]).await.runs[0];
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(Runner::new(night.parts.clone()).run(stopped));
    eventually("the run behind the other source", async || {
        (night.run(run).await.state == RunState::Done).then_some(())
    })
    .await;
    assert!(well.paths().iter().any(|path| path.starts_with("/api/v2/alerts")), "{:?}", well.paths());
    assert_eq!((hung.len(), night.effects().get("patch nodes gpu-1")), (3, Some(&1)));
    // Whether theirs are silenced has not been answered, so nothing is done about them.
    for run in hung {
        assert_eq!(night.run(run).await.state, RunState::Ready, "{run}");
    }
    let _ = stop.send(true);
    running.abort();
}

#[tokio::test]
async fn a_blind_post_without_an_answer_is_in_doubt_as_after_a_crash_and_is_never_sent_twice() {
    let text = "//! Posts.\n//!\n//! params:\n//!   url: String\n//! scope: pod\n//! undo: never\n\n\
                try { http::post(url, \"x\"); } catch { http::post(url, \"x\"); }\n";
    let night = Night::fall("rules: []\n", &[("post", text)]).await;
    night.fleet.fault(ApiFault::next(5, "POST", "/hook", RequestFault::LoseReply)).unwrap();
    let run = night.start("post", Mode::Auto, json!({ "url": format!("{}/hook", night.fleet.url()) })).await;
    let ended = night.until_rest(run, Duration::from_secs(600)).await;
    let RunState::Stuck { reason } = &ended.state else { panic!("{:?}", ended.state) };
    assert!(reason.code == ReasonCode::InDoubt && reason.text.contains("it may have happened"), "{reason}");
    let posts = night.fleet.requests().iter().filter(|asked| asked.path == "/hook").count();
    assert_eq!(posts, 1, "counted at the target");
}

/// Guards that let all of them go on at once, so that it is the CPU that they wait for.
const WIDE: &str = "mode_ceiling: auto\nguards: { nodes_at_once: 1000, share_at_once: 1.0, share_per_hour: 1.0, share_per_day: 1.0, \
                    correlated_share: 1.0, correlated_nodes: 1000, two_person_nodes: 0, domains: [], pools: [], serving_floor: 0 }\n";

const ACT: &str = "rules:\n  - name: act\n    when: ['alertname=\"Act\"']\n    run: steps\n    mode: auto\n    group_by: [node]\n    \
                   cooldown: 0s\n    attempts: 1000\n";

const STEPS: &str = r#"//! Steps, waits and a look, as runbooks have them.
//!
//! params:
//!   node: Node
//! scope: node
//! undo: never

k8s::cordon(node, "a test");
k8s::label(node, "nightshift.dev/test", "yes");
for i in 0..6 { note(`step ${i}`); sleep("300ms"); }
verify(|| k8s::node(node).unschedulable, #{ within: "1m", every: "1s" });
k8s::uncordon(node);
"#;

/// The real process gets a few hundredths of one core. `STARVED_RUNS=64 STARVED_PERCENT=2` makes it the long one, and
/// `NIGHTSHIFT_BINARY` names the build that is starved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_a_process_with_a_small_share_of_a_core_are_all_done_and_none_is_stuck() {
    let runs = number_of("STARVED_RUNS", 16);
    let percent = u32::try_from(number_of("STARVED_PERCENT", 20)).unwrap();
    let fleet = SimFleet::start(SimOptions { nodes: runs, ..SimOptions::default() }).unwrap();
    let extra = format!(
        "sources: {{ am: {{ kind: alertmanager }} }}\nclusters: {{ sim: {{ url: '{}' }} }}\n{WIDE}",
        fleet.url()
    );
    let site = Site::new(&extra, ACT, &[("steps", STEPS)]);
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let nodes: Vec<String> = (1..=runs).map(|no| format!("gpu-{no}")).collect();
    let labels: Vec<[(&str, &str); 2]> =
        nodes.iter().map(|node| [("alertname", "Act"), ("node", node.as_str())]).collect();
    let alerts: Vec<&[(&str, &str)]> = labels.iter().map(|labels| labels.as_slice()).collect();

    let throttle = Throttle::to(engine.pid(), percent);
    let token = std::fs::read_to_string(site.path().join("data/token")).unwrap();
    let patient = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(300)).build().unwrap();
    let post = patient.post(format!("{}/in/alertmanager/am", engine.url)).bearer_auth(token.trim());
    let begun = Instant::now();
    let answer = post.json(&alertmanager_body("firing", NIGHT, &alerts)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let taken = begun.elapsed();
    // Counted at the target, for asking the engine would cost it what it has not.
    let done = || {
        let real = fleet.effects().into_iter().filter(|effect| effect.changed && effect.resource == "nodes");
        let mut nodes = std::collections::BTreeMap::<String, usize>::new();
        real.for_each(|effect| *nodes.entry(effect.name).or_default() += 1);
        nodes.values().filter(|changes| **changes >= 3).count()
    };
    let within = Duration::from_secs(120 + 10 * runs as u64);
    while done() < runs && begun.elapsed() < within {
        tokio::time::sleep(Duration::from_millis(50)).await; // polls
    }
    let took = begun.elapsed();
    let by = throttle.by();
    drop(throttle);

    let states = eventually_within(Duration::from_secs(20), "the end of all runs", async || {
        let all = engine.get("/api/v1/runs?limit=1000").await?;
        let states: Vec<Value> = all["runs"].as_array()?.iter().map(|run| run["state"].clone()).collect();
        let is_over =
            |state: &Value| !["ready", "waiting", "held", "asking"].contains(&state["is"].as_str().unwrap_or_default());
        (states.iter().all(is_over) || begun.elapsed() >= within).then_some(states)
    })
    .await;
    let stuck: Vec<&Value> = states.iter().filter(|state| state["is"] == "stuck").collect();
    eprintln!(
        "{runs} runs at {percent} % of a core by {by}: taken in after {:.1} s, all done after {:.1} s, {} stuck",
        taken.as_secs_f64(),
        took.as_secs_f64(),
        stuck.len()
    );
    assert!(stuck.is_empty(), "{} of {runs} are stuck: {:#}", stuck.len(), stuck[0]);
    assert_eq!(states.iter().filter(|state| state["is"] == "done").count(), runs, "{states:#?}");
    let changes = fleet.effects().iter().filter(|effect| effect.changed && effect.resource == "nodes").count();
    assert_eq!(changes, 3 * runs, "cordon, label and uncordon of each, once");
    let card = engine.get("/api/v1/rules/act/scorecard").await.unwrap();
    assert_eq!(card["scorecard"]["mode"], "auto", "and the rule goes as far as before: {card:#}");
    assert_eq!(engine.stop(), Some(0));
}

/// Where no group can be made, a process gets its share by stops and continues.
#[test]
fn a_process_that_is_stopped_in_turns_gets_its_share_and_then_its_cpu_again() {
    let mut busy = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let used = || {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", busy.id())).unwrap();
        text.rsplit(')').next().unwrap().split_whitespace().nth(11).unwrap().parse::<u64>().unwrap()
    };
    let throttle = Throttle::by_turns(busy.id(), 5);
    let before = used();
    std::thread::sleep(Duration::from_millis(1_000)); // polls: what is measured is CPU time in this second
    let during = used() - before;
    drop(throttle);
    let state = std::fs::read_to_string(format!("/proc/{}/stat", busy.id())).unwrap();
    busy.kill().unwrap();
    busy.wait().unwrap();
    assert!(during <= 15, "{during} hundredths of a second, where five were given");
    assert!(!state.contains(") T "), "it is not left stopped: {state}");
}
