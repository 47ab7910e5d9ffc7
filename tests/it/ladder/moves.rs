//! A rule's move is heard: in the incident that saw it, or, where no channel would hear of it that way, in one message.
//!
//! Invariant: what was told is read where people read it, and nobody is paged for it.

use super::{CORDON, FAILS, House, MINUTE, rule};
use crate::night::Night;
use crate::recording::Recording;
use nightshift::engine::NotificationDispatcher;
use nightshift::model::{Incident, Mode};
use nightshift::notifiers::Notifier;
use nightshift::store::Filter;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A courier that tells these channels of what the house does.
fn courier(house: &House, channels: Vec<(&str, Box<dyn Notifier>)>) -> NotificationDispatcher {
    let parts = &house.night.parts;
    let told = channels.into_iter().map(|(name, notifier)| (name.to_owned(), notifier)).collect::<BTreeMap<_, _>>();
    NotificationDispatcher::with(
        parts.store.clone(),
        parts.store.clone(),
        Arc::new(told),
        parts.clock.clone(),
        parts.nudge.clone(),
        "test",
        None,
    )
}

async fn incidents(house: &House) -> Vec<Incident> {
    let filter = Filter { limit: 100, after: Some(-1), ..Filter::default() };
    house.night.parts.store.incidents(filter).await.unwrap()
}

/// The first messages that Slack was sent, not their threads and edits.
fn posted(server: &Recording) -> Vec<String> {
    let first = |seen: &crate::recording::Seen| seen.path == "/chat.postMessage" && seen.body["thread_ts"].is_null();
    server.seen().into_iter().filter(first).map(|seen| seen.text).collect()
}

#[tokio::test]
async fn a_rule_that_observes_in_silence_is_told_to_its_channels_in_one_message_when_it_goes_further() {
    let more = "    promote: { matches: 1 }\n    tell: [oncall]\n    tell_in: suggest\n";
    let house = House::open(&rule("observe", more), CORDON).await;
    let server = Recording::slack().await;
    let courier = courier(&house, vec![("oncall", crate::notifiers::slack_with_buttons(&server))]);
    house.fires("gpu-1", "a").await;
    courier.pass().await.unwrap();
    assert!(server.seen().is_empty(), "it is silent below suggest");
    house.promoted("ops", "suggest").await;
    courier.pass().await.unwrap();
    let told = posted(&server);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("rule xid promoted from observe to suggest by ops"), "{told:#?}");
    house.night.pass(MINUTE).await;
    courier.pass().await.unwrap();
    assert_eq!(posted(&server).len(), 1, "and once");
    let open: Vec<String> =
        incidents(&house).await.into_iter().filter(|one| one.closed_at.is_none()).map(|one| one.title).collect();
    assert_eq!(open.len(), 1, "the complaint alone is open: {open:?}");
}

#[tokio::test]
async fn a_way_down_is_told_in_the_incident_that_saw_it_where_its_channels_hear_of_that() {
    let house = House::open(&rule("auto", "    tell: [oncall]\n"), FAILS).await;
    let server = Recording::slack().await;
    let courier = courier(&house, vec![("oncall", crate::notifiers::slack_with_buttons(&server))]);
    house.fires("gpu-1", "a").await;
    assert_eq!(house.mode().await, "approve");
    courier.pass().await.unwrap();
    assert_eq!(incidents(&house).await.len(), 1, "no second incident");
    let heard = server.seen().into_iter().any(|seen| seen.text.contains("rule xid demoted from auto to approve"));
    assert!(heard, "{:#?}", server.seen());
}

/// A rule on a schedule: nobody complained, so there is no incident.
const NIGHTLY: &str = "rules:\n  - name: nightly\n    at: { cron: '0 4 * * *' }\n    run: remedy\n    mode: auto\n    with: { node: gpu-1 }\n    tell: [oncall, pager]\n";

#[tokio::test]
async fn a_scheduled_rule_that_fails_and_goes_down_is_told_and_pages_nobody() {
    let house = House::of(Night::fall(NIGHTLY, &[("remedy", FAILS)]).await);
    let (slack, pager) = (Recording::slack().await, Recording::pagerduty().await);
    let courier = courier(
        &house,
        vec![("oncall", crate::notifiers::slack_with_buttons(&slack)), ("pager", crate::notifiers::pagerduty(&pager))],
    );
    let loaded = house.night.parts.catalog.current();
    let runbook = &loaded.runbooks["remedy"];
    let params = json!({ "node": "gpu-1" }).as_object().unwrap().clone();
    let input = nightshift::policy::RuleSet::bind(&runbook.header, &params, None).unwrap();
    let new = nightshift::store::NewRun {
        pin: runbook.pin.clone(),
        subject: nightshift::policy::subject_of(&runbook.header, &input.params, None),
        input,
        mode: Mode::Auto,
        rule: Some("nightly".into()),
        terms: loaded.rules.terms("nightly").cloned(),
        requested_by: "schedule".into(),
        once: Some("a tick".into()),
        now: house.night.now(),
    };
    let run = house.night.parts.store.start(new).await.unwrap().unwrap();
    let run = house.night.until_rest(run, MINUTE * 5).await;
    assert_eq!(run.incident, None);
    courier.pass().await.unwrap();
    let told = posted(&slack);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("rule nightly demoted from auto to approve"), "{told:#?}");
    assert!(told[0].contains("r1 failed and undid its steps; 1 of 1 bad outcomes in auto"), "{told:#?}");
    assert!(pager.seen().is_empty(), "nobody is woken for it: {:#?}", pager.seen());
    let entry = house.night.entries().await.into_iter().find(|entry| entry.kind.name() == "rule_demoted").unwrap();
    assert_eq!((entry.about.run, entry.about.incident), (Some(run.id), Some(incidents(&house).await[0].id)));
}
