//! What one message says, kind by kind: a plan in observe and in suggest, a question with its cost and what would hold it,
//! a freeze, two faults on one node, an alert with links, an alert that says nothing.
//!
//! Invariant: each message is compared whole, as Slack shows it to a reader in UTC.

use super::Scene;
use super::reads::{Reader, channel};
use super::slack::does;
use crate::night::{NIGHT, Night};
use nightshift::model::{Event, EventStatus, Freeze, LabelMap, Labels, Severity, Subject};
use nightshift::store::ControlChange;

const XID_79: &[(&str, &str)] = &[("alertname", "GpuXid"), ("xid", "79"), ("node", "gpu-2"), ("gpu", "3")];

/// The rule of XID 79 in this mode; what it matches is told by a rule that starts nothing, whatever the mode.
fn rules(mode: &str) -> String {
    format!(
        "rules: [{{ name: every-xid, when: ['alertname=\"GpuXid\"'], tell: [oncall] }}, \
         {{ name: gpu-fell-off-the-bus, when: ['xid=\"79\"'], run: gpu-fell-off-the-bus, mode: {mode}, tell: [oncall] }}]"
    )
}

async fn reader(rules: &str) -> Reader {
    Reader { scene: Scene::of(Night::fall_on_shipped(rules).await, does, channel).await }
}

