//! Who an agent is: what was taken away stays away, no agent takes a place that is taken, and of two holders of one identity
//! the one with the older certificate is refused. The listener's handshake is left out: what it proves is put beside the
//! request.

use crate::night::Night;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use nightshift::model::{AGENT_ALERTS, AgentName, AgentStatus, RunState};
use nightshift::server::agents::{
    AgentAuthority, AgentCertificate, AgentEndpoint, PeerCertificate, join_route, routes,
};
use nightshift::server::{App, ConfiguredTokens};
use nightshift::store::{AgentProof, Filter, JoinToken, NewAgent, Store};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

struct Stage {
    night: Night,
    router: Router,
    api: Router,
}

impl Stage {
    async fn begin() -> Stage {
        Stage::with("rules: []\n", &[]).await
    }

    async fn with(rules: &str, runbooks: &[(&str, &str)]) -> Stage {
        let night = Night::fall(rules, runbooks).await;
        let authority = AgentAuthority::open_or_create(night.path(), "test", night.now()).unwrap();
        let app = App::new(night.parts.clone(), ConfiguredTokens::default())
            .with_agents(AgentEndpoint::new(Some(Arc::new(authority))));
        let router = routes().merge(join_route()).with_state(app.clone());
        Stage { api: nightshift::server::router(app), night, router }
    }

    fn store(&self) -> &Arc<dyn Store> {
        &self.night.parts.store
    }

