//! The loops: runner, courier, janitor, scheduler, clusters, probes. They hold no queues; they read due work from the
//! store.
//! (Intake is no loop: a request of a source is one transaction, `store.intake`.)
//!
//! Invariant: a loop takes no input; a nudge carries no data; the first pass after a crash is the recovery.

mod agents;
mod channels;
mod clock_watch;
mod clusters;
mod confirm;
mod courier;
mod evaluate;
mod event_log;
mod foretell;
mod janitor;
mod lease;
mod ledger_check;
mod misfits;
mod nudge;
mod own_node;
mod plan;
mod probes;
mod propose;
mod reload;
mod runner;
mod scheduler;
mod silences;
pub mod story;
mod tell;

pub use clock_watch::ClockWatch;
pub use courier::{NotificationDispatcher, alert_links, alert_title};
pub use event_log::{EventLines, EventLog, LogLevel, LogLine, measure};
pub use foretell::foretell;
pub use janitor::SweepTimes;
pub use lease::{LeaseKeeper, LeaseStatus};
pub use ledger_check::LedgerCheck;
pub use misfits::{ConfigConflict, misfits};
pub use nudge::WakeSender;
pub use plan::plan;
pub use reload::{refused, reload, take_in, watch_files};
pub use runner::Runner;
pub use silences::{SilenceOutcome, silence};

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::Config;
use crate::limits;
use crate::notifiers::Notifier;
use crate::store::{Store, ledger::SigningKey};
use crate::telemetry::Metrics;
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// All that the loops and the server share.
#[derive(Clone)]
pub struct EngineParts {
    pub config: Arc<Config>,
    pub store: Arc<dyn Store>,
    pub catalog: Arc<Catalog>,
    pub world: World,
    pub notifiers: Arc<BTreeMap<String, Box<dyn Notifier>>>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub nudge: WakeSender,
    /// Signs the ledger's checkpoints.
    pub key: Arc<SigningKey>,
}

/// Looks at the kill switch's ConfigMap for as long as the engine runs; depends on no disk.
async fn look_at_the_switch(parts: EngineParts, mut shutdown: watch::Receiver<bool>) {
    while !*shutdown.borrow() {
        let next = parts.clock.monotonic() + limits::KILL_LOOK_EVERY;
        parts.world.kill.look(&parts.world).await;
        tokio::select! {
            () = parts.clock.sleep_until_monotonic(next) => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// Runs every loop until `shutdown` turns true, then returns once each has released its leases.
pub async fn run(parts: EngineParts, shutdown: watch::Receiver<bool>) {
    // Before anything looks at a timer.
    let clock = ClockWatch::begin(&parts).await;
    let leases = lease::ClusterLeases::begin(&parts).await;
    let (ended, all_ended) = watch::channel(false);
    let mut keeping = tokio::spawn(leases.keep(shutdown.clone(), all_ended));
    let mut loops = tokio::task::JoinSet::new();
    loops.spawn(Runner::new(parts.clone()).run(shutdown.clone()));
    loops.spawn(NotificationDispatcher::new(&parts).run(shutdown.clone()));
    loops.spawn(clock_watch::run(clock, parts.clone(), shutdown.clone()));
    loops.spawn(janitor::run(parts.clone(), shutdown.clone()));
    loops.spawn(agents::run(parts.clone(), shutdown.clone()));
    loops.spawn(scheduler::run(parts.clone(), shutdown.clone()));
    loops.spawn(clusters::run(parts.clone(), shutdown.clone()));
    loops.spawn(probes::run(parts.clone(), shutdown.clone()));
    loops.spawn(channels::run(parts.clone(), shutdown.clone()));
    if parts.world.kill.watches() {
        loops.spawn(look_at_the_switch(parts.clone(), shutdown.clone()));
    }
    loops.spawn(watch_files(parts, shutdown));
    // A loop that ends before shutdown has met a bug; the others must not go on as if nothing were missing.
    let stop = |panic: tokio::task::JoinError| {
        tracing::error!(%panic, "a loop of the engine has ended by a bug; the process stops, the ledger makes that safe");
        std::process::exit(1);
    };
    loop {
        tokio::select! {
            one = loops.join_next() => match one {
                Some(Ok(())) => {}
                Some(Err(panic)) => stop(panic),
                None => break,
            },
            // Without it this engine's right to act is unknown.
            Err(panic) = &mut keeping => stop(panic),
        }
    }
    // Nothing is being done any more, so another engine may act.
    let _ = ended.send(true);
    let _ = keeping.await;
}
