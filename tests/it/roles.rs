//! Who may what: each route asked with each role, scopes of clusters, one person by several ways, roles that are taken away.
//!
//! Invariant: what is allowed is what `docs/roles.md` says, no more and no less, and the server itself is asked.

use crate::harness::{Engine, Site, eventually, secret};
use crate::slack_in::Chat;
use axum::http::StatusCode;
use nightshift::config::{Config, PersonConfig, Role};
use nightshift::model::{Mode, RunState};
use nightshift::server::{ConfiguredTokens, GivenToken, PrincipalSet, RoutePolicy, gates};
use nightshift::world::KubeConfig;
use regex::Regex;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const SOURCES: &str = "sources:\n  prod: { kind: alertmanager }\n  lab: { kind: alertmanager }\n";

/// An engine with a token for each role, named as the role.
async fn open() -> (Site, Engine) {
    let site = Site::new(SOURCES, "rules: []", &[]);
    for role in Role::ALL {
        site.add_token(role.name(), role.name(), if role == Role::Source { ", sources: [prod]" } else { "" });
    }
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    (site, engine)
}

/// A path with something in each of its places.
fn filled(path: &str) -> String {
    let id = match path {
        path if path.contains("incidents/") => "i999",
        path if path.contains("runs/") => "r999",
        path if path.contains("approvals/") => "a999",
        _ => "999",
    };
    let path = path.replace("{kind}", "alertmanager").replace("{source}", "lab");
    Regex::new(r"\{\w+\}").unwrap().replace_all(&path, id).into_owned()
}

