//! Every documented metric moves: scenarios with the whole engine, and the page as a scraper reads it.
//!
//! Invariant: a series of the table that nothing here moves must name the test that moves it (`moved in`).

use crate::night::Night;
use crate::recording::Recording;
use axum::body::Body;
use axum::http::Request;
use nightshift::config::{ChannelConfig, Role, SecretSource};
use nightshift::engine::{LedgerCheck, NotificationDispatcher};
use nightshift::model::{Freeze, RunState};
use nightshift::notifiers;
use nightshift::server::{App, ConfiguredTokens, GivenToken, router};
use nightshift::store::{ControlChange, Filter};
use nightshift::telemetry::{MetricKind, TABLE};
use nightshift::world::HttpClient;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt as _;

const MINUTE: Duration = Duration::from_secs(60);
const ADMIN: &str = "admin-0123456789abcdef0123456789abcdef";
const VIEWER: &str = "viewer-0123456789abcdef0123456789abcdef";
const XID: &[(&str, &str)] = &[("alertname", "GpuXid"), ("xid", "79"), ("node", "gpu-2"), ("gpu", "3")];
const RULES: &str = r#"rules:
  - { name: repair, when: ['alertname="GpuXid"'], run: mend, mode: auto, cooldown: 1s, tell: [pager] }
  - { name: asks, when: ['alertname="Ask"'], run: mend, mode: approve, tell: [pager] }
"#;
const MEND: &str = "//! Mend a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\n\
     k8s::cordon(node, \"test\");\nsleep(\"1m\");\nk8s::uncordon(node);\n";

struct Scene {
    night: Night,
    router: axum::Router,
    courier: NotificationDispatcher,
    pager: Recording,
    /// Names of series, without prefix and suffix, that had a value other than 0 on a page.
    moved: BTreeSet<String>,
}

impl Scene {
    async fn set() -> Scene {
        let night = Night::fall(RULES, &[("mend", MEND)]).await;
        let given = [("admin", Role::Admin, ADMIN), ("viewer", Role::Viewer, VIEWER)].map(|(name, role, text)| {
            let (name, text) = (name.to_owned(), text.to_owned());
            GivenToken { name, role, sources: Vec::new(), clusters: None, text }
        });
        let router = router(App::new(night.parts.clone(), ConfiguredTokens::new(given.to_vec()).unwrap()));
        let pager = Recording::pagerduty().await;
        let key = night.path().join("pager-key");
        std::fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
        let api = format!("{}/v2/enqueue", pager.url);
        let channel = ChannelConfig::PagerDuty { routing_key: SecretSource::File(key), api, patience: None };
        let channels = BTreeMap::from([("pager".to_owned(), channel)]);
        let http = HttpClient::new("nightshift/test", &[]).unwrap();
        let built = notifiers::build(&channels, &HashMap::new(), &http, "test", &crate::night::seal()).unwrap();
        let parts = &night.parts;
        let (store, clock, nudge) = (parts.store.clone(), parts.clock.clone(), parts.nudge.clone());
        let courier = NotificationDispatcher::with(store.clone(), store, Arc::new(built), clock, nudge, "test", None)
            .metered(parts.metrics.clone());
        Scene { night, router, courier, pager, moved: BTreeSet::new() }
    }

    async fn ask(&self, method: &str, path: &str, token: &str, accept: &str, body: Value) -> (u16, String, String) {
        let request = Request::builder().method(method).uri(path).header("accept", accept);
        let request = request.header("authorization", format!("Bearer {token}"));
        let request = request.header("content-type", "application/json");
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let (status, kind) = (answer.status().as_u16(), kind.to_owned());
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 22).await.unwrap();
        (status, kind, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> u16 {
        self.ask("POST", path, token, "*/*", body).await.0
    }

    async fn alert(&self, status: &str, labels: &[(&str, &str)]) -> u16 {
        let body = crate::harness::alertmanager_body(status, crate::night::NIGHT, &[labels]);
        self.post("/in/alertmanager/test", ADMIN, body).await
    }

    /// Reads the page, and notes what has moved.
    async fn scrape(&mut self) -> String {
        let (status, _, page) = self.ask("GET", "/metrics", VIEWER, "text/plain", Value::Null).await;
        assert_eq!(status, 200);
        for metric in TABLE {
            let name = format!("nightshift_{}", metric.name);
            let samples = match metric.kind {
                MetricKind::Counter => format!("{name}_total"),
                MetricKind::Gauge => name,
                MetricKind::Histogram => format!("{name}_count"),
            };
            let moves = |line: &&str| {
                let rest = line.strip_prefix(&samples).filter(|rest| rest.starts_with([' ', '{']));
                rest.and_then(|rest| rest.rsplit(' ').next()).is_some_and(|value| value.parse::<f64>().unwrap() != 0.0)
            };
            if page.lines().any(|line| moves(&line)) {
                self.moved.insert(metric.name.to_owned());
            }
        }
        page
    }

    fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.night.path().join("nightshift.db")).unwrap()
    }
}

