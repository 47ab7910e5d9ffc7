//! Clocks that are set by a second or by a year, in both directions, for a moment or for good; a machine without CPU time.
//!
//! Invariant: effects are counted at the target. A time passes when a test says so, and a clock is set without any.

use crate::harness::eventually;
use crate::night::Night;
use nightshift::clock::Clock;
use nightshift::engine::{ClockWatch, Runner, SweepTimes};
use nightshift::model::{
    Actor, ApprovalState, Entry, EntryKind, EntryLinks, EpisodeState, Mode, Reason, ReasonCode, RunId, RunState,
};
use nightshift::store::{CommitFollower, Filter};
use nightshift::world::sim::{ApiFault, RequestFault};
use nightshift::world::{ConfigMapName, KillSwitchConfig};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// How long a step of the wall clock stands before the engine follows it.
const SETTLES: Duration = Duration::from_secs(601);

const LABEL: &str = r#"//! Label a node.
//!
//! params:
//!   node: Node
//!   value: String = "yes"
//! scope: node

k8s::label(node, "nightshift.dev/test", value);
"#;

const POST: &str = r#"//! Post once.
//!
//! params:
//!   url: String
//! scope: pod
//! undo: never

http::post(url, "x");
"#;

const SLEEP: &str = r#"//! Label a node, wait, post once.
//!
//! params:
//!   node: Node
//!   url: String
//! scope: node
//! undo: never

k8s::label(node, "nightshift.dev/test", "waits");
sleep("20m");
http::post(url, "x");
"#;

const BOOKS: &[(&str, &str)] = &[("label", LABEL), ("post", POST), ("sleep", SLEEP)];

fn posts(night: &Night, path: &str) -> usize {
    night.fleet.requests().iter().filter(|asked| asked.method == "POST" && asked.path == path).count()
}

/// Sets the wall clock that far from the engine's time.
fn set(night: &Night, by: Duration, is_back: bool) {
    let now = night.now();
    night.clock.jump(if is_back { now - by } else { now + by });
}

fn correct(night: &Night) {
    night.clock.jump(night.now());
}

async fn reason(night: &Night, run: RunId) -> Reason {
    match night.run(run).await.state {
        RunState::Held { reason } => reason,
        other => panic!("not held: {other:?}"),
    }
}

/// What the ledger says of the clock.
async fn steps(night: &Night) -> Vec<String> {
    let text = |entry: Entry| match entry.kind {
        EntryKind::Trouble { text } if text.contains("machine's clock") => Some(text),
        _ => None,
    };
    night.entries().await.into_iter().filter_map(text).collect()
}

/// The step lasts until the engine follows it.
async fn follow(night: &Night, clock: &mut ClockWatch) {
    clock.pass(&night.parts).await.unwrap();
    night.pass(SETTLES).await;
    clock.pass(&night.parts).await.unwrap();
    assert_eq!(night.clock.step(), None);
    assert_eq!(night.clock.wall(), night.now());
}

#[tokio::test]
async fn a_kill_file_that_is_made_while_the_api_is_slow_lets_no_effect_through() {
    let mut night = Night::fall("rules: []", BOOKS).await;
    let file = night.path().join("stop");
    night.kill_by(KillSwitchConfig { file: Some(file.clone()), config_map: None });
    night.fleet.fault(ApiFault::next(1, "GET", "nodes/gpu-2", RequestFault::Delay { millis: 8_000 })).unwrap();
    let run = night.start("label", Mode::Auto, json!({ "node": "gpu-2" })).await;
    let engage = async {
        eventually("the slow read", async || {
            night.fleet.requests().iter().any(|asked| asked.path.contains("nodes/gpu-2")).then_some(())
        })
        .await;
        night.pass(SECOND).await;
        std::fs::write(&file, "").unwrap();
        // The request may begin to wait a moment after it was counted.
        eventually("its end", async || {
            night.pass(SECOND).await;
            matches!(night.run(run).await.state, RunState::Held { .. } | RunState::Done).then_some(())
        })
        .await;
    };
    tokio::join!(night.runner.drain(), engage);
    assert_eq!(reason(&night, run).await.code, ReasonCode::Frozen);
    assert!(night.effects().is_empty(), "{:?}", night.effects());
    let begun = night.entries().await.iter().any(|entry| entry.kind.name() == "step_begun");
    assert!(!begun, "the switch is read after everything else, so the step is not even begun");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(night.until_rest(run, MINUTE).await.state, RunState::Done);
    assert_eq!(night.effects()["patch nodes gpu-2"], 1);
}

