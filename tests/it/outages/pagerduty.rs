//! Ten minutes in which PagerDuty takes nothing.
//!
//! Invariant: what PagerDuty took is one trigger, at most one acknowledgement and one end for each incident, in this order.

use super::vendor::{Manner, Posted};
use super::{Scene, most_in_a_minute};
use nightshift::config::ChannelConfig;
use nightshift::model::{IncidentState, Time};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ENQUEUE: &str = "v2/enqueue";
/// PagerDuty takes so many events a minute of one integration.
const EVENTS: usize = 120;

/// The Events API: an event each, taken.
fn does(board: &mut Vec<Posted>, _: &str, body: &Value, _: &str) -> (u16, Value) {
    board.push(Posted { id: board.len().to_string(), thread: None, editions: vec![body.clone()] });
    (202, json!({ "status": "success", "message": "Event processed", "dedup_key": body["dedup_key"] }))
}

async fn scene() -> Scene {
    let channel = |routing_key, url: &str| {
        let api = format!("{url}/{ENQUEUE}");
        ChannelConfig::PagerDuty { routing_key, api, patience: None }
    };
    Scene::begin(does, channel).await
}

/// What PagerDuty took, by key, in order.
fn taken(scene: &Scene) -> BTreeMap<String, Vec<String>> {
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in scene.vendor.board() {
        let text = |name: &str| event.last()[name].as_str().unwrap().to_owned();
        by_key.entry(text("dedup_key")).or_default().push(text("event_action"));
    }
    by_key
}

#[tokio::test]
async fn after_ten_minutes_of_429_each_key_has_its_events_once_and_in_order() {
    for after in [None, Some(30)] {
        let scene = scene().await;
        // Ten that PagerDuty knows, ten more that come while it takes nothing.
        scene.hear("firing", "GpuXid", 0..10).await;
        scene.pass(1).await;
        assert_eq!(taken(&scene).len(), 10);
        scene.pass(1).await;
        scene.vendor.is(Manner::Refuses(429, after));
        let began = scene.now();
        for step in 0..10_usize {
            scene.hear("firing", "GpuXid", [10 + step]).await;
            scene.pass(15).await;
            // All that it knows are acknowledged, the even ones of them end, and two new ones are over before anybody was told.
            scene.acknowledge(step).await;
            scene.pass(15).await;
            if step % 2 == 0 {
                scene.hear("resolved", "GpuXid", [step]).await;
            }
            if step == 8 {
                scene.hear("resolved", "GpuXid", [10, 11]).await;
            }
            scene.pass(30).await;
        }
        let tries = scene.vendor.moments(ENQUEUE, began);
        let most = if after.is_some() { 3 } else { 12 };
        assert!(most_in_a_minute(&tries) <= most, "{after:?}: {} tries in a minute", most_in_a_minute(&tries));
        let back = scene.now();
        scene.vendor.is(Manner::Up);
        scene.pass(180).await;
        assert!(scene.nothing_is_due().await, "{after:?}");
        assert!(most_in_a_minute(&scene.vendor.moments(ENQUEUE, back)) <= EVENTS);
        let taken = taken(&scene);
        for incident in scene.incidents().await {
            let events = taken.get(&Scene::key(&incident)).cloned().unwrap_or_default();
            let no: usize = incident.subject.part("node").unwrap()[4..].parse().unwrap();
            let expected: &[&str] = match (incident.state, no) {
                // Over before PagerDuty heard of it: nobody is paged.
                (IncidentState::Resolved, 10..) => &[],
                // Acknowledged and over while PagerDuty took nothing: the end is what counts.
                (IncidentState::Resolved, _) => &["trigger", "resolve"],
                (IncidentState::Acknowledged, _) => &["trigger", "acknowledge"],
                (IncidentState::Open, _) => &["trigger"],
            };
            assert_eq!(events, expected, "{after:?}: {} ({:?})", incident.id, incident.state);
        }
    }
}

#[tokio::test]
async fn two_hundred_that_end_at_once_are_resolved_at_pagerdutys_pace() {
    let scene = scene().await;
    for no in 0..200 {
        scene.hear("firing", "GpuXid", [no]).await;
        scene.pass(4).await;
    }
    let began = scene.now();
    scene.hear("resolved", "GpuXid", 0..200).await;
    scene.pass(240).await;
    let moments: Vec<Time> = scene.vendor.moments(ENQUEUE, began);
    assert_eq!(moments.len(), 200, "each ends once");
    assert!(most_in_a_minute(&moments) <= EVENTS, "{} in a minute", most_in_a_minute(&moments));
    assert!(taken(&scene).values().all(|events| events[..] == ["trigger", "resolve"]));
    assert!(scene.nothing_is_due().await);
}
