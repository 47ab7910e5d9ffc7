//! People in Slack during a storm: how soon commands and buttons are acknowledged, how soon a first message is there, and
//! how often Slack is asked to edit. 1,000 alerts a second for half a minute.
//!
//! Invariant: requests are signed and go over HTTP to the server that `serve` runs; what Slack was asked is counted by a
//! Slack that is pretended. `SLACK_SECONDS=30`.

use crate::rig::{Rig, TOKEN, block_on, until};
use crate::{ms, row, share, time_row};
use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Json, Router};
use nightshift::config::{ChannelConfig, PersonConfig, Role, SecretSource, SlackApp};
use nightshift::notifiers::{
    self,
    slack::{ButtonSeal, SlackWebClient},
};
use nightshift::policy::GuardLimits;
use nightshift::server::SlackEndpoint;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

const SECRET: &str = "bench-signing-secret-0123456789abcdef";
const NODES: u64 = 10_000;
const PER_REQUEST: u64 = 100;
/// One incident for a quiet channel each three seconds: twenty a minute are still told one by one.
const PAGE_EVERY: Duration = Duration::from_secs(3);

const RULES: &str = "rules:
  - name: storm
    when: ['alertname=\"GpuXid\"']
    tell: [storm]
    group_by: [node]
  - name: page
    when: ['alertname=\"Page\"']
    tell: [oncall]
    group_by: [node]
";

/// What Slack was asked: when, which method, for which channel, with which words.
type Asked = Arc<Mutex<Vec<(Instant, String, String, String)>>>;

pub fn measure() {
    block_on(talk());
}

