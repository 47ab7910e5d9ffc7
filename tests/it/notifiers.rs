//! Notifiers against servers in the exact shape of the vendors': what is said, what is edited, what a failure means.
//!
//! Invariant: every message that leaves is looked at as the vendor would see it.
#![allow(clippy::unwrap_used)] // a test says what it expects by unwrapping

pub(crate) mod mail;

use crate::recording::{Answer, Recording};
use nightshift::config::{ChannelConfig, SecretSource};
use nightshift::model::*;
use nightshift::notifiers::{self, Notifier};
use nightshift::script::ShapeScript;
use nightshift::world::HttpClient;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const HOSTILE: &str = "<!channel> <@U1> <https://evil|x> </script> ]}\" \u{202e}gnp \0 & *b*";

/// Builds one channel as the program does, with its secret in a file.
fn build(make: impl FnOnce(SecretSource) -> ChannelConfig, secret: &str) -> Result<Box<dyn Notifier>, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, secret).unwrap();
    let channels = BTreeMap::from([("it".to_owned(), make(SecretSource::File(file)))]);
    let http = HttpClient::new("nightshift/test", &[]).unwrap();
    notifiers::build(&channels, &encoders(), &http, "test", &crate::night::seal())
        .map(|mut built| built.remove("it").unwrap())
}