fn event(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Event {
    let labels: Labels = labels.iter().copied().collect();
    let annotations: Labels = annotations.iter().copied().collect();
    let summary = annotations.get("summary").to_owned();
    Event {
        source: "test".to_owned(),
        fingerprint: format!("{:016x}", labels.fingerprint()),
        status: EventStatus::Firing,
        starts_at: NIGHT.parse().unwrap(),
        ends_at: None,
        subject: Subject::from_labels(&labels, &LabelMap::default()),
        labels,
        annotations,
        severity: Severity::Critical,
        summary,
        url: String::new(),
    }
}

/// Compares a page with its file; UPDATE_DOCS=1 writes it anew.
fn is_as_written(name: &str, read: &str) {
    let file = format!("{}/tests/it/outages/words/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, read).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(read, expected, "{name}: UPDATE_DOCS=1 writes it anew: then read it as if it were night");
    for word in ["complaint", "needs hands", "look closer", " is no\n", "persons", "was told", "step 0", "converge"] {
        assert!(!read.contains(word), "{name} has `{word}`:\n{read}");
    }
}

#[tokio::test]
async fn a_plan_in_observe_is_shown_as_a_suggestion_of_which_nothing_was_done() {
    let reader = reader(&rules("observe")).await;
    reader.scene.night.hear("firing", XID_79).await;
    reader.pass(5).await;
    let read = reader.message();
    assert!(
        read.contains("Suggestion only: would cordon gpu-2, drain it (1 pod moves). No action taken.")
            || read.contains("Suggestion only: would cordon gpu-2 and drain it (1 pod moves). No action taken."),
        "{read}"
    );
    is_as_written("observe", &read);
    assert!(reader.scene.night.effects().is_empty(), "{:?}", reader.scene.night.effects());
}

#[tokio::test]
async fn a_plan_in_suggest_asks_whether_it_was_right() {
    let reader = reader(&rules("suggest")).await;
    reader.scene.night.hear("firing", XID_79).await;
    reader.pass(5).await;
    let read = reader.message();
    assert!(read.contains("[Right] [Wrong]"), "{read}");
    is_as_written("suggest", &read);
}

#[tokio::test]
async fn a_question_says_what_it_evicts_and_which_guard_would_hold_it_with_its_numbers() {
    let reader = reader(&rules("approve")).await;
    reader.scene.night.by_hand("gpu-4", true).await;
    reader.scene.night.hear("firing", XID_79).await;
    reader.pass(5).await;
    let read = reader.message();
    assert!(read.contains("→ evicts 1 pod: inference/"), "{read}");
    assert!(read.contains("would be held now: gpu-4 is already out of service, and only 1 of 4 nodes"), "{read}");
    is_as_written("question", &read);
    let board = reader.scene.vendor.board();
    assert!(board.iter().all(|posted| !posted.last().to_string().contains("Plan ")), "no hash in the main text");
}

#[tokio::test]
async fn a_question_under_a_freeze_says_that_approving_will_not_start_it() {
    let reader = reader(&rules("approve")).await;
    let night = &reader.scene.night;
    let freeze = Freeze {
        scope: "all".into(),
        by: "ana".into(),
        why: "storage upgrade".into(),
        since: night.now(),
        release_by: None,
        until: None,
    };
    night.parts.store.control(ControlChange::Freeze(freeze, Vec::new()), night.now()).await.unwrap();
    night.hear("firing", XID_79).await;
    reader.pass(5).await;
    let read = reader.message();
    assert!(read.contains("Frozen by ana since 03:00 UTC: storage upgrade. Approving will not start it."), "{read}");
    is_as_written("frozen", &read);
}

#[tokio::test]
async fn two_faults_of_one_node_are_one_title_and_a_line_each() {
    let reader = reader(&rules("observe")).await;
    for (xid, gpu) in [("74", "4"), ("48", "2")] {
        let labels = [("alertname", "GpuXid"), ("xid", xid), ("node", "gpu-1"), ("gpu", gpu)];
        reader.scene.night.hear("firing", &labels).await;
        reader.pass(3).await;
    }
    let read = reader.message();
    assert!(read.contains("gpu-1: 2 faults (XID 48 on GPU 2, XID 74 on GPU 4)"), "{read}");
    is_as_written("two-faults", &read);
}

#[tokio::test]
async fn an_alert_shows_its_description_and_its_links_and_nothing_of_a_label_becomes_one() {
    let reader = reader("rules: [{ name: all, when: ['alertname=\"GpuHot\"'], tell: [oncall] }]").await;
    let mut hot = event(
        &[
            ("alertname", "GpuHot"),
            ("cluster", "prod"),
            ("node", "gpu-2"),
            ("gpu", "1"),
            ("x", "https://label.example/"),
        ],
        &[
            ("summary", "GPU 1 on gpu-2 is at 96 °C"),
            ("description", "Above 90 °C for two minutes: <!channel> it throttles."),
            ("runbook_url", "https://wiki.example/gpu-hot?a=1&b=2"),
            ("dashboard", "https://grafana.example/d/gpus"),
            ("dashboard_fleet", "javascript:alert(1)"),
        ],
    );
    hot.url = "http://prometheus:9090/graph?g0.expr=x&g0.tab=1".to_owned();
    reader.scene.night.hear_events(vec![hot]).await;
    reader.pass(3).await;
    let read = reader.message();
    for link in [
        "[Runbook](https://wiki.example/gpu-hot?a=1&b=2)",
        "[Dashboard](https://grafana.example/d/gpus)",
        "[Alert source](http://prometheus:9090/graph?g0.expr=x&g0.tab=1)",
    ] {
        assert!(read.contains(link), "{link}: {read}");
    }
    assert!(!read.contains("label.example") && !read.contains("javascript"), "{read}");
    is_as_written("links", &read);
}

#[tokio::test]
async fn an_alert_without_labels_or_annotations_has_a_title_and_says_that_someone_must_look() {
    let reader = reader("rules: [{ name: all, when: ['nothing=\"\"'], tell: [oncall] }]").await;
    reader.scene.night.hear_events(vec![event(&[], &[])]).await;
    reader.pass(3).await;
    let read = reader.message();
    assert!(read.contains("There is no automation for this; an operator must look into it."), "{read}");
    is_as_written("bare", &read);
}

#[tokio::test]
async fn the_end_is_said_with_its_reason() {
    let reader = reader("rules: [{ name: all, when: ['alertname=\"GpuHot\"'], tell: [oncall] }]").await;
    let labels = [("alertname", "GpuHot"), ("node", "gpu-2"), ("gpu", "1")];
    reader.scene.night.hear("firing", &labels).await;
    reader.pass(30).await;
    reader.scene.night.hear("resolved", &labels).await;
    reader.pass(10).await;
    let read = reader.message();
    assert!(read.contains("Resolved: all of its alerts have ended."), "{read}");
    is_as_written("resolved", &read);
}
