//! Channels whose secret is missing, and test messages: the real binary against servers that record what they receive.
//!
//! Invariant: what a channel received is counted at its server, never from the engine's own journal.

use crate::harness::{Engine, Site, alertmanager_body, eventually, secret};
use crate::recording::{Answer, Recording};
use nightshift::world::sim::{SimFleet, SimOptions};
use serde_json::{Value, json};
use std::process::{Command, Output};

const RULES: &str = "rules:\n  - { name: everything, when: ['severity=~\".+\"'], tell: [oncall] }\n";
const KEY: &str = "0123456789abcdef0123456789abcdef";

fn run(site: &Site, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command.arg("--config").arg(site.path().join("nightshift.yaml")).args(args);
    command.env_remove("NIGHTSHIFT_TOKEN").output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn alert(engine: &Engine) {
    let labels = [("alertname", "GpuXid"), ("severity", "critical"), ("node", "gpu-3"), ("xid", "79")];
    let body = alertmanager_body("firing", "2026-11-23T03:00:00Z", &[&labels]);
    let (status, said) = engine.post("/in/alertmanager/prod", &body).await.unwrap();
    assert_eq!(status, 200, "{said}");
}

fn posts(slack: &Recording) -> usize {
    slack.paths().iter().filter(|path| *path == "/chat.postMessage").count()
}

/// Slack with a token in this file.
fn slack_channel(slack: &Recording, site: &Site) -> String {
    let token = site.path().join("slack-token");
    let (url, token) = (&slack.url, token.display());
    format!("channels: {{ oncall: {{ kind: slack, channel: C1, token: {{ file: '{token}' }}, api: '{url}' }} }}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_token_file_turns_its_channel_off_loudly_and_its_messages_go_out_once_it_is_there() {
    let slack = Recording::slack().await;
    let site = Site::new("sources: { prod: { kind: alertmanager } }\n", RULES, &[]);
    let channel = slack_channel(&slack, &site);
    site.edit(|config| format!("{config}{channel}"));
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("the engine did not start:\n{}", site.log()));
    let log = site.log();
    assert!(log.contains("ERROR") && log.contains("channel `oncall` is off") && log.contains("slack-token"), "{log}");
    let status = run(&site, &["status"]);
    assert!(said(&status).contains("channel oncall") && said(&status).contains("slack-token"), "{}", said(&status));
    let listed = run(&site, &["channels"]);
    assert!(said(&listed).contains("oncall") && said(&listed).contains("off"), "{}", said(&listed));
    let ready = engine.get("/readyz").await.unwrap();
    assert!(ready["ready"] == true && ready["channels"]["oncall"].as_str().unwrap().starts_with("off"), "{ready}");
    alert(&engine).await;
    let waits = eventually("a reason for the waiting message", async || {
        let entries = engine.get("/api/v1/entries?kind=delivery_failed").await?;
        let entry = entries["entries"].as_array()?.first()?.clone();
        Some(entry.to_string())
    })
    .await;
    assert!(waits.contains("the channel is off") && waits.contains("slack-token"), "{waits}");
    assert_eq!(slack.seen().len(), 0);
    std::fs::write(site.path().join("slack-token"), "xoxb-late\n").unwrap();
    eventually("the message", async || (posts(&slack) > 0).then_some(())).await;
    let seen = slack.seen();
    let first = seen.iter().find(|seen| seen.path == "/chat.postMessage").unwrap();
    assert_eq!(first.authorization, "Bearer xoxb-late");
    assert!(!seen.iter().any(|seen| seen.path == "/conversations.history"), "nothing was sent before: no repeat");
    let listed = run(&site, &["channels", "-o", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let (state, last) = (&listed["channels"][0]["state"], &listed["channels"][0]["last_delivery"]["incident"]);
    assert!(state == "on" && last == "i1", "{listed}");
}

#[tokio::test]
async fn a_missing_kubeconfig_prometheus_token_api_token_and_signing_secret_stop_no_start_and_are_all_named_at_once() {
    let fleet = SimFleet::start(SimOptions::default()).unwrap();
    let extra = format!(
        "sources: {{ prod: {{ kind: alertmanager, api: '{url}', api_token: {{ file: /nowhere/api }} }} }}\n\
         clusters: {{ main: {{ kubeconfig: /nowhere/kubeconfig }} }}\n\
         prometheus: {{ url: '{url}', token: {{ file: /nowhere/prometheus }} }}\n\
         slack: {{ signing_secret: {{ file: /nowhere/signing }} }}\n\
         pagerduty: {{ signing_secrets: [{{ file: /nowhere/webhook }}] }}\n\
         channels: {{ oncall: {{ kind: pagerduty, routing_key: {{ file: /nowhere/key }} }} }}\n",
        url = fleet.url()
    );
    let site = Site::new(&extra, RULES, &[]);
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("the engine did not start:\n{}", site.log()));
    let all = [
        "/nowhere/api",
        "/nowhere/kubeconfig",
        "/nowhere/prometheus",
        "/nowhere/signing",
        "/nowhere/webhook",
        "/nowhere/key",
    ];
    let check = said(&run(&site, &["check"]));
    let doctor = said(&run(&site, &["doctor", "--offline"]));
    let status = said(&run(&site, &["status"]));
    for name in all {
        let errors = site.log().lines().filter(|line| line.contains("ERROR") && line.contains(name)).count();
        assert!(errors >= 1, "{name} is in no ERROR line:\n{}", site.log());
        for (what, said) in [("check", &check), ("doctor", &doctor), ("status", &status)] {
            assert!(said.contains(name), "{what} does not name {name}:\n{said}");
        }
    }
    // The doors without a secret are shut, not open.
    let (slack, _) = engine.ask("POST", "/slack/command", None, &json!({})).await;
    let (pagerduty, _) = engine.ask("POST", "/pagerduty/webhook", None, &json!({})).await;
    assert_eq!((slack, pagerduty), (401, 401));
}

#[tokio::test]
async fn the_servers_own_token_still_stops_a_start() {
    let token = "  tokens: [{ name: am, role: viewer, secret: { file: /nowhere/am } }]\n";
    let site = Site::new("", RULES, &[]);
    site.edit(|config| config.replacen("log:\n", &format!("{token}log:\n"), 1));
    assert!(site.start(&[]).await.is_none(), "an engine without its own tokens must stay closed");
    assert!(site.log().contains("/nowhere/am"), "{}", site.log());
}

#[tokio::test]
async fn a_kubeconfig_that_comes_later_is_used_without_a_restart() {
    let fleet = SimFleet::start(SimOptions::default()).unwrap();
    let site = Site::new("", RULES, &[]);
    let file = site.path().join("kubeconfig");
    let cluster = format!("clusters: {{ main: {{ kubeconfig: '{}' }} }}\n", file.display());
    site.edit(|config| format!("{config}{cluster}"));
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let lost = eventually("the cluster is lost, with the reason", async || {
        let status = engine.get("/api/v1/status").await?;
        status["clusters"]["main"]["why"].as_str().map(str::to_owned)
    })
    .await;
    assert!(lost.contains("kubeconfig"), "{lost}");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "sim",
        "clusters": [{ "name": "sim", "cluster": { "server": fleet.url() } }],
        "contexts": [{ "name": "sim", "context": { "cluster": "sim", "user": "sim" } }],
        "users": [{ "name": "sim", "user": {} }],
    });
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    eventually("the cluster is watched", async || {
        let guards = engine.get("/api/v1/guards").await?;
        (guards["nodes_total"] == 4).then_some(())
    })
    .await;
}

