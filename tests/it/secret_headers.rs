//! Headers of runbooks that name a secret: sent to its hosts, and seen nowhere else.
//!
//! Invariant: what was sent is what the other side has recorded; what is kept is looked for in answers, files and log.

use crate::harness::{Engine, Site, eventually};
use crate::recording::{Recording, Seen};
use serde_json::{Value, json};
use std::path::Path;

const KEY: &str = "key-3f9a/\"quoted\"-0c1d";

const CALLS: &str = r#"//! Read a status and set one, with an API key.
//!
//! params:
//!   url: String
//!   name: String
//! scope: none

let headers = #{ Authorization: #{ secret: name, prefix: "Bearer " }, "X-Plain": "text" };
let before = http::get(url + "/status", #{ headers: headers });
note("the other side answered " + before.json.echo);
let after = http::post(url + "/status", #{ state: "maintenance" }, #{ headers: headers });
note("and then " + after.json.echo);
"#;

/// A server that repeats what it was sent, as some do in their errors.
async fn echo() -> Recording {
    Recording::start(200, |seen: &Seen, _| json!({ "echo": seen.authorization })).await
}

struct Place {
    site: Site,
    engine: Engine,
    ours: Recording,
    other: Recording,
}

async fn place() -> Place {
    let (ours, other) = (echo().await, echo().await);
    let dir = tempfile::tempdir().unwrap().keep();
    let file = dir.join("key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let host = ours.url.trim_start_matches("http://").to_owned();
    let extra = format!(
        "mode_ceiling: auto\nhttp_allow: ['private+{}/', 'private+{}/']\nhttp_secrets:\n  page: {{ secret: {{ file: '{}' }}, hosts: ['{host}'] }}\n",
        ours.url,
        other.url,
        file.display()
    );
    let site = Site::new(&extra, "rules: []", &[("calls", &CALLS.replace("scope: none", "scope: pod"))]);
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    Place { site, engine, ours, other }
}

impl Place {
    fn wish(&self, url: &str, name: &str) -> Value {
        json!({ "runbook": "calls", "params": { "url": url, "name": name } })
    }

    async fn run(&self, url: &str, name: &str) -> Value {
        let mut wish = self.wish(url, name);
        wish["mode"] = json!("auto");
        let (status, said) = self.engine.post("/api/v1/runs", &wish).await.unwrap();
        assert_eq!(status, 201, "{said}");
        let id = said["run"]["id"].as_str().unwrap().to_owned();
        eventually("the end of the run", async || {
            let shown = self.engine.get(&format!("/api/v1/runs/{id}")).await?;
            let state = shown["run"]["state"].to_string();
            ["done", "failed", "stuck"].iter().any(|word| state.contains(word)).then_some(shown)
        })
        .await
    }
}

fn holds_the_key(text: &str) -> bool {
    let quoted = Value::from(KEY).to_string();
    text.contains(KEY) || text.contains(quoted.trim_matches('"')) || text.contains("key-3f9a")
}

fn files_with_the_key(folder: &Path) -> Vec<String> {
    let (mut found, mut folders, mut read) = (Vec::new(), vec![folder.to_owned()], 0);
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            folders.extend(std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()));
            continue;
        }
        read += 1;
        let bytes = std::fs::read(&path).unwrap();
        if bytes.windows(8).any(|window| window == b"key-3f9a") {
            found.push(path.display().to_string());
        }
    }
    assert!(read >= 5, "only {read} files");
    found
}