async fn slack(asked: Asked) -> String {
    let call = |State(asked): State<Asked>, Path(method): Path<String>, Json(body): Json<Value>| async move {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let mut asked = asked.lock().expect("nobody panics here");
        asked.push((Instant::now(), method, text("channel"), text("text")));
        Json(json!({ "ok": true, "channel": body["channel"], "ts": format!("1700.{:06}", asked.len()) }))
    };
    let routes =
        Router::new().route("/api/{method}", post(call)).route("/answer", post(|| async { "ok" })).with_state(asked);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

async fn talk() {
    let seconds = std::env::var("SLACK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let span = Duration::from_secs(seconds);
    let asked = Asked::default();
    let url = slack(asked.clone()).await;
    let mut rig = Rig::new(4, GuardLimits::default(), RULES, &[]).await;
    let token = rig.folder.path().join("bot");
    std::fs::write(&token, "xoxb-bench").expect("a token");
    let channel = |name: &str| ChannelConfig::Slack {
        channel: name.to_owned(),
        token: SecretSource::File(token.clone()),
        api: format!("{url}api"),
        buttons: true,
    };
    let config = Arc::make_mut(&mut rig.parts.config);
    config.channels =
        BTreeMap::from([("storm".to_owned(), channel("C0STORM")), ("oncall".to_owned(), channel("C0ONCALL"))]);
    config.people = vec![PersonConfig { slack: Some("U0ADA".to_owned()), ..PersonConfig::new("ada", Role::Operator) }];
    config.slack = Some(SlackApp {
        signing_secret: None,
        app_token: None,
        token: None,
        team: Some("T0".to_owned()),
        app: Some("A0".to_owned()),
        hooks: url.clone(),
        api: format!("{url}api"),
    });
    let http = rig.parts.world.http.clone();
    let built = notifiers::build(&rig.parts.config.channels, &Default::default(), &http, "bench", &seal());
    rig.parts.notifiers = Arc::new(built.unwrap_or_else(|wrong| panic!("{wrong:?}")));
    let door = SlackEndpoint {
        signing_secret: Some(SECRET.to_owned()),
        hooks: url.parse().expect("an address"),
        web: Some(SlackWebClient::new(http, &format!("{url}api"), "xoxb-bench")),
        seal: seal(),
    };
    let (address, stop) = rig.start_with(|app| app.with_slack(door)).await;

    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let end = Instant::now() + span;
    let storm = tokio::spawn(pour(client.clone(), address, end));
    let pages = tokio::spawn(page(client.clone(), address, end));
    let commands = tokio::spawn(press(client.clone(), address, end, Duration::from_millis(50), command));
    let buttons = tokio::spawn(press(client.clone(), address, end, Duration::from_millis(200), button));
    let (alerts, mut acks) = storm.await.expect("the storm ends");
    let paged = pages.await.expect("the pages end");
    let (mut commands, mut buttons) =
        (commands.await.expect("the commands end"), buttons.await.expect("the buttons end"));
    let first = |node: &str| {
        let asked = asked.lock().expect("nobody panics here");
        let post = asked.iter().find(|(_, method, _, text)| method == "chat.postMessage" && text.contains(node));
        post.map(|(at, ..)| *at)
    };
    let told = until(Duration::from_secs(30), async || paged.iter().all(|(node, _)| first(node).is_some())).await;
    let mut firsts: Vec<Duration> =
        paged.iter().filter_map(|(node, acked)| first(node).map(|at| at.saturating_duration_since(*acked))).collect();
    let _ = stop.send(true);

    row(
        "slack: alerts poured in",
        format!("{:.0} a second, ack p99 {}", alerts as f64 / span.as_secs_f64(), ms(share(&mut acks, 0.99))),
        "1,000 a second",
        None,
    );
    let bar = Duration::from_millis(300);
    row(&format!("slack: {} commands, ack p50", commands.len()), ms(share(&mut commands, 0.5)), "", None);
    time_row("slack: commands, ack p99", share(&mut commands, 0.99), bar);
    row(&format!("slack: {} buttons, ack p50", buttons.len()), ms(share(&mut buttons, 0.5)), "", None);
    time_row("slack: buttons, ack p99", share(&mut buttons, 0.99), bar);
    assert!(told, "{} of {} first messages came", firsts.len(), paged.len());
    time_row(
        &format!("slack: first message of {} incidents after the event's ack, slowest", firsts.len()),
        share(&mut firsts, 1.0),
        Duration::from_secs(2),
    );
    let asked = asked.lock().expect("nobody panics here");
    // Tier 3 of Slack's limits is fifty a minute; a channel takes about a message a second, and bursts.
    let edits = busiest(&asked, Duration::from_secs(60), "chat.update", |_| true);
    row("slack: edits in the busiest minute", edits.to_string(), "50", Some(edits as f64 / 50.0));
    let storm = busiest(&asked, Duration::from_secs(60), "chat.postMessage", |channel| channel == "C0STORM");
    row("slack: messages of the storm in the busiest minute", storm.to_string(), "60", Some(storm as f64 / 60.0));
}

fn alert(name: &str, node: &str) -> Value {
    json!({
        "status": "firing", "startsAt": "2026-11-02T02:50:00.123Z", "annotations": { "summary": "XID 79 on a GPU" },
        "labels": { "alertname": name, "node": node, "severity": "critical" },
    })
}

async fn hear(client: &reqwest::Client, address: SocketAddr, alerts: Vec<Value>) {
    let body = json!({ "version": "4", "status": "firing", "receiver": "bench", "alerts": alerts });
    let request = client.post(format!("http://{address}/in/alertmanager/bench")).bearer_auth(TOKEN).json(&body);
    let answer = request.send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
}

/// A thousand new alerts a second.
async fn pour(client: reqwest::Client, address: SocketAddr, end: Instant) -> (u64, Vec<Duration>) {
    let mut ticks = interval(Duration::from_millis(1_000 * PER_REQUEST / 1_000));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut sent, mut acks) = (0, Vec::new());
    while Instant::now() < end {
        ticks.tick().await;
        let alerts = (sent..sent + PER_REQUEST).map(|no| {
            let mut alert = alert("GpuXid", &format!("gpu-{}", no % NODES));
            alert["labels"]["no"] = json!(no.to_string());
            alert
        });
        let begun = Instant::now();
        hear(&client, address, alerts.collect()).await;
        acks.push(begun.elapsed());
        sent += PER_REQUEST;
    }
    (sent, acks)
}

/// Incidents for the quiet channel, with when each was acknowledged.
async fn page(client: reqwest::Client, address: SocketAddr, end: Instant) -> Vec<(String, Instant)> {
    let mut ticks = interval(PAGE_EVERY);
    let mut paged = Vec::new();
    while Instant::now() < end {
        ticks.tick().await;
        let node = format!("page-{:03}", paged.len());
        hear(&client, address, vec![alert("Page", &node)]).await;
        paged.push((node, Instant::now()));
    }
    paged
}

fn command(no: usize) -> (&'static str, String) {
    let text = ["status", "incidents", "show i1", "why i1"][no % 4];
    let (trigger, url) = (no.to_string(), "http://127.0.0.1:1/answer");
    let fields = [
        ("team_id", "T0"),
        ("api_app_id", "A0"),
        ("user_id", "U0ADA"),
        ("text", text),
        ("trigger_id", trigger.as_str()),
        ("response_url", url),
    ];
    ("/slack/command", url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish())
}

fn seal() -> Arc<ButtonSeal> {
    Arc::new(ButtonSeal::new(&[7; 32], "bench"))
}

fn button(no: usize) -> (&'static str, String) {
    let until = nightshift::model::Time::now() + Duration::from_secs(3_600);
    let value = seal().close("ack", &format!("i{}", no + 1), "", until);
    let payload = json!({
        "type": "block_actions", "user": { "id": "U0ADA" }, "team": { "id": "T0" }, "api_app_id": "A0",
        "actions": [{ "action_id": "ack", "value": value }], "trigger_id": format!("b{no}"),
        "response_url": "http://127.0.0.1:1/answer",
    });
    let payload = payload.to_string();
    let fields = [("payload", payload.as_str())];
    ("/slack/interact", url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish())
}

/// Signed requests at that pace, whether or not the last one is answered; how long each took.
async fn press(
    client: reqwest::Client,
    address: SocketAddr,
    end: Instant,
    every: Duration,
    next: fn(usize) -> (&'static str, String),
) -> Vec<Duration> {
    let mut ticks = interval(every);
    let mut waiting = Vec::new();
    while Instant::now() < end {
        ticks.tick().await;
        let (path, body) = next(waiting.len());
        let stamp = nightshift::model::Time::now().as_second();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
        let tag = ring::hmac::sign(&key, format!("v0:{stamp}:{body}").as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let request = client
            .post(format!("http://{address}{path}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-slack-request-timestamp", stamp.to_string())
            .header("x-slack-signature", format!("v0={hex}"))
            .body(body);
        waiting.push(tokio::spawn(async move {
            let begun = Instant::now();
            let answer = request.send().await.expect("an answer");
            assert!(answer.status().is_success(), "{}", answer.status());
            answer.bytes().await.expect("its body");
            begun.elapsed()
        }));
    }
    let mut times = Vec::new();
    for one in waiting {
        times.push(one.await.expect("a request ends"));
    }
    times
}

/// The most calls of a method within any such time.
fn busiest(
    asked: &[(Instant, String, String, String)],
    within: Duration,
    method: &str,
    channel: impl Fn(&str) -> bool,
) -> usize {
    let at: Vec<Instant> = asked.iter().filter(|one| one.1 == method && channel(&one.2)).map(|one| one.0).collect();
    let from = |first: usize| at[first..].iter().take_while(|other| **other < at[first] + within).count();
    (0..at.len()).map(from).max().unwrap_or_default()
}
