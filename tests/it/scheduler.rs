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

const LOOK: &str = "//! Looks at the fleet.\n//!\n//! reach: none\n//! undo: never\n\nnote(\"looked\");\n";

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
