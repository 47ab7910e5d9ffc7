//! What went wrong at peers, tried here: one test, or more, for each class of hole that became a CVE of theirs.
//!
//! Invariant: `tests/peers.txt` names them all; where another story shows it already, the list points there.

use crate::harness::secret;
use crate::night::Night;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use nightshift::config::Role;
use nightshift::server::{App, ConfiguredTokens, GivenToken, router};
use serde_json::{Value, json};
use std::path::Path;
use tower::ServiceExt;

/// Everything that the API changes, with a body that would do for an operator.
const CHANGES: [(&str, &str); 14] = [
    ("/api/v1/incidents/i1/ack", "{}"),
    ("/api/v1/incidents/i1/assign", r#"{"to":"me"}"#),
    ("/api/v1/incidents/i1/silence", r#"{"lasts":"2h","why":"x"}"#),
    ("/api/v1/runs", r#"{"runbook":"cordon","params":{"node":"gpu-1"}}"#),
    ("/api/v1/runs/r1/cancel", r#"{"why":"x"}"#),
    ("/api/v1/simulate", r#"{"runbook":"cordon","params":{"node":"gpu-1"}}"#),
    ("/api/v1/approvals/a1", r#"{"approve":true}"#),
    ("/api/v1/breakers/reset", r#"{"scope":"rule:r","why":"x"}"#),
    ("/api/v1/freezes", r#"{"scope":"all","why":"x"}"#),
    ("/api/v1/unfreeze", r#"{"scope":"all","why":"x"}"#),
    ("/api/v1/agents/join-tokens", "{}"),
    ("/api/v1/agents/gpu-1/remove", r#"{"why":"x"}"#),
    ("/api/v1/audit/redact", r#"{"entry":"1","why":"x"}"#),
    ("/in/alertmanager/test", "{}"),
];

const CORDON: &str =
    "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n\nk8s::cordon(node, \"test\");\n";

struct Door {
    night: Night,
    router: Router,
}

impl Door {
    async fn open() -> Door {
        let night = Night::fall("rules: []", &[("cordon", CORDON)]).await;
        let token = |name: &str, role, sources: &[&str]| GivenToken {
            name: name.into(),
            role,
            sources: sources.iter().map(|source| (*source).to_owned()).collect(),
            clusters: None,
            text: secret(name),
        };
        let tokens = vec![
            token("vic", Role::Viewer, &[]),
            token("oli", Role::Operator, &[]),
            token("other", Role::Source, &["elsewhere"]),
        ];
        let router = router(App::new(night.parts.clone(), ConfiguredTokens::new(tokens).unwrap()));
        Door { night, router }
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 22).await.unwrap();
        Answer { status: head.status, headers: head.headers, body: String::from_utf8_lossy(&bytes).into_owned() }
    }
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: String,
}

#[tokio::test]
async fn no_page_of_another_origin_is_let_in() {
    let door = Door::open().await;
    for origin in ["null", "https://evil.example", "http://127.0.0.1:7676"] {
        let asked = [("origin", origin), ("access-control-request-method", "POST")];
        for (method, path) in [("OPTIONS", "/api/v1/runs"), ("GET", "/api/v1/status"), ("POST", "/api/v1/freezes")] {
            let answer = door.ask(method, path, Some(&secret("oli")), r#"{"scope":"all","why":"x"}"#, &asked).await;
            let told: Vec<&str> = answer
                .headers
                .keys()
                .map(|name| name.as_str())
                .filter(|name| name.starts_with("access-control"))
                .collect();
            assert!(told.is_empty(), "{origin} {method} {path}: {told:?}");
        }
    }
    let answer = door.ask("GET", "/api/v1/status", Some(&secret("vic")), "", &[]).await;
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert!(answer.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("application/json"));
}

#[tokio::test]
async fn nothing_is_changed_without_a_token_or_by_one_that_only_reads() {
    let door = Door::open().await;
    let before = door.night.entries().await.len();
    for (path, body) in CHANGES {
        for (token, status) in [
            (None, StatusCode::UNAUTHORIZED),
            (Some(""), StatusCode::UNAUTHORIZED),
            (Some("0"), StatusCode::UNAUTHORIZED),
            (Some(secret("vic").as_str()), StatusCode::FORBIDDEN),
            (Some(secret("other").as_str()), StatusCode::FORBIDDEN),
        ] {
            let answer = door.ask("POST", path, token, body, &[]).await;
            assert_eq!(answer.status, status, "{path} {token:?}: {}", answer.body);
        }
    }
    // But for the refusals themselves: one a kind, however often.
    let after = door.night.entries().await;
    assert_eq!(after.iter().filter(|entry| entry.kind.name() != "refused").count(), before);
    // Two callers are known.
    assert!(after.len() - before <= 2 * nightshift::limits::WITNESS_KINDS, "{} entries", after.len() - before);
    // Nor is there a door for whoever comes first.
    for path in ["/setup", "/install", "/api/v1/install", "/api/v1/bootstrap", "/api/v1/tokens", "/debug/pprof"] {
        for method in ["GET", "POST"] {
            let answer = door.ask(method, path, None, "{}", &[]).await;
            assert!(matches!(answer.status.as_u16(), 401 | 404 | 405), "{method} {path}: {}", answer.status);
        }
    }
    // The page to sign in at is there for everybody, and lets nobody in who shows nothing.
    let answer = door.ask("POST", "/login", None, "{}", &[]).await;
    assert!(answer.status.is_client_error() && !answer.headers.contains_key(header::SET_COOKIE), "{}", answer.status);
}

#[tokio::test]
async fn who_asks_is_said_by_the_token_and_by_nothing_in_the_request() {
    let door = Door::open().await;
    let vic = secret("vic");
    let claims = [
        ("x-forwarded-user", "oli"),
        ("x-remote-user", "oli"),
        ("x-nightshift-role", "admin"),
        ("cookie", "role=admin"),
    ];
    let paths = ["/api/v1/freezes?user=oli", "/api/v1/freezes?scope=all&role=admin", "/api/v1/freezes?token=x"];
    for path in paths {
        let answer = door.ask("POST", path, Some(&vic), r#"{"scope":"all","why":"x"}"#, &claims).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}: {}", answer.body);
    }
    // Words in the body that would name another user are refused, not believed.
    let body = r#"{"scope":"all","why":"x","by":"admin"}"#;
    assert_eq!(
        door.ask("POST", "/api/v1/freezes", Some(&secret("oli")), body, &[]).await.status,
        StatusCode::BAD_REQUEST
    );
    assert!(door.night.parts.store.freezes().await.unwrap().is_empty());
}

#[tokio::test]
async fn no_answer_gives_a_token_away() {
    let door = Door::open().await;
    for path in
        ["status", "incidents", "runs", "runbooks", "rules", "approvals", "entries", "guards", "freezes", "agents"]
    {
        let answer = door.ask("GET", &format!("/api/v1/{path}"), Some(&secret("vic")), "", &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        for name in ["vic", "oli", "other"] {
            assert!(!answer.body.contains(&secret(name)), "{path} shows the token of {name}");
        }
    }
}

#[tokio::test]
async fn a_thousand_askers_at_once_are_each_themselves() {
    let door = Door::open().await;
    let (vic, oli, wrong) = (secret("vic"), secret("oli"), secret("mal"));
    let asks = (0..1_000).map(|at| {
        let token = [&vic, &oli, &wrong][at % 3].clone();
        let door = &door;
        async move {
            let body = json!({ "runbook": "no-such-thing", "params": {} }).to_string();
            (at % 3, door.ask("POST", "/api/v1/runs", Some(&token), &body, &[]).await.status)
        }
    });
    for (who, status) in futures::future::join_all(asks).await {
        let expected = [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::UNAUTHORIZED][who];
        assert_eq!(status, expected, "of {}", ["vic", "oli", "nobody"][who]);
    }
}

#[test]
fn no_right_on_the_cluster_reaches_into_a_container_or_a_secret() {
    for (right, why) in nightshift::actions::rights(|_| true) {
        let far = ["nodes/proxy", "pods/exec", "pods/attach", "pods/portforward", "secrets", "serviceaccounts/token"];
        assert!(!far.contains(&right.resource), "{} {}: {why:?}", right.verb, right.resource);
        assert!(right.resource != "*" && right.verb != "*" && right.group != "*", "{right:?}: {why:?}");
        assert!(!(right.resource == "pods" && right.verb == "create"), "a pod of ours could be privileged: {why:?}");
    }
}

#[tokio::test]
async fn a_name_of_any_script_costs_one_bounded_line() {
    let door = Door::open().await;
    for name in ["ﬁ\u{202e}evil", "\u{0}\n\r\u{1b}[31m", "🔥".repeat(2_000).as_str(), "Ⅷ\u{0301}".repeat(500).as_str()]
    {
        let path = format!(
            "/api/v1/why?subject={}",
            url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>()
        );
        let answer = door.ask("GET", &path, Some(&secret("vic")), "", &[]).await;
        assert!(matches!(answer.status.as_u16(), 400 | 404 | 414 | 431), "{}: {}", answer.status, answer.body);
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        assert!(said["error"].is_string() && answer.body.len() < 64 * 1024, "{} bytes", answer.body.len());
    }
}

/// Each class of hole has its line, and each line a test that exists.
#[test]
fn every_hole_of_a_peer_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    let mut folders = vec![root.join("src"), root.join("crates"), root.join("tests/it")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|end| end == "rs") => {
                    code.push_str(&std::fs::read_to_string(path).unwrap());
                }
                _ => {}
            }
        }
    }
    let list = std::fs::read_to_string(root.join("tests/peers.txt")).unwrap();
    let lines: Vec<&str> = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert!(lines.len() >= 24, "{} lines", lines.len());
    for line in lines {
        let (_, tests) = line.split_once(" | ").unwrap_or_else(|| panic!("no tests in: {line}"));
        for test in tests.split_whitespace() {
            assert!(code.contains(&format!("fn {test}(")), "{line}: there is no test {test}");
        }
    }
}
