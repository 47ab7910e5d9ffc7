//! Channels that leave an incident to automation: whole stories from the alert to PagerDuty, with a fleet where something is
//! really done.
//!
//! Invariant: pages and changes are counted by PagerDuty; why there was none is read from the ledger.

use crate::night::{Night, seal};
use crate::recording::Recording;
use nightshift::config::{ChannelConfig, SecretSource};
use nightshift::engine::NotificationDispatcher;
use nightshift::model::{EntryKind, Span};
use nightshift::store::Filter;
use nightshift::world::HttpClient;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const XID: &[(&str, &str)] = &[("alertname", "GpuXid"), ("xid", "79"), ("node", "gpu-2"), ("gpu", "3")];
const KEY: &str = "0123456789abcdef0123456789abcdef";
const RULES: &str =
    "rules: [{ name: r, when: ['alertname=\"GpuXid\"'], run: mend, mode: auto, tell: [pager, timeline] }]";
const HEADER: &str = "//! Mend a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\n";

fn http() -> HttpClient {
    HttpClient::new("nightshift/test", &[]).unwrap()
}

struct Desk {
    night: Night,
    courier: NotificationDispatcher,
    pager: Recording,
    timeline: Recording,
}

async fn desk(runbook: &str) -> Desk {
    desk_of(RULES, runbook, Some(Span::minutes(15))).await
}

async fn desk_of(rules: &str, runbook: &str, patience: Option<Span>) -> Desk {
    let night = Night::fall(rules, &[("mend", &format!("{HEADER}{runbook}"))]).await;
    let (pager, timeline) = (Recording::pagerduty().await, Recording::pagerduty().await);
    let key = night.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    let routing_key = SecretSource::File(key);
    let channels = BTreeMap::from([
        (
            "pager".to_owned(),
            ChannelConfig::PagerDuty {
                routing_key: routing_key.clone(),
                api: format!("{}/v2/enqueue", pager.url),
                patience,
            },
        ),
        (
            "timeline".to_owned(),
            ChannelConfig::PagerDutyChanges { routing_key, api: format!("{}/v2/change/enqueue", timeline.url) },
        ),
    ]);
    let patient = channels.iter().filter_map(|(name, channel)| Some((name.clone(), channel.patience()?)));
    let patient: Vec<(String, Span)> = patient.collect();
    let built = nightshift::notifiers::build(&channels, &HashMap::new(), &http(), "test", &seal()).unwrap();
    let parts = &night.parts;
    let courier = NotificationDispatcher::with(
        parts.store.clone(),
        parts.store.clone(),
        Arc::new(built),
        parts.clock.clone(),
        parts.nudge.clone(),
        "test",
        None,
    )
    .patient(patient);
    Desk { night, courier, pager, timeline }
}

impl Desk {
    async fn tell(&self) {
        self.courier.pass().await.unwrap();
    }

