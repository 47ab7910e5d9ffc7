//! Runs on a schedule, and episodes whose source fell silent.
//!
//! Invariant: a tick starts at most one run, and silence is never taken for a recovery.

use crate::harness::eventually;
use crate::night::Night;
use nightshift::clock::Clock;
use nightshift::model::{EpisodeState, RunState};
use nightshift::store::Filter;
use std::time::Duration;
use tokio::sync::watch;

const HOUR: Duration = Duration::from_secs(3600);

const NIGHTLY: &str = r#"
rules:
  - name: nightly
    at: { cron: "30 3 * * *", zone: Europe/Berlin }
    run: look
    mode: auto
"#;

const LOOK: &str = "//! Looks at the fleet.\n//!\n//! scope: none\n//! undo: never\n\nnote(\"looked\");\n";

/// The night begins at 03:00 UTC, which is 04:00 in Berlin in November.
#[tokio::test]
async fn a_schedule_starts_one_run_each_night_and_a_missed_one_once() {
    let night = Night::fall(NIGHTLY, &[("look", LOOK)]).await;
    let (stop, stopped) = watch::channel(false);
    let engine = tokio::spawn(nightshift::engine::run(night.parts.clone(), stopped));
    // Three ticks pass while nobody looks at the clock: the latest counts, and only once.
    night.pass(HOUR * 73).await;
    let runs = eventually("the run of the missed tick", async || {
        let runs = night.runs().await;
        runs.iter().any(|run| run.state == RunState::Done).then_some(runs)
    })
    .await;
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].requested_by, "schedule");
    night.pass(HOUR * 24).await;
    eventually("the run of the next night", async || (night.runs().await.len() == 2).then_some(())).await;
    stop.send(true).unwrap();
    engine.await.unwrap();
}

#[tokio::test]
async fn an_episode_that_its_source_no_longer_repeats_becomes_stale_and_starts_nothing() {
    let rules = "rules:\n  - name: r\n    when: ['alertname=\"X\"']\n    tell: [oncall]\n";
    let night = Night::fall(rules, &[]).await;
    night.hear("firing", &[("alertname", "X"), ("node", "gpu-1")]).await;
    let (stop, stopped) = watch::channel(false);
    let engine = tokio::spawn(nightshift::engine::run(night.parts.clone(), stopped));
    let stale_after = night.parts.config.sources["test"].stale_after.0;
    night.pass(stale_after / 2).await;
    let states = async || {
        let filter = Filter { limit: 10, ..Filter::default() };
        let episodes = night.parts.store.episodes(filter).await.unwrap();
        episodes.into_iter().map(|episode| episode.state).collect::<Vec<_>>()
    };
    assert_eq!(states().await, [EpisodeState::Open]);
    eventually("the silence to be noticed", async || {
        night.clock.advance(Duration::from_secs(600));
        (states().await == [EpisodeState::Stale]).then_some(())
    })
    .await;
    assert!(night.now() >= "2026-11-23T11:30:00Z".parse().unwrap(), "not before its time: {}", night.clock.now());
    stop.send(true).unwrap();
    engine.await.unwrap();
}

/// The alert that one of these labels fires, as Alertmanager's API lists it while it is silenced.
fn silenced(id: usize) -> serde_json::Value {
    serde_json::json!({
        "labels": { "alertname": "X", "id": format!("q{id}") }, "annotations": {}, "fingerprint": "x",
        "startsAt": "2026-11-23T03:00:00Z", "endsAt": "2026-12-30T03:00:00Z",
        "status": { "state": "suppressed", "silencedBy": ["s1"], "inhibitedBy": [] },
    })
}

fn listed(seen: &crate::recording::Seen, _: usize) -> serde_json::Value {
    if seen.path.contains("/status") {
        return serde_json::json!({ "uptime": "2026-11-20T00:00:00Z", "cluster": {}, "versionInfo": {}, "config": {} });
    }
    (0..1_100).map(silenced).collect()
}

#[tokio::test]
async fn a_thousand_silenced_alerts_hide_no_lost_resolve() {
    let api = crate::recording::Recording::start(200, listed).await;
    let rules = "rules:\n  - name: r\n    when: ['alertname=\"X\"']\n    tell: [oncall]\n";
    let mut night = Night::fall(rules, &[]).await;
    night.parts.world.http =
        nightshift::world::HttpClient::new("nightshift/test", &[format!("private+{}", api.url)]).unwrap();
    let source = serde_json::json!({ "kind": "alertmanager", "api": api.url });
    night.configure(|config| {
        config.sources.insert("test".to_owned(), serde_json::from_value(source).unwrap());
    });
    for first in (0..1_100).step_by(100) {
        let ids: Vec<String> = (first..first + 100).map(|id| format!("q{id}")).collect();
        let labels: Vec<[(&str, &str); 2]> = ids.iter().map(|id| [("alertname", "X"), ("id", id.as_str())]).collect();
        let alerts: Vec<&[(&str, &str)]> = labels.iter().map(<[_; 2]>::as_slice).collect();
        let body = crate::harness::alertmanager_body("firing", crate::night::NIGHT, &alerts);
        let bytes = serde_json::to_vec(&body).unwrap();
        let source = &night.parts.config.sources["test"];
        let decoded = nightshift::sources::alertmanager::decode(&bytes, "test", source, night.now()).unwrap();
        night.hear_events(decoded.events).await;
    }
    night.pass(Duration::from_secs(1)).await;
    for id in ["lost-1", "lost-2", "lost-3", "lost-4", "lost-5"] {
        night.hear("firing", &[("alertname", "X"), ("id", id)]).await;
    }
    night.pass(HOUR / 4).await;
    let (stop, stopped) = watch::channel(false);
    let engine = tokio::spawn(nightshift::engine::run(night.parts.clone(), stopped));
    let open = async || night.parts.store.counts().await.unwrap().episodes_open;
    eventually("the five that Alertmanager no longer lists to end", async || (open().await == 1_100).then_some(()))
        .await;
    stop.send(true).unwrap();
    engine.await.unwrap();
}
