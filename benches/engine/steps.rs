//! What the engine adds to the work itself: to begin and end a step, and from an acknowledged event to the first action.
//!
//! Invariant: the disk's own time is measured in the same folder in the same run.

use crate::rig::{Rig, block_on, fsync, until};
use crate::{row, share, time_row};
use nightshift::model::{ActionCall, EventStatus, Mode, Outcome, RunInput, RunbookPin, Subject, Time};
use nightshift::policy::{GuardLimits, StepProposal};
use nightshift::sources::alertmanager;
use nightshift::store::{BeginOutcome, EventBatch, NewRun, Store};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const RULES: &str = "rules:
  - name: act
    when: ['alertname=\"GpuXid\"']
    run: cordon
    mode: auto
    group_by: [node]
";
const CORDON: &str = "//! Cordon a node.
//!
//! params:
//!   node: Node
//! scope: node

k8s::cordon(node, \"bench\");
";
/// Steps of one run, and runs at the same time.
const STEPS: usize = 100;
const EVENTS: usize = 60;

pub fn measure() {
    block_on(async {
        let guards = GuardLimits {
            nodes_at_once: 10_000,
            share_at_once: 1.0,
            share_per_hour: 1.0,
            share_per_day: 1.0,
            ..GuardLimits::default()
        };
        let rig = Rig::new(EVENTS + 1, guards, RULES, &[("cordon", CORDON)]).await;
        row("one durable write of 4 KiB on this disk, p50", crate::ms(fsync(rig.folder.path())), "", None);
        for runs in [1, 32] {
            let figure = steps(&rig, runs).await;
            time_row(&format!("begin and end of a step, {runs} runs at once, p50"), figure, Duration::from_millis(10));
        }
        first_action(&rig).await;
    });
}

/// Begin and end, through the store's trait, as the runner calls them.
async fn steps(rig: &Rig, runs: usize) -> Duration {
    let tasks: Vec<_> = (0..runs)
        .map(|_| {
            let (store, limits) = (rig.parts.store.clone(), Arc::new(rig.parts.config.guards.clone()));
            tokio::spawn(async move { journal(store, limits).await })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a run ends"));
    }
    share(&mut times, 0.5)
}

async fn journal(store: Arc<dyn Store>, limits: Arc<GuardLimits>) -> Vec<Duration> {
    let new = NewRun {
        pin: RunbookPin { name: "bench".to_owned(), hash: "none".to_owned() },
        input: RunInput::default(),
        subject: Subject::default(),
        mode: Mode::Auto,
        rule: None,
        terms: None,
        requested_by: "bench".to_owned(),
        once: None,
        now: Time::now(),
    };
    let run = store.start(new).await.expect("a run").expect("a new one");
    let claimed = store.claim(run, Time::now()).await.expect("the run").expect("it is there");
    let mut times = Vec::new();
    let note = nightshift::actions::find("note").expect("an action of the catalog");
    for at in 0..STEPS {
        let now = Time::now();
        let call = ActionCall::new("note", [("text", json!(format!("step {at} of a bench")))]);
        let by = (run, claimed.run.epoch);
        let proposal = StepProposal::new(note.spec(), by, call, Subject::default(), now);
        let begun = Instant::now();
        let BeginOutcome::Step(step) = store.begin(proposal, limits.clone(), now).await.expect("it begins") else {
            panic!("a step without reach is never held");
        };
        let ended = store.end(run, claimed.run.epoch, step.no, Outcome::Ok(Value::Null), Vec::new(), Time::now()).await;
        ended.expect("it ends");
        times.push(begun.elapsed());
    }
    times
}

/// From the moment the event is durable to the first request that reaches the fleet, and to the change itself.
async fn first_action(rig: &Rig) {
    let (_, stop) = rig.start().await;
    let (mut asked, mut changed) = (Vec::new(), Vec::new());
    for no in 1..=EVENTS {
        let body = json!({"version": "4", "status": "firing", "receiver": "bench", "alerts": [{
            "status": "firing", "labels": {"alertname": "GpuXid", "node": format!("gpu-{no}")},
            "startsAt": Time::now().to_string(),
        }]});
        let bytes = serde_json::to_vec(&body).expect("JSON");
        let source = &rig.parts.config.sources["bench"];
        let events = alertmanager::decode(&bytes, "bench", source, Time::now()).expect("it decodes").events;
        assert!(events.iter().all(|event| event.status == EventStatus::Firing));
        let rules = rig.parts.catalog.current().rules.clone();
        let batch = EventBatch {
            source: "bench".to_owned(),
            events,
            gaps: Vec::new(),
            rules,
            now: Time::now(),
            origin: Default::default(),
        };
        let before = rig.fleet.requests().len();
        rig.parts.store.intake(batch).await.expect("it is stored");
        let acked = Time::now();
        rig.parts.nudge.nudge();
        assert!(until(Duration::from_secs(30), async || rig.fleet.changes().len() >= no).await, "nothing was done");
        let since = |at: Time| Duration::from_micros((at.as_microsecond() - acked.as_microsecond()).max(0) as u64);
        asked.extend(rig.fleet.requests().get(before).map(|first| since(first.at)));
        changed.extend(rig.fleet.changes().last().map(|last| since(last.at)));
    }
    let _ = stop.send(true);
    time_row("acknowledged event → first request to the fleet, p50", share(&mut asked, 0.5), Duration::from_millis(15));
    time_row("acknowledged event → the change in the fleet, p50", share(&mut changed, 0.5), Duration::from_millis(15));
}
