//! Tokens that are made here: shown once, bounded in role, place and time, refused from the moment they are revoked; what
//! somebody was refused; and the broken glass.
//!
//! Invariant: what opens and what does not is asked of the server, and the ledger is read for what it says of it.

mod behind;
mod glass;
mod humans;

use crate::harness::{Engine, Site, secret};
use crate::roles::{chat, token};
use crate::slack_in::Chat;
use axum::http::StatusCode;
use nightshift::config::Role;
use nightshift::limits;
use nightshift::model::RunState;
use serde_json::{Value, json};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Makes a token, as an admin by default; its text and its number.
async fn make(chat: &Chat, by: &str, wanted: Value) -> (String, String) {
    let (status, said) = chat.posts(by, "/api/v1/tokens", wanted).await;
    assert_eq!(status, StatusCode::CREATED, "{said}");
    (said["token"].as_str().unwrap().to_owned(), said["made"]["id"].as_str().unwrap().to_owned())
}

fn wanted(name: &str, role: &str, expires: &str) -> Value {
    json!({ "name": name, "role": role, "expires": expires })
}

/// Root is an admin; `local` is this machine's own token.
async fn with_an_admin() -> Chat {
    chat(vec![token("root", Role::Admin, None), token("local", Role::Admin, None)]).await
}

fn kinds(entries: &[nightshift::model::Entry], kind: &str) -> usize {
    entries.iter().filter(|entry| entry.kind.name() == kind).count()
}

#[tokio::test]
async fn a_token_opens_what_its_role_may_and_nothing_from_the_moment_it_is_revoked() {
    let chat = with_an_admin().await;
    let (text, id) = make(&chat, &secret("root"), wanted("ci", "responder", "30d")).await;
    assert!(text.starts_with("nst_"), "{text}");
    let freeze = json!({ "scope": "all", "why": "x" });
    assert_eq!(chat.posts(&text, "/api/v1/freezes", freeze.clone()).await.0, StatusCode::CREATED);
    let (status, said) = chat.posts(&text, "/api/v1/unfreeze", freeze.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
    assert!(said["error"].as_str().unwrap().starts_with("`ci` has role responder"), "{said}");
    let revoke = format!("/api/v1/tokens/{id}/revoke");
    assert_eq!(chat.posts(&secret("root"), &revoke, json!({ "why": "it leaked" })).await.0, StatusCode::OK);
    let (status, said) = chat.posts(&text, "/api/v1/freezes", freeze).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "in the very next request");
    assert!(said["error"].as_str().unwrap().contains("was revoked at"), "{said}");
    assert_eq!(chat.posts(&secret("root"), &revoke, json!({})).await.0, StatusCode::CONFLICT, "once is enough");
    let entries = chat.night.entries().await;
    assert_eq!((kinds(&entries, "token_made"), kinds(&entries, "token_revoked")), (1, 1));
}

#[tokio::test]
async fn a_token_ends_by_itself_and_when_it_was_used_is_known_to_the_hour() {
    let chat = with_an_admin().await;
    let (text, id) = make(&chat, &secret("root"), wanted("ci", "responder", "2h")).await;
    let ask = async || chat.posts(&text, "/api/v1/simulate", json!({})).await;
    assert_eq!(ask().await.0, StatusCode::BAD_REQUEST, "let in, and nothing was asked");
    let first = chat.night.now();
    let used = async || {
        let tokens = chat.night.parts.store.tokens(chat.night.now()).await.unwrap();
        tokens.into_iter().find(|token| token.id.to_string() == id).unwrap().used_at
    };
    crate::harness::eventually("the use is written down", async || used().await.filter(|at| *at == first)).await;
    chat.night.pass(50 * MINUTE).await;
    ask().await;
    assert_eq!(used().await, Some(first), "once an hour is often enough");
    chat.night.pass(70 * MINUTE - Duration::from_secs(1)).await;
    assert_eq!(ask().await.0, StatusCode::BAD_REQUEST);
    chat.night.pass(Duration::from_secs(1)).await;
    let (status, said) = ask().await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{said}");
    assert!(said["error"].as_str().unwrap().contains("expired at"), "{said}");
}

