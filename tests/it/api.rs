//! The API as its document describes it: routes, types, problems, pages of lists.
//!
//! Invariant: the running server is asked, not the code that made the document.

mod schemathesis;
mod shapes;

use crate::harness::secret;
use crate::night::Night;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use nightshift::config::Role;
use nightshift::model::Mode;
use nightshift::server::{App, GivenToken, Tokens, gates, openapi, router};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tower::ServiceExt;

const CORDON: &str =
    "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! reach: node\n\nk8s::cordon(node, \"test\");\n";

struct Api {
    night: Night,
    router: Router,
}

struct Answer {
    status: StatusCode,
    kind: String,
    body: Value,
}

impl Api {
    async fn open() -> Api {
        let night = Night::fall("rules: []", &[("cordon", CORDON)]).await;
        let token = |name: &str, role| GivenToken {
            name: name.into(),
            role,
            sources: Vec::new(),
            clusters: None,
            text: secret(name),
        };
        let tokens = vec![token("vic", Role::Viewer), token("ada", Role::Admin), token("kim", Role::Auditor)];
        let router = router(App::new(night.parts.clone(), Tokens::new(tokens).unwrap()));
        Api { night, router }
    }

    async fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", secret(token)));
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        Answer {
            status: head.status,
            kind: head.headers[header::CONTENT_TYPE].to_str().unwrap().to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }

    async fn get(&self, path: &str) -> Value {
        let token = if path.starts_with("audit") || path == "tokens" || path == "sessions" { "kim" } else { "vic" };
        let answer = self.ask("GET", &format!("/api/v1/{path}"), token, &Value::Null).await;
        assert_eq!(
            (answer.status, answer.kind.as_str()),
            (StatusCode::OK, "application/json"),
            "{path}: {}",
            answer.body
        );
        answer.body
    }
}

#[test]
fn every_route_of_the_api_is_in_the_document_and_every_path_of_the_document_is_a_route() {
    let routes: BTreeSet<String> = gates()
        .iter()
        .filter(|(_, path, _)| path.starts_with("/api/v1/"))
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    let paths = openapi()["paths"].as_object().unwrap();
    let described: BTreeSet<String> = paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}")))
        .collect();
    assert_eq!(routes, described);
    assert!(routes.len() >= 46, "{}", routes.len());
    let mut names = BTreeSet::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let named = |key: &str| operation[key].as_str().is_some_and(|text| !text.is_empty());
            assert!(named("summary") && named("description"), "{method} {path}");
            assert!(!operation["x-roles"].as_array().unwrap().is_empty(), "{method} {path}");
            assert!(names.insert(operation["operationId"].as_str().unwrap()), "{method} {path}: two have one name");
            let answers: Vec<&String> = operation["responses"].as_object().unwrap().keys().collect();
            assert!(["401", "403", "500", "503"].iter().all(|status| answers.iter().any(|known| known == status)));
            for place in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                let mut parameters = operation["parameters"].as_array().unwrap().iter();
                assert!(parameters.any(|one| one["name"] == place && one["in"] == "path"), "{method} {path}: {place}");
            }
        }
    }
}