async fn events_in(scene: &mut Scene) {
    assert_eq!(scene.alert("firing", XID).await, 200);
    assert_eq!(scene.alert("firing", XID).await, 200, "the same again");
    assert_eq!(scene.alert("resolved", &[("alertname", "Never"), ("node", "gpu-1")]).await, 200);
    let mut cut = crate::harness::alertmanager_body("firing", crate::night::NIGHT, &[&[("alertname", "Cut")]]);
    cut["truncatedAlerts"] = json!(3);
    assert_eq!(scene.post("/in/alertmanager/test", ADMIN, cut).await, 200);
    assert_eq!(scene.post("/in/alertmanager/test", ADMIN, json!("not a webhook")).await, 400);
    assert_eq!(scene.post("/in/alertmanager/test", "nobody", json!({})).await, 401);
    assert_eq!(scene.post("/in/alertmanager/test", VIEWER, json!({})).await, 403);
}

async fn a_run_and_its_review(scene: &mut Scene) {
    scene.night.pass(Duration::from_secs(3)).await;
    scene.scrape().await;
    scene.courier.pass().await.unwrap();
    assert_eq!(scene.pager.seen().len(), 1);
    let run = scene.night.runs().await[0].id;
    scene.night.settle().await;
    scene.scrape().await;
    assert_eq!(scene.night.until_rest(run, MINUTE * 3).await.state, RunState::Done);
    let verdict = json!({ "verdict": "right", "why": "it was" });
    assert_eq!(scene.post(&format!("/api/v1/runs/{run}/judge"), ADMIN, verdict).await, 200);
}

async fn a_question_a_freeze_and_a_demotion(scene: &mut Scene) {
    let ask: &[(&str, &str)] = &[("alertname", "Ask"), ("node", "gpu-1")];
    assert_eq!(scene.alert("firing", ask).await, 200);
    scene.night.settle().await;
    let since = scene.night.now();
    let freeze =
        Freeze { scope: "all".into(), by: "ana".into(), why: "test".into(), since, release_by: None, until: None };
    scene.night.parts.store.control(ControlChange::Freeze(freeze, Vec::new()), since).await.unwrap();
    let other: &[(&str, &str)] = &[("alertname", "GpuXid"), ("xid", "48"), ("node", "gpu-3"), ("gpu", "0")];
    assert_eq!(scene.alert("firing", other).await, 200);
    scene.night.settle().await;
    assert_eq!(scene.post("/api/v1/rules/repair/demote", ADMIN, json!({ "why": "to see" })).await, 200);
    std::fs::write(scene.night.path().join("rules/bad.yaml"), "rules: [").unwrap();
    nightshift::engine::reload(&scene.night.parts).await;
}

