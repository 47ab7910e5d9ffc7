//! The engine's log of events: a night read from the log alone, and what a sender with a wrong token leaves in it.
//!
//! Invariant: lines are made from the committed ledger, as the engine makes them.

use crate::harness::{Site, alertmanager_body, eventually};
use crate::night::Night;
use nightshift::engine::EventLines;
use nightshift::model::{Freeze, RunState};
use nightshift::store::{ControlChange, Filter};
use serde_json::{Value, json};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const XID: &[(&str, &str)] = &[("alertname", "GpuXid"), ("xid", "79"), ("node", "gpu-2"), ("gpu", "3")];
const RULES: &str =
    "rules: [{ name: xid-79, when: ['alertname=\"GpuXid\"'], run: isolate, mode: approve, tell: [oncall] }]";
const ISOLATE: &str = "//! Take a node out of service.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\n\
     k8s::cordon(node, \"XID 79\");\n";

#[tokio::test]
async fn a_night_is_readable_from_the_log_alone() {
    let night = Night::fall(RULES, &[("isolate", ISOLATE)]).await;
    let heard = night.hear("firing", XID).await;
    let run = night.until_rest(heard.runs[0], MINUTE).await;
    assert!(matches!(run.state, RunState::Asking { .. }), "{run:?}");
    night.hear("firing", XID).await;
    let store = &night.parts.store;
    let since = night.now();
    let freeze = Freeze {
        scope: "all".into(),
        by: "ben".into(),
        why: "storage upgrade".into(),
        since,
        release_by: None,
        until: None,
    };
    store.control(ControlChange::Freeze(freeze, Vec::new()), since).await.unwrap();
    let open = Filter { open: true, limit: 10, ..Filter::default() };
    let approval = store.approvals(open).await.unwrap().remove(0).id;
    store.decide(approval, true, "ana", "looks right", night.now()).await.unwrap();
    night.settle().await;
    let free = ControlChange::Unfreeze { scope: "all".into(), by: "ben".into(), why: "done".into(), persons: 1 };
    store.control(free, night.now()).await.unwrap();
    assert_eq!(night.until_rest(run.id, MINUTE * 5).await.state, RunState::Done);
    night.hear("resolved", XID).await;
    let entries = night.entries().await;
    let lines = EventLines::default().of(&entries, Duration::ZERO);
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let at = |what: &str| {
        texts.iter().position(|text| text.starts_with(what)).unwrap_or_else(|| panic!("{what}: {texts:#?}"))
    };
    let story = [
        "incident opened: ",
        "run created: isolate in mode approve",
        "run planned: isolate: cordon gpu-2",
        "approval requested: ",
        "automation frozen: all by ben",
        "approval a1 given by ana",
        "step on hold: cordon gpu-2",
        "automation no longer frozen: all by ben",
        "step started: cordon gpu-2",
        "step ended: cordon gpu-2",
        "run ended: isolate done",
        "incident resolved",
    ];
    let places: Vec<usize> = story.iter().map(|what| at(what)).collect();
    assert!(places.is_sorted(), "{texts:#?}");
    assert_eq!(texts.iter().filter(|text| text.starts_with("incident opened")).count(), 1, "a repeat is no line");
    let ended = &lines[at("run ended")];
    assert_eq!((ended.node.as_deref(), ended.rule.as_deref()), (Some("gpu-2"), Some("xid-79")));
}

#[tokio::test]
async fn the_engine_writes_the_night_and_warns_of_senders_that_it_rejects() {
    let rules = "rules: [{ name: tells, when: ['alertname=\"GpuHot\"'], tell: [oncall] }]";
    let extra = "sources:\n  prod: { kind: alertmanager }\nchannels:\n  oncall: { kind: log }\n";
    let site = Site::new(extra, rules, &[]);
    let engine = site.start(&[]).await.unwrap();
    let alert = alertmanager_body("firing", crate::night::NIGHT, &[&[("alertname", "GpuHot"), ("node", "gpu-2")]]);
    for _ in 0..3 {
        assert_eq!(engine.ask("POST", "/in/alertmanager/prod", Some("wrong"), &alert).await.0, 401);
    }
    assert_eq!(engine.ask("POST", "/in/alertmanager/nowhere%0aFAKE", None, &alert).await.0, 401);
    assert_eq!(engine.post("/in/alertmanager/typo", &alert).await.unwrap().0, 404);
    assert_eq!(engine.post("/in/alertmanager", &json!({})).await.unwrap().0, 404);
    assert_eq!(engine.post("/in/alertmanager/prod", &alert).await.unwrap().0, 200);
    eventually("the delivery", async || {
        let entries: Value = engine.get("/api/v1/entries?kind=delivered").await?;
        (!entries["entries"].as_array()?.is_empty()).then_some(())
    })
    .await;
    assert_eq!(engine.stop(), Some(0), "the log is complete when the engine has ended");
    let log = site.log();
    let line = |words: &[&str]| {
        let found: Vec<&str> = log.lines().filter(|line| words.iter().all(|word| line.contains(word))).collect();
        assert_eq!(found.len(), 1, "{words:?}:\n{log}");
    };
    line(&["INFO", "incident opened", "\"incident\":\"i1\"", "\"node\":\"gpu-2\""]);
    line(&["INFO", "channel oncall notified", "\"incident\":\"i1\""]);
    line(&["WARN", "no valid token", "alertmanager/prod", "127.0.0.1:", "\"status\":401"]);
    line(&["WARN", "no such source", "alertmanager/typo", "\"status\":404"]);
    line(&["WARN", "no such source", "\"source\":\"alertmanager\""]);
    assert!(!log.lines().any(|line| line.starts_with("FAKE")), "{log}");
}
