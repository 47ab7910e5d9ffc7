//! The process is stopped and goes on under load, for longer than what it has read stays true: the kill switch and its Lease.

use super::bed::{Bed, at_a_moment, entries};
use super::{Tally, draw, rounds};
use crate::harness::{Draw, Engine, client, eventually};
use nightshift::clock::{Clock, RealClock, SimClock};
use nightshift::engine::{LeaseKeeper, LeaseStatus};
use nightshift::model::Time;
use nightshift::world::sim::{ApiFault, RequestFault, SimFault};
use rustix::process::Signal;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const BAR: Duration = Duration::from_secs(2);
/// Worlds that are stopped at the same time; they mostly wait.
const WORLDS: usize = 4;

/// By what everything is stopped.
enum Switch {
    File(PathBuf),
    ConfigMap,
}

struct World {
    bed: Arc<Bed>,
    switch: Switch,
}

impl World {
    async fn new(by_file: bool) -> World {
        let file = tempfile::tempdir().unwrap().keep().join("stop");
        let more = match by_file {
            true => format!("kill_switch: {{ file: {} }}\n", file.display()),
            false => "kill_switch: { config_map: { namespace: ops, name: stop } }\n".to_owned(),
        };
        let bed = Bed::new(&more).await;
        // Every read takes its time, so that there are always steps between what they read and what they write.
        slow(&bed, "nodes/gpu", 40);
        slow(&bed, "deployments", 300);
        World { bed, switch: if by_file { Switch::File(file) } else { Switch::ConfigMap } }
    }

    async fn throw(&self, on: bool) {
        let all = format!("{}/api/v1/namespaces/ops/configmaps", self.bed.fleet.url());
        match &self.switch {
            Switch::File(file) if on => std::fs::write(file, "").unwrap(),
            Switch::File(file) => std::fs::remove_file(file).unwrap(),
            Switch::ConfigMap => {
                let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "stop": "true" },
                    "metadata": { "name": "stop", "namespace": "ops" } });
                let request = if on { client().post(all).json(&map) } else { client().delete(format!("{all}/stop")) };
                assert!(request.send().await.unwrap().status().is_success());
            }
        }
    }

    /// One stop. Returns by how much an effect came later than the bar allows.
    async fn round(&self, engine: &Engine, draw: &mut Draw, most: u64) -> f64 {
        self.bed.allow(40);
        self.bed.taken(20).await;
        let moment = Duration::from_millis(draw.range(0, 300));
        at_a_moment(moment, || false).await;
        engine.signal(Signal::STOP);
        let thrown = draw.range(0, 3) > 0;
        let switched = Time::now();
        if thrown {
            self.throw(true).await;
        }
        // Longer than the bar: all that comes after it is too late.
        at_a_moment(Duration::from_millis(draw.range(3_200, most)), || false).await;
        engine.signal(Signal::CONT);
        if !thrown {
            return 0.0;
        }
        at_a_moment(Duration::from_millis(2_500), || false).await;
        let late = self.bed.last_effect_after(switched + BAR);
        if let Some((at, what)) = &late {
            eprintln!("switched at {switched}, and at {at} came {what}");
        }
        self.throw(false).await;
        late.map_or(0.0, |(at, _)| (at.as_millisecond() - (switched + BAR).as_millisecond()) as f64 / 1_000.0)
    }
}

/// Reads of these paths are answered so much later.
fn slow(bed: &Bed, path: &str, millis: u64) {
    let (method, path, trouble) = (Some("GET".to_owned()), path.to_owned(), RequestFault::Delay { millis });
    bed.fleet.fault(SimFault::Api(ApiFault { method, path, times: None, probability: 1.0, trouble })).unwrap();
}