/// The journal and the ledger are changed under the engine's feet, as by somebody with the file in hand.
async fn damage(scene: &mut Scene) {
    let unfreeze = ControlChange::Unfreeze { scope: "all".into(), by: "ana".into(), why: "go on".into(), persons: 1 };
    scene.night.parts.store.control(unfreeze, scene.night.now()).await.unwrap();
    let run = scene.night.start("mend", nightshift::model::Mode::Auto, json!({ "node": "gpu-4" })).await;
    let claimed = scene.night.parts.store.claim(run, scene.night.now()).await.unwrap().unwrap();
    let proposal = crate::store::fixtures::cordon(&claimed, "gpu-4");
    let limits = crate::store::fixtures::guards();
    scene.night.parts.store.begin(proposal, limits, scene.night.now()).await.unwrap();
    // Its answer never came: the next turn settles it.
    scene.night.settle().await;
    let sql = "UPDATE step SET call = json_set(call, '$.action', 'k8s::uncordon') WHERE run = ?1 AND no = 0";
    assert_eq!(scene.database().execute(sql, [run.0]).unwrap(), 1);
    let run = scene.night.until_rest(run, MINUTE * 3).await;
    assert!(matches!(run.state, RunState::Stuck { .. }), "{run:?}");

    let mut check = LedgerCheck::default();
    let key = scene.night.parts.key.clone();
    scene.scrape().await;
    let newest = scene.night.parts.store.checkpoint(key, scene.night.now()).await.unwrap();
    check.pass(&scene.night.parts, newest.as_ref()).await;
    assert!(!scene.scrape().await.contains("nightshift_audit_verify_failures_total 1"), "a whole ledger is no damage");
    let sql = "UPDATE entry SET body = CAST(replace(CAST(body AS TEXT), 'gpu-2', 'gpu-1') AS BLOB) \
               WHERE kind = 'incident_opened'";
    let database = scene.database();
    database.execute_batch("DROP TRIGGER entry_is_never_changed").unwrap();
    assert!(database.execute(sql, []).unwrap() > 0);
    check.pass(&scene.night.parts, newest.as_ref()).await;
    assert!(scene.scrape().await.contains("nightshift_audit_verify_failures_total 1"));
}

#[tokio::test]
async fn every_documented_metric_moves_in_a_scenario_or_says_which_test_moves_it() {
    let mut scene = Scene::set().await;
    events_in(&mut scene).await;
    a_run_and_its_review(&mut scene).await;
    scene.scrape().await;
    a_question_a_freeze_and_a_demotion(&mut scene).await;
    scene.scrape().await;
    damage(&mut scene).await;
    scene.scrape().await;
    let unmoved = TABLE.iter().filter(|metric| !scene.moved.contains(metric.name));
    let dead: Vec<&str> = unmoved.filter(|metric| metric.moved_in.is_empty()).map(|metric| metric.name).collect();
    assert_eq!(dead, [""; 0], "wire these metrics, delete them, or name the test that moves them");
    for (metric, (file, words)) in TABLE.iter().flat_map(|metric| metric.moved_in.iter().map(move |by| (metric, by))) {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(text.contains(words), "{}: {file} has no `{words}`", metric.name);
    }
}

#[tokio::test]
async fn every_end_of_a_run_is_counted_whoever_ended_it() {
    let mut scene = Scene::set().await;
    let ask: &[(&str, &str)] = &[("alertname", "Ask"), ("node", "gpu-1")];
    for (status, labels) in [("firing", XID), ("firing", ask)] {
        assert_eq!(scene.alert(status, labels).await, 200);
    }
    scene.night.settle().await;
    let runs = scene.night.runs().await;
    let [repair, asks] = runs.as_slice() else { panic!("{runs:?}") };
    let cancel = ControlChange::Cancel { run: repair.id, by: "ana".into(), why: "enough".into() };
    scene.night.parts.store.control(cancel, scene.night.now()).await.unwrap();
    let open = Filter { open: true, limit: 10, ..Filter::default() };
    let approval = scene.night.parts.store.approvals(open).await.unwrap().remove(0);
    assert_eq!(approval.run, asks.id);
    scene.night.parts.store.decide(approval.id, false, "ana", "no", scene.night.now()).await.unwrap();
    let page = scene.scrape().await;
    for state in ["cancelled", "denied"] {
        assert!(page.contains(&format!("nightshift_runs_ended_total{{state=\"{state}\"}} 1")), "{page}");
    }
    assert!(page.contains("nightshift_runs_ended_total{state=\"stuck\"} 0"), "there before the first one");
}

#[tokio::test]
async fn the_page_is_sent_in_the_format_that_the_client_asks_for_and_promtool_accepts_it() {
    let mut scene = Scene::set().await;
    events_in(&mut scene).await;
    a_run_and_its_review(&mut scene).await;
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    let (_, kind, page) = scene.ask("GET", "/metrics", VIEWER, prometheus, Value::Null).await;
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0") && page.ends_with("# EOF\n"), "{kind}");
    for accept in ["*/*", "text/html", "text/plain;version=0.0.4"] {
        let (_, kind, page) = scene.ask("GET", "/metrics", VIEWER, accept, Value::Null).await;
        assert!(kind.starts_with("text/plain; version=0.0.4") && !page.contains("# EOF"), "{accept}: {kind}");
    }
    let page = scene.scrape().await;
    let mut promtool = Command::new(crate::harness::tool("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