#[tokio::test]
async fn the_text_of_a_token_is_shown_once_and_is_nowhere_after() {
    let site = Site::new("", "rules: []", &[]);
    let engine = site.start(&[]).await.unwrap();
    let (status, made) = engine.post("/api/v1/tokens", &wanted("ci", "admin", "1d")).await.unwrap();
    assert_eq!(status, 201, "{made}");
    let text = made["token"].as_str().unwrap();
    for page in ["tokens", "entries", "status", "audit/raw"] {
        let (status, said) = engine.ask("GET", &format!("/api/v1/{page}"), Some(text), &Value::Null).await;
        assert_eq!(status, 200, "{page}: {said}");
        assert!(!said.to_string().contains(text), "{page}");
    }
    engine.stop();
    let mut files = vec![site.path().to_owned()];
    let (mut read, letters) = (0, text.trim_start_matches("nst_").as_bytes());
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()));
            continue;
        }
        read += 1;
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(letters.len()).any(|window| window == letters), "{} holds it", path.display());
    }
    assert!(read >= 5, "only {read} files");
}

#[tokio::test]
async fn nobody_makes_a_token_that_is_mightier_or_lasts_longer_than_their_own() {
    let scoped = token("near", Role::Admin, Some(&["sim"]));
    let chat = chat(vec![token("root", Role::Admin, None), token("aud", Role::Auditor, None), scoped]).await;
    for name in ["bob", "aud"] {
        let (status, _) = chat.posts(&secret(name), "/api/v1/tokens", wanted("x", "viewer", "1d")).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{name}");
    }
    let refused = |said: &Value| said["error"].as_str().unwrap().to_owned();
    let (status, said) = chat.posts(&secret("near"), "/api/v1/tokens", wanted("x", "viewer", "1d")).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
    assert!(refused(&said).contains("cannot grant rights they do not have: role viewer in every cluster"), "{said}");
    let mut there = wanted("x", "admin", "1d");
    there["clusters"] = json!(["sim"]);
    assert_eq!(chat.posts(&secret("near"), "/api/v1/tokens", there).await.0, StatusCode::CREATED);
    let (short, _) = make(&chat, &secret("root"), wanted("short", "admin", "1h")).await;
    let (status, said) = chat.posts(&short, "/api/v1/tokens", wanted("y", "viewer", "2h")).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
    assert!(refused(&said).contains("cannot outlive it"), "{said}");
    assert_eq!(chat.posts(&short, "/api/v1/tokens", wanted("y", "viewer", "30m")).await.0, StatusCode::CREATED);
    assert_eq!(chat.night.parts.store.tokens(chat.night.now()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn everybody_revokes_their_own_and_an_admin_anybodys() {
    let local = token("local", Role::Admin, None);
    let chat = chat(vec![token("root", Role::Admin, None), token("eve", Role::Viewer, None), local]).await;
    let (vic, _) = make(&chat, &secret("local"), wanted("vic", "viewer", "1d")).await;
    let (_, older) = make(&chat, &secret("local"), wanted("vic", "viewer", "1d")).await;
    let (machine, its) = make(&chat, &secret("root"), wanted("ci", "viewer", "1d")).await;
    let (_, other) = make(&chat, &secret("root"), wanted("ci2", "viewer", "1d")).await;
    for (who, id, status) in [
        (secret("eve"), &older, 403),
        (machine.clone(), &other, 403),
        (vic.clone(), &other, 403),
        (vic, &older, 200),
        (machine.clone(), &its, 200),
        (machine, &its, 401),
        (secret("root"), &other, 200),
    ] {
        let (got, said) = chat.posts(&who, &format!("/api/v1/tokens/{id}/revoke"), json!({})).await;
        assert_eq!(got.as_u16(), status, "{id}: {said}");
    }
}

#[tokio::test]
async fn a_wish_that_cannot_be_meant_so_says_what_to_write() {
    let chat = with_an_admin().await;
    make(&chat, &secret("root"), wanted("ci", "viewer", "1d")).await;
    for (wish, words) in [
        (json!({ "name": "ci" }), "`role` is missing"),
        (wanted("ci", "king", "1d"), "`king` is unknown; write one of"),
        (wanted("ci", "viewer", "soon"), "is no length of time"),
        (wanted("ci", "viewer", "0s"), "cannot last 0s"),
        (wanted("ci", "viewer", "367d"), "cannot last"),
        (wanted("CI!", "viewer", "1d"), "`CI!` is not a name"),
        (wanted("local", "viewer", "1d"), "`local` is a token of the configuration already"),
        (wanted("root", "viewer", "1d"), "`root` is a token of the configuration already"),
        (wanted("vic", "admin", "1d"), "`vic` belongs to vic, with role viewer"),
        (wanted("ci", "admin", "1d"), "`ci` is the name of t1 already"),
        (wanted("am", "source", "1d"), "must list the sources it may post to"),
        (json!({ "name": "am", "role": "source", "expires": "1d", "sources": ["tets"] }), "did you mean `test`?"),
        (json!({ "name": "x", "role": "viewer", "expires": "1d", "sources": ["test"] }), "only a token of role source"),
        (json!({ "name": "x", "role": "viewer", "expires": "1d", "clusters": [] }), "would be nowhere"),
        (json!({ "name": "x", "role": "viewer", "expires": "1d", "clusters": ["sum"] }), "did you mean `sim`?"),
        (json!({ "name": "x", "role": "viewer", "expires": "1d", "by": "ada" }), "unknown key `by`"),
    ] {
        let (status, said) = chat.posts(&secret("local"), "/api/v1/tokens", wish.clone()).await;
        assert!(status.is_client_error() && said.to_string().contains(words), "{wish}: {status} {said}");
    }
    make(&chat, &secret("root"), wanted("ci", "viewer", "1d")).await;
    assert_eq!(
        chat.night.parts.store.tokens(chat.night.now()).await.unwrap().len(),
        2,
        "a second one of the same meaning rotates"
    );
}

#[tokio::test]
async fn a_token_for_a_source_posts_there_and_nowhere_else() {
    let site = Site::new("sources:\n  prod: { kind: alertmanager }\n  lab: { kind: alertmanager }\n", "rules: []", &[]);
    let engine = site.start(&[]).await.unwrap();
    let wish = json!({ "name": "am", "role": "source", "expires": "90d", "sources": ["prod"] });
    let (_, made) = engine.post("/api/v1/tokens", &wish).await.unwrap();
    let body = crate::harness::alertmanager_body("firing", "2026-11-23T03:00:00Z", &[&[("alertname", "A")]]);
    for (method, path, body, status) in [
        ("POST", "/in/alertmanager/prod", &body, 200),
        ("POST", "/in/alertmanager/lab", &body, 403),
        ("GET", "/api/v1/incidents", &Value::Null, 403),
    ] {
        let (got, said) = engine.ask(method, path, made["token"].as_str(), body).await;
        assert_eq!(got, status, "{path}: {said}");
    }
}

/// Starts a run that asks, and says what came of an approval.
async fn asked_and_approved(chat: &Chat, asker: &str, approver: &str) -> (u16, String) {
    let run = json!({ "runbook": "cordon", "params": { "node": "gpu-2" } });
    let (status, said) = chat.posts(asker, "/api/v1/runs", run).await;
    assert_eq!(status, StatusCode::CREATED, "{said}");
    let run = chat.night.runs().await.pop().unwrap();
    let rest = chat.night.until_rest(run.id, MINUTE).await;
    let RunState::Asking { approval } = rest.state else { panic!("{:?}", rest.state) };
    let path = format!("/api/v1/approvals/{approval}");
    let (status, said) = chat.posts(approver, &path, json!({ "approve": true })).await;
    chat.posts(&secret("root"), &path, json!({ "approve": false })).await;
    (status.as_u16(), said.to_string())
}

#[tokio::test]
async fn a_token_made_here_is_no_second_person_of_whoever_asked() {
    let chat = with_an_admin().await;
    chat.app.roster.replace({
        let before = chat.app.roster.now();
        let mut people = before.people().to_vec();
        people[0].tokens.push("phone".into());
        let given = ["ada", "laptop", "bob", "root", "local"].map(|name| {
            token(name, if ["root", "local"].contains(&name) { Role::Admin } else { Role::Operator }, None)
        });
        nightshift::server::PrincipalSet::new(
            people,
            nightshift::server::ConfiguredTokens::new(given.to_vec()).unwrap(),
        )
    });
    let (phone, _) = make(&chat, &secret("local"), wanted("phone", "operator", "1d")).await;
    let (machine, _) = make(&chat, &secret("root"), wanted("ci", "operator", "1d")).await;
    for (asker, approver) in [
        (phone.clone(), phone.clone()),
        (phone.clone(), secret("ada")),
        (secret("ada"), phone.clone()),
        (secret("laptop"), phone.clone()),
        (machine.clone(), machine.clone()),
        // Whoever made a token may have kept it.
        (secret("root"), machine.clone()),
        (machine.clone(), secret("root")),
    ] {
        let (status, said) = asked_and_approved(&chat, &asker, &approver).await;
        assert!(status == 403 && said.contains("cannot approve it too"), "{status} {said}");
    }
    chat.night.settle().await;
    assert!(chat.night.effects().is_empty(), "{:?}", chat.night.effects());
    assert!(chat.types("U0ADA", "approve a9 x").await.contains("there is no"));
    // Two different persons are two.
    let (status, said) = asked_and_approved(&chat, &phone, &secret("bob")).await;
    assert_eq!(status, 200, "{said}");
    let (status, said) = asked_and_approved(&chat, &secret("bob"), &phone).await;
    assert_eq!(status, 200, "{said}");
}

#[tokio::test]
async fn a_refused_act_is_an_entry_in_the_story_of_what_it_was_about_and_a_flood_is_a_number() {
    let chat = chat(vec![token("eve", Role::Viewer, None)]).await;
    let (run, _) = chat.asking().await;
    chat.types("U0VIC", "approve a1 sure").await;
    for _ in 0..300 {
        assert_eq!(chat.posts(&secret("eve"), "/api/v1/incidents/i1/ack", json!({})).await.0, StatusCode::FORBIDDEN);
    }
    for id in 0..60 {
        chat.posts(&secret("eve"), &format!("/api/v1/runs/r{id}/cancel"), json!({ "why": "x" })).await;
    }
    let refused = async || -> Vec<nightshift::model::Entry> {
        chat.night.entries().await.into_iter().filter(|entry| entry.kind.name() == "refused").collect()
    };
    let told = refused().await;
    assert_eq!(told.len(), 3, "one of each kind: {told:#?}");
    assert_eq!(told[0].about.run, Some(run), "an answer to its question");
    let line = nightshift::engine::story::line(&told[0]).unwrap().text;
    assert!(line.starts_with("denied for vic: POST /api/v1/approvals/a1, by Slack: `vic` has role viewer"), "{line}");
    assert_eq!(told[1].about.incident.unwrap().to_string(), "i1");
    chat.night.pass(limits::WITNESS_WINDOW).await;
    let all = crate::harness::eventually("the rest is told as a number", async || {
        Some(refused().await).filter(|told| told.len() == 5)
    })
    .await;
    let numbers: Vec<String> =
        all[3..].iter().map(|entry| nightshift::engine::story::line(entry).unwrap().text).collect();
    assert_eq!(
        numbers,
        [
            "denied for eve 299 more times: POST /api/v1/incidents/{id}/ack",
            "denied for eve 59 more times: POST /api/v1/runs/{id}/cancel",
        ]
    );
    // Somebody whom Slack knows and we do not.
    for at in 0..100 {
        chat.types("U0EVE", &format!("freeze {at}")).await;
    }
    let told = refused().await;
    assert_eq!(told.len(), 6, "{told:#?}");
    assert!(nightshift::engine::story::line(&told[5]).unwrap().text.contains("U0EVE"));
    // However many ways there are to be refused.
    for at in 0..100 {
        chat.types(&format!("U0EVE{at}"), "freeze").await;
    }
    assert!(refused().await.len() <= 6 + limits::WITNESS_CALLERS, "{}", refused().await.len());
}

#[tokio::test]
async fn what_one_caller_is_refused_never_hides_what_another_one_is() {
    let names = ["eve", "mal", "oz"];
    let chat = chat(names.iter().map(|name| token(name, Role::Viewer, None)).collect()).await;
    let routes: Vec<(&str, String)> = [
        "runs",
        "freezes",
        "unfreeze",
        "breakers/reset",
        "tokens",
        "audit/redact",
        "agents/join-tokens",
        "incidents/i1/ack",
        "incidents/i1/assign",
        "incidents/i1/silence",
        "runs/r1/cancel",
        "runs/r1/judge",
        "rules/r/promote",
        "rules/r/demote",
        "simulate",
        "approvals/a1",
        "agents/n/remove",
        "channels/c/test",
    ]
    .iter()
    .map(|path| ("POST", format!("/api/v1/{path}")))
    .chain(["audit/raw", "audit/checkpoints", "audit/proof/0", "tokens"].map(|path| ("GET", format!("/api/v1/{path}"))))
    .collect();
    for (method, path) in &routes {
        let body = if *method == "POST" { json!({}) } else { Value::Null };
        let (status, said) = chat.asks(method, &secret("eve"), path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}: {said}");
    }
    for name in &names[1..] {
        chat.posts(&secret(name), "/api/v1/freezes", json!({ "scope": "all", "why": "x" })).await;
    }
    chat.types("U0VIC", "freeze all").await;
    let lines = async || -> Vec<String> {
        let entries = chat.night.entries().await;
        let refused = entries.iter().filter(|entry| entry.kind.name() == "refused");
        refused.map(|entry| nightshift::engine::story::line(entry).unwrap().text).collect()
    };
    let told = lines().await;
    let of = |name: &str| told.iter().filter(|line| line.starts_with(&format!("denied for {name}: "))).count();
    assert_eq!(of("eve"), limits::WITNESS_KINDS, "{told:#?}");
    for name in ["mal", "oz", "vic"] {
        assert_eq!(of(name), 1, "{name} has an entry at once: {told:#?}");
    }
    chat.night.pass(limits::WITNESS_WINDOW).await;
    crate::harness::eventually("the rest as a number", async || {
        lines().await.iter().any(|line| line == "denied for eve 2 more times: other requests").then_some(())
    })
    .await;
}

#[tokio::test]
async fn reading_what_is_for_auditors_is_refused_on_record() {
    let chat = chat(vec![token("eve", Role::Viewer, None)]).await;
    assert_eq!(chat.asks("GET", &secret("eve"), "/api/v1/audit/raw", Value::Null).await.0, StatusCode::FORBIDDEN);
    assert_eq!(chat.asks("GET", &secret("eve"), "/api/v1/tokens", Value::Null).await.0, StatusCode::FORBIDDEN);
    assert_eq!(kinds(&chat.night.entries().await, "refused"), 2);
}

#[tokio::test]
async fn evidence_is_never_redacted_and_an_event_only_by_two_persons_before_everyones_eyes() {
    let chat = chat(vec![token("root", Role::Admin, None), token("boss", Role::Admin, None)]).await;
    chat.asking().await;
    chat.night.hear("firing", &[("alertname", "Unknown"), ("node", "gpu-4"), ("owner", "kim, 0151 1234567")]).await;
    let redact = async |by: &str, no: nightshift::model::EntryNo| {
        let wish = json!({ "entry": no.to_string(), "why": "a telephone number" });
        let (status, said) = chat.posts(&secret(by), "/api/v1/audit/redact", wish).await;
        (status.as_u16(), said)
    };
    let entries = chat.night.entries().await;
    let (heard, kinds): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.kind.name() == "heard");
    let evidence = ["run_created", "run_planned", "approval_asked", "started"];
    let mut tried = 0;
    for entry in kinds.iter().filter(|entry| evidence.contains(&entry.kind.name())) {
        let (status, said) = redact("root", entry.no).await;
        assert!(status == 409 && said.to_string().contains("evidence"), "{status} {said}");
        tried += 1;
    }
    assert!(tried >= 3, "{kinds:#?}");
    let event = heard.last().unwrap().no;
    assert_eq!(redact("root", event).await.1["asked"], json!(event));
    assert_eq!(redact("root", event).await.0, 409, "one person is not two");
    assert!(chat.night.entries().await.iter().any(|entry| entry.no == event), "it is still there");
    let open = nightshift::store::Filter { open: true, limit: 50, ..Default::default() };
    let incidents = chat.night.parts.store.incidents(open).await.unwrap();
    let shown =
        incidents.iter().find(|incident| incident.key.starts_with("redaction/")).expect("channels are notified");
    assert!(shown.title.contains("requested by root: a telephone number"), "{}", shown.title);
    let (status, said) = redact("boss", event).await;
    assert_eq!((status, &said["redacted"]), (200, &json!(event)), "{said}");
    assert!(!format!("{:?}", chat.night.entries().await).contains("0151 1234567"));
    let trace = chat.night.entries().await.into_iter().find(|entry| entry.kind.name() == "redacted").unwrap();
    assert_eq!(redact("boss", trace.no).await.0, 409, "nor is the trace of it");
}

#[tokio::test]
async fn a_dead_token_that_comes_again_is_an_entry_once_and_then_a_number() {
    let chat = with_an_admin().await;
    let (text, id) = make(&chat, &secret("root"), wanted("ci", "operator", "1d")).await;
    chat.posts(&secret("root"), &format!("/api/v1/tokens/{id}/revoke"), json!({ "why": "it leaked" })).await;
    for _ in 0..20 {
        let answer = chat.posts(&text, "/api/v1/freezes", json!({ "scope": "all", "why": "x" })).await;
        assert_eq!(answer.0, StatusCode::UNAUTHORIZED);
    }
    let lines = async || -> Vec<String> {
        let entries = chat.night.entries().await;
        let refused = entries.iter().filter(|entry| entry.kind.name() == "refused");
        refused.map(|entry| nightshift::engine::story::line(entry).unwrap().text).collect()
    };
    let told = lines().await;
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].starts_with(&format!("denied for ci: token {id}")), "{told:#?}");
    assert!(told[0].contains("was revoked at"), "{told:#?}");
    chat.night.pass(limits::WITNESS_WINDOW).await;
    crate::harness::eventually("the rest as a number", async || {
        lines().await.iter().any(|line| line.contains("19 more times")).then_some(())
    })
    .await;
}