    /// A request, by a certificate where one is shown.
    async fn ask(&self, path: &str, shown: Option<&AgentCertificate>, body: Body) -> (StatusCode, Value) {
        let mut request = Request::post(format!("/agent/v1/{path}")).header("content-type", "application/json");
        if let Some(shown) = shown {
            request = request.extension(PeerCertificate(Some(shown.clone())));
        }
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = answer.status();
        let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn report(&self, shown: &AgentCertificate) -> StatusCode {
        let body = json!({ "standing": { "boot": "b", "spool": "s" }, "reports": [] });
        self.ask("reports", Some(shown), Body::from(body.to_string())).await.0
    }

    /// A join token as an admin makes it, kept by its hash.
    async fn token(&self, text: &str, node: Option<&str>) {
        let token = JoinToken {
            hash: hash(text),
            cluster: None,
            node: node.map(str::to_owned),
            by: "ann".to_owned(),
            made_with: None,
            expires_at: self.night.now() + Duration::from_secs(900),
        };
        self.store().join_token(token, self.night.now()).await.unwrap();
    }

    /// What the engine says to a request to join, and the certificate's words.
    async fn join(&self, token: &str, node: &str) -> Result<AgentCertificate, (StatusCode, String)> {
        let body = json!({ "token": token, "node": node, "request": request() });
        let (status, said) = self.ask("join", None, Body::from(body.to_string())).await;
        match status {
            StatusCode::OK => Ok(words(said["certificate"].as_str().unwrap())),
            refused => Err((refused, said["error"].as_str().unwrap_or_default().to_owned())),
        }
    }

    async fn renew(&self, shown: &AgentCertificate) -> Result<AgentCertificate, StatusCode> {
        let (status, said) =
            self.ask("renew", Some(shown), Body::from(json!({ "request": request() }).to_string())).await;
        if status == StatusCode::OK { Ok(words(said["certificate"].as_str().unwrap())) } else { Err(status) }
    }

    async fn kinds(&self, kind: &'static str) -> usize {
        let filter = Filter { after: Some(-1), limit: 1_000, kinds: vec![kind], ..Filter::default() };
        self.store().entries(filter).await.unwrap().len()
    }

    async fn open(&self, title: &str) -> usize {
        let filter = Filter { open: true, limit: 100, ..Filter::default() };
        self.store().incidents(filter).await.unwrap().iter().filter(|one| one.title.contains(title)).count()
    }
}

fn hash(token: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn request() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new(Vec::new()).unwrap().serialize_request(&key).unwrap().pem().unwrap()
}

/// As the handshake reads a certificate.
fn words(pem: &str) -> AgentCertificate {
    let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let parsed = parsed.parse_x509().unwrap();
    let node = parsed.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
    let word = parsed.subject().iter_organizational_unit().next().unwrap().as_str().unwrap().to_owned();
    let (family, generation) = word.split_once('.').unwrap();
    AgentCertificate {
        name: AgentName::new("", &node),
        family: family.to_owned(),
        generation: generation.parse().unwrap(),
    }
}

#[tokio::test]
async fn an_agent_that_is_removed_between_head_and_body_stays_removed() {
    let stage = Stage::begin().await;
    stage.token("t1", None).await;
    let shown = stage.join("t1", "gpu-1").await.unwrap();
    assert_eq!(stage.report(&shown).await, StatusCode::OK);
    let (store, now) = (Arc::clone(stage.store()), stage.night.now());
    let standing = serde_json::to_vec(&AgentStatus::default()).unwrap();
    // The sender is known; its body arrives only after an admin has removed the agent.
    let late = futures::stream::once(async move {
        store.agent_remove(&AgentName::from("gpu-1"), "ann", "stolen", now).await.unwrap();
        Ok::<_, std::convert::Infallible>(standing)
    });
    let (status, said) = stage.ask("poll", Some(&shown), Body::from_stream(late)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{said}");
    assert!(said["error"].as_str().unwrap().contains("was revoked"), "{said}");
    assert_eq!(stage.store().agents().await.unwrap(), []);
    assert_eq!(stage.report(&shown).await, StatusCode::UNAUTHORIZED);
    assert_eq!(stage.renew(&shown).await, Err(StatusCode::UNAUTHORIZED));
    // The write of each minute does not bring it back either, and says why.
    let agent = NewAgent {
        name: shown.name.clone(),
        how: AgentProof::Certificate,
        family: shown.family.clone(),
        generation: shown.generation,
    };
    let why = stage.store().agent_seen(agent, AgentStatus::default(), now).await.unwrap_err().to_string();
    assert!(why.contains("was revoked at") && why.contains("stolen"), "{why}");
}

#[tokio::test]
async fn the_certificate_of_a_removed_agent_that_comes_again_is_an_entry_once_and_then_a_number() {
    let stage = Stage::begin().await;
    stage.token("t1", None).await;
    let shown = stage.join("t1", "gpu-1").await.unwrap();
    let now = stage.night.now();
    stage.store().agent_remove(&AgentName::from("gpu-1"), "ann", "sold", now).await.unwrap();
    for _ in 0..20 {
        assert_eq!(stage.report(&shown).await, StatusCode::UNAUTHORIZED);
    }
    let lines = async || -> Vec<String> {
        let entries = stage.night.entries().await;
        let refused = entries.iter().filter(|entry| entry.kind.name() == "refused");
        refused.map(|entry| nightshift::engine::story::line(entry).unwrap().text).collect()
    };
    let told = lines().await;
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].starts_with("denied for agent gpu-1: ") && told[0].contains("was revoked"), "{told:#?}");
    stage.night.pass(nightshift::limits::WITNESS_WINDOW).await;
    crate::harness::eventually("the rest as a number", async || {
        lines().await.iter().any(|line| line.contains("19 more times")).then_some(())
    })
    .await;
    // The next window has an entry of its own.
    assert_eq!(stage.report(&shown).await, StatusCode::UNAUTHORIZED);
    assert_eq!(lines().await.len(), 3);
}