async fn live(by_file: bool, stops: usize, mut draw: Draw, most: u64) -> Tally {
    let world = World::new(by_file).await;
    let engine = world.bed.start().await;
    world.bed.begin(3);
    let (mut late, mut silent) = (0.0_f64, 0);
    for _ in 0..stops {
        let said = world.bed.site.log().len();
        late = late.max(world.round(&engine, &mut draw, most).await);
        world.bed.settle(&engine).await;
        let is_told = world.bed.site.log()[said..].contains("did not run for");
        silent += usize::from(!is_told);
    }
    let mut tally = world.bed.end(&engine).await;
    (tally.rounds, tally.late_seconds, tally.silent) = (stops, late, silent);
    assert_eq!(engine.stop(), Some(0));
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_stopped_sends_nothing_once_it_goes_on_while_the_kill_switch_is_thrown() {
    let (stops, mut draw) = (rounds("LOOPS_STOPS", 2), draw("stops"));
    // A short loop has no time for the Lease to end; the next test has.
    let most = if stops > WORLDS { 40_000 } else { 4_000 };
    let worlds = WORLDS.min(stops);
    let each = (0..worlds).map(|n| (n % 2 == 0, stops / worlds + usize::from(n < stops % worlds), Draw(draw.next())));
    let lives = each.map(|(by_file, stops, draw)| live(by_file, stops, draw, most)).collect::<Vec<_>>();
    let mut all = Tally::default();
    for tally in futures::future::join_all(lives).await {
        all.add(&tally);
    }
    all.report("stops");
}

/// The one moment that matters most: the step is begun and the switch was read, its target is being read, and nothing was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_before_a_stop_is_not_written_after_it_while_the_kill_switch_is_thrown() {
    let world = World::new(true).await;
    world.bed.fleet.calm();
    slow(&world.bed, "deployments", 3_000);
    let engine = world.bed.start().await;
    let restart = json!({ "runbook": "restart", "params": { "workload": "inference/model-0" } });
    let (status, answer) = engine.post("/api/v1/runs", &restart).await.unwrap();
    assert_eq!(status, 201, "{answer}");
    eventually("the step to begin", async || entries(&engine, "step_begun").await.first().map(drop)).await;
    engine.signal(Signal::STOP);
    assert_eq!(world.bed.last_effect_after(Time::UNIX_EPOCH), None, "the stop came before the effect");
    let switched = Time::now();
    world.throw(true).await;
    at_a_moment(Duration::from_millis(2_500), || false).await;
    engine.signal(Signal::CONT);
    at_a_moment(Duration::from_millis(2_500), || false).await;
    assert_eq!(world.bed.last_effect_after(switched), None, "the switch is thrown");
    world.bed.fleet.calm();
    world.throw(false).await;
    eventually("its end", async || {
        let runs = engine.get("/api/v1/runs").await?;
        (runs["runs"][0]["state"]["is"] == "done").then_some(())
    })
    .await;
    let patched = world
        .bed
        .fleet
        .changes()
        .iter()
        .filter(|effect| effect.resource == "deployments" && effect.verb == "patch")
        .count();
    assert_eq!(patched, 1, "and it is done once, later");
}

/// What a process read before it was stopped is no right to act after it: by then another engine may hold the Lease.
#[tokio::test]
async fn an_engine_that_was_stopped_for_longer_than_its_lease_looks_again_before_it_acts() {
    let bed = Bed::new("").await;
    let kube = nightshift::world::KubeConfig { url: bed.fleet.url(), ..Default::default() };
    nightshift::world::install_tls();
    let kube = nightshift::world::KubeClient::connect(&kube, "nightshift/test").await.unwrap();
    let machine: Arc<dyn Clock> = Arc::new(RealClock);
    let now = machine.monotonic();
    kube.act_until(now + Duration::from_millis(200), &machine);
    assert_eq!(kube.only_watched(), None);
    let why = eventually("its end", async || kube.only_watched()).await;
    assert!(machine.monotonic() - now >= Duration::from_millis(200) && why.contains("was not renewed"), "{why}");
    kube.act_until(machine.monotonic() + Duration::from_secs(20), &machine);
    assert_eq!(kube.only_watched(), None, "and it acts again once it has renewed");
}

/// `CLOCK_MONOTONIC` stands still while a machine is suspended, and the Lease in the cluster does not.
#[tokio::test]
async fn a_machine_that_was_suspended_for_longer_than_its_lease_does_not_believe_to_hold_it() {
    let bed = Bed::new("").await;
    let kube = nightshift::world::KubeConfig { url: bed.fleet.url(), ..Default::default() };
    nightshift::world::install_tls();
    let kube = nightshift::world::KubeClient::connect(&kube, "nightshift/test").await.unwrap();
    let sim = Arc::new(SimClock::new(RealClock.now()));
    let clock: Arc<dyn Clock> = sim.clone();
    let held = nightshift::limits::LEASE_HELD;
    kube.act_until(clock.monotonic() + held, &clock);
    sim.advance(held - Duration::from_secs(1));
    assert_eq!(kube.only_watched(), None);
    // Hours later by the clock that counts them; nothing of the process ran meanwhile.
    sim.advance(Duration::from_secs(8 * 3_600));
    let why = kube.only_watched();
    assert!(why.as_deref().is_some_and(|why| why.contains("was not renewed")), "{why:?}");
    // A look that the machine was suspended in found its Lease, and that is as old as the look.
    let mut keeper = LeaseKeeper::new("ops", "prod", "one_a", &clock);
    let began = clock.monotonic();
    assert_eq!(keeper.look(&kube, Duration::ZERO, RealClock.now()).await, &LeaseStatus::Ours);
    sim.advance(Duration::from_secs(3_600));
    kube.act_until(began + keeper.holds_until().unwrap(), &clock);
    assert!(kube.only_watched().is_some());
    // And one that got no answer counts how long it took, suspended or not.
    let at = held - Duration::from_secs(5);
    bed.fleet.fault(ApiFault::next(1, "GET", "/leases", RequestFault::Delay { millis: 300 })).unwrap();
    let mut keeper = keeper.answered_within(Duration::from_millis(100));
    let (acting, ()) = tokio::join!(async { keeper.look(&kube, at, RealClock.now()).await.clone() }, async {
        tokio::task::yield_now().await;
        sim.advance(Duration::from_secs(60));
    });
    assert!(matches!(acting, LeaseStatus::Unknown(_)), "{acting:?}");
}
