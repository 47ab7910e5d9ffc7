//! What an on-call engineer sees of incidents: alerts that no rule knows, rules that only observe, flaps, and storms, from the
//! webhook to what Slack and PagerDuty show, with what the configuration says by default.
//!
//! Invariant: messages and pages are counted at the vendors; no time passes but what a test lets pass.

use crate::harness::{Site, alertmanager_body, eventually};
use crate::night::{Night, seal};
use crate::recording::{Answer, Recording};
use nightshift::catalog::{Catalog, CatalogFolders};
use nightshift::config::{ChannelConfig, Config, SecretSource};
use nightshift::engine::NotificationDispatcher;
use nightshift::limits;
use nightshift::model::{
    Approval, EntryKind, EventSender, Incident, IncidentState, ReasonCode, Run, RunState, Severity,
};
use nightshift::store::{BatchOrigin, ControlChange, EventBatch, Filter, IntakeResult};
use nightshift::world::HttpClient;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const CORDON: &str = "//! Cordon a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: on-failure\n\n\
     k8s::cordon(node, \"test\");\n";
const TELL: &str = "rules: [{ name: hot, when: ['alertname=\"GpuHot\"'], tell: [oncall, pager] }]";

fn rule(mode: &str) -> String {
    format!(
        "rules: [{{ name: xid, when: ['alertname=\"GpuXid\"'], run: cordon, mode: {mode}, tell: [oncall, pager], cooldown: 1s }}]"
    )
}