#[tokio::test]
async fn a_kill_file_that_is_made_after_the_record_of_a_blind_step_holds_it_and_it_is_done_once_later() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stop");
    let made = file.clone();
    let follower = CommitFollower::new(move |commit| {
        if commit.entries.iter().any(|entry| entry.kind.name() == "step_begun") {
            std::fs::write(&made, "").unwrap();
        }
    });
    let mut night = Night::fall_with("rules: []", BOOKS, |options| options.follower = Some(follower)).await;
    night.kill_by(KillSwitchConfig { file: Some(file.clone()), config_map: None });
    let run = night.start("post", Mode::Auto, json!({ "url": format!("{}/hook", night.fleet.url()) })).await;
    night.settle().await;
    let held = reason(&night, run).await;
    assert_eq!(held.code, ReasonCode::Frozen);
    assert!(held.text.contains("exists; remove it"), "{held}");
    assert_eq!(posts(&night, "/hook"), 0, "begun, and not performed");
    for _ in 0..3 {
        night.pass(MINUTE).await;
        night.settle().await;
    }
    assert_eq!(posts(&night, "/hook"), 0);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(night.until_rest(run, MINUTE).await.state, RunState::Done);
    assert_eq!(posts(&night, "/hook"), 1, "it never went out before, so nothing is in doubt");
}

/// The ConfigMap of the kill switch.
async fn engage(night: &Night, is_engaged: bool) {
    let (client, url) = (crate::harness::client(), night.fleet.url());
    let all = format!("{url}/api/v1/namespaces/ops/configmaps");
    let sent = if is_engaged {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "stop": "true" },
            "metadata": { "name": "stop", "namespace": "ops" } });
        let request = client.post(all).header("content-type", "application/json").body(map.to_string());
        request.send().await.unwrap()
    } else {
        client.delete(format!("{all}/stop")).send().await.unwrap()
    };
    assert!(sent.status().is_success(), "{}", sent.status());
}

/// What the loop of the kill switch does in that time.
async fn look(night: &Night, halves: u32) {
    for _ in 0..halves {
        night.pass(SECOND / 2).await;
        night.parts.world.kill.look(&night.parts.world).await;
    }
}