fn with_channels(slack: &Recording, pagerduty: &Recording) -> Site {
    let site = Site::new("", RULES, &[]);
    for (name, text) in [("slack-token", "xoxb-1"), ("key", KEY)] {
        std::fs::write(site.path().join(name), text).unwrap();
    }
    let channels = slack_channel(slack, &site);
    let pager = format!(
        ", pager: {{ kind: pagerduty, routing_key: {{ file: '{}' }}, api: '{}' }} }}\n",
        site.path().join("key").display(),
        pagerduty.url
    );
    let channels = channels.trim_end().strip_suffix('}').unwrap().to_owned() + &pager;
    site.edit(|config| format!("{config}{channels}"));
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_message_is_marked_as_one_reaches_slack_and_is_in_the_ledger() {
    let (slack, pagerduty) = (Recording::slack().await, Recording::pagerduty().await);
    let site = with_channels(&slack, &pagerduty);
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let tested = run(&site, &["channels", "test", "oncall"]);
    assert!(tested.status.success(), "{}", said(&tested));
    assert!(said(&tested).contains("delivered") && said(&tested).contains("C1"), "{}", said(&tested));
    let seen = slack.seen();
    let post = seen.iter().find(|seen| seen.path == "/chat.postMessage").unwrap();
    assert!(post.text.contains("TEST from Nightshift"), "{}", post.text);
    assert!(
        post.text.contains("test message") && !post.text.contains("i0"),
        "no incident stands behind it: {}",
        post.text
    );
    assert!(!post.text.contains("Acknowledge"), "and nothing can be done about it: {}", post.text);
    let listed = said(&run(&site, &["channels"]));
    let line = listed.lines().find(|line| line.starts_with("oncall")).unwrap();
    assert!(line.contains("on ") && !line.contains("never"), "its last delivery was the test: {listed}");
    let entries = engine.get("/api/v1/entries?kind=remarked").await.unwrap();
    assert!(entries.to_string().contains("sent a test message to channel oncall: delivered"), "{entries}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_of_pagerduty_triggers_and_resolves_one_alert_with_a_key_of_its_own() {
    let (slack, pagerduty) = (Recording::slack().await, Recording::pagerduty().await);
    let site = with_channels(&slack, &pagerduty);
    let _engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let tested = run(&site, &["channels", "test", "pager"]);
    assert!(tested.status.success(), "{}", said(&tested));
    let sent: Vec<(String, String)> = pagerduty
        .seen()
        .iter()
        .map(|seen| (seen.body["event_action"].to_string(), seen.body["dedup_key"].to_string()))
        .collect();
    let actions: Vec<&str> = sent.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(actions, ["\"trigger\"", "\"resolve\""]);
    assert!(sent[0].1 == sent[1].1 && sent[0].1.contains("/test/"), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_that_the_channel_refuses_or_that_names_no_channel_does_not_end_with_0() {
    let (slack, pagerduty) = (Recording::slack().await, Recording::pagerduty().await);
    let site = with_channels(&slack, &pagerduty);
    let _engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    eventually("the first look", async || slack.paths().contains(&"/auth.test".to_owned()).then_some(())).await;
    slack.then(Answer::Json(200, json!({ "ok": false, "error": "not_in_channel" })));
    let refused = run(&site, &["channels", "test", "oncall"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("not delivered") && said(&refused).contains("not_in_channel"),
        "{}",
        said(&refused)
    );
    let listed = said(&run(&site, &["channels"]));
    assert!(
        listed.contains("failing") && listed.contains("not_in_channel"),
        "a test that failed is a failure: {listed}"
    );
    let unknown = run(&site, &["channels", "test", "oncal"]);
    assert_eq!(unknown.status.code(), Some(5), "{}", said(&unknown));
    assert!(said(&unknown).contains("did you mean `oncall`?"), "{}", said(&unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_may_operate_sends_a_test_message() {
    let (slack, pagerduty) = (Recording::slack().await, Recording::pagerduty().await);
    let site = with_channels(&slack, &pagerduty);
    for role in ["responder", "operator"] {
        site.add_token(role, role, "");
    }
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let ask =
        async |role: &str| engine.ask("POST", "/api/v1/channels/pager/test", Some(&secret(role)), &json!({})).await.0;
    assert_eq!(ask("responder").await, 403);
    assert_eq!(pagerduty.seen().len(), 0);
    assert_eq!(ask("operator").await, 200);
    assert_eq!(pagerduty.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redaction_is_delivered_to_every_channel_before_the_second_person_agrees() {
    let (slack, pagerduty) = (Recording::slack().await, Recording::pagerduty().await);
    let (simple, hook) =
        (Recording::start(200, |_, _| json!("ok")).await, Recording::start(200, |_, _| json!({})).await);
    let site = with_channels(&slack, &pagerduty);
    for (name, url) in [("simple-url", &simple.url), ("hook-url", &hook.url)] {
        std::fs::write(site.path().join(name), format!("{url}/in")).unwrap();
    }
    let shape = site.path().join("integrations/webhook-json");
    std::fs::create_dir_all(&shape).unwrap();
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations/webhook-json/encode.rhai");
    std::fs::copy(shipped, shape.join("encode.rhai")).unwrap();
    let folder = site.path().display().to_string();
    site.edit(|config| {
        let more = format!(
            ", simple: {{ kind: slack-webhook, url: {{ file: '{folder}/simple-url' }} }}, hook: {{ kind: webhook, shape: webhook-json, url: \
             {{ file: '{folder}/hook-url' }} }} }}\nsources: {{ prod: {{ kind: alertmanager }} }}\n"
        );
        config.trim_end().strip_suffix('}').unwrap().to_owned() + &more
    });
    for name in ["ann", "ben"] {
        site.add_token(name, "admin", "");
    }
    let engine = site.start(&[]).await.unwrap_or_else(|| panic!("{}", site.log()));
    let body =
        alertmanager_body("firing", "2026-11-23T03:00:00Z", &[&[("alertname", "Odd"), ("owner", "kim, 0151 1234567")]]);
    assert_eq!(engine.post("/in/alertmanager/prod", &body).await.unwrap().0, 200);
    let heard = engine.get("/api/v1/entries?kind=heard&limit=1").await.unwrap();
    let entry = heard["entries"][0]["no"].clone();
    let wish = json!({ "entry": entry, "why": "a telephone number" });
    let (status, said) = engine.ask("POST", "/api/v1/audit/redact", Some(&secret("ann")), &wish).await;
    assert_eq!((status, &said["asked"]), (200, &entry), "{said}");
    let words = format!("Redaction of ledger entry {} requested by ann", entry.as_str().unwrap());
    for (name, channel) in [("oncall", &slack), ("pager", &pagerduty), ("simple", &simple), ("hook", &hook)] {
        eventually(&format!("channel {name} has it"), async || {
            channel.seen().iter().any(|seen| seen.text.contains(&words)).then_some(())
        })
        .await;
    }
    let kept = engine.get("/api/v1/entries?kind=heard&limit=1").await.unwrap();
    assert_eq!(kept["entries"][0]["no"], entry, "it is still there");
    let (status, said) = engine.ask("POST", "/api/v1/audit/redact", Some(&secret("ben")), &wish).await;
    assert_eq!((status, &said["redacted"]), (200, &entry), "{said}");
}