/// An engine as the configuration makes it by default, with a Slack channel and a pager.
struct Shift {
    night: Night,
    courier: NotificationDispatcher,
    slack: Recording,
    pager: Recording,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Shift {
    async fn begin(rules: &str) -> Shift {
        let config = Config::default();
        let night = Night::fall_with(rules, &[("cordon", CORDON)], |options| {
            options.resolve_after = config.incidents.resolve_after;
            options.group_wait = config.incidents.group_wait;
            options.unmatched_tell = config.default.tell.clone();
        })
        .await;
        let (slack, pager) = (Recording::slack().await, Recording::pagerduty().await);
        let key = night.path().join("key");
        std::fs::write(&key, KEY).unwrap();
        let secret = SecretSource::File(key);
        let oncall =
            ChannelConfig::Slack { channel: "C1".into(), token: secret.clone(), api: slack.url.clone(), buttons: true };
        let pages =
            ChannelConfig::PagerDuty { routing_key: secret, api: format!("{}/v2/enqueue", pager.url), patience: None };
        let channels = BTreeMap::from([("oncall".to_owned(), oncall), ("pager".to_owned(), pages)]);
        let http = HttpClient::new("nightshift/test", &[]).unwrap();
        let built = nightshift::notifiers::build(&channels, &HashMap::new(), &http, "test", &seal()).unwrap();
        let parts = &night.parts;
        let courier = NotificationDispatcher::with(
            parts.store.clone(),
            parts.store.clone(),
            Arc::new(built),
            parts.clock.clone(),
            parts.nudge.clone(),
            "test",
            None,
        );
        Shift { night, courier, slack, pager }
    }

    /// One request of Alertmanager; what fires begins now.
    async fn hear(&self, status: &str, alerts: &[Labels<'_>]) -> IntakeResult {
        let body = alertmanager_body(status, &self.night.now().to_string(), alerts).to_string();
        let source = &self.night.parts.config.sources["test"];
        let now = self.night.now();
        let mut decoded = nightshift::sources::alertmanager::decode(body.as_bytes(), "test", source, now).unwrap();
        for event in &mut decoded.events {
            event.ends_at = event.ends_at.map(|_| now);
        }
        self.night.hear_events(decoded.events).await
    }

    /// Alerts that this source has posted, each by its labels.
    async fn posted(&self, source: &str, status: &str, alerts: &[Vec<(&str, String)>]) -> IntakeResult {
        let now = self.night.now();
        let config = &self.night.parts.config.sources["test"];
        let labels: Vec<Vec<(&str, &str)>> =
            alerts.iter().map(|alert| alert.iter().map(|(name, value)| (*name, value.as_str())).collect()).collect();
        let labels: Vec<Labels<'_>> = labels.iter().map(Vec::as_slice).collect();
        let body = alertmanager_body(status, &now.to_string(), &labels).to_string();
        let mut events =
            nightshift::sources::alertmanager::decode(body.as_bytes(), source, config, now).unwrap().events;
        for event in &mut events {
            event.ends_at = event.ends_at.map(|_| now);
        }
        let via = EventSender { by: source.to_owned(), with: format!("token {source}"), person: false };
        let rules = self.night.parts.catalog.current().rules.clone();
        let origin = BatchOrigin { kind: "alertmanager".to_owned(), via: Some(via) };
        let batch = EventBatch { source: source.to_owned(), events, gaps: Vec::new(), rules, now, origin };
        self.night.parts.store.intake(batch).await.unwrap()
    }

    /// The same alert on each of these nodes, in one request.
    async fn hear_on(&self, status: &str, alert: &str, nodes: impl IntoIterator<Item = usize>) -> IntakeResult {
        let nodes: Vec<String> = nodes.into_iter().map(|no| format!("gpu-{no}")).collect();
        let labels: Vec<[(&str, &str); 3]> =
            nodes.iter().map(|node| [("alertname", alert), ("node", node.as_str()), ("gpu", "1")]).collect();
        let alerts: Vec<Labels<'_>> = labels.iter().map(|labels| labels.as_slice()).collect();
        self.hear(status, &alerts).await
    }

    /// What is due happens, without any time passing.
    async fn work(&self) {
        self.night.settle().await;
        self.courier.pass().await.unwrap();
    }

    async fn millis(&self, millis: u64) {
        self.night.pass(Duration::from_millis(millis)).await;
        self.work().await;
    }

    /// Time passes, second by second.
    async fn seconds(&self, seconds: u64) {
        for _ in 0..seconds {
            self.millis(1_000).await;
        }
    }

    /// New messages in the channel, by their text.
    fn posts(&self) -> Vec<String> {
        let posts = self.slack.seen().into_iter().filter(|seen| seen.path == "/chat.postMessage");
        posts.filter(|seen| seen.body.get("thread_ts").is_none()).map(|seen| seen.body["text"].to_string()).collect()
    }

    /// The latest edition of a message, or a line of a thread, that holds these words.
    fn shows(&self, words: &str) -> bool {
        self.slack.seen().iter().any(|seen| seen.text.contains(words))
    }

    fn last_edition(&self) -> Value {
        let of = |path: &str| path == "/chat.update" || path == "/chat.postMessage";
        let seen = self.slack.seen();
        let last = seen.iter().rev().find(|seen| of(&seen.path) && seen.body.get("thread_ts").is_none());
        last.map_or(Value::Null, |seen| seen.body.clone())
    }

    fn pages(&self) -> Vec<String> {
        self.pager.seen().iter().map(|seen| seen.body["event_action"].as_str().unwrap().to_owned()).collect()
    }

    async fn incidents(&self) -> Vec<Incident> {
        let filter = Filter { after: Some(-1), limit: 1_000, ..Filter::default() };
        self.night.parts.store.incidents(filter).await.unwrap()
    }

    async fn open(&self) -> Vec<Incident> {
        self.incidents().await.into_iter().filter(|incident| incident.closed_at.is_none()).collect()
    }

    async fn questions(&self) -> Vec<Approval> {
        let filter = Filter { after: Some(-1), limit: 1_000, ..Filter::default() };
        self.night.parts.store.approvals(filter).await.unwrap()
    }

    async fn answer(&self, approved: bool) {
        let asked = self.questions().await.pop().unwrap();
        self.night.parts.store.decide(asked.id, approved, "ann", "", self.night.now()).await.unwrap();
    }

    async fn run(&self) -> Run {
        self.night.runs().await.pop().unwrap()
    }

    async fn acknowledge(&self, incident: &Incident) {
        let taken = ControlChange::Acknowledge { incident: incident.id, by: "ann".to_owned() };
        self.night.parts.store.control(taken, self.night.now()).await.unwrap();
        let owned = ControlChange::Assign { incident: incident.id, owner: "ann".to_owned(), by: "ann".to_owned() };
        self.night.parts.store.control(owned, self.night.now()).await.unwrap();
    }
}

const XID: Labels<'_> = &[("alertname", "GpuXid"), ("xid", "79"), ("node", "gpu-2"), ("gpu", "3")];

#[tokio::test]
async fn a_rule_that_only_observes_notifies_and_then_shows_its_plan() {
    let shift = Shift::begin(&rule("observe")).await;
    shift.hear("firing", &[XID]).await;
    shift.seconds(2).await;
    assert_eq!((shift.posts().len(), shift.pages()), (1, vec!["trigger".to_owned()]), "{:?}", shift.posts());
    shift.seconds(4).await;
    assert_eq!(shift.run().await.state, RunState::Planned);
    assert!(shift.last_edition().to_string().contains("cordon gpu-2"), "{}", shift.last_edition());
    assert_eq!((shift.posts().len(), shift.pages().len()), (1, 1), "the plan is an edit");
    assert!(shift.night.effects().is_empty(), "nothing was done");
}

#[tokio::test]
async fn the_test_alert_of_doctor_reaches_the_channel_although_no_rule_matches_it() {
    let shift = Shift::begin(&rule("auto")).await;
    let heard = shift.hear("firing", &[&[("alertname", "NightshiftTest"), ("severity", "info")]]).await;
    assert_eq!((heard.unmatched, heard.runs.len()), (1, 0));
    shift.seconds(2).await;
    assert_eq!(shift.posts().len(), 1, "{:?}", shift.slack.seen());
    let incident = shift.open().await.remove(0);
    assert_eq!((incident.severity, incident.state), (Severity::Info, IncidentState::Open));
    assert!(shift.pages().is_empty(), "the catch-all names the channel `oncall` alone");
}

#[tokio::test]
async fn an_engine_as_it_ships_notifies_of_what_no_rule_matches_and_counts_it_by_its_source() {
    let slack = Recording::slack().await;
    let extra = format!(
        "sources:\n  prod: {{ kind: alertmanager }}\nchannels:\n  ops: {{ kind: slack, channel: C1, token: {{ env: SLACK }}, \
         api: '{}' }}\nincidents: {{}}\n",
        slack.url
    );
    let rules = "rules: [{ name: hot, when: ['alertname=\"GpuHot\"'], tell: [ops] }]";
    let site = Site::new(&extra, rules, &[]);
    let engine = site.start(&[("SLACK", KEY.to_owned())]).await.unwrap_or_else(|| panic!("{}", site.log()));
    assert!(site.log().contains("there is no channel `oncall` for events that no rule matches"), "{}", site.log());
    let test = alertmanager_body("firing", crate::night::NIGHT, &[&[("alertname", "NightshiftTest")]]);
    let (status, answer) = engine.post("/in/alertmanager/prod", &test).await.unwrap();
    assert_eq!((status, &answer["unmatched"]), (200, &serde_json::json!(1)), "{answer}");
    eventually("a message", async || slack.paths().contains(&"/chat.postMessage".to_owned()).then_some(())).await;
    let page = engine.text("/metrics").await.unwrap();
    assert!(page.contains(r#"nightshift_events_unmatched_total{source="prod"} 1"#), "{page}");
    assert!(page.contains(r#"nightshift_events_unmatched_total{source="agent"} 0"#), "{page}");
    let over = alertmanager_body("resolved", crate::night::NIGHT, &[&[("alertname", "NightshiftTest")]]);
    engine.post("/in/alertmanager/prod", &over).await.unwrap();
    let incident = engine.get("/api/v1/incidents/i1").await.unwrap()["incident"].clone();
    assert!(incident["resolves_at"].is_string() && incident.get("closed_at").is_none(), "{incident:#}");
    let shown = std::process::Command::new(env!("CARGO_BIN_EXE_nightshift"))
        .args(["--config", site.path().join("nightshift.yaml").to_str().unwrap(), "incidents"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("recovering, closes "), "{shown}");
}

#[tokio::test]
async fn explicit_silence_of_the_catch_all_is_an_incident_without_a_message() {
    let mut shift = Shift::begin(&rule("auto")).await;
    shift.night =
        Night::fall_with(&rule("auto"), &[("cordon", CORDON)], |options| options.unmatched_tell.clear()).await;
    let heard = shift.hear("firing", &[&[("alertname", "Other")]]).await;
    assert_eq!((heard.unmatched, heard.nudge), (1, false));
    assert_eq!((shift.open().await.len(), shift.night.parts.store.counts().await.unwrap().notices_due), (1, 0));
}

#[tokio::test]
async fn alerts_with_next_to_no_labels_are_one_incident_and_lose_nothing() {
    let shift = Shift::begin(TELL).await;
    let heard = shift.hear("firing", &[&[("severity", "critical")], &[("alertname", "A")], &[("team", "x")]]).await;
    assert_eq!((heard.opened, heard.unmatched), (3, 3));
    shift.seconds(2).await;
    assert_eq!((shift.open().await.len(), shift.posts().len()), (3, 3), "each has a name of its own, or none");
    // One without any label has no identity: it is refused in words where it is alone, and a gap beside others.
    let source = &shift.night.parts.config.sources["test"];
    let decode = |alerts: &[Labels<'_>]| {
        let body = alertmanager_body("firing", crate::night::NIGHT, alerts).to_string();
        nightshift::sources::alertmanager::decode(body.as_bytes(), "test", source, shift.night.now())
    };
    let refused = decode(&[&[]]).err().unwrap().to_string();
    assert!(refused.contains("alert 1 of 1 could not be read: it has no labels"), "{refused}");
    let beside = decode(&[&[], &[("alertname", "B")]]).unwrap();
    assert_eq!((beside.events.len(), beside.gaps.len()), (1, 1), "{:?}", beside.gaps);
}

#[tokio::test]
async fn what_a_stock_prometheus_always_fires_is_ignored_by_the_shipped_rules_with_a_reason() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = CatalogFolders {
        runbooks: home.join("runbooks"),
        rules: home.join("rules"),
        integrations: home.join("integrations"),
    };
    let loading = tokio::task::spawn_blocking(move || Catalog::load(folders)).await.unwrap();
    let (catalog, _) = loading.unwrap_or_else(|problems| panic!("{problems:#?}"));
    let rules = catalog.current().rules.clone();
    let shift = Shift::begin(TELL).await;
    for name in ["Watchdog", "InfoInhibitor"] {
        let body = alertmanager_body("firing", &shift.night.now().to_string(), &[&[("alertname", name)]]).to_string();
        let source = &shift.night.parts.config.sources["test"];
        let now = shift.night.now();
        let events = nightshift::sources::alertmanager::decode(body.as_bytes(), "test", source, now).unwrap().events;
        let batch = nightshift::store::EventBatch {
            source: "test".into(),
            events,
            gaps: vec![],
            rules: rules.clone(),
            now,
            origin: Default::default(),
        };
        let heard = shift.night.parts.store.intake(batch).await.unwrap();
        assert_eq!((heard.opened, heard.unmatched, heard.nudge), (1, 0, false), "{name}");
    }
    assert!(shift.incidents().await.is_empty());
}

#[tokio::test]
async fn a_flap_every_five_seconds_for_ten_minutes_is_one_incident_one_page_and_one_question() {
    let shift = Shift::begin(&rule("approve")).await;
    shift.hear("firing", &[XID]).await;
    shift.seconds(3).await;
    let incident = shift.open().await.remove(0);
    shift.acknowledge(&incident).await;
    for _ in 0..60 {
        shift.hear("resolved", &[XID]).await;
        shift.seconds(5).await;
        shift.hear("firing", &[XID]).await;
        shift.seconds(5).await;
    }
    let now = shift.incidents().await;
    assert_eq!(now.len(), 1, "{now:#?}");
    assert_eq!((now[0].acknowledged_by.as_deref(), now[0].owner.as_deref()), (Some("ann"), Some("ann")));
    assert_eq!((now[0].firing, now[0].episodes), (1, 1), "it is the one alert that it was");
    assert_eq!(shift.questions().await.len(), 1);
    assert_eq!(shift.night.runs().await.len(), 1);
    assert_eq!(shift.posts().len(), 1, "{:?}", shift.posts());
    assert_eq!(shift.pages(), ["trigger", "acknowledge"]);
    let edits = shift.slack.paths().len();
    assert!(edits < 60, "{edits} requests to Slack within ten minutes");
    // The answer is still good, and it acts while the alert fires.
    shift.answer(true).await;
    shift.seconds(2).await;
    assert_eq!(shift.night.effects(), BTreeMap::new(), "the guard against flaps holds it");
    let RunState::Held { reason } = shift.run().await.state else { panic!("{:?}", shift.run().await) };
    assert_eq!(reason.code, ReasonCode::Flapping);
}

#[tokio::test]
async fn an_answer_that_came_while_it_recovered_counts_when_the_alert_is_back_and_no_one_is_asked_again() {
    let shift = Shift::begin(&rule("approve")).await;
    shift.hear("firing", &[XID]).await;
    shift.seconds(3).await;
    shift.hear("resolved", &[XID]).await;
    shift.seconds(30).await;
    assert!(matches!(shift.run().await.state, RunState::Asking { .. }), "the question stays open");
    shift.answer(true).await;
    shift.seconds(5).await;
    let RunState::Held { reason } = shift.run().await.state else { panic!("{:?}", shift.run().await) };
    assert_eq!(reason.code, ReasonCode::EpisodeOver);
    assert!(shift.night.effects().is_empty(), "nothing is done about an alert that has ended");
    shift.hear("firing", &[XID]).await;
    shift.seconds(3).await;
    assert_eq!(shift.run().await.state, RunState::Done);
    assert_eq!((shift.questions().await.len(), shift.night.runs().await.len()), (1, 1));
    assert_eq!(shift.night.effects().len(), 1, "{:?}", shift.night.effects());
}

#[tokio::test]
async fn an_incident_recovers_says_so_and_closes_with_its_question_after_five_minutes() {
    let shift = Shift::begin(&rule("approve")).await;
    shift.hear("firing", &[XID]).await;
    shift.seconds(3).await;
    shift.hear("resolved", &[XID]).await;
    shift.seconds(5).await;
    assert!(shift.shows("recovering, closes 03:05 UTC"), "{}", shift.last_edition());
    assert_eq!((shift.pages(), shift.open().await.len()), (vec!["trigger".to_owned()], 1));
    shift.seconds(290).await;
    assert_eq!(shift.open().await.len(), 1);
    shift.seconds(20).await;
    assert!(shift.open().await.is_empty());
    assert_eq!(shift.pages(), ["trigger", "resolve"]);
    let RunState::Denied { reason } = shift.run().await.state else { panic!("{:?}", shift.run().await) };
    assert_eq!(reason.code, ReasonCode::EpisodeOver);
    assert!(shift.last_edition().to_string().contains("*resolved*"), "{}", shift.last_edition());
    // Afterwards it is another incident, with a page and a question of its own.
    shift.hear("firing", &[XID]).await;
    shift.seconds(3).await;
    assert_eq!((shift.incidents().await.len(), shift.questions().await.len(), shift.posts().len()), (2, 2, 2));
    assert_eq!(shift.pages(), ["trigger", "resolve", "trigger"]);
}

#[tokio::test]
async fn what_a_person_has_denied_is_not_asked_again_because_the_alert_flaps() {
    let shift = Shift::begin(&rule("approve")).await;
    shift.hear("firing", &[XID]).await;
    shift.seconds(3).await;
    shift.answer(false).await;
    for _ in 0..3 {
        shift.hear("resolved", &[XID]).await;
        shift.seconds(20).await;
        shift.hear("firing", &[XID]).await;
        shift.seconds(20).await;
    }
    assert_eq!((shift.questions().await.len(), shift.night.runs().await.len(), shift.posts().len()), (1, 1, 1));
    let heard = shift.night.entries().await.into_iter().rev().find_map(|entry| match entry.kind {
        EntryKind::Heard { events, .. } => Some(events),
        _ => None,
    });
    let reason = &heard.unwrap()[0].reasons[0];
    assert_eq!(reason.code, ReasonCode::AlreadyHandled);
    assert!(reason.text.contains("was denied by an approver"), "{reason}");
}

#[tokio::test]
async fn a_storm_in_one_request_is_one_incident_told_and_resolved_once() {
    let shift = Shift::begin(TELL).await;
    shift.hear_on("firing", "GpuHot", 0..30).await;
    shift.seconds(2).await;
    let incidents = shift.incidents().await;
    assert_eq!(incidents.len(), 1, "{incidents:#?}");
    let storm = &incidents[0];
    assert_eq!((storm.title.as_str(), storm.firing), ("GpuHot on 30 nodes", 30));
    for (node, found) in [("gpu-1", 1), ("gpu-29", 1), ("gpu-30", 0), ("gpu-", 0)] {
        let about = Filter { node: Some(node.into()), limit: 9, ..Filter::default() };
        assert_eq!(shift.night.parts.store.incidents(about).await.unwrap().len(), found, "{node} is one of the group");
    }
    assert!(storm.subject.is_empty() || storm.subject.node.is_none(), "{:?}", storm.subject);
    assert_eq!((shift.posts().len(), shift.pages()), (1, vec!["trigger".to_owned()]));
    assert!(shift.posts()[0].contains("GpuHot on 30 nodes"), "{:?}", shift.posts());
    shift.acknowledge(storm).await;
    shift.hear_on("resolved", "GpuHot", 0..29).await;
    shift.seconds(600).await;
    assert_eq!(shift.open().await.len(), 1, "one node is still hot");
    shift.hear_on("resolved", "GpuHot", [29]).await;
    shift.seconds(320).await;
    assert!(shift.open().await.is_empty());
    assert_eq!(
        (shift.posts().len(), shift.pages()),
        (1, ["trigger", "acknowledge", "resolve"].map(str::to_owned).to_vec())
    );
    // Another night, another storm.
    shift.hear_on("firing", "GpuHot", 0..5).await;
    shift.seconds(2).await;
    assert_eq!((shift.open().await.len(), shift.incidents().await.len(), shift.posts().len()), (1, 2, 2));
    assert_eq!(shift.open().await[0].title, "GpuHot on 5 nodes");
}

#[tokio::test]
async fn three_subjects_are_three_incidents_and_runs_of_a_storm_keep_their_own() {
    let shift = Shift::begin(&rule("observe")).await;
    shift.hear_on("firing", "GpuXid", 0..3).await;
    shift.seconds(1).await;
    assert_eq!((shift.open().await.len(), shift.posts().len()), (3, 3));
    let shift = Shift::begin(&rule("observe")).await;
    let heard = shift.hear_on("firing", "GpuXid", 0..4).await;
    shift.seconds(3).await;
    let storm = shift.open().await.remove(0);
    assert_eq!((shift.open().await.len(), heard.runs.len()), (1, 4));
    let runs = shift.night.runs().await;
    let nodes: Vec<&str> = runs.iter().map(|run| run.subject.node.as_deref().unwrap()).collect();
    assert_eq!(nodes, ["gpu-0", "gpu-1", "gpu-2", "gpu-3"]);
    assert!(runs.iter().all(|run| run.incident == Some(storm.id)));
}

#[tokio::test]
async fn a_storm_over_many_requests_is_one_message_within_two_seconds() {
    let shift = Shift::begin(TELL).await;
    for no in 0..30 {
        shift.hear_on("firing", "GpuHot", [no]).await;
        shift.millis(10).await;
    }
    assert!(shift.posts().is_empty(), "a moment for the others");
    shift.millis(1_000).await;
    assert_eq!((shift.posts().len(), shift.pages().len()), (1, 1), "{:?}", shift.posts());
    let open = shift.open().await;
    assert_eq!((open.len(), open[0].title.as_str(), open[0].firing), (1, "GpuHot on 30 nodes", 30));
    // The three that came first are in the ledger with what became of them.
    let merged: Vec<Incident> =
        shift.incidents().await.into_iter().filter(|incident| incident.closed_at.is_some()).collect();
    assert_eq!(merged.len(), 3);
    let words: Vec<String> = shift.night.entries().await.iter().map(|entry| format!("{:?}", entry.kind)).collect();
    assert_eq!(words.iter().filter(|words| words.contains("it is part of i4 now")).count(), 3, "{words:#?}");
    assert!(words.iter().any(|words| words.contains("GpuHot (GPU 1 of gpu-7)")), "{words:#?}");
    let episodes = shift.night.parts.store.episodes(Filter { limit: 100, ..Filter::default() }).await.unwrap();
    assert!(episodes.iter().all(|episode| episode.incident == Some(open[0].id)), "no alert is left behind");
}

#[tokio::test]
async fn what_people_have_seen_stays_as_it_is_and_later_ones_join_the_storm() {
    let shift = Shift::begin(TELL).await;
    for no in 0..3 {
        shift.hear_on("firing", "GpuHot", [no]).await;
        shift.seconds(1).await;
    }
    assert_eq!(shift.posts().len(), 3);
    for no in 3..9 {
        shift.hear_on("firing", "GpuHot", [no]).await;
        shift.seconds(1).await;
    }
    let open = shift.open().await;
    assert_eq!((open.len(), shift.posts().len(), shift.pages().len()), (4, 4, 4), "{open:#?}");
    assert_eq!((open[3].title.as_str(), open[3].firing), ("GpuHot on 6 nodes", 6));
    shift.seconds(5).await;
    assert!(shift.shows("GpuHot on 6 nodes"), "the title follows");
    // Minutes later, too, as long as it is open.
    shift.seconds(120).await;
    shift.hear_on("firing", "GpuHot", [9]).await;
    shift.seconds(5).await;
    assert_eq!((shift.open().await.len(), shift.posts().len()), (4, 4));
    assert_eq!(shift.open().await[3].title, "GpuHot on 7 nodes");
}

#[tokio::test]
async fn an_incident_whose_message_may_have_arrived_is_not_absorbed_and_gets_its_end() {
    let shift = Shift::begin(TELL).await;
    // The message and the page arrive; the answers do not, nor do those of the first repeats.
    for _ in 0..2 {
        shift.slack.then(Answer::BreakOff);
        shift.pager.then(Answer::BreakOff);
    }
    shift.hear_on("firing", "GpuHot", [0]).await;
    shift.seconds(3).await;
    assert_eq!(shift.posts().len().min(1), 1, "it may be in the channel");
    shift.hear_on("firing", "GpuHot", 1..9).await;
    shift.seconds(60).await;
    let open = shift.open().await;
    assert_eq!(open.len(), 2, "{open:#?}");
    assert_eq!((open[0].firing, open[1].title.as_str()), (1, "GpuHot on 8 nodes"));
    shift.hear_on("resolved", "GpuHot", 0..9).await;
    shift.seconds(400).await;
    assert!(shift.open().await.is_empty());
    let of_first = |action: &str| {
        let pages = shift.pager.seen().into_iter().filter(|seen| seen.body["event_action"] == action);
        pages.filter(|seen| seen.body["dedup_key"].as_str().unwrap().contains("/i1")).count()
    };
    assert!(of_first("trigger") >= 1);
    assert_eq!(of_first("resolve"), 1, "a page that may be open is closed");
}

#[tokio::test]
async fn an_alert_of_a_node_that_has_an_incident_joins_that_and_not_the_storm() {
    let shift = Shift::begin("rules: [{ name: all, when: ['node!=\"\"'], tell: [oncall] }]").await;
    shift.hear_on("firing", "GpuXid", [0]).await;
    shift.seconds(20).await;
    shift.hear_on("firing", "GpuHot", 0..6).await;
    shift.seconds(2).await;
    let open = shift.open().await;
    assert_eq!(open.len(), 2, "{open:#?}");
    assert_eq!((open[0].firing, open[1].title.as_str(), open[1].firing), (2, "GpuHot on 5 nodes", 5));
    assert!(shift.shows("GpuHot (GPU 1 of gpu-0) joined"), "{:?}", shift.slack.seen());
    // A fault of another kind on a node of the storm is its own, and a flap there comes back to the storm.
    shift.hear_on("firing", "GpuXid", [3]).await;
    shift.hear_on("resolved", "GpuHot", [3]).await;
    shift.seconds(10).await;
    shift.hear_on("firing", "GpuHot", [3]).await;
    shift.seconds(5).await;
    let open = shift.open().await;
    let firing: Vec<u32> = open.iter().map(|incident| incident.firing).collect();
    assert_eq!(firing, [2, 5, 1], "{open:#?}");
}

fn labelled(name: &str, node: &str) -> Vec<(&'static str, String)> {
    vec![("alertname", name.to_owned()), ("node", node.to_owned()), ("severity", "critical".to_owned())]
}

#[tokio::test]
async fn a_flood_of_one_source_hides_no_critical_incident_of_another_and_loses_no_alert() {
    const FLOOD: usize = 5_000;
    let shift = Shift::begin(TELL).await;
    for batch in 0..FLOOD / 1_000 {
        let alerts: Vec<_> = (0..1_000)
            .map(|no| labelled(&format!("Flood{}", batch * 1_000 + no), &format!("lab-{batch}-{no}")))
            .collect();
        assert_eq!(shift.posted("lab", "firing", &alerts).await.opened, 1_000, "each alert is taken");
        shift.millis(200).await;
    }
    shift.posted("prod", "firing", &[labelled("ProdDown", "gpu-1")]).await;
    for _ in 0..8 {
        shift.millis(250).await;
    }
    let posts = shift.posts();
    assert!(posts.iter().any(|post| post.contains("gpu-1: ")), "within two seconds: {posts:#?}");
    let open = shift.night.parts.store.counts().await.unwrap().episodes_open;
    assert_eq!(open as usize, FLOOD + 1, "nothing is lost");
    let incidents = shift.open().await;
    let flood = incidents.iter().find(|incident| incident.key == "flood/source lab").expect("one for the rest");
    assert!(flood.title.starts_with("source lab floods"), "{}", flood.title);
    assert_eq!((flood.severity, flood.firing as usize), (Severity::Critical, FLOOD - limits::INCIDENTS_PER_SOURCE));
    assert_eq!(incidents.len(), limits::INCIDENTS_PER_SOURCE + 2, "lab's quota, its flood, and prod's");
    // In the next minute it has its quota again, and what is over leaves the flood.
    shift.seconds(61).await;
    shift.posted("lab", "firing", &[labelled("Later", "lab-x")]).await;
    assert!(shift.open().await.iter().any(|incident| incident.title.contains("lab-x")));
}

#[tokio::test]
async fn a_source_that_keeps_anothers_incident_open_is_named_and_a_person_can_end_what_it_says() {
    let shift = Shift::begin(TELL).await;
    shift.posted("prod", "firing", &[labelled("Real", "gpu-1")]).await;
    shift.posted("lab", "firing", &[labelled("Fake", "gpu-1")]).await;
    shift.posted("prod", "resolved", &[labelled("Real", "gpu-1")]).await;
    shift.seconds(400).await;
    let open = shift.open().await;
    assert_eq!((open.len(), open[0].firing), (1, 1), "{open:#?}");
    let entries = shift.night.entries().await;
    let joined = entries.iter().filter_map(nightshift::engine::story::line).find(|line| line.text.contains("joined"));
    assert!(joined.as_ref().is_some_and(|line| line.text.contains("(source lab)")), "{joined:?}");
    let end = |source: &str| ControlChange::Resolve {
        incident: open[0].id,
        source: Some(source.to_owned()),
        by: "ann".to_owned(),
        why: "lab's rule is wrong".to_owned(),
    };
    let now = shift.night.now();
    assert!(shift.night.parts.store.control(end("prod"), now).await.is_err(), "prod holds nothing open");
    shift.night.parts.store.control(end("lab"), now).await.unwrap();
    assert!(shift.open().await.is_empty());
    let last = shift.night.entries().await.pop().unwrap();
    assert_eq!(last.actor.0, "person:ann");
    // What is sent again is a new alert, as after any end.
    shift.night.pass(Duration::from_secs(1)).await;
    assert_eq!(shift.posted("lab", "firing", &[labelled("Fake", "gpu-1")]).await.opened, 1);
}