#[tokio::test]
async fn each_route_lets_in_exactly_the_roles_that_the_page_names() {
    let (_site, engine) = open().await;
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/roles.md")).unwrap();
    let api = page.split("## The HTTP API").nth(1).unwrap().split("##").next().unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let mut lines = api.lines().filter(|line| line.starts_with('|'));
    let roles = cells(lines.next().unwrap());
    assert_eq!(roles.len(), Role::ALL.len() + 1);
    let (mut asked, mut wrong) = (0, Vec::new());
    for row in lines.skip(1).map(cells) {
        let (method, path) = row[0].split_once(' ').unwrap();
        for (role, word) in roles.iter().zip(&row).skip(1) {
            let body = if method == "POST" { json!({}) } else { Value::Null };
            let (status, said) = engine.ask(method, &filled(path), Some(&secret(role)), &body).await;
            let fits = match word.as_str() {
                "yes" => !matches!(status, 401 | 403),
                "–" => status == 403 && said["hint"].is_string(),
                other => panic!("{other}"),
            };
            asked += 1;
            if !fits {
                wrong.push(format!("{method} {path} as {role}: the page says {word}, the server {status} {said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(asked >= 29 * Role::ALL.len(), "only {asked} questions");
}

/// The code of the server is read, so that a route which nobody wrote down is found.
#[test]
fn every_route_of_the_server_is_on_the_page() {
    // Joining is behind the agents' own listener alone, where no role is asked for.
    let elsewhere = ["/agent/v1/join"];
    let known: BTreeSet<&str> = gates().iter().map(|(_, path, _)| *path).chain(elsewhere).collect();
    let (one, table) = (
        Regex::new(r#"route\(\s*"([^"]+)""#).unwrap(),
        Regex::new(r#"(?:get|post|put|delete|patch)\s+"(/[^"]+)""#).unwrap(),
    );
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server")];
    folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server.rs"));
    let (mut seen, mut missing) = (BTreeSet::new(), BTreeSet::new());
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            folders.extend(std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for found in one.captures_iter(&text).chain(table.captures_iter(&text)) {
            seen.insert(found[1].to_owned());
            if !known.contains(&found[1]) {
                missing.insert(format!("{}: {} is in no table of src/server/gates.rs", path.display(), &found[1]));
            }
        }
    }
    assert!(seen.len() >= 40, "only {seen:?}");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[tokio::test]
async fn without_a_token_nothing_opens_and_no_setting_changes_that() {
    let bare = Site::new(SOURCES, "rules: []", &[]);
    let behind = Site::new(SOURCES, "rules: []", &[]);
    behind.edit(|config| config.replacen("server:\n", "server:\n  behind_tls: true\n", 1));
    for site in [bare, behind] {
        let engine = site.start(&[]).await.unwrap();
        for (method, path, gate) in gates() {
            let body = if method == "post" { json!({}) } else { Value::Null };
            for token in [None, Some("local"), Some("undefined"), Some("0")] {
                let (status, _) = engine.ask(&method.to_uppercase(), &filled(path), token, &body).await;
                let shut = match gate {
                    RoutePolicy::Anybody => status == 200,
                    RoutePolicy::SignIn => matches!(status, 200 | 403 | 404),
                    // A token in a header is no session: one is sent to sign in, and a form is not even read.
                    RoutePolicy::Session(_) if method == "get" => {
                        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
                        let page = client.build().unwrap().get(format!("{}{}", engine.url, filled(path)));
                        let answer = page.bearer_auth(token.unwrap_or_default()).send().await.unwrap();
                        answer.status() == 303 && answer.headers()["location"].to_str().unwrap().starts_with("/login?")
                    }
                    RoutePolicy::Session(_) => status == 403,
                    // Not set up here, which is said without looking at the request; and a join token is in the body.
                    RoutePolicy::Signed(..) => matches!(status, 401 | 404),
                    RoutePolicy::Agent if path.ends_with("join") => matches!(status, 400 | 403 | 409),
                    _ => status == 401,
                };
                assert!(shut, "{method} {path} with {token:?}: {status}");
            }
        }
    }
    for wish in ["auth: none", "server: { auth: false }", "server: { insecure: true }", "server: { anonymous: viewer }"]
    {
        assert!(Config::parse("wish", wish).is_err(), "{wish}");
    }
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_nightshift")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).to_lowercase();
    assert!(help.contains("--listen") && !help.contains("auth") && !help.contains("insecure"), "{help}");
}

pub fn token(name: &str, role: Role, clusters: Option<&[&str]>) -> GivenToken {
    let clusters = clusters.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    GivenToken { name: name.into(), role, sources: Vec::new(), clusters, text: secret(name) }
}

/// A chat where ada is an operator whom two tokens and Slack know, and bob another one.
pub async fn chat(more: Vec<GivenToken>) -> Chat {
    let mut tokens = vec![
        token("ada", Role::Operator, None),
        token("laptop", Role::Operator, None),
        token("bob", Role::Operator, None),
    ];
    tokens.extend(more);
    Chat::begin_with(ConfiguredTokens::new(tokens).unwrap(), |config| {
        config.mode_ceiling = Mode::Approve;
        config.clusters.insert("sim".into(), KubeConfig::default());
        for person in config.people.iter_mut().filter(|person| person.role == Role::Approver) {
            person.role = Role::Operator;
        }
        config.people[0].tokens = vec!["laptop".into()];
    })
    .await
}

/// Does a slash command, or what it stands for, by one of ada's ways.
async fn says(chat: &Chat, way: &str, line: &str) -> String {
    if way == "Slack" {
        return chat.types("U0ADA", line).await;
    }
    let mut words = line.split_whitespace();
    let (path, body) = match (words.next().unwrap(), words.next().unwrap()) {
        ("run", book) => {
            let body = json!({ "runbook": book, "params": { "node": "gpu-2" } });
            ("/api/v1/runs".to_owned(), body)
        }
        (_, id) => (format!("/api/v1/approvals/{id}"), json!({ "approve": true })),
    };
    let (status, said) = chat.posts(&secret(way), &path, body).await;
    format!("{status} {said}")
}

#[tokio::test]
async fn who_asked_cannot_approve_by_any_other_way_that_is_theirs() {
    const WAYS: [&str; 3] = ["ada", "laptop", "Slack"];
    let chat = chat(Vec::new()).await;
    let mut asked = 0;
    for first in WAYS {
        for second in WAYS {
            // Slack's request would else be the same one again.
            chat.night.pass(Duration::from_secs(1)).await;
            let said = says(&chat, first, "run cordon node=gpu-2").await;
            assert!(said.starts_with("201") || said.contains(" started; "), "{said}");
            asked += 1;
            let run = chat.night.runs().await.pop().unwrap();
            assert_eq!(run.requested_by, "ada", "by {first}");
            assert!(matches!(chat.night.until_rest(run.id, MINUTE).await.state, RunState::Asking { .. }));
            let said = says(&chat, second, &format!("approve a{asked}")).await;
            assert!(said.contains("cannot approve it too"), "asked by {first}, approved by {second}: {said}");
            assert!(second == "Slack" || said.starts_with("403"), "{said}");
            assert!(chat.night.effects().is_empty(), "{:?}", chat.night.effects());
            let (status, _) =
                chat.posts(&secret("bob"), &format!("/api/v1/approvals/a{asked}"), json!({ "approve": false })).await;
            assert_eq!(status, StatusCode::OK, "another user answers");
        }
    }
}

#[tokio::test]
async fn a_role_that_was_taken_away_between_the_question_and_the_press_decides_nothing() {
    let chat = chat(Vec::new()).await;
    let (run, value) = chat.asking().await;
    let before = chat.app.roster.now();
    let people = before.people().iter().cloned().map(|person| match person.name.as_str() {
        "ada" => PersonConfig { role: Role::Viewer, ..person },
        _ => person,
    });
    chat.app.roster.replace(PrincipalSet::new(
        people.collect(),
        ConfiguredTokens::new(vec![token("ada", Role::Operator, None)]).unwrap(),
    ));
    chat.presses("U0ADA", "approve", &value).await;
    assert!(chat.slack.answers(1).await[0].contains("`ada` has role viewer"));
    let (status, said) = chat.posts(&secret("ada"), "/api/v1/approvals/a1", json!({ "approve": true })).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "their token gives no more than they have: {said}");
    chat.night.settle().await;
    assert!(matches!(chat.night.run(run).await.state, RunState::Asking { .. }));
    assert!(chat.night.effects().is_empty());
}

#[tokio::test]
async fn a_changed_file_counts_without_a_restart_and_a_broken_one_changes_nothing() {
    let site = Site::new("people:\n  - { name: ada, role: operator }\n", "rules: []", &[]);
    site.add_token("ada", "operator", "");
    let engine = site.start(&[]).await.unwrap();
    let cancel = async || engine.ask("POST", "/api/v1/runs/r9/cancel", Some(&secret("ada")), &json!({})).await.0;
    assert_eq!(cancel().await, 404, "allowed, and there is no such run");
    site.edit(|config| config.replace("name: ada, role: operator }", "name: ada, role: viewer }"));
    eventually("the role is gone", async || (cancel().await == 403).then_some(())).await;
    let written = |kind: &'static str| {
        let engine = &engine;
        async move || {
            let page = engine.get(&format!("/api/v1/entries?kind={kind}")).await;
            page.filter(|page| page["entries"][0].is_object())
        }
    };
    let changed = eventually("the change is written down", written("people_changed")).await;
    assert_eq!(changed["entries"][0]["changes"], json!(["ada: operator → viewer"]));
    site.edit(|config| config.replace("name: ada, role: viewer }", "name: ada, role: king }"));
    let refused = eventually("the file is refused", written("catalog_refused")).await;
    assert!(refused["entries"][0]["why"].as_str().unwrap().contains("king"), "{refused}");
    assert_eq!(cancel().await, 403, "the previous version stays active");
    site.edit(|config| config.replace("role: king }", "role: admin }"));
    eventually("and a good file counts again", async || (cancel().await == 404).then_some(())).await;
}

#[tokio::test]
async fn the_file_of_a_token_that_changes_alone_counts_within_a_second() {
    let site = Site::new("", "rules: []", &[]);
    site.add_token("ada", "viewer", "");
    let engine = site.start(&[]).await.unwrap();
    let status = async |token: &str| engine.ask("GET", "/api/v1/status", Some(token), &Value::Null).await.0;
    assert_eq!(status(&secret("ada")).await, 200);
    // As a secret is exchanged by who mounts it: another file in its place.
    let put = |text: &str| {
        let (file, new) = (site.path().join("ada.token"), site.path().join("ada.token.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, file).unwrap();
    };
    put(&secret("eve"));
    eventually("the new secret opens", async || (status(&secret("eve")).await == 200).then_some(())).await;
    assert_eq!(status(&secret("ada")).await, 401, "and the old one does not");
    let changed = async || engine.get("/api/v1/entries?kind=people_changed").await.unwrap()["entries"].clone();
    assert_eq!(changed().await[0]["changes"], json!(["a token has another secret"]));
    // One that cannot be used changes nothing, and is told.
    put("short");
    eventually("the file is refused", async || {
        let page = engine.get("/api/v1/entries?kind=catalog_refused").await?;
        page["entries"][0]["why"].as_str().filter(|why| why.contains("`ada` is shorter than")).map(drop)
    })
    .await;
    assert_eq!(status(&secret("eve")).await, 200);
    put(&secret("kim"));
    eventually("a good one counts again", async || (status(&secret("kim")).await == 200).then_some(())).await;
    // A token that the file names only now is looked at as well.
    site.add_token("bob", "viewer", "");
    eventually("it opens", async || (status(&secret("bob")).await == 200).then_some(())).await;
    std::fs::write(site.path().join("bob.token"), secret("rob")).unwrap();
    eventually("its new secret too", async || (status(&secret("rob")).await == 200).then_some(())).await;
}

#[tokio::test]
async fn the_signing_secrets_of_slack_and_pagerduty_are_exchanged_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for name in ["slack", "pager"] {
        std::fs::write(at(name), "first-0123456789").unwrap();
    }
    let extra = format!(
        "slack: {{ signing_secret: {{ file: '{}' }} }}\npagerduty: {{ signing_secrets: [{{ file: '{}' }}] }}\n",
        at("slack"),
        at("pager")
    );
    let site = Site::new(&extra, "rules: []", &[]);
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let hex = |secret: &str, text: &str| -> String {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        ring::hmac::sign(&key, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let mut count = 0;
    // Whether both doors take what this secret has signed.
    let mut doors = async |secret: &str| {
        count += 1;
        let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let body = format!("user_id=U0EVE&text=status&n={count}");
        let request = crate::harness::client().post(format!("{}/slack/command", engine.url)).body(body.clone());
        let signature = format!("v0={}", hex(secret, &format!("v0:{stamp}:{body}")));
        let request = request.header("x-slack-request-timestamp", stamp).header("x-slack-signature", signature);
        let slack = request.send().await.unwrap().status().as_u16();
        let body = r#"{"event":{"event_type":"pagey.ping"}}"#;
        let request = crate::harness::client().post(format!("{}/pagerduty/webhook", engine.url)).body(body);
        let request = request.header("x-pagerduty-signature", format!("v1={}", hex(secret, body)));
        (slack, request.send().await.unwrap().status().as_u16())
    };
    assert_eq!(doors("first-0123456789").await, (200, 200));
    for name in ["slack", "pager"] {
        std::fs::write(at(name), "second-0123456789").unwrap();
    }
    eventually("both take the new one", async || (doors("second-0123456789").await == (200, 200)).then_some(())).await;
    assert_eq!(doors("first-0123456789").await, (401, 401), "and not the old one");
    // One that is away leaves its door as it was, and nobody's role waits for it.
    std::fs::remove_file(at("slack")).unwrap();
    site.add_token("ada", "viewer", "");
    eventually("ada is known", async || {
        (engine.ask("GET", "/api/v1/status", Some(&secret("ada")), &Value::Null).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(doors("second-0123456789").await, (200, 200));
    let refused = engine.get("/api/v1/entries?kind=catalog_refused").await.unwrap().to_string();
    assert!(refused.contains("secret file") && refused.contains("slack"), "{refused}");
    let page = engine.get("/api/v1/entries?kind=people_changed").await.unwrap().to_string();
    assert!(
        page.contains("Slack's signing secret is another one") && page.contains("PagerDuty's signing secrets"),
        "{page}"
    );
    assert!(!page.contains("0123456789"), "no secret is told");
}

#[tokio::test]
async fn who_may_act_in_some_clusters_is_refused_in_the_others_and_reads_them() {
    let there = Some(["elsewhere"].as_slice());
    let chat = chat(vec![token("far", Role::Admin, there), token("near", Role::Admin, Some(&["sim"]))]).await;
    let (run, _) = chat.asking().await;
    let acts = [
        ("/api/v1/incidents/i1/ack".to_owned(), json!({})),
        ("/api/v1/incidents/i1/assign".to_owned(), json!({ "to": "me" })),
        ("/api/v1/incidents/i1/silence".to_owned(), json!({ "lasts": "2h", "why": "x" })),
        ("/api/v1/runs".to_owned(), json!({ "runbook": "cordon", "params": { "node": "gpu-1" } })),
        (format!("/api/v1/runs/{run}/cancel"), json!({ "why": "x" })),
        ("/api/v1/approvals/a1".to_owned(), json!({ "approve": true })),
        ("/api/v1/approvals/a1".to_owned(), json!({ "approve": false })),
        ("/api/v1/freezes".to_owned(), json!({ "scope": "all", "why": "x" })),
        ("/api/v1/unfreeze".to_owned(), json!({ "scope": "rule:r", "why": "x" })),
        ("/api/v1/breakers/reset".to_owned(), json!({ "scope": "symptom:r", "why": "x" })),
        ("/api/v1/agents/join-tokens".to_owned(), json!({})),
        ("/api/v1/agents/gpu-1/remove".to_owned(), json!({ "why": "x" })),
        ("/api/v1/audit/redact".to_owned(), json!({ "entry": "1", "why": "x" })),
    ];
    let before = chat.night.entries().await.len();
    for (path, body) in acts {
        let (status, said) = chat.posts(&secret("far"), &path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {said}");
        let words = said["error"].as_str().unwrap();
        assert!(words.starts_with("`far` may act only in elsewhere, and "), "{path}: {words}");
        assert!(!said["hint"].as_str().unwrap().is_empty());
    }
    assert_eq!(chat.night.entries().await.iter().filter(|entry| entry.kind.name() != "refused").count(), before);
    let (status, said) =
        chat.posts(&secret("near"), "/api/v1/freezes", json!({ "scope": "cluster:sim", "why": "x" })).await;
    assert_eq!(status, StatusCode::CREATED, "{said}");
    let (status, _) = chat.posts(&secret("near"), "/api/v1/incidents/i1/ack", json!({})).await;
    assert_eq!(status, StatusCode::OK);
    let (status, said) = chat.posts(&secret("near"), "/api/v1/approvals/a1", json!({ "approve": false })).await;
    assert_eq!(status, StatusCode::OK, "{said}");
}

#[test]
fn a_person_that_cannot_be_meant_so_is_refused_with_the_place_and_the_cure() {
    let problems = |people: &str| -> Vec<String> {
        let text = format!(
            "clusters: {{ eu-1: {{}} }}\nserver: {{ tokens: [{{ name: am, role: source, sources: [p], secret: {{ env: X }} }}] }}\nsources: {{ p: {{ kind: alertmanager }} }}\npeople: {people}\n"
        );
        Config::parse("people", &text).unwrap().check().iter().map(ToString::to_string).collect()
    };
    for (people, words) in [
        ("[{ name: ada, role: admin, clusters: [] }]", "people[0].clusters: is an empty list"),
        ("[{ name: ada, role: admin, clusters: [eu-2] }]", "did you mean `eu-1`?"),
        ("[{ name: ada, role: source }]", "`source` is for machines"),
        ("[{ name: ada, role: viewer, tokens: [am] }]", "`am` is a machine's"),
        ("[{ name: ada, role: viewer, tokens: [local] }]", "this machine's own token"),
        (
            "[{ name: ada, role: viewer, tokens: [x] }, { name: bob, role: viewer, tokens: [x] }]",
            "people[1].tokens: `x` already belongs to another entry",
        ),
        (
            "[{ name: ada, role: viewer, tokens: [bob] }, { name: bob, role: viewer }]",
            "`bob` is the name of another person",
        ),
        ("[{ name: ada, role: viewer, oidc: a@b }, { name: bob, role: viewer, oidc: a@b }]", "people[1].oidc"),
        (
            "[{ name: ada, role: viewer, pagerduty: P1 }, { name: bob, role: viewer, pagerduty: P1 }]",
            "people[1].pagerduty",
        ),
    ] {
        let found = problems(people);
        assert_eq!(found.len(), 1, "{people}: {found:?}");
        assert!(found[0].contains(words), "{people}: {found:?}");
    }
    let good = "[{ name: ada, role: author, clusters: [eu-1], tokens: [laptop, ci], oidc: ada@example.com }]";
    assert_eq!(problems(good), Vec::<String>::new());
}