    fn pages(&self) -> Vec<String> {
        self.pager.seen().iter().map(|seen| seen.body["event_action"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether somebody was paged, and why, as the ledger has it.
    async fn judged(&self) -> Vec<(bool, String)> {
        let filter = Filter { kinds: vec!["page_judged"], after: Some(-1), limit: 100, ..Filter::default() };
        let entries = self.night.parts.store.entries(filter).await.unwrap();
        entries
            .into_iter()
            .filter_map(|entry| match entry.kind {
                EntryKind::PageJudged { channel, paged, why, .. } if channel == "pager" => Some((paged, why)),
                _ => None,
            })
            .collect()
    }
}

#[tokio::test]
async fn what_the_runbook_mends_is_on_the_timeline_and_pages_nobody() {
    let desk = desk("k8s::cordon(node, \"test\");\nsleep(\"1m\");\nk8s::uncordon(node);\n").await;
    let heard = desk.night.hear("firing", XID).await;
    desk.night.until_rest(heard.runs[0], Duration::from_secs(10)).await;
    desk.tell().await;
    assert_eq!(desk.pages(), [""; 0]);
    desk.night.until_rest(heard.runs[0], MINUTE * 2).await;
    desk.night.pass(MINUTE).await;
    desk.night.hear("resolved", XID).await;
    desk.night.settle().await;
    desk.tell().await;
    desk.night.pass(MINUTE * 60).await;
    desk.tell().await;
    assert_eq!(desk.pages(), [""; 0], "nobody was woken");
    let changes = desk.timeline.seen();
    let summaries: Vec<&str> = changes.iter().map(|seen| seen.body["payload"]["summary"].as_str().unwrap()).collect();
    assert_eq!(summaries, ["cordoned gpu-2 (test)", "uncordoned gpu-2"], "each change once");
    assert!(changes.iter().all(|seen| seen.path == "/v2/change/enqueue" && seen.body["payload"]["source"] == "gpu-2"));
    assert!(changes[0].body.get("dedup_key").is_none() && changes[0].body["payload"].get("severity").is_none());
    let words = desk.judged().await;
    assert_eq!(words.iter().map(|(paged, _)| *paged).collect::<Vec<_>>(), [false, false], "{words:?}");
    assert_eq!(words[1].1, "mend (r1) fixed it");
}

#[tokio::test]
async fn a_runbook_that_needs_hands_pages_at_once_and_says_why() {
    let desk = desk("k8s::cordon(node, \"test\");\nsleep(\"1m\");\nstop(\"needs hands\");\n").await;
    let heard = desk.night.hear("firing", XID).await;
    desk.night.until_rest(heard.runs[0], Duration::from_secs(10)).await;
    desk.tell().await;
    assert_eq!(desk.pages(), [""; 0]);
    desk.night.until_rest(heard.runs[0], MINUTE * 2).await;
    desk.tell().await;
    assert_eq!(desk.pages(), ["trigger"]);
    let why = &desk.pager.seen()[0].body["payload"]["custom_details"]["why_told_now"];
    assert_eq!(why, "mend (r1) stopped itself: needs hands");
    // Paged is paged: it is acknowledged and resolved like any other.
    desk.night.pass(MINUTE).await;
    desk.night.hear("resolved", XID).await;
    desk.tell().await;
    assert_eq!(desk.pages(), ["trigger", "resolve"]);
    let words = desk.judged().await;
    assert_eq!(words.iter().map(|(paged, _)| *paged).collect::<Vec<_>>(), [false, true], "{words:?}");
}

#[tokio::test]
async fn automation_that_takes_too_long_pages_although_it_goes_on() {
    let desk = desk("k8s::cordon(node, \"test\");\nsleep(\"2h\");\n").await;
    let heard = desk.night.hear("firing", XID).await;
    desk.night.until_rest(heard.runs[0], Duration::from_secs(10)).await;
    desk.tell().await;
    desk.night.pass(MINUTE * 14).await;
    desk.tell().await;
    assert_eq!(desk.pages(), [""; 0]);
    desk.night.pass(MINUTE * 2).await;
    desk.tell().await;
    desk.tell().await;
    assert_eq!(desk.pages(), ["trigger"]);
    let words = desk.judged().await;
    assert!(words[1].1.starts_with("it is still open after 15m: mend (r1) is at work"), "{words:?}");
}

const ASKS: &str = "rules: [{ name: r, when: ['alertname=\"GpuXid\"'], run: mend, mode: approve, tell: [pager] }]";

#[tokio::test]
async fn the_first_page_of_a_rule_in_approve_carries_its_question_and_later_needs_go_into_its_log() {
    let runbook = "k8s::cordon(node, \"test\");\nstop(\"reset the GPU by hand\");\n";
    let desk = desk_of(ASKS, runbook, None).await;
    let heard = desk.night.hear("firing", XID).await;
    desk.tell().await;
    assert_eq!(desk.pages(), [""; 0], "the plan is being made");
    desk.night.pass(Duration::from_secs(1)).await;
    desk.night.settle().await;
    desk.tell().await;
    assert_eq!(desk.pages(), ["trigger"]);
    let first = desk.pager.seen().remove(0).body;
    let summary = |body: &serde_json::Value| body["payload"]["summary"].as_str().unwrap().to_owned();
    assert!(summary(&first).starts_with("[needs approval] "), "{}", summary(&first));
    assert!(summary(&first).ends_with(" – approve: cordon gpu-2?"), "{}", summary(&first));
    assert_eq!(first["payload"]["component"], "GPU 3");

    let store = &desk.night.parts.store;
    let open = Filter { open: true, limit: 10, ..Filter::default() };
    let approval = store.approvals(open).await.unwrap().remove(0).id;
    store.decide(approval, true, "ana", "go", desk.night.now()).await.unwrap();
    desk.night.until_rest(heard.runs[0], MINUTE * 2).await;
    desk.night.pass(MINUTE).await;
    desk.tell().await;
    desk.tell().await;
    assert_eq!(desk.pages(), ["trigger", "trigger"], "once for the question, once for what is left to people");
    let second = desk.pager.seen().remove(1).body;
    assert_eq!(second["dedup_key"], first["dedup_key"]);
    assert!(summary(&second).starts_with("[needs hands] "), "{}", summary(&second));
    let told = Filter { kinds: vec!["delivered"], after: Some(-1), limit: 100, ..Filter::default() };
    assert_eq!(store.entries(told).await.unwrap().len(), 2, "an entry for each request that was answered, and no more");
}

#[tokio::test]
async fn a_plan_that_takes_long_holds_no_first_page_back() {
    let desk = desk_of(ASKS, "k8s::cordon(node, \"test\");\n", None).await;
    desk.night.hear("firing", XID).await;
    desk.tell().await;
    desk.night.pass(Duration::from_millis(4_900)).await;
    desk.tell().await;
    assert_eq!(desk.pages(), [""; 0]);
    desk.night.pass(Duration::from_millis(100)).await;
    desk.tell().await;
    assert_eq!(desk.pages(), ["trigger"], "after five seconds it goes without the question");
    desk.night.settle().await;
    desk.tell().await;
    assert_eq!(desk.pages(), ["trigger", "trigger"], "and the question follows at once, under the same key");
}

#[tokio::test]
async fn a_question_pages_at_once_although_the_channel_waits_for_automation() {
    let desk = desk_of(ASKS, "k8s::cordon(node, \"test\");\n", Some(Span::minutes(15))).await;
    desk.night.hear("firing", XID).await;
    desk.tell().await;
    assert_eq!(desk.pages(), [""; 0]);
    desk.night.settle().await;
    desk.tell().await;
    assert_eq!(desk.pages(), ["trigger"]);
    assert!(desk.pager.seen()[0].body["payload"]["summary"].as_str().unwrap().starts_with("[needs approval] "));
}

#[test]
fn a_key_of_a_ruleset_takes_no_change_events_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), format!("R{}", &KEY[1..])).unwrap();
    let routing_key = SecretSource::File(dir.path().join("key"));
    let api = "https://events.pagerduty.com/v2/change/enqueue".to_owned();
    let channels = BTreeMap::from([("timeline".to_owned(), ChannelConfig::PagerDutyChanges { routing_key, api })]);
    let built = nightshift::notifiers::build(&channels, &HashMap::new(), &http(), "test", &seal()).unwrap();
    let off = built["timeline"].off().unwrap();
    assert!(off.contains("key of a service"), "{off}");
}
