//! What a plan would meet: the guards' words beside each call, before anybody starts anything.
//!
//! Invariant: what is foretold is what a run then hears, word for word, and looking changes nothing.

use super::{MINUTE, floor, held, night, nodes_of};
use crate::harness::{Site, secret};
use crate::night::Night;
use crate::roles::token;
use crate::tokens::{beside, nightshift};
use axum::body::Body;
use axum::http::Request;
use nightshift::config::Role;
use nightshift::model::{GuardDecision, Mode, PreflightDecision, ReasonCode, RunState};
use nightshift::server::{App, ConfiguredTokens, router};
use nightshift::world::sim::{SimFleet, SimOptions};
use serde_json::{Value, json};
use tower::ServiceExt;

const TWO: &str = r#"//! Empty two nodes, one after the other.
//!
//! params:
//!   first: Node
//!   second: Node
//! scope: node

k8s::cordon(first, "test");
k8s::drain(first, #{ within: "30m" });
k8s::cordon(second, "test");
k8s::drain(second, #{ within: "30m" });
"#;

/// What `simulate` answers, and each acting call with what the guards would say to it.
async fn simulate(night: &Night, runbook: &str, params: Value) -> Vec<(String, GuardDecision)> {
    let tokens = ConfiguredTokens::new(vec![token("ann", Role::Author, None)]).unwrap();
    let app = router(App::new(night.parts.clone(), tokens));
    let request = Request::post("/api/v1/simulate").header("authorization", format!("Bearer {}", secret("ann")));
    let body = json!({ "runbook": runbook, "params": params }).to_string();
    let answer = app.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 22).await.unwrap();
    let said: Value = serde_json::from_slice(&bytes).unwrap();
    let guards: Vec<PreflightDecision> =
        serde_json::from_value(said["guards"].clone()).unwrap_or_else(|_| panic!("{said:#}"));
    let action = |at: usize| said["plan"]["calls"][at]["call"]["action"].as_str().unwrap().to_owned();
    guards.into_iter().map(|guard| (action(guard.call), guard.verdict)).collect()
}

fn reason(verdict: &GuardDecision) -> (ReasonCode, String) {
    match verdict {
        GuardDecision::Hold { reason, .. } | GuardDecision::Deny { reason } => (reason.code, reason.text.clone()),
        GuardDecision::Allow => panic!("nothing stands in its way"),
    }
}

#[tokio::test]
async fn a_hold_by_the_floor_is_foretold_with_the_numbers_that_the_run_then_hears() {
    let night = night().await;
    night.pass(MINUTE).await;
    let (nodes, path) = nodes_of(&night, "llama-70b").await;
    night.patch(&path, floor("0")).await;
    let foretold = simulate(&night, "drain", json!({ "node": nodes[0] })).await;
    assert!(foretold.iter().all(|(_, verdict)| *verdict == GuardDecision::Allow), "{foretold:#?}");
    night.patch(&path, floor("2")).await;
    let before = night.entries().await.len();
    let foretold = simulate(&night, "drain", json!({ "node": nodes[0] })).await;
    let actions: Vec<&str> = foretold.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(actions, ["k8s::cordon", "k8s::drain"]);
    assert_eq!(foretold[0].1, GuardDecision::Allow);
    let (code, words) = reason(&foretold[1].1);
    assert_eq!(code, ReasonCode::ServingFloor);
    assert!(words.contains("draining it leaves") && words.contains("the floor is 2"), "{words}");
    assert!(night.effects().is_empty() && night.runs().await.is_empty(), "{:?}", night.effects());
    assert_eq!(night.entries().await.len(), before, "looking is no entry");
    let run = night.start("drain", Mode::Auto, json!({ "node": nodes[0] })).await;
    night.settle().await;
    let heard = held(&night, run).await;
    assert_eq!((heard.code, heard.text), (code, words), "word for word");
}

#[tokio::test]
async fn the_second_node_of_a_plan_meets_the_first_one() {
    let mut night = Night::fall("rules: []", &[("two", TWO)]).await;
    night.guard_by(|limits| {
        limits.nodes_at_once = 1;
        limits.serving_floor = 0;
        limits.domains.clear();
    });
    let foretold = simulate(&night, "two", json!({ "first": "gpu-1", "second": "gpu-2" })).await;
    assert_eq!(foretold.len(), 4);
    assert!(foretold[..2].iter().all(|(_, verdict)| *verdict == GuardDecision::Allow), "{foretold:#?}");
    let (code, words) = reason(&foretold[3].1);
    assert_eq!(code, ReasonCode::BlastRadius);
    assert!(
        words.starts_with("gpu-1 is already out of service, and only 1 of 4 nodes may be out at a time"),
        "{words}"
    );
}

#[tokio::test]
async fn what_people_and_labels_forbid_is_foretold_and_so_is_a_mode_that_only_looks() {
    let mut night = night().await;
    let guard = |code: ReasonCode, foretold: Vec<(String, GuardDecision)>| {
        assert!(foretold.iter().all(|(_, verdict)| reason(verdict).0 == code), "{code:?}: {foretold:#?}");
    };
    let label = json!({ "metadata": { "labels": { "nightshift.dev/opt-out": "true" } } });
    night.patch("/api/v1/nodes/gpu-2", label).await;
    guard(ReasonCode::Protected, simulate(&night, "drain", json!({ "node": "gpu-2" })).await);
    night.by_hand("gpu-3", true).await;
    guard(ReasonCode::ForeignCordon, simulate(&night, "drain", json!({ "node": "gpu-3" })).await);
    night.by_hand("gpu-3", false).await;
    // A run that has the node already.
    let run = night.start("linger", Mode::Auto, json!({ "node": "gpu-1" })).await;
    night.settle().await;
    assert!(matches!(night.run(run).await.state, RunState::Waiting { .. }));
    let (_, words) = reason(&simulate(&night, "drain", json!({ "node": "gpu-1" })).await[1].1);
    assert!(words.contains(&format!("{run} works on gpu-1")), "{words}");
    let freeze = nightshift::model::Freeze {
        scope: "all".into(),
        by: "ann".into(),
        why: "a storm".into(),
        since: night.now(),
        until: None,
        release_by: None,
    };
    let frozen = nightshift::store::ControlChange::Freeze(freeze, Vec::new());
    night.parts.store.control(frozen, night.now()).await.unwrap();
    guard(ReasonCode::Frozen, simulate(&night, "drain", json!({ "node": "gpu-4" })).await);
    night.configure(|config| config.mode_ceiling = Mode::Observe);
    guard(ReasonCode::Mode, simulate(&night, "drain", json!({ "node": "gpu-4" })).await);
}

#[tokio::test]
async fn the_chat_says_it_beneath_the_call() {
    let chat = crate::roles::chat(Vec::new()).await;
    assert!(!chat.types("U0ADA", "plan cordon node=gpu-2").await.contains('!'));
    chat.types("U0ADA", "freeze a storm").await;
    chat.night.pass(std::time::Duration::from_secs(1)).await;
    let said = chat.types("U0ADA", "plan cordon node=gpu-2").await;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("k8s::cordon (") && lines[1].starts_with("  ! would be held now: "), "{said}");
    assert!(said.contains("a storm"), "{said}");
}

#[tokio::test]
async fn the_command_line_says_it_beneath_the_call() {
    let fleet = SimFleet::start(SimOptions::default()).unwrap();
    let extra = format!("clusters: {{ sim: {{ url: '{}' }} }}\n", fleet.url());
    let site = Site::new(&extra, "rules: []", &[("drain", super::DRAIN)]);
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    engine.post("/api/v1/freezes", &json!({ "scope": "all", "why": "a storm" })).await.unwrap();
    let site = beside(move || {
        let (code, out, err) = nightshift(&site, &["simulate", "drain", "node=gpu-2"]);
        assert_eq!(code, 0, "{err}");
        assert_eq!(out.matches("! would be held now: ").count(), 2, "{out}");
        assert!(out.contains("would be held now") && out.contains("a storm"), "{out}");
        let (_, out, _) = nightshift(&site, &["-o", "json", "simulate", "drain", "node=gpu-2"]);
        let said: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(said["guards"][1]["verdict"]["hold"]["reason"]["code"], "frozen", "{said:#}");
        site
    })
    .await;
    drop((site, engine, fleet));
}