#[tokio::test]
async fn a_header_that_names_a_secret_is_sent_to_its_host_and_seen_nowhere_else() {
    let place = place().await;
    let (status, plan) = place.engine.post("/api/v1/simulate", &place.wish(&place.ours.url, "page")).await.unwrap();
    assert_eq!(status, 200, "{plan}");
    let shown = place.run(&place.ours.url, "page").await;
    assert!(shown["run"]["state"].to_string().contains("done"), "{shown}");
    let sent = place.ours.seen();
    let posts: Vec<&Seen> = sent.iter().filter(|seen| seen.method == "POST").collect();
    assert_eq!(posts.len(), 1, "a plan posts nothing");
    assert!(sent.iter().all(|seen| seen.authorization == format!("Bearer {KEY}")), "{sent:?}");
    assert!(shown.to_string().contains("Bearer ***"), "what the other side repeats is cleaned: {shown}");
    // Whatever can be read of it, by whomever.
    let run = shown["run"]["id"].as_str().unwrap();
    for path in [
        format!("/api/v1/runs/{run}"),
        format!("/api/v1/why?subject={run}"),
        format!("/api/v1/entries?run={run}&limit=100"),
        "/api/v1/entries?limit=100".to_owned(),
        "/api/v1/status".to_owned(),
        "/api/v1/audit/raw".to_owned(),
    ] {
        let said = place.engine.get(&path).await.unwrap().to_string();
        assert!(!holds_the_key(&said), "{path}: {said}");
    }
    assert!(!holds_the_key(&plan.to_string()), "{plan}");
    assert!(!holds_the_key(&place.site.log()), "{}", place.site.log());
    let effective = std::process::Command::new(env!("CARGO_BIN_EXE_nightshift"))
        .arg("--config")
        .arg(place.site.path().join("nightshift.yaml"))
        .args(["config", "--effective"])
        .output()
        .unwrap();
    assert!(effective.status.success());
    assert!(!holds_the_key(&String::from_utf8_lossy(&effective.stdout)));
    place.engine.stop();
    assert_eq!(files_with_the_key(place.site.path()), [""; 0]);
}

#[tokio::test]
async fn a_secret_that_is_not_known_or_not_for_the_host_is_refused_before_anything_is_sent() {
    let place = place().await;
    let other = place.other.url.trim_start_matches("http://").to_owned();
    for (url, name, words) in [
        (
            &place.ours.url,
            "pge",
            "the secret `pge`, which is not under `http_secrets` in nightshift.yaml; there are: page".to_owned(),
        ),
        (&place.other.url, "page", format!(", not for http://{other}: no request was sent")),
    ] {
        let (_, plan) = place.engine.post("/api/v1/simulate", &place.wish(url, name)).await.unwrap();
        assert!(plan.to_string().contains(&words), "{plan}");
        let shown = place.run(url, name).await;
        assert!(shown.to_string().contains(&words), "{shown}");
        assert!(!holds_the_key(&shown.to_string()) && !holds_the_key(&plan.to_string()));
    }
    assert!(place.ours.seen().is_empty() && place.other.seen().is_empty());
    // What is no reference at all.
    let bad = r#"http::get(url, #{ headers: #{ A: #{ secrets: "page" } } });"#;
    let text = format!("//! Bad.\n//!\n//! params:\n//!   url: String\n//! scope: none\n\n{bad}\n");
    std::fs::write(place.site.path().join("runbooks/bad.rhai"), text).unwrap();
    let said = eventually("the runbook is read", async || {
        let wish = json!({ "runbook": "bad", "params": { "url": place.ours.url } });
        let (status, said) = place.engine.post("/api/v1/simulate", &wish).await?;
        (status == 200).then_some(said.to_string())
    })
    .await;
    assert!(said.contains("but must be a text, or `#{secret:"), "{said}");
}

#[test]
fn a_secret_for_runbooks_without_a_host_or_with_an_address_for_one_is_refused_with_its_place() {
    for (hosts, place) in [
        ("[]", "http_secrets.page.hosts"),
        ("['https://x.example/']", "http_secrets.page.hosts[0]"),
        ("['']", "http_secrets.page.hosts[0]"),
    ] {
        let text = format!("http_secrets: {{ page: {{ secret: {{ env: PAGE }}, hosts: {hosts} }} }}\n");
        let found: Vec<String> =
            nightshift::config::Config::parse("x", &text).unwrap().check().iter().map(ToString::to_string).collect();
        assert!(found.len() == 1 && found[0].contains(place), "{hosts}: {found:?}");
    }
    let literal = "http_secrets: { page: { secret: abcdefghijk, hosts: [x.example] } }\n";
    let error = nightshift::config::Config::parse("x", literal).unwrap_err().to_string();
    assert!(error.contains("a secret is written as a reference") && !error.contains("abcdefghijk"), "{error}");
}