/// After each step, in both directions, for a moment or for good: the switch holds within two seconds that pass, whether it
/// is read or cannot be, and each run does its work once. `CLOCK_STEPS=200` makes it a long one.
#[tokio::test]
async fn in_a_loop_of_clock_steps_no_effect_is_doubled_or_lost_and_the_kill_switch_holds() {
    let mut night = Night::fall("rules: []", BOOKS).await;
    let map = ConfigMapName { cluster: None, namespace: "ops".into(), name: "stop".into() };
    night.kill_by(KillSwitchConfig { file: None, config_map: Some(map) });
    let mut clock = ClockWatch::default();
    clock.pass(&night.parts).await.unwrap();
    let spans = [SECOND, 4 * SECOND, 6 * SECOND, MINUTE, HOUR, DAY, 400 * DAY];
    let ways = [(false, false), (false, true), (true, false), (true, true)];
    let all: Vec<_> = spans.iter().flat_map(|by| ways.map(|(is_back, lasts)| (*by, is_back, lasts))).collect();
    let steps = std::env::var("CLOCK_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(all.len());
    for (number, (by, is_back, lasts)) in all.into_iter().cycle().take(steps).enumerate() {
        let what = format!("{by:?} {} lasts: {lasts}", if is_back { "back" } else { "forward" });
        let path = format!("/hook/{number}");
        let url = format!("{}{path}", night.fleet.url());
        look(&night, 1).await;
        let run = night.start("sleep", Mode::Auto, json!({ "node": "gpu-2", "url": url })).await;
        night.settle().await;
        assert!(matches!(night.run(run).await.state, RunState::Waiting { .. }), "{what}");
        let began = night.clock.monotonic();

        set(&night, by, is_back);
        clock.pass(&night.parts).await.unwrap();
        night.settle().await;
        assert_eq!(posts(&night, &path), 0, "{what}: a step notifies no one");

        night.pass(2 * SECOND).await;
        assert!(night.parts.world.stopped().is_some(), "{what}: what was read before the step is two seconds old");
        // Engaged after the step, and read by the loop: held.
        engage(&night, true).await;
        look(&night, 4).await;
        let other = night.start("label", Mode::Auto, json!({ "node": "gpu-3", "value": format!("v{number}") })).await;
        let before = night.effects();
        night.settle().await;
        assert_eq!(reason(&night, other).await.code, ReasonCode::Frozen, "{what}");
        // Let go, and then not read for two seconds: held.
        engage(&night, false).await;
        look(&night, 1).await;
        assert_eq!(night.parts.world.stopped(), None, "{what}");
        night.pass(2 * SECOND).await;
        assert!(night.parts.world.stopped().is_some(), "{what}: what was not read for two seconds is engaged");
        night.settle().await;
        assert_eq!(night.effects(), before, "{what}");

        if lasts {
            follow(&night, &mut clock).await;
        } else {
            correct(&night);
            clock.pass(&night.parts).await.unwrap();
        }
        let lived = night.clock.monotonic() - began;
        night.pass(20 * MINUTE - lived - 6 * SECOND).await;
        look(&night, 1).await;
        night.settle().await;
        assert_eq!(posts(&night, &path), 0, "{what}: not before its time");
        // Small corrections are followed, so the end may lie that much later.
        night.pass(11 * SECOND).await;
        look(&night, 1).await;
        night.settle().await;
        assert_eq!(posts(&night, &path), 1, "{what}: and not after it");
        assert_eq!(night.run(run).await.state, RunState::Done, "{what}");
        night.pass(16 * SECOND).await;
        look(&night, 1).await;
        night.settle().await;
        assert_eq!(night.run(other).await.state, RunState::Done, "{what}");
    }
    let total = night.fleet.requests().iter().filter(|asked| asked.path.starts_with("/hook/")).count();
    assert_eq!(total, steps, "one a step");
    assert_eq!(night.effects()["patch nodes gpu-3"], steps, "and one of each that was held");
    // Whatever was lost, doubled or late has failed above.
    let effects = total + night.effects()["patch nodes gpu-3"];
    crate::loops::Tally { rounds: steps, acknowledged: 2 * steps, effects, ..Default::default() }.report("clock steps");
}

#[tokio::test]
async fn a_step_is_an_entry_and_so_is_its_end_and_a_wild_clock_fills_no_ledger() {
    let night = Night::fall("rules: []", BOOKS).await;
    let mut clock = ClockWatch::default();
    for _ in 0..3 {
        clock.pass(&night.parts).await.unwrap();
        night.pass(SECOND).await;
    }
    assert!(steps(&night).await.is_empty(), "{:?}", steps(&night).await);
    set(&night, HOUR, true);
    for _ in 0..3 {
        clock.pass(&night.parts).await.unwrap();
        night.pass(SECOND).await;
    }
    let told = steps(&night).await;
    assert!(matches!(&told[..], [one] if one.contains("was set 1h back: it shows 2026-11-23T02:00:03Z")), "{told:?}");
    correct(&night);
    clock.pass(&night.parts).await.unwrap();
    assert!(steps(&night).await[1].contains("is right again"), "{:?}", steps(&night).await);
    for no in 0..90 {
        set(&night, HOUR * (no % 7 + 1), no % 2 == 0);
        clock.pass(&night.parts).await.unwrap();
        night.pass(SECOND).await;
    }
    let told = steps(&night).await.len();
    assert!((3..=5).contains(&told), "{told} entries in ninety seconds");
}

#[tokio::test]
async fn a_clock_a_day_ahead_for_a_minute_forgets_no_attempt_and_expires_no_question() {
    let rules = "rules:\n  - name: act\n    when: ['alertname=\"Act\"']\n    run: label\n    mode: auto\n    \
                 cooldown: 1h\n    attempts: 1\n    demote: { auto: 0 }\n    group_by: [id]\n  - name: ask\n    when: ['alertname=\"Ask\"']\n    \
                 run: label\n    mode: approve\n    approve_within: 30m\n    group_by: [id]\n";
    let night = Night::fall(rules, BOOKS).await;
    let mut clock = ClockWatch::default();
    let act = |id: &'static str| [("alertname", "Act"), ("node", "gpu-2"), ("id", id)];
    let first = night.hear("firing", &act("1")).await.runs[0];
    assert_eq!(night.until_rest(first, MINUTE).await.state, RunState::Done);
    let ask = night.hear("firing", &[("alertname", "Ask"), ("node", "gpu-3"), ("id", "q")]).await.runs[0];
    night.settle().await;
    let open = async || {
        let filter = Filter { limit: 10, ..Filter::default() };
        night.parts.store.approvals(filter).await.unwrap().remove(0).state
    };
    assert_eq!(open().await, ApprovalState::Open);
    let before = night.effects();
    for is_back in [false, true, false] {
        set(&night, DAY, is_back);
        clock.pass(&night.parts).await.unwrap();
        night.pass(70 * SECOND).await;
        let again = night.hear("firing", &act(if is_back { "2" } else { "3" })).await;
        night.settle().await;
        for run in again.runs {
            assert!(!matches!(night.run(run).await.state, RunState::Done), "a second attempt within its day");
        }
        assert_eq!(open().await, ApprovalState::Open);
        correct(&night);
        clock.pass(&night.parts).await.unwrap();
    }
    assert_eq!(night.effects(), before);
    // For good: the question keeps the time that it had left, and the attempt its age.
    set(&night, DAY, false);
    follow(&night, &mut clock).await;
    night.settle().await;
    assert_eq!(open().await, ApprovalState::Open, "some fourteen minutes have passed of its thirty");
    let again = night.hear("firing", &act("4")).await.runs[0];
    night.settle().await;
    assert!(!matches!(night.run(again).await.state, RunState::Done));
    assert_eq!(night.effects(), before);
    night.pass(17 * MINUTE).await;
    night.settle().await;
    assert_eq!(open().await, ApprovalState::Expired);
    assert!(matches!(night.run(ask).await.state, RunState::Denied { .. }));
}

const TICK: &str = "rules:\n  - name: tick\n    at: { cron: \"* * * * *\", zone: UTC }\n    run: tick\n    mode: auto\n  \
                    - name: r\n    when: ['alertname=\"X\"']\n    tell: [oncall]\n";

#[tokio::test]
async fn under_a_clock_that_is_set_schedules_go_on_and_nothing_that_fires_is_ended() {
    let night =
        Night::fall(TICK, &[("tick", "//! Tick.\n//!\n//! scope: none\n//! undo: never\n\nnote(\"tick\");\n")]).await;
    night.hear("firing", &[("alertname", "X"), ("node", "gpu-1")]).await;
    let (stop, stopped) = watch::channel(false);
    let engine = tokio::spawn(nightshift::engine::run(night.parts.clone(), stopped));
    let steps =
        [None, Some((DAY, false)), Some((HOUR, true)), None, Some((400 * DAY, false)), Some((400 * DAY, true)), None];
    for (ticks, by) in (1..).zip(steps) {
        match by {
            None => correct(&night),
            Some((by, is_back)) => set(&night, by, is_back),
        }
        night.pass(MINUTE).await;
        eventually("the tick of this minute", async || {
            let runs = night.runs().await;
            assert!(runs.len() <= ticks, "{} runs in {ticks} minutes", runs.len());
            (runs.iter().filter(|run| run.state == RunState::Done).count() >= ticks).then_some(())
        })
        .await;
    }
    let episodes = night.parts.store.episodes(Filter { limit: 10, ..Filter::default() }).await.unwrap();
    assert_eq!(episodes[0].state, EpisodeState::Open, "it was heard some minutes ago");
    stop.send(true).unwrap();
    engine.await.unwrap();
}

#[tokio::test]
async fn a_clock_set_back_while_the_engine_was_down_leaves_no_timer_in_the_future() {
    let night = Night::fall("rules: []", BOOKS).await;
    night.pass(HOUR).await;
    let url = format!("{}/hook", night.fleet.url());
    let run = night.start("sleep", Mode::Auto, json!({ "node": "gpu-2", "url": url })).await;
    night.settle().await;
    // The next life, an hour before the last one ended.
    night.clock.set(night.now() - HOUR);
    let started = EntryKind::Started { version: "test".to_owned(), epoch: 2 };
    night.parts.store.note(Actor::engine(), EntryLinks::default(), started, night.now()).await.unwrap();
    ClockWatch::default().pass(&night.parts).await.unwrap();
    assert!(steps(&night).await[0].contains("1h back"), "{:?}", steps(&night).await);
    night.pass(19 * MINUTE).await;
    night.settle().await;
    assert_eq!(posts(&night, "/hook"), 0);
    night.pass(2 * MINUTE).await;
    assert_eq!(night.until_rest(run, MINUTE).await.state, RunState::Done);
    assert_eq!(posts(&night, "/hook"), 1);
}

/// The next life of the engine, that long after the last by the running clock, and with the wall clock set by that.
async fn next_life(night: &Night, down: Duration, by: Duration, is_back: bool) {
    night.pass(down).await;
    night.clock.set(if is_back { night.now() - by } else { night.now() + by });
    let started = EntryKind::Started { version: "test".to_owned(), epoch: 2 };
    night.parts.store.note(Actor::engine(), EntryLinks::default(), started, night.now()).await.unwrap();
}

#[tokio::test]
async fn a_clock_set_forward_while_the_engine_was_down_fires_nothing_early() {
    for (by, is_back) in [(HOUR, false), (DAY, false), (400 * DAY, false), (HOUR, true), (DAY, true)] {
        let what = format!("{by:?}, back: {is_back}");
        let night = Night::fall("rules: []", BOOKS).await;
        ClockWatch::begin(&night.parts).await;
        let url = format!("{}/hook", night.fleet.url());
        let run = night.start("sleep", Mode::Auto, json!({ "node": "gpu-2", "url": url })).await;
        night.settle().await;
        // Down for five minutes of the twenty, and down again with nothing done to the clock.
        next_life(&night, 5 * MINUTE, by, is_back).await;
        ClockWatch::begin(&night.parts).await;
        let way = if is_back { "back" } else { "forward" };
        let told = steps(&night).await;
        assert!(told.len() == 1 && told[0].contains(&format!("{way} while the engine was down")), "{what}: {told:?}");
        next_life(&night, MINUTE, Duration::ZERO, false).await;
        ClockWatch::begin(&night.parts).await;
        assert_eq!(steps(&night).await.len(), 1, "{what}: moved once");
        night.settle().await;
        night.pass(13 * MINUTE).await;
        night.settle().await;
        assert_eq!(posts(&night, "/hook"), 0, "{what}: not early");
        night.pass(2 * MINUTE).await;
        assert_eq!(night.until_rest(run, MINUTE).await.state, RunState::Done, "{what}: and not late");
        assert_eq!(posts(&night, "/hook"), 1, "{what}");
    }
}

/// A process that ends after the timers were moved and before anything else does not move them once more.
#[tokio::test]
async fn a_step_that_was_followed_is_not_followed_again_by_the_next_start() {
    for is_back in [false, true] {
        let night = Night::fall("rules: []", BOOKS).await;
        let mut clock = ClockWatch::begin(&night.parts).await;
        let url = format!("{}/hook", night.fleet.url());
        let run = night.start("sleep", Mode::Auto, json!({ "node": "gpu-2", "url": url })).await;
        night.settle().await;
        set(&night, HOUR, is_back);
        follow(&night, &mut clock).await;
        next_life(&night, MINUTE, Duration::ZERO, false).await;
        ClockWatch::begin(&night.parts).await;
        night.pass(8 * MINUTE).await;
        night.settle().await;
        assert_eq!(posts(&night, "/hook"), 0, "back: {is_back}: some nineteen of its twenty minutes have passed");
        night.pass(2 * MINUTE).await;
        assert_eq!(night.until_rest(run, MINUTE).await.state, RunState::Done, "back: {is_back}");
    }
}

/// Across a boot nothing tells a clock that was set forward from a long stop, and it is taken for one; back it is found.
#[tokio::test]
async fn across_a_boot_the_clock_is_believed_forward_and_not_back() {
    for is_back in [false, true] {
        let night = Night::fall("rules: []", BOOKS).await;
        ClockWatch::begin(&night.parts).await;
        let url = format!("{}/hook", night.fleet.url());
        let run = night.start("sleep", Mode::Auto, json!({ "node": "gpu-2", "url": url })).await;
        night.settle().await;
        night.clock.reboot();
        next_life(&night, MINUTE, HOUR, is_back).await;
        ClockWatch::begin(&night.parts).await;
        assert_eq!(steps(&night).await.len(), usize::from(is_back));
        night.settle().await;
        let ended = night.until_rest(run, if is_back { 30 * MINUTE } else { MINUTE }).await;
        assert_eq!(ended.state, RunState::Done, "back: {is_back}");
    }
}

/// Bodies, episodes and runs that are there.
async fn kept(night: &Night) -> (usize, usize, usize) {
    let store = &night.parts.store;
    let bodies = store.raw_entries(None, 1_000).await.unwrap().into_iter().filter(|entry| entry.body.is_some()).count();
    let episodes = store.episodes(Filter { limit: 100, ..Filter::default() }).await.unwrap().len();
    (bodies, episodes, night.runs().await.len())
}

#[tokio::test]
async fn a_clock_four_hundred_days_ahead_erases_nothing_and_retention_goes_on_at_its_pace() {
    let rules =
        "rules:\n  - name: act\n    when: ['alertname=\"Act\"']\n    run: label\n    mode: auto\n    group_by: [id]\n";
    let night = Night::fall(rules, BOOKS).await;
    for id in ["1", "2", "3"] {
        let labels = [("alertname", "Act"), ("node", "gpu-2"), ("id", id)];
        night.hear("firing", &labels).await;
        night.settle().await;
        night.hear("resolved", &labels).await;
        night.settle().await;
    }
    let (_stop, shutdown) = watch::channel(false);
    let (mut clock, mut sweep) = (ClockWatch::default(), SweepTimes::default());
    sweep.pass(&night.parts, &shutdown).await;
    let before = kept(&night).await;
    assert_eq!((before.1, before.2), (3, 3));
    night.pass(2 * HOUR).await;
    // For ten seconds.
    set(&night, 401 * DAY, false);
    clock.pass(&night.parts).await.unwrap();
    sweep.pass(&night.parts, &shutdown).await;
    night.pass(10 * SECOND).await;
    correct(&night);
    clock.pass(&night.parts).await.unwrap();
    night.pass(2 * HOUR).await;
    sweep.pass(&night.parts, &shutdown).await;
    let now = kept(&night).await;
    assert_eq!((now.0 - before.0, now.1, now.2), (2, before.1, before.2), "two entries about the clock");
    // For good.
    set(&night, 401 * DAY, false);
    follow(&night, &mut clock).await;
    for _ in 0..24 {
        night.pass(2 * HOUR).await;
        sweep.pass(&night.parts, &shutdown).await;
    }
    let now = kept(&night).await;
    assert_eq!((now.1, now.2), (before.1, before.2), "two days that were lived are four of retention");
    assert!(now.0 >= before.0, "{now:?}");
    let mut lived = 0;
    while kept(&night).await.1 == before.1 {
        night.pass(DAY).await;
        sweep.pass(&night.parts, &shutdown).await;
        lived += 2;
        assert!(lived < 400, "what is old by time that was lived goes");
    }
    let retention = night.parts.config.retention.episodes.0.as_secs() / 86_400;
    assert!(lived + 6 >= retention, "after {lived} days of {retention}");
}

/// Operations enough for the brake to be looked at, and no more work than that.
const TRIVIAL: &str =
    "//! Note.\n//!\n//! scope: none\n//! undo: never\n\nfor n in 0..100 { }\nnote(\"x\");\nnote(\"y\");\n";

/// One thread evaluates, and it is busy with something else for 300 ms before each turn.
#[test]
fn sixty_four_runs_whose_turns_wait_for_a_busy_machine_are_done_and_none_is_stuck() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let night = Night::fall("rules: []", &[("trivial", TRIVIAL)]).await;
        let mut runs = Vec::new();
        for _ in 0..64 {
            runs.push(night.start("trivial", Mode::Auto, json!({})).await);
        }
        for _ in 0..2 {
            // Nothing is ever sent, so each of them holds the thread for its time.
            let busy = || std::sync::mpsc::channel::<()>().1.recv_timeout(Duration::from_millis(300));
            tokio::spawn(async move { while tokio::task::spawn_blocking(busy).await.is_ok() {} });
        }
        let (stop, stopped) = watch::channel(false);
        let runner = tokio::spawn(Runner::new(night.parts.clone()).run(stopped));
        let all = eventually("the end of all runs", async || {
            let all = night.runs().await;
            all.iter().all(|run| run.state.is_final()).then_some(all)
        })
        .await;
        let done = all.iter().filter(|run| run.state == RunState::Done).count();
        assert_eq!(done, 64, "{:?}", all.iter().find(|run| run.state != RunState::Done).map(|run| &run.state));
        stop.send(true).unwrap();
        runner.await.unwrap();
    });
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_script_of_slow_operations_is_stuck_after_five_turns_and_an_endless_one_at_once() {
    let body = |text: &str| format!("//! Slow.\n//!\n//! scope: none\n//! undo: never\n\n{text}\n");
    let slow = body("let a = []; a.pad(9999, 1); loop { try { [1].map(|x| { let b = a + []; }); } catch { } }");
    let endless = body("loop { }");
    let night = Night::fall("rules: []", &[("slow", &slow), ("endless", &endless)]).await;
    let run = night.start("endless", Mode::Auto, json!({})).await;
    night.settle().await;
    let RunState::Stuck { reason } = night.run(run).await.state else { panic!("{:?}", night.run(run).await.state) };
    assert!(reason.text.contains("operations without end"), "{reason}");
    let run = night.start("slow", Mode::Auto, json!({})).await;
    night.settle().await;
    let RunState::Waiting { why } = night.run(run).await.state else { panic!("{:?}", night.run(run).await.state) };
    assert!(why.contains("of CPU time for one turn (1 of 5); it is tried again"), "{why}");
    let run = night.until_rest(run, 10 * MINUTE).await;
    let RunState::Stuck { reason } = run.state else { panic!("{:?}", run.state) };
    assert!(reason.text.contains("used more than 1s of CPU time for one turn, 5 times in a row"), "{reason}");
}