#[tokio::test]
async fn a_running_engine_serves_its_document_to_who_may_read() {
    let api = Api::open().await;
    assert_eq!(api.get("openapi.json").await, *openapi());
    let answer = api.ask("GET", "/api/v1/openapi.json", "", &Value::Null).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_error_is_a_problem_with_the_keys_of_before() {
    let api = Api::open().await;
    let null = Value::Null;
    let cases = [
        ("GET", "/api/v1/incidents/i9", "vic", null.clone(), 404, "Not Found"),
        ("GET", "/api/v1/incidents?limit=many", "vic", null.clone(), 400, "Bad Request"),
        ("GET", "/api/v1/status", "", null.clone(), 401, "Unauthorized"),
        ("POST", "/api/v1/freezes", "vic", json!({ "scope": "all", "why": "x" }), 403, "Forbidden"),
        ("POST", "/api/v1/freezes", "ada", json!({ "scope": "all" }), 400, "Bad Request"),
        ("POST", "/api/v1/freezes", "ada", json!({ "scop": "all" }), 400, "Bad Request"),
        ("DELETE", "/api/v1/freezes", "ada", null.clone(), 405, "Method Not Allowed"),
        ("GET", "/api/v1/nothing", "ada", null.clone(), 404, "Not Found"),
        ("POST", "/in/alertmanager/nowhere", "ada", json!({}), 404, "Not Found"),
    ];
    for (method, path, token, body, status, title) in cases {
        let answer = api.ask(method, path, token, &body).await;
        let said = &answer.body;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {said}");
        assert_eq!(answer.kind, "application/problem+json", "{method} {path}");
        assert_eq!(
            (&said["type"], &said["title"], &said["status"]),
            (&json!("about:blank"), &json!(title), &json!(status))
        );
        assert!(!said["detail"].as_str().unwrap().is_empty() && !said["hint"].as_str().unwrap().is_empty(), "{said}");
        assert_eq!(said["error"], said["detail"], "the name of before stays for one release");
    }
}

/// Fires one alert on each of these nodes; each is an incident of its own.
async fn fire(api: &Api, nodes: std::ops::Range<usize>) {
    for node in nodes {
        let (name, node) = (format!("Alert{node}"), format!("n{node}"));
        api.night.hear("firing", &[("alertname", &name), ("node", &node), ("severity", "warning")]).await;
    }
}

/// All pages of a list by its cursors; `meanwhile` runs between two of them.
async fn walk(api: &Api, list: &str, query: &str, mut meanwhile: impl AsyncFnMut(usize)) -> Vec<String> {
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for page in 0..100 {
        let answer = api.get(&format!("{list}?limit=3{query}{cursor}")).await;
        let key = if list == "entries" { "no" } else { "id" };
        let rows = answer[list].as_array().unwrap();
        seen.extend(rows.iter().map(|row| row[key].as_str().unwrap().to_owned()));
        let Some(next) = answer["next"].as_str() else { return seen };
        cursor = format!("&cursor={next}");
        meanwhile(page).await;
    }
    panic!("{list} has no last page");
}

#[tokio::test]
async fn a_walk_by_cursor_meets_each_row_once_while_new_ones_arrive() {
    let api = Api::open().await;
    fire(&api, 0..10).await;
    for node in 0..7 {
        api.night.start("cordon", Mode::Observe, json!({ "node": format!("gpu-{node}") })).await;
    }
    let mut arrived = 10;
    for list in ["incidents", "runs", "entries"] {
        let all = api.get(&format!("{list}?limit=1000")).await;
        let key = if list == "entries" { "no" } else { "id" };
        let before: Vec<String> =
            all[list].as_array().unwrap().iter().map(|row| row[key].as_str().unwrap().to_owned()).collect();
        assert!(before.len() >= 7, "{list}");
        let walked = walk(&api, list, "", async |_| {
            fire(&api, arrived..arrived + 2).await;
            api.night.start("cordon", Mode::Observe, json!({ "node": "gpu-1" })).await;
            arrived += 2;
        })
        .await;
        assert_eq!(walked, before, "{list}: newest first, each once, none of those that came meanwhile");
    }
    // In ascending order a walk meets those that arrive, too, and each once.
    let walked = walk(&api, "incidents", "&after=0", async |page| {
        if page == 1 {
            fire(&api, arrived..arrived + 2).await;
        }
    })
    .await;
    let each: BTreeSet<&String> = walked.iter().collect();
    assert_eq!((walked.len(), each.len()), (arrived + 2, arrived + 2));
}

#[tokio::test]
async fn lists_are_filtered_and_a_wrong_value_names_the_right_ones() {
    let api = Api::open().await;
    fire(&api, 0..4).await;
    api.night.hear("firing", &[("alertname", "Bad"), ("node", "n1"), ("severity", "critical")]).await;
    let ids = async |path: &str, list: &str| api.get(path).await[list].as_array().unwrap().len();
    assert_eq!(ids("incidents?severity=critical", "incidents").await, 1);
    assert_eq!(ids("incidents?node=n1", "incidents").await, 1, "two alerts of one node are one incident");
    assert_eq!(ids("incidents?state=open&since=1h", "incidents").await, 4);
    assert_eq!(ids("incidents?state=resolved", "incidents").await, 0);
    let run = api.night.start("cordon", Mode::Approve, json!({ "node": "gpu-1" })).await;
    api.night.settle().await;
    assert_eq!(ids("approvals?state=open&node=gpu-1", "approvals").await, 1);
    assert_eq!(ids("approvals?state=denied", "approvals").await, 0);
    assert_eq!(ids("approvals?rule=other", "approvals").await, 0);
    assert_eq!(ids("runs?node=gpu-1&since=1h", "runs").await, 1);
    let of_run = ids(&format!("entries?run={run}"), "entries").await;
    assert!(of_run > 0);
    assert_eq!(ids("entries?node=gpu-1", "entries").await, of_run);
    assert_eq!(ids("entries?since=2030-01-01T00:00:00Z", "entries").await, 0);
    for (path, words) in [
        ("incidents?state=opn", "did you mean `open`?"),
        ("approvals?state=asking", "states: open, approved, denied, expired, void"),
        ("incidents?severity=awful", "lists take open"),
        ("runs?severity=error", "filters: state, node, rule, since"),
        ("entries?state=open", "filters: kind, node, rule, since"),
        ("incidents?kind=heard", "filters: state, severity, node, rule, since"),
        ("incidents?since=yesterday", "2h"),
        ("incidents?limit=-1", "lists take open"),
        ("incidents?cursor=17", "take `next` of the page before"),
        ("incidents?cursor=o-3", "take `next` of the page before"),
        ("incidents?colour=red", "lists take open"),
    ] {
        let answer = api.ask("GET", &format!("/api/v1/{path}"), "vic", &Value::Null).await;
        let hint = answer.body["hint"].as_str().unwrap_or_default();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(hint.contains(words), "{path}: {hint}");
    }
    // More than the bound is the bound: a client that asks for everything gets a page and the way to the next.
    assert_eq!(ids("incidents?limit=1000000", "incidents").await, 4);
}
