//! The engine with all its loops before simulated clusters: what it hears of them, what it shows there, and that two with
//! the same names stay two.
//!
//! Invariant: the real clock; every wait is for a condition.

use crate::camp::{Camp, Gear};
use crate::harness::{client, eventually};
use nightshift::model::{Freeze, Mode, ReasonCode, Run, RunId, RunInput, RunState, Subject, Time};
use nightshift::policy::RuleSet;
use nightshift::store::{ControlChange, Filter, NewRun};
use nightshift::world::WorldError;
use nightshift::world::sim::{ApiFault, RequestFault, SimFault, SimFleet, SimOptions};
use serde_json::{Value, json};
use std::time::Duration;

const RULES: &str = "rules:
  - name: not-ready
    when: ['alertname=\"KubeNodeNotReady\"']
    run: cordon
    mode: auto
";
const CORDON: &str = r#"//! Cordon a node.
//!
//! params:
//!   node: Node
//! scope: node

k8s::cordon(node, "test");
"#;
/// Cordons, waits for a person to say something elsewhere, and would drain.
const PATIENT: &str = r#"//! Cordon, wait, drain.
//!
//! params:
//!   node: Node
//! scope: node
//! undo: on-failure

k8s::cordon(node, "test");
sleep("2s");
k8s::taint(node, "example.com/sick", "true", "NoSchedule");
"#;
const GIVE_AND_TAKE: &str = r#"//! Cordon, drain, uncordon.
//!
//! params:
//!   node: Node
//! scope: node