#[tokio::test]
async fn each_refused_try_to_join_waits_in_one_of_a_few_places_and_a_good_one_does_not() {
    let stage = Stage::begin().await;
    stage.token("good", None).await;
    let begun = std::time::Instant::now();
    stage.join("good", "gpu-1").await.unwrap();
    assert!(begun.elapsed() < nightshift::limits::AGENT_JOIN_PAUSE, "{:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    let tries = (0..nightshift::limits::AGENT_JOINS_AT_ONCE + 1).map(|_| stage.join("guessed", "gpu-2"));
    for refused in futures::future::join_all(tries).await {
        assert_eq!(refused.unwrap_err().0, StatusCode::FORBIDDEN);
    }
    // One more than there are places: the last one waits for a place, and then as long as the others.
    assert!(begun.elapsed() >= 2 * nightshift::limits::AGENT_JOIN_PAUSE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_join_token_for_any_node_takes_no_place_that_is_taken_and_names_nodes_that_are_there() {
    let stage = Stage::begin().await;
    let inside =
        NewAgent { name: AgentName::from("gpu-1"), how: AgentProof::Inside, family: String::new(), generation: 0 };
    let now = stage.night.now();
    stage.store().agent_seen(inside.clone(), AgentStatus::default(), now).await.unwrap();
    stage.token("any", None).await;
    let (status, why) = stage.join("any", "gpu-1").await.unwrap_err();
    assert!(status == StatusCode::FORBIDDEN && why.contains("has an agent already"), "{status} {why}");
    let (status, why) = stage.join("any", "no-such-node").await.unwrap_err();
    assert!(status == StatusCode::FORBIDDEN && why.contains("has no node no-such-node"), "{status} {why}");
    // The refusals did not use it up.
    let joined = stage.join("any", "gpu-2").await.unwrap();
    // One that names the node replaces the agent there, and the agent that was there does not come back by speaking.
    stage.token("bound", Some("gpu-1")).await;
    stage.join("bound", "gpu-1").await.unwrap();
    let why = stage.store().agent_seen(inside, AgentStatus::default(), now).await.unwrap_err().to_string();
    assert!(why.contains("agents remove gpu-1"), "{why}");
    let rows = stage.store().agents().await.unwrap();
    assert!(rows.iter().all(|row| row.how == AgentProof::Certificate), "{rows:?}");
    assert_eq!(stage.report(&joined).await, StatusCode::OK);
}

#[tokio::test]
async fn an_older_certificate_that_is_shown_after_a_newer_one_is_refused_and_an_incident() {
    let stage = Stage::begin().await;
    stage.token("t1", None).await;
    assert_eq!(stage.kinds("agent_token_made").await, 1);
    let first = stage.join("t1", "gpu-1").await.unwrap();
    assert_eq!((first.generation, stage.report(&first).await), (1, StatusCode::OK));
    let second = stage.renew(&first).await.unwrap();
    assert_eq!((second.generation, stage.kinds("agent_renewed").await), (2, 1));
    assert_eq!(stage.renew(&first).await, Err(StatusCode::TOO_MANY_REQUESTS), "the ledger is not filled by renewals");
    // The new one was lost on its way: the old one is good as long as nothing newer was shown.
    stage.night.pass(Duration::from_secs(3_600)).await;
    assert_eq!(stage.report(&first).await, StatusCode::OK);
    assert_eq!(stage.report(&second).await, StatusCode::OK);
    assert_eq!(stage.report(&first).await, StatusCode::OK, "what was on its way when the new one came");
    stage.night.pass(Duration::from_secs(180)).await;
    assert_eq!(stage.report(&second).await, StatusCode::OK);
    for _ in 0..3 {
        assert_eq!(stage.report(&first).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(stage.renew(&first).await, Err(StatusCode::UNAUTHORIZED));
    assert_eq!(stage.open("two senders use the identity").await, 1);
    assert_eq!(stage.report(&second).await, StatusCode::OK, "the newest one goes on");
}

#[tokio::test]
async fn a_request_to_join_is_small_and_its_token_is_looked_at_first() {
    let stage = Stage::begin().await;
    let large = json!({ "token": "x".repeat(20_000), "node": "gpu-1", "request": "" });
    let (status, _) = stage.ask("join", None, Body::from(large.to_string())).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let nonsense = json!({ "token": "unknown", "node": "gpu-1", "request": "no request at all" });
    let (status, said) = stage.ask("join", None, Body::from(nonsense.to_string())).await;
    assert!(
        status == StatusCode::FORBIDDEN && said["error"].to_string().contains("unknown join token"),
        "{status} {said}"
    );
    // The listener for people has no such route: no body is read there.
    let request = Request::post("/agent/v1/join").body(Body::from(nonsense.to_string())).unwrap();
    assert_eq!(stage.api.clone().oneshot(request).await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn there_are_only_so_many_open_join_tokens() {
    let stage = Stage::begin().await;
    for number in 0..nightshift::limits::JOIN_TOKENS {
        stage.token(&format!("t{number}"), None).await;
    }
    let one_more = JoinToken {
        hash: hash("one more"),
        cluster: None,
        node: None,
        by: "ann".to_owned(),
        made_with: None,
        expires_at: stage.night.now() + Duration::from_secs(900),
    };
    let refused = stage.store().join_token(one_more.clone(), stage.night.now()).await.unwrap_err().to_string();
    assert!(refused.contains("1000 join tokens are open"), "{refused}");
    stage.night.pass(Duration::from_secs(1_000)).await;
    let later = JoinToken { expires_at: stage.night.now() + Duration::from_secs(900), ..one_more };
    stage.store().join_token(later, stage.night.now()).await.unwrap();
}

#[tokio::test]
async fn what_a_report_says_of_its_agent_is_cleaned_before_it_is_kept() {
    let stage = Stage::begin().await;
    stage.token("t1", None).await;
    let shown = stage.join("t1", "gpu-1").await.unwrap();
    let spool = format!("\u{1b}[2J{}", "s".repeat(200_000));
    let finding = json!({
        "complaint": "c", "status": "firing", "at": "2026-11-23T03:00:00Z", "severity": "critical", "summary": "s",
        "labels": { "alertname": "GpuXid", "xid": "79" },
    });
    let reports = json!({ "standing": { "boot": "b", "spool": spool }, "reports": [{ "no": 5, "finding": finding }] });
    let (status, said) = stage.ask("reports", Some(&shown), Body::from(reports.to_string())).await;
    assert_eq!((status, &said["upto"]), (StatusCode::OK, &json!(5)));
    let filter = Filter { after: Some(-1), limit: 10, kinds: vec!["gap"], ..Filter::default() };
    let gaps = stage.store().entries(filter).await.unwrap();
    let text = serde_json::to_string(&gaps).unwrap();
    assert!(gaps.len() == 1 && text.len() < 2_000 && !text.contains("\\u001b"), "{} bytes", text.len());
}

const CORDON: &str = "//! Cordons.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\n\
                      k8s::cordon(node, \"a test\");\n";

#[tokio::test]
async fn an_agents_alert_starts_nothing_on_another_node() {
    // The rule's own mistake, or a label that it trusts: the run would act on gpu-2 for what gpu-1 reports.
    let rules = "rules:\n  - name: elsewhere\n    when: ['alertname=\"GpuXid\"', 'xid=\"79\"']\n    run: cordon\n    mode: auto\n    \
                 with: { node: gpu-2 }\n  - name: own\n    when: ['alertname=\"GpuLost\"']\n    run: cordon\n    mode: auto\n  \
                 - name: engine\n    when: ['alertname=\"InferenceNoProgress\"']\n    run: cordon\n    mode: auto\n";
    let stage = Stage::with(rules, &[("cordon", CORDON)]).await;
    stage.token("t1", None).await;
    let shown = stage.join("t1", "gpu-1").await.unwrap();
    let report = async |no: u64, labels: Value| {
        let finding = json!({
            "complaint": format!("c{no}"), "status": "firing", "at": "2026-11-23T03:00:00Z", "severity": "critical",
            "summary": "s", "labels": labels,
        });
        let reports =
            json!({ "standing": { "boot": "b", "spool": "s" }, "reports": [{ "no": no, "finding": finding }] });
        let (status, said) = stage.ask("reports", Some(&shown), Body::from(reports.to_string())).await;
        assert_eq!((status, &said["upto"]), (StatusCode::OK, &json!(no)));
        stage.night.settle().await;
    };
    let workload = json!({
        "alertname": "InferenceNoProgress", "engine": "vllm", "namespace": "inference", "pod": "p", "deployment": "llama-70b",
    });
    report(1, workload).await;
    assert_eq!(stage.night.runs().await.len(), 0, "an alert that no agent reports");
    report(2, json!({ "alertname": "GpuXid", "xid": "79", "node": "gpu-2" })).await;
    let runs = stage.night.runs().await;
    let RunState::Denied { reason } = &runs[0].state else { panic!("{:?}", runs[0].state) };
    assert!(reason.to_string().contains("an agent's alert is about its own node gpu-1 alone"), "{reason}");
    assert!(stage.night.effects().is_empty(), "{:?}", stage.night.effects());
    report(3, json!({ "alertname": "GpuLost" })).await;
    let effects: Vec<_> = stage.night.effects().into_iter().collect();
    assert_eq!(effects, [("patch nodes gpu-1".to_owned(), 1)]);
}

#[test]
fn the_vocabulary_of_agents_holds_every_alert_that_the_watchers_report() {
    let page = nightshift::node::findings_page();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let names: Vec<&str> =
        rows.filter_map(|row| row.split('|').nth(2)).map(|name| name.trim().trim_matches('`')).collect();
    assert!(names.len() > 30, "{names:?}");
    let unknown: Vec<_> = names.iter().filter(|name| !AGENT_ALERTS.contains(name)).collect();
    assert!(unknown.is_empty(), "an engine would leave these out: {unknown:?}");
}