fn encoders() -> HashMap<String, Arc<ShapeScript>> {
    let shape = |name: &str| {
        let path = format!("{}/integrations/{name}/encode.rhai", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap();
        (name.to_owned(), Arc::new(ShapeScript::compile(&path, &text, "encode").unwrap()))
    };
    ["webhook-json", "teams", "opsgenie", "datadog", "newrelic"].map(shape).into_iter().collect()
}

fn slack(server: &Recording) -> Box<dyn Notifier> {
    let api = server.url.clone();
    build(|token| ChannelConfig::Slack { channel: "#gpu".into(), token, api, buttons: false }, "xoxb-1\n").unwrap()
}

pub(crate) fn slack_with_buttons(server: &Recording) -> Box<dyn Notifier> {
    let api = server.url.clone();
    build(|token| ChannelConfig::Slack { channel: "C1".into(), token, api, buttons: true }, "x").unwrap()
}

pub(crate) fn pagerduty(server: &Recording) -> Box<dyn Notifier> {
    let api = format!("{}/v2/enqueue", server.url);
    build(|routing_key| ChannelConfig::PagerDuty { routing_key, api, patience: None }, KEY).unwrap()
}

fn line(no: i64, text: &str) -> TimelineEntry {
    let at = "2026-11-23T03:12:00Z".parse().unwrap();
    TimelineEntry { no: EntryNo(no), at, text: text.into(), headline: true, change: false }
}

pub(crate) fn notice(state: IncidentState, title: &str, fresh: &[(i64, &str)]) -> IncidentNotice {
    let at = "2026-11-23T03:12:00Z".parse().unwrap();
    let lines: Vec<TimelineEntry> = fresh.iter().map(|(no, text)| line(*no, text)).collect();
    IncidentNotice {
        incident: Incident {
            owner: None,
            id: IncidentId(3),
            key: "node=gpu-3".into(),
            title: title.into(),
            subject: Subject::node(title),
            severity: Severity::Critical,
            state,
            opened_at: at,
            closed_at: None,
            resolves_at: None,
            acknowledged_by: None,
            firing: 1,
            episodes: 1,
            incarnation: String::new(),
        },
        headlines: lines.clone(),
        fresh: lines,
        asks: Vec::new(),
        suggestions: Vec::new(),
        dedup_key: "nightshift/test/i3".into(),
        link: Some("https://ns.example/incidents/i3".into()),
        now: String::new(),
        alerts: Vec::new(),
        alerts_left_out: 0,
        links: Vec::new(),
        frozen: None,
        because: None,
        budget: None,
        hands: None,
        needs: Vec::new(),
        needs_people: false,
        maybe_repeat: false,
    }
}

pub(crate) fn open(fresh: &[(i64, &str)]) -> IncidentNotice {
    notice(IncidentState::Open, "XID 79 on gpu-3", fresh)
}

pub(crate) fn ask(text: &str) -> PendingApproval {
    PendingApproval {
        approval: ApprovalId(3),
        question: text.into(),
        plan_hash: "ab".repeat(32),
        plan: vec![text.into()],
        steps: vec![PlannedStep { what: text.into(), cost: None, held: None }],
        brief: String::new(),
        asked_at: "2026-11-23T03:10:00Z".parse().unwrap(),
        approvers: Vec::new(),
        needed: 1,
        expires_at: "2026-11-23T03:40:00Z".parse().unwrap(),
    }
}

pub(crate) fn delivered(delivery: DeliveryResult) -> DeliveryReceipt {
    match delivery {
        DeliveryResult::Delivered(receipt) => receipt,
        other => panic!("not delivered: {other:?}"),
    }
}

/// The receipt after a notice that sent nothing.
pub(crate) fn unsent(delivery: DeliveryResult, prior: Option<&DeliveryReceipt>) -> DeliveryReceipt {
    match delivery {
        DeliveryResult::Nothing(receipt) => receipt.or(prior.cloned()).unwrap_or(DeliveryReceipt(Value::Null)),
        other => panic!("something was sent: {other:?}"),
    }
}

fn retry(delivery: DeliveryResult) -> (Option<Duration>, String) {
    match delivery {
        DeliveryResult::Retry { after, why } => (after, why),
        other => panic!("not a retry: {other:?}"),
    }
}

fn refused(delivery: DeliveryResult) -> String {
    match delivery {
        DeliveryResult::Refused { why } => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn slack_has_one_message_that_is_edited_and_a_thread_for_the_rest() {
    let server = Recording::slack().await;
    let slack = slack(&server);
    let receipt = delivered(slack.deliver(&open(&[(1, "opened: XID 79")]), None).await);
    assert_eq!(receipt.0, json!({ "channel": "C1", "ts": "1700.0001" }));
    let receipt = delivered(slack.deliver(&open(&[(2, "cordoned gpu-3")]), Some(&receipt)).await);
    delivered(slack.deliver(&notice(IncidentState::Resolved, "XID 79", &[(3, "resolved")]), Some(&receipt)).await);
    assert_eq!(
        server.paths(),
        ["/chat.postMessage", "/chat.update", "/chat.postMessage", "/chat.update", "/chat.postMessage"]
    );
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.authorization == "Bearer xoxb-1" && seen.method == "POST"));
    assert_eq!(seen[0].body["metadata"]["event_payload"]["dedup_key"], "nightshift/test/i3");
    assert_eq!((&seen[1].body["ts"], &seen[1].body["channel"]), (&json!("1700.0001"), &json!("C1")));
    assert_eq!(seen[2].body["thread_ts"], "1700.0001");
    assert!(seen[2].text.contains("{time}|03:12 UTC>") && seen[2].text.contains("cordoned gpu-3"), "{}", seen[2].text);
}

#[tokio::test]
async fn a_question_in_slack_carries_the_command_that_answers_it() {
    let server = Recording::slack().await;
    let mut notice = open(&[(1, "opened")]);
    notice.asks.push(ask("drain gpu-3?"));
    delivered(slack(&server).deliver(&notice, None).await);
    let text = &server.seen()[0].text;
    assert!(text.contains("`nightshift approve a3` or `nightshift deny a3`"), "{text}");
    assert!(
        text.contains("expires <!date^1795405200^{time}|03:40 UTC>; without an answer it counts as denied"),
        "{text}"
    );
    assert!(text.contains("Needs the role approver."), "{text}");
}

#[tokio::test]
async fn a_hostile_label_is_never_a_mention_a_link_or_a_button() {
    let server = Recording::slack().await;
    for title in [HOSTILE.to_owned(), HOSTILE.repeat(2_000)] {
        let mut notice = notice(IncidentState::Open, &title, &[(1, &title), (2, &title)]);
        notice.asks = (0..20).map(|_| ask(&title)).collect();
        notice.headlines = (0..50).map(|no| line(no, &title)).collect();
        delivered(slack(&server).deliver(&notice, None).await);
        for seen in server.seen() {
            assert!(seen.body.is_object(), "no valid JSON: {}", seen.text);
            assert!(seen.text.contains("&lt;!channel&gt;"), "the label is shown, as text");
            check_blocks(&seen.body);
        }
    }
}

/// As Slack reads it: bounds, known blocks alone, and no control sequence but our own link.
fn check_blocks(body: &Value) {
    let blocks = body["blocks"].as_array().unwrap();
    let mut total = 0;
    let mut texts: Vec<&Value> = Vec::new();
    for block in blocks {
        match block["type"].as_str().unwrap() {
            "header" | "section" => texts.push(&block["text"]),
            "context" => texts.extend(block["elements"].as_array().unwrap()),
            other => panic!("a {other} block"),
        }
    }
    for text in texts {
        let words = text["text"].as_str().unwrap();
        total += words.chars().count();
        assert!((1..=3_000).contains(&words.chars().count()));
        // Our own times and links are mrkdwn; what a label says is not.
        let own = without_our_sequences(words);
        let without = if text["type"] == "mrkdwn" { own } else { words.to_owned() };
        assert!(!without.contains(['<', '>', '\0', '\u{202e}']), "{words}");
        assert!(text["type"] == "plain_text" || text["verbatim"] == true);
    }
    assert!(blocks.len() <= 50 && total <= 13_000, "{} blocks, {total} characters", blocks.len());
    assert!(!body["text"].as_str().unwrap().contains(['<', '>']));
}

/// Without Slack's own sequences that we write: times, and links to http addresses.
fn without_our_sequences(words: &str) -> String {
    let mut left = String::new();
    let mut rest = words;
    while let Some(start) = rest.find('<') {
        left.push_str(&rest[..start]);
        let end = rest[start..].find('>').map_or(rest.len(), |end| start + end + 1);
        let sequence = &rest[start..end];
        if !(sequence.starts_with("<!date^") || sequence.starts_with("<https://") || sequence.starts_with("<http://")) {
            left.push_str(sequence);
        }
        rest = &rest[end..];
    }
    left + rest
}

#[tokio::test]
async fn what_slack_says_decides_between_later_and_never() {
    let server = Recording::slack().await;
    let slack = slack(&server);
    let notice = open(&[(1, "opened")]);
    server.then(Answer::Later(429, 7, r#"{"ok":false,"error":"ratelimited"}"#));
    assert_eq!(retry(slack.deliver(&notice, None).await).0, Some(Duration::from_secs(7)));
    server.then(Answer::Later(200, 9, r#"{"ok":false,"error":"ratelimited"}"#));
    assert_eq!(retry(slack.deliver(&notice, None).await).0, Some(Duration::from_secs(9)));
    server.then(Answer::Json(200, json!({ "ok": false, "error": "invalid_auth" })));
    assert!(refused(slack.deliver(&notice, None).await).contains("xoxb-"));
    server.then(Answer::Json(200, json!({ "ok": false, "error": "channel_not_found" })));
    assert!(refused(slack.deliver(&notice, None).await).contains("no such channel"));
    server.then(Answer::Text(200, "<html>login</html>"));
    assert!(retry(slack.deliver(&notice, None).await).1.contains("is not valid JSON: <html>login"));
    server.then(Answer::Json(200, json!({ "ok": true, "messages": [] }))).then(Answer::Text(503, "down"));
    assert!(retry(slack.deliver(&notice, None).await).1.contains("503: down"));
    server.then(Answer::Json(200, json!({ "ok": true, "messages": [] })));
    server.then(Answer::Json(200, json!({ "ok": false, "error": "msg_blocks_too_long" })));
    delivered(slack.deliver(&notice, None).await);
    server.then(Answer::Json(200, json!({ "ok": false, "error": "message_not_found" })));
    let gone = DeliveryReceipt(json!({ "channel": "C1", "ts": "1.1" }));
    assert_ne!(delivered(slack.deliver(&notice, Some(&gone)).await), gone, "posted anew");
}

#[tokio::test]
async fn a_message_that_may_be_there_is_looked_for_before_it_is_posted_again() {
    let server = Recording::slack().await;
    let mut notice = open(&[(1, "opened")]);
    notice.maybe_repeat = true;
    let metadata = json!({ "event_type": "nightshift_incident", "event_payload": { "dedup_key": notice.dedup_key } });
    server.then(Answer::Json(200, json!({ "ok": true, "messages": [{ "ts": "9.9", "metadata": metadata }] })));
    let receipt = delivered(slack(&server).deliver(&notice, None).await);
    assert_eq!(receipt.0["ts"], "9.9");
    assert_eq!(server.paths()[..2], ["/conversations.history", "/chat.update"]);
}

#[tokio::test]
async fn a_post_whose_thread_failed_is_edited_not_posted_twice() {
    let server = Recording::slack().await;
    let slack = slack(&server);
    let mut notice = open(&[(1, "opened"), (2, "a detail")]);
    notice.headlines.truncate(1);
    server.then(Answer::Json(200, json!({ "ok": true, "channel": "C1", "ts": "5.5" })));
    server.then(Answer::Later(429, 1, ""));
    retry(slack.deliver(&notice, None).await);
    assert_eq!(delivered(slack.deliver(&notice, None).await).0["ts"], "5.5");
    assert_eq!(server.paths()[2..], ["/chat.update", "/chat.postMessage"]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_never_comes_is_a_retry() {
    let server = Recording::pagerduty().await;
    server.then(Answer::BreakOff);
    let pagerduty = pagerduty(&server);
    assert!(retry(pagerduty.deliver(&open(&[]), None).await).1.starts_with("PagerDuty: "));
}

#[tokio::test]
async fn slacks_webhook_posts_what_is_new_and_nothing_else() {
    let server = Recording::start(200, |_, _| json!({})).await;
    let webhook =
        build(|url| ChannelConfig::SlackWebhook { url }, &format!("{}/services/T/B/secret", server.url)).unwrap();
    server.then(Answer::Text(200, "ok"));
    let receipt = delivered(webhook.deliver(&open(&[(1, "opened")]), None).await);
    let mut quiet = open(&[(2, "a detail")]);
    quiet.fresh[0].headline = false;
    let receipt = unsent(webhook.deliver(&quiet, Some(&receipt)).await, Some(&receipt));
    server.then(Answer::Text(404, "no_service"));
    let why = refused(webhook.deliver(&notice(IncidentState::Resolved, "x", &[]), Some(&receipt)).await);
    assert!(why.contains("no_service") && !why.contains("secret/"), "{why}");
    server.then(Answer::Text(200, "<html>"));
    assert!(retry(webhook.deliver(&open(&[(1, "opened")]), None).await).1.contains("did not answer ok"));
    assert_eq!(server.seen().len(), 3);
    check_blocks(&server.seen()[0].body);
}

#[tokio::test]
async fn pagerduty_hears_a_state_once_under_one_key() {
    let server = Recording::pagerduty().await;
    let pagerduty = pagerduty(&server);
    let mut receipt = delivered(pagerduty.deliver(&notice(IncidentState::Open, HOSTILE, &[(1, HOSTILE)]), None).await);
    for (state, sends) in [
        (IncidentState::Open, false),
        (IncidentState::Acknowledged, true),
        (IncidentState::Acknowledged, false),
        (IncidentState::Resolved, true),
        (IncidentState::Resolved, false),
    ] {
        let delivery = pagerduty.deliver(&notice(state, "changed", &[(2, "news")]), Some(&receipt)).await;
        receipt = if sends { delivered(delivery) } else { unsent(delivery, Some(&receipt)) };
    }
    let seen = server.seen();
    let said: Vec<&str> = seen.iter().map(|seen| seen.body["event_action"].as_str().unwrap()).collect();
    assert_eq!(said, ["trigger", "acknowledge", "resolve"]);
    assert!(seen.iter().all(|seen| seen.body["dedup_key"] == "nightshift/test/i3" && seen.body["routing_key"] == KEY));
    assert_eq!(seen[0].body["payload"]["severity"], "critical");
    assert!(seen[0].body["payload"]["summary"].as_str().unwrap().contains("\\u{202e}gnp \\u{0}"));
}

pub(crate) fn need(kind: AttentionKind, key: &str, text: &str) -> AttentionReason {
    let link = Some("https://ns.example/runs/r2".to_owned());
    AttentionReason { kind, key: key.into(), run: RunId(2), text: text.into(), link }
}

#[tokio::test]
async fn a_question_that_comes_with_the_acknowledgement_is_sent_after_it() {
    let server = Recording::pagerduty().await;
    let pagerduty = pagerduty(&server);
    let mut now = notice(IncidentState::Open, "gpu-3: XID 79", &[(1, "opened")]);
    let mut receipt = delivered(pagerduty.deliver(&now, None).await);
    now.incident.state = IncidentState::Acknowledged;
    now.needs = vec![need(AttentionKind::Approval, "a3", "drain (r3) waits for an answer")];
    // An acknowledgement carries no details.
    receipt = delivered(pagerduty.deliver(&now, Some(&receipt)).await);
    receipt = delivered(pagerduty.deliver(&now, Some(&receipt)).await);
    unsent(pagerduty.deliver(&now, Some(&receipt)).await, Some(&receipt));
    let actions: Vec<Value> = server.seen().iter().map(|seen| seen.body["event_action"].clone()).collect();
    assert_eq!(actions, ["trigger", "acknowledge", "trigger"]);
}

#[tokio::test]
async fn the_page_carries_the_question_and_names_the_gpu_as_a_person_would() {
    let server = Recording::pagerduty().await;
    let mut asking = notice(IncidentState::Open, "gpu-3: GPU 5 fell off the bus (XID 79)", &[(1, "r2 waits")]);
    asking.incident.subject = Subject { gpu: Some("5".into()), ..Subject::node("gpu-3") };
    asking.asks = vec![ask("Drain gpu-3? It loses 4 pods.")];
    asking.asks[0].plan = vec!["cordon gpu-3 (XID 79)".into(), "drain gpu-3 (within 30m)".into()];
    asking.asks[0].steps.clear();
    asking.asks[0].brief = "cordon gpu-3 and drain it (4 pods move)".into();
    asking.links = vec![NoticeLink { label: "Runbook".into(), url: "https://wiki.example/xid79".into() }];
    asking.needs = vec![need(AttentionKind::Approval, "a3", "gpu-fell-off-the-bus (r2) waits for an answer")];
    delivered(pagerduty(&server).deliver(&asking, None).await);
    let body = server.seen().remove(0).body;
    let payload = &body["payload"];
    let summary =
        "[needs approval] gpu-3: GPU 5 fell off the bus (XID 79) – approve: cordon gpu-3 and drain it (4 pods move)?";
    assert_eq!(payload["summary"], summary);
    assert_eq!((&payload["component"], &payload["source"]), (&json!("GPU 5"), &json!("gpu-3")));
    let hrefs: Vec<&Value> = body["links"].as_array().unwrap().iter().map(|link| &link["href"]).collect();
    assert_eq!(
        hrefs,
        ["https://ns.example/incidents/i3", "https://ns.example/runs/r2", "https://wiki.example/xid79"],
        "and what the alert links to"
    );
    let details = &payload["custom_details"];
    assert_eq!(details["plan"], json!(["1. cordon gpu-3 (XID 79)", "2. drain gpu-3 (within 30m)"]));
    assert!(details["questions"][0].as_str().unwrap().contains("nightshift approve a3"), "{details}");
}

#[tokio::test]
async fn what_begins_to_need_people_later_updates_the_alert_under_its_key_once() {
    let server = Recording::pagerduty().await;
    let pagerduty = pagerduty(&server);
    let mut at_work = open(&[(1, "opened")]);
    let mut receipt = delivered(pagerduty.deliver(&at_work, None).await);
    let stuck = need(AttentionKind::Stuck, "r2 stuck", "gpu-reset (r2) is stuck: the reset was not answered");
    for (needs, summary) in [
        (vec![need(AttentionKind::Held, "r2 held", "gpu-reset (r2) has been on hold since 03:10 UTC")], "[on hold] "),
        (vec![stuck.clone()], "[stuck] "),
    ] {
        at_work.needs = needs;
        receipt = delivered(pagerduty.deliver(&at_work, Some(&receipt)).await);
        receipt = unsent(pagerduty.deliver(&at_work, Some(&receipt)).await, Some(&receipt));
        let last = server.seen().pop().unwrap().body;
        assert_eq!((&last["event_action"], &last["dedup_key"]), (&json!("trigger"), &json!("nightshift/test/i3")));
        assert!(last["payload"]["summary"].as_str().unwrap().starts_with(summary), "{last}");
    }
    // With a person on it, it stays acknowledged, and the log of the alert has the news.
    let mut in_hand = at_work.clone();
    in_hand.incident.state = IncidentState::Acknowledged;
    receipt = delivered(pagerduty.deliver(&in_hand, Some(&receipt)).await);
    in_hand.asks = vec![ask("Drain gpu-3?")];
    in_hand.needs.insert(0, need(AttentionKind::Approval, "a3", "drain (r3) waits for an answer"));
    receipt = delivered(pagerduty.deliver(&in_hand, Some(&receipt)).await);
    unsent(pagerduty.deliver(&in_hand, Some(&receipt)).await, Some(&receipt));
    let actions: Vec<String> =
        server.seen().iter().map(|seen| seen.body["event_action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(actions, ["trigger", "trigger", "trigger", "acknowledge", "trigger"]);
}

#[tokio::test]
async fn a_storms_alert_counts_every_incident_links_to_them_and_is_corrected_under_its_key() {
    let server = Recording::pagerduty().await;
    let pagerduty = pagerduty(&server);
    let item =
        DigestItem { title: "gpu-9: XID 79".into(), severity: Severity::Critical, line: "(i9 node gpu-9)".into() };
    let mut digest = IncidentDigest {
        total: 30,
        own: 20,
        asking: 0,
        resolved: 0,
        worst: Severity::Critical,
        shown: vec![item],
        since: "2026-11-23T03:12:00Z".parse().unwrap(),
        over: false,
        link: Some("https://ns.example/".into()),
    };
    let receipt = delivered(pagerduty.digest(&digest, None).await);
    let first = server.seen().remove(0).body;
    let summary = first["payload"]["summary"].as_str().unwrap();
    assert!(summary.starts_with("30 incidents at once, worst: critical (20 of them paged separately"), "{summary}");
    assert_eq!(first["links"][0]["href"], "https://ns.example/");
    digest.total = 31;
    unsent(pagerduty.digest(&digest, Some(&receipt)).await, None);
    digest.asking = 1;
    let receipt = delivered(pagerduty.digest(&digest, Some(&receipt)).await);
    digest.total = 62;
    let receipt = delivered(pagerduty.digest(&digest, Some(&receipt)).await);
    digest.over = true;
    unsent(pagerduty.digest(&digest, Some(&receipt)).await, None);
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.body["dedup_key"] == first["dedup_key"]));
    assert!(seen[2].body["payload"]["summary"].as_str().unwrap().contains("62 incidents"));
}

#[tokio::test]
async fn a_notifier_that_sent_nothing_says_so() {
    let pd = Recording::pagerduty().await;
    let key = |routing_key: SecretSource| ChannelConfig::PagerDutyChanges {
        routing_key,
        api: format!("{}/v2/change/enqueue", pd.url),
    };
    let changes = build(key, KEY).unwrap();
    unsent(changes.deliver(&open(&[(1, "opened")]), None).await, None);
    unsent(pagerduty(&pd).deliver(&notice(IncidentState::Resolved, "x", &[(1, "over")]), None).await, None);
    unsent(pagerduty(&pd).deliver(&notice(IncidentState::Acknowledged, "x", &[(1, "seen")]), None).await, None);
    let other = Recording::start(202, |_, _| json!({})).await;
    unsent(vendor("opsgenie", &other).deliver(&notice(IncidentState::Resolved, "x", &[]), None).await, None);
    assert_eq!((pd.seen().len(), other.seen().len()), (0, 0));
}

#[tokio::test]
async fn a_huge_label_still_pages() {
    let server = Recording::pagerduty().await;
    let huge = "x\u{202e}".repeat(50_000);
    let mut notice = notice(IncidentState::Open, &huge, &[(1, &huge)]);
    notice.headlines = (0..12).map(|no| line(no, &huge)).collect();
    delivered(pagerduty(&server).deliver(&notice, None).await);
    let seen = server.seen();
    assert!(seen[0].text.len() <= 512_000);
    assert!(seen[0].body["payload"]["summary"].as_str().unwrap().chars().count() <= 1_024);
}

#[tokio::test]
async fn what_pagerduty_says_decides_between_later_and_never() {
    let server = Recording::pagerduty().await;
    let pagerduty = pagerduty(&server);
    server.then(Answer::Json(
        400,
        json!({ "status": "invalid event", "message": "Event object is invalid", "errors": ["'summary' is missing"] }),
    ));
    assert!(
        refused(pagerduty.deliver(&open(&[]), None).await).contains("Event object is invalid: 'summary' is missing")
    );
    server.then(Answer::Later(429, 30, ""));
    assert_eq!(retry(pagerduty.deliver(&open(&[]), None).await).0, Some(Duration::from_secs(30)));
    for answer in [Answer::Text(500, "oh"), Answer::Text(200, "<html>hotel wifi</html>"), Answer::Text(202, "?")] {
        server.then(answer);
        retry(pagerduty.deliver(&open(&[]), None).await);
    }
}

#[test]
fn a_rest_key_is_no_routing_key() {
    let api = "http://127.0.0.1:1".to_owned();
    let dir = tempfile::tempdir().unwrap();
    let routing_key = SecretSource::File(dir.path().join("key"));
    std::fs::write(dir.path().join("key"), "u+abcdefghijklmnopqr").unwrap();
    let channels = BTreeMap::from([("it".to_owned(), ChannelConfig::PagerDuty { routing_key, api, patience: None })]);
    let http = HttpClient::new("nightshift/test", &[]).unwrap();
    let built = notifiers::build(&channels, &encoders(), &http, "test", &crate::night::seal()).unwrap();
    let off = built["it"].off().unwrap();
    assert!(off.contains("REST API key"), "{off}");
    std::fs::write(dir.path().join("key"), KEY).unwrap();
    assert_eq!(built["it"].off(), None, "another secret is read without a new start");
}

#[tokio::test]
async fn a_shape_makes_the_request_of_a_webhook() {
    let server = Recording::start(200, |_, _| json!({})).await;
    let webhook = |shape: &str| {
        let shape = shape.to_owned();
        let address = format!("{}/hook", server.url);
        build(|url| ChannelConfig::Webhook { shape, url, headers: BTreeMap::new(), patience: None }, &address)
    };
    let json_ = webhook("webhook-json").unwrap();
    let receipt = delivered(json_.deliver(&open(&[(1, HOSTILE)]), None).await);
    assert_eq!(receipt.0, json!({ "revision": "open-#1" }));
    assert_eq!(server.seen()[0].body["incident"]["title"], "XID 79 on gpu-3");
    let teams = webhook("teams").unwrap();
    let hostile = notice(IncidentState::Open, "<at>all</at> [x](https://evil)", &[(1, "opened")]);
    let receipt = delivered(teams.deliver(&hostile, None).await);
    unsent(teams.deliver(&hostile, Some(&receipt)).await, Some(&receipt));
    let seen = server.seen();
    assert_eq!(seen.len(), 2, "the second card would say the same");
    let title = &seen[1].body["attachments"][0]["content"]["body"][0]["text"];
    assert_eq!(title, "&lt;at&gt;all&lt;/at&gt; \\[x\\](https://evil)");
    assert!(webhook("nobody").err().unwrap()[0].contains("integrations/nobody/encode.rhai"));
}

fn vendor(shape: &str, server: &Recording) -> Box<dyn Notifier> {
    let (shape, address) = (shape.to_owned(), format!("{}/v2/alerts", server.url));
    build(|url| ChannelConfig::Webhook { shape, url, headers: BTreeMap::new(), patience: None }, &address).unwrap()
}

#[tokio::test]
async fn opsgenie_has_one_alert_under_one_alias_that_is_acknowledged_and_closed() {
    let server = Recording::start(202, |_, _| json!({ "result": "Request will be processed" })).await;
    let opsgenie = vendor("opsgenie", &server);
    let told = |state, title: &str| notice(state, title, &[(1, "opened"), (2, "cordoned gpu-3")]);
    let mut first = told(IncidentState::Open, &"x".repeat(400));
    first.because = Some("no runbook works on it".into());
    let open = delivered(opsgenie.deliver(&first, None).await);
    unsent(opsgenie.deliver(&first, Some(&open)).await, Some(&open));
    let known = delivered(opsgenie.deliver(&told(IncidentState::Acknowledged, "x"), Some(&open)).await);
    delivered(opsgenie.deliver(&told(IncidentState::Resolved, "x"), Some(&known)).await);
    let seen = server.seen();
    let paths: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).collect();
    let below = "/v2/alerts/nightshift-test-i3";
    assert_eq!(paths, ["/v2/alerts", &format!("{below}/acknowledge"), &format!("{below}/close")]);
    let alert = &seen[0].body;
    assert_eq!((&alert["alias"], &alert["priority"]), (&json!("nightshift-test-i3"), &json!("P1")));
    assert_eq!(alert["message"].as_str().unwrap().chars().count(), 130);
    assert!(alert["description"].as_str().unwrap().starts_with("Notified now because no runbook works on it\n"));
    // Over before it was told: nobody is paged, and a later end closes nothing.
    let over = unsent(opsgenie.deliver(&told(IncidentState::Resolved, "x"), None).await, None);
    unsent(opsgenie.deliver(&told(IncidentState::Resolved, "x"), Some(&over)).await, Some(&over));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn datadog_and_new_relic_get_an_event_for_each_news_within_their_limits() {
    let server = Recording::start(202, |_, _| json!({ "status": "ok" })).await;
    let long = "ü".repeat(9_000);
    let many: Vec<(i64, &str)> = (1..=30).map(|no| (no, long.as_str())).collect();
    let hostile = notice(IncidentState::Open, &"t,\"}<!channel>".repeat(40), &many);
    let (datadog, newrelic) = (vendor("datadog", &server), vendor("newrelic", &server));
    let receipt = delivered(datadog.deliver(&hostile, None).await);
    let body = server.seen().pop().unwrap().body;
    let chars = |value: &Value| value.as_str().unwrap().chars().count();
    assert!(chars(&body["title"]) <= 100 && chars(&body["text"]) <= 4_000 && chars(&body["aggregation_key"]) <= 100);
    assert!(
        body["tags"].as_array().unwrap().iter().all(|tag| chars(tag) <= 200 && !tag.as_str().unwrap().contains(','))
    );
    assert_eq!(body["alert_type"], "error");
    let mut quiet = hostile.clone();
    quiet.fresh.clear();
    unsent(datadog.deliver(&quiet, Some(&receipt)).await, Some(&receipt));
    assert_eq!(server.seen().len(), 1, "without news there is no event");

    delivered(newrelic.deliver(&hostile, None).await);
    let body = server.seen().pop().unwrap().body;
    let events = body.as_array().unwrap();
    assert_eq!(events.len(), 30);
    assert!(body.to_string().len() <= 1_000_000);
    for event in events {
        let attributes = event.as_object().unwrap();
        assert!(
            attributes.len() <= 254 && event["eventType"] == "NightshiftIncident" && event["timestamp"].is_number()
        );
        let flat = |value: &Value| value.is_number() || value.as_str().is_some_and(|text| text.len() <= 4_096);
        assert!(attributes.values().all(flat), "{event}");
    }
}

/// A question with everything that a message can have.
fn full() -> IncidentNotice {
    let title = "gpu-1: 2 faults (XID 74 on GPU 4, XID 48 on GPU 2)";
    let mut notice =
        notice(IncidentState::Open, title, &[(7, "gpu-reset (r3) started for gpu-1, GPU 2, mode approve")]);
    notice.incident.subject = Subject { cluster: Some("prod".into()), ..Subject::node("gpu-1") };
    (notice.incident.firing, notice.incident.episodes) = (2, 2);
    notice.now = "Waiting for your OK to cordon gpu-1, drain it (4 pods move) and reset GPU 2.".into();
    let alert = |what: &str, description: &str| AlertLine {
        what: what.into(),
        name: "GpuXid".into(),
        severity: Severity::Critical,
        firing: true,
        since: notice.incident.opened_at,
        description: description.into(),
    };
    notice.alerts = vec![
        alert("gpu-1: GPU 4 has an NVLink error (XID 74)", "The NVIDIA driver logged XID 74 once."),
        alert("gpu-1: GPU 2 has an uncorrectable memory error (XID 48)", ""),
    ];
    notice.alerts_left_out = 3;
    let link = |label: &str, url: &str| NoticeLink { label: label.into(), url: url.into() };
    notice.links = vec![
        link("Runbook", "https://wiki.example/xid?a=1&b=2"),
        link("Alert source", "http://prometheus:9090/graph?g0.expr=x&g0.tab=1"),
        link("Dashboard", "javascript:alert(1)"),
    ];
    notice.frozen = Some("Frozen by ana since 02:58 UTC: storage upgrade. Approving will not start it.".into());
    notice.budget = Some("1 of 4 GPU nodes out of service, limit reached".into());
    let mut ask = ask("Run gpu-reset on gpu-1, GPU 2? Reset the GPU");
    let step = |what: &str, cost: Option<&str>, held: Option<&str>| PlannedStep {
        what: what.into(),
        cost: cost.map(Into::into),
        held: held.map(Into::into),
    };
    let held = "would be held now: gpu-4 is already out of service, and only 1 of 4 nodes may be out at a time";
    let evicts = "evicts 4 pods: inference/llama-0, inference/llama-1, inference/mistral-0, inference/mistral-1; \
                  the serving floor is kept";
    ask.steps = vec![
        step("cordon gpu-1 (XID 48)", None, Some(held)),
        step("drain gpu-1 (GPU pods only, up to 30m)", Some(evicts), None),
        step("reset GPU 2 on gpu-1", None, None),
    ];
    ask.approvers = vec!["ana".into(), "bo".into()];
    ask.needed = 2;
    notice.asks = vec![ask];
    notice
}

/// The words that every channel must carry of `full`.
const FULL: &[&str] = &[
    "gpu-1: 2 faults (XID 74 on GPU 4, XID 48 on GPU 2)",
    "Waiting for your OK to cordon gpu-1, drain it (4 pods move) and reset GPU 2.",
    "Frozen by ana since 02:58 UTC: storage upgrade. Approving will not start it.",
    "gpu-1: GPU 2 has an uncorrectable memory error (XID 48)",
    "The NVIDIA driver logged XID 74 once.",
    "evicts 4 pods: inference/llama-0, inference/llama-1",
    "the serving floor is kept",
    "would be held now: gpu-4 is already out of service, and only 1 of 4 nodes may be out at a time",
    "nightshift approve a3",
    "nightshift deny a3",
    "without an answer it counts as denied",
];

#[tokio::test]
async fn every_channel_says_where_it_stands_what_it_costs_what_holds_it_and_how_to_answer() {
    let full = full();
    let server = Recording::slack().await;
    delivered(slack(&server).deliver(&full, None).await);
    let sent = server.seen()[0].clone();
    check_blocks(&sent.body);
    let mut said = vec![("slack", sent.text.clone())];
    for link in ["<https://wiki.example/xid?a=1&amp;b=2|Runbook>", "|Alert source>"] {
        assert!(sent.text.contains(link), "{link}: {}", sent.text);
    }
    assert!(!sent.text.contains("javascript") && !sent.text.contains(&"ab".repeat(32)), "{}", sent.text);
    assert!(sent.text.contains("Only ana, bo may answer. 2 different approvers are required."), "{}", sent.text);
    for shape in ["teams", "opsgenie", "datadog"] {
        let server = Recording::start(202, |_, _| json!({})).await;
        delivered(vendor(shape, &server).deliver(&full, None).await);
        said.push((shape, server.seen()[0].text.clone()));
    }
    for (channel, text) in &said {
        let text = text.replace("\\\\[", "[");
        for words in FULL {
            assert!(text.contains(words), "{channel} does not say `{words}`: {text}");
        }
    }
}

fn sample(path: &str) -> Value {
    let path = format!("{}/integrations/{path}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn check_sample(path: &str, body: &Value) {
    if std::env::var_os("UPDATE_DOCS").is_some() && *body != sample(path) {
        let at = format!("{}/integrations/{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(at, format!("{body:#}\n")).unwrap();
    }
    assert_eq!(*body, sample(path), "{path}; UPDATE_DOCS=1 writes it anew");
}

/// What the documentation shows is what is sent.
#[tokio::test]
async fn the_samples_are_what_the_vendors_receive() {
    let started = (6, "gpu-fell-off-the-bus (r3) started for gpu-3, GPU 5, mode auto");
    let title = "gpu-3: GPU 5 fell off the bus (XID 79)";
    let mut notice = notice(IncidentState::Open, title, &[started, (7, "cordoned gpu-3 (XID 79)")]);
    notice.incident.subject = Subject { gpu: Some("5".into()), ..Subject::node("gpu-3") };
    notice.now = "gpu-fell-off-the-bus (r3) is running.".into();
    notice.alerts = vec![AlertLine {
        what: title.into(),
        name: "GpuXid".into(),
        severity: Severity::Critical,
        firing: true,
        since: notice.incident.opened_at,
        description: "The NVIDIA driver logged XID 79 1 times in the exporter's window.".into(),
    }];
    notice.links = vec![NoticeLink { label: "Runbook".into(), url: "https://wiki.example/xid-79".into() }];
    notice.dedup_key = "nightshift/prod/i3".into();
    let server = Recording::slack().await;
    let api = server.url.clone();
    let slack =
        build(|token| ChannelConfig::Slack { channel: "C0123456789".into(), token, api, buttons: true }, "x").unwrap();
    delivered(slack.deliver(&notice, None).await);
    check_sample("slack/samples/postMessage.json", &server.seen()[0].body);
    let server = Recording::pagerduty().await;
    delivered(pagerduty(&server).deliver(&notice, None).await);
    check_sample("pagerduty/samples/trigger.json", &server.seen()[0].body);
    for (shape, path) in [
        ("opsgenie", "opsgenie/samples/alert.json"),
        ("datadog", "datadog/event.json"),
        ("newrelic", "newrelic/events.json"),
    ] {
        let server = Recording::start(202, |_, _| json!({})).await;
        delivered(vendor(shape, &server).deliver(&notice, None).await);
        check_sample(path, &server.seen().pop().unwrap().body);
    }
    let made = encoders()["webhook-json"].call(&sample("webhook-json/samples/notice.json")).unwrap();
    assert_eq!(made, sample("webhook-json/samples/request.json"));
}