k8s::cordon(node, "test");
k8s::drain(node, #{ within: "1m" });
k8s::uncordon(node);
"#;

const RUNBOOKS: &[(&str, &str)] = &[("cordon", CORDON), ("patient", PATIENT), ("give-and-take", GIVE_AND_TAKE)];

async fn pitch(fleets: &[(&str, &SimFleet)], sources: Value) -> Camp {
    on(tempfile::tempdir().unwrap(), fleets, sources).await
}

async fn on(dir: tempfile::TempDir, fleets: &[(&str, &SimFleet)], sources: Value) -> Camp {
    let world = crate::watch::world(fleets).await;
    Camp::pitch(dir, Gear { rules: RULES, runbooks: RUNBOOKS, sources, world }).await
}

impl Camp {
    async fn start(&self, runbook: &str, cluster: Option<&str>, node: &str) -> RunId {
        let loaded = self.parts.catalog.current();
        let runbook = &loaded.runbooks[runbook];
        let given = json!({ "node": node }).as_object().cloned().unwrap();
        let input: RunInput = RuleSet::bind(&runbook.header, &given, None).unwrap();
        let new = NewRun {
            pin: runbook.pin.clone(),
            subject: Subject { cluster: cluster.map(str::to_owned), ..Subject::node(node) },
            input,
            mode: Mode::Auto,
            rule: None,
            terms: None,
            requested_by: "a test".to_owned(),
            once: None,
            now: Time::now(),
        };
        let run = self.parts.store.start(new).await.unwrap().unwrap();
        self.parts.nudge.nudge();
        run
    }

    async fn run(&self, id: RunId) -> Run {
        let filter = Filter { run: Some(id), limit: 1, ..Filter::default() };
        self.parts.store.runs(filter).await.unwrap().remove(0)
    }

    async fn ended(&self, id: RunId) -> Run {
        eventually(&format!("the end of {id}"), async || {
            let run = self.run(id).await;
            run.state.is_final().then_some(run)
        })
        .await
    }

    async fn held(&self, id: RunId) -> nightshift::model::Reason {
        eventually(&format!("{id} is held"), async || match self.run(id).await.state {
            RunState::Held { reason } => Some(reason),
            _ => None,
        })
        .await
    }
}

fn condition(fleet: &SimFleet, node: &str) -> Option<(String, String)> {
    let node = fleet.node(node)?;
    let all = node["status"]["conditions"].as_array()?;
    let ours = all.iter().find(|condition| condition["type"] == "NightshiftRemediation")?;
    Some((ours["status"].as_str()?.to_owned(), ours["message"].as_str()?.to_owned()))
}

async fn kubectl(fleet: &SimFleet, path: &str, patch: Value) {
    let request = client().patch(format!("{}{path}", fleet.url())).header("user-agent", "kubectl");
    let request = request.header("content-type", "application/strategic-merge-patch+json").body(patch.to_string());
    assert!(request.send().await.unwrap().status().is_success());
}

async fn events(fleet: &SimFleet) -> Vec<(String, String)> {
    let url = format!("{}/apis/events.k8s.io/v1/namespaces/default/events", fleet.url());
    let list: Value = client().get(url).send().await.unwrap().json().await.unwrap();
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().unwrap().iter();
    items.map(|event| (text(event, "reason"), text(event, "note"))).collect()
}

fn sim(nodes: usize) -> SimFleet {
    let options = SimOptions { nodes, pod_stops_after: Duration::from_millis(150), ..SimOptions::default() };
    SimFleet::start(options).unwrap()
}

#[tokio::test]
async fn a_sick_node_is_heard_acted_on_shown_and_over_when_it_is_well() {
    let fleet = sim(4);
    let camp = pitch(&[("eu", &fleet)], json!({ "k8s": { "kind": "kubernetes" } })).await;
    fleet.fault(SimFault::NodeNotReady { node: "gpu-2".into() }).unwrap();
    let episode = camp.episode("KubeNodeNotReady", true).await;
    assert_eq!(episode.event.subject, Subject::node("gpu-2"), "one cluster needs no name");
    eventually("the cordon", async || {
        fleet.node("gpu-2").filter(|node| node["spec"]["unschedulable"] == json!(true)).map(drop)
    })
    .await;
    // `kubectl get events` tells the story.
    eventually("our Events", async || {
        let told = events(&fleet).await;
        let reasons: Vec<&str> = told.iter().map(|(reason, _)| reason.as_str()).collect();
        (reasons.contains(&"StepBegun") && reasons.contains(&"StepEnded")).then_some(())
    })
    .await;
    fleet.repair("gpu-2", None).unwrap();
    camp.episode("KubeNodeNotReady", false).await;
    // A condition of another program, and one that ends while nobody listens.
    let fault = |status: &str| json!({ "status": { "conditions": [{ "type": "GpuMemWatch", "status": status, "reason": "GpuMemWatchIsNotHealthy" }] } });
    kubectl(&fleet, "/api/v1/nodes/gpu-3/status", fault("True")).await;
    let episode = camp.episode("NodeConditionFault", true).await;
    assert_eq!(episode.event.labels.get("reported_by"), "nvsentinel");
    let dir = camp.strike().await;
    kubectl(&fleet, "/api/v1/nodes/gpu-3/status", fault("False")).await;
    let camp = on(dir, &[("eu", &fleet)], json!({ "k8s": { "kind": "kubernetes" } })).await;
    camp.episode("NodeConditionFault", false).await;
    camp.strike().await;
}

#[tokio::test]
async fn a_person_who_uncordons_in_the_middle_stops_the_run_and_everybody_can_see_who_holds_a_node() {
    let fleet = sim(4);
    let camp = pitch(&[("eu", &fleet)], json!({})).await;
    let run = camp.start("patient", None, "gpu-1").await;
    let words =
        eventually("our condition", async || condition(&fleet, "gpu-1").filter(|(held, _)| held == "True")).await;
    assert_eq!(words.1, format!("run {run} (patient)"));
    kubectl(&fleet, "/api/v1/nodes/gpu-1", json!({ "spec": { "unschedulable": false } })).await;
    let run = camp.ended(run).await;
    let RunState::Failed { why, .. } = &run.state else { panic!("{:?}", run.state) };
    assert!(why.contains(ReasonCode::GivenBack.name()), "{why}");
    assert!(fleet.node("gpu-1").unwrap()["spec"]["taints"].as_array().is_none_or(Vec::is_empty));
    eventually("the condition is taken back", async || condition(&fleet, "gpu-1").filter(|(held, _)| held == "False"))
        .await;
    eventually("the denial as an Event", async || {
        events(&fleet).await.into_iter().find(|(reason, note)| reason == "StepDenied" && note.contains("given_back"))
    })
    .await;
    camp.strike().await;
}

#[tokio::test]
async fn failing_to_show_anything_fails_nothing_and_an_opted_out_node_is_left_alone() {
    let fleet = sim(4);
    for (verb, resource) in [("patch", "nodes/status"), ("create", "events"), ("watch", "nodes")] {
        fleet.fault(SimFault::Deny { verb: verb.into(), resource: resource.into() }).unwrap();
    }
    let camp = pitch(&[("eu", &fleet)], json!({})).await;
    let run = camp.start("cordon", None, "gpu-1").await;
    assert_eq!(camp.ended(run).await.state, RunState::Done);
    kubectl(&fleet, "/api/v1/nodes/gpu-1", json!({ "spec": { "unschedulable": false } })).await;
    kubectl(&fleet, "/api/v1/nodes/gpu-2", json!({ "metadata": { "labels": { "nightshift.dev/opt-out": "true" } } }))
        .await;
    let run = camp.start("cordon", None, "gpu-2").await;
    let RunState::Denied { reason } = camp.ended(run).await.state else { panic!("it was to be denied") };
    assert_eq!(reason.code, ReasonCode::Protected);
    camp.strike().await;
}

#[tokio::test]
async fn two_clusters_with_equal_node_names_have_budgets_locks_and_kill_switches_of_their_own() {
    let (eu, us) = (sim(4), sim(4));
    let sources = json!({
        "k8s-eu": { "kind": "kubernetes", "cluster": "eu" },
        "k8s-us": { "kind": "kubernetes", "cluster": "us" },
    });
    let camp = pitch(&[("eu", &eu), ("us", &us)], sources).await;
    // One node at once is the budget: of each cluster.
    let first = camp.start("cordon", Some("eu"), "gpu-1").await;
    assert_eq!(camp.ended(first).await.state, RunState::Done);
    let over = camp.start("cordon", Some("eu"), "gpu-2").await;
    assert_eq!(camp.held(over).await.code, ReasonCode::BlastRadius);
    let freeze = Freeze {
        scope: "cluster:us".into(),
        by: "ada".into(),
        why: "drill".into(),
        since: Time::now(),
        until: None,
        release_by: None,
    };
    camp.parts.store.control(ControlChange::Freeze(freeze, Vec::new()), Time::now()).await.unwrap();
    let other = camp.start("cordon", Some("us"), "gpu-1").await;
    assert_eq!(camp.held(other).await.code, ReasonCode::Frozen);
    let thaw = ControlChange::Unfreeze { scope: "cluster:us".into(), by: "ada".into(), why: "over".into(), persons: 1 };
    camp.parts.store.control(thaw, Time::now()).await.unwrap();
    assert_eq!(camp.ended(other).await.state, RunState::Done);
    let cordoned = |fleet: &SimFleet, node: &str| fleet.node(node).unwrap()["spec"]["unschedulable"] == json!(true);
    assert!(cordoned(&eu, "gpu-1") && cordoned(&us, "gpu-1") && !cordoned(&eu, "gpu-2"));
    // Each source speaks for its own cluster.
    us.fault(SimFault::NodeNotReady { node: "gpu-3".into() }).unwrap();
    let episode = camp.episode("KubeNodeNotReady", true).await;
    assert_eq!((episode.event.source.as_str(), episode.event.subject.cluster.as_deref()), ("k8s-us", Some("us")));
    camp.strike().await;
}

#[tokio::test]
async fn a_node_is_taken_emptied_and_given_back_with_few_requests() {
    let fleet = sim(4);
    let camp = pitch(&[("eu", &fleet)], json!({})).await;
    eventually("the watch", async || {
        fleet.requests().iter().find(|asked| asked.path.contains("nodes?watch=true")).map(drop)
    })
    .await;
    let node = (1..=4).map(|no| format!("gpu-{no}")).find(|node| {
        let pods = fleet.pods_on(node);
        let gpu_pods = pods.iter().filter(|(namespace, _)| namespace == "inference").count();
        gpu_pods > 0 && pods.iter().all(|(namespace, _)| namespace != "research")
    });
    let node = node.unwrap();
    let pods = fleet.pods_on(&node).iter().filter(|(namespace, _)| namespace == "inference").count();
    let before = fleet.requests().len();
    let run = camp.start("give-and-take", None, &node).await;
    assert_eq!(camp.ended(run).await.state, RunState::Done);
    let after = fleet.requests();
    let ours: Vec<String> = after[before..]
        .iter()
        .filter(|asked| !asked.path.contains("watch=true") && !asked.path.contains("/status"))
        .filter(|asked| !asked.path.contains("events.k8s.io") && !asked.path.contains("leases"))
        .map(|asked| format!("{} {}", asked.method, asked.path))
        .collect();
    let retried = ours.iter().filter(|line| line.contains("/eviction")).count() - pods;
    // 2 for the cordon; for the drain the node and its pods, which guards and the first pass share, two questions of the
    // serving floor for each set of replicas that has some there, an eviction a pod, and its polls; 2 to give it back.
    let sets = ours.iter().filter(|line| line.contains("/deployments/")).count();
    let polls = ours.iter().filter(|line| line.contains("/pods?") && line.contains("fieldSelector")).count() - 1;
    println!("{node} with {pods} pods: {} requests, {polls} polls:\n{}", ours.len(), ours.join("\n"));
    assert!(retried > 0 || ours.len() <= 2 + 2 + 2 * sets + pods + polls + 2, "{ours:#?}");
    camp.strike().await;
}

#[tokio::test]
async fn an_api_server_that_goes_away_is_said_and_taken_up_again() {
    let fleet = sim(4);
    let camp = pitch(&[("eu", &fleet)], json!({ "k8s": { "kind": "kubernetes" } })).await;
    let kube = camp.parts.world.kube(None).unwrap().clone();
    eventually("the watch", async || {
        fleet.requests().iter().find(|asked| asked.path.contains("nodes?watch=true")).map(drop)
    })
    .await;
    assert_eq!(kube.trouble(), None);
    let gone = RequestFault::Status { code: 401, retry_after: None };
    let gone = ApiFault { method: None, path: "^/api".into(), times: None, probability: 1.0, trouble: gone };
    fleet.fault(SimFault::Api(gone)).unwrap();
    fleet.fault(SimFault::WatchesCut).unwrap();
    let words = eventually("the trouble", async || kube.trouble().map(|(_, why)| why)).await;
    assert!(words.contains("401"), "{words}");
    let run = camp.start("cordon", None, "gpu-1").await;
    // Nothing is guessed: it waits, or is refused, and nothing is done.
    eventually("a refusal", async || match camp.run(run).await.state {
        RunState::Ready => None,
        state => Some(state),
    })
    .await;
    assert!(fleet.changes().is_empty());
    fleet.calm();
    camp.strike().await;
}

#[tokio::test]
async fn an_api_server_that_has_just_come_back_and_knows_no_roles_yet_is_asked_again() {
    let fleet = sim(4);
    let world = crate::watch::world(&[("eu", &fleet)]).await;
    let kube = world.kube(None).unwrap();
    let next = |trouble: RequestFault| {
        let fault = ApiFault { method: None, path: "nodes/gpu-1".into(), times: Some(1), probability: 1.0, trouble };
        fleet.fault(SimFault::Api(fault)).unwrap();
    };
    // Refused out of the blue: a right is missing, and waiting does not help.
    next(RequestFault::Status { code: 403, retry_after: None });
    assert!(matches!(kube.node("gpu-1").await.unwrap_err(), WorldError::Forbidden(_)));
    // Refused right after it was away: it may only have started.
    next(RequestFault::Cut);
    assert!(kube.node("gpu-1").await.unwrap_err().is_transient());
    for code in [401, 403] {
        next(RequestFault::Status { code, retry_after: None });
        let error = kube.node("gpu-1").await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("has just restarted"), "{code}: {error}");
    }
    assert_eq!(kube.node("gpu-1").await.unwrap().name, "gpu-1");
    let facts = {
        next(RequestFault::Cut);
        let _ = kube.node("gpu-1").await;
        next(RequestFault::Status { code: 403, retry_after: None });
        world.facts(&Subject::node("gpu-1")).await
    };
    assert_eq!(facts.protected, None, "{facts:?}");
    assert!(facts.unread.is_some(), "so the step is held, not denied: {facts:?}");
}