/// The command line against a running engine.
pub fn nightshift(site: &Site, args: &[&str]) -> (i32, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command.arg("--config").arg(site.path().join("nightshift.yaml")).args(args).env_remove("NIGHTSHIFT_TOKEN");
    let output = command.env("USER", "ann").env_remove("SUDO_USER").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

pub async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn the_command_line_makes_lists_and_revokes() {
    let site = Site::new("people:\n  - { name: ada, role: operator, tokens: [phone] }\n", "rules: []", &[]);
    let engine: Engine = site.start(&[]).await.unwrap();
    let (engine, site) = beside(move || {
        let (code, out, err) = nightshift(&site, &["tokens"]);
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
        assert!(err.contains("none was made here yet"), "{err}");
        let (code, out, err) =
            nightshift(&site, &["tokens", "make", "phone", "--role", "responder", "--expires", "30d"]);
        assert_eq!(code, 0, "{err}");
        assert!(out.trim().starts_with("nst_") && out.lines().count() == 1, "a script can take it: {out}");
        assert!(err.contains("t1 `phone`: responder, for ada, until ") && err.contains("tokens revoke t1"), "{err}");
        let (code, _, err) = nightshift(&site, &["tokens", "make", "x", "--role", "viewer"]);
        assert!(code == 2 && err.contains("--expires"), "{code} {err}");
        let (code, _, err) = nightshift(&site, &["tokens", "make", "phone", "--role", "admin", "--expires", "1d"]);
        assert!(code == 1 && err.contains("with role operator") && err.contains("--role operator"), "{code} {err}");
        let (_, out, _) = nightshift(&site, &["tokens", "list"]);
        assert!(out.contains("phone (ada's)") && out.contains("never") && out.contains("good"), "{out}");
        assert_eq!(nightshift(&site, &["tokens", "revoke", "t1"]).1, "t1 (phone) is revoked\n");
        assert_eq!(nightshift(&site, &["tokens", "revoke", "t9"]).0, 5);
        assert!(nightshift(&site, &["tokens"]).1.contains("revoked"));
        (engine, site)
    })
    .await;
    drop((engine, site));
}
