//! The loops: runner, courier, janitor, scheduler, clusters, probes. They hold no queues; they ask the store what is due.
//! (Intake is no loop: a request of a source is one transaction, `store.intake`.)
//!
//! Invariant: a loop takes no input; a nudge carries no data; the first pass after a crash is the recovery.

mod agents;
mod channels;
mod clusters;
mod confirm;
mod courier;
mod evaluate;
mod event_log;
mod foretell;
mod janitor;
mod ledger_check;
mod misfits;
mod nudge;
mod plan;
mod probes;
mod propose;
mod reload;
mod runner;
mod scheduler;
mod silences;
pub mod story;
mod tell;

pub use courier::{Courier, alert_links, alert_title};
pub use event_log::{EventLines, EventLog, Line, Loud, measure};
pub use foretell::foretell;
pub use ledger_check::LedgerCheck;
pub use misfits::{Misfit, misfits};
pub use nudge::Nudge;
pub use plan::plan;
pub use reload::{refused, reload, take_in, watch_files};
pub use runner::Runner;
pub use silences::{Silenced, silence};

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
pub struct Parts {
    pub config: Arc<Config>,
    pub store: Arc<dyn Store>,
    pub catalog: Arc<Catalog>,
    pub world: World,
    pub notifiers: Arc<BTreeMap<String, Box<dyn Notifier>>>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub nudge: Nudge,
    /// Signs the ledger's checkpoints.
    pub key: Arc<SigningKey>,
}

/// Looks at the kill switch's ConfigMap for as long as the engine runs; depends on no disk.
async fn look_at_the_switch(parts: Parts, mut shutdown: watch::Receiver<bool>) {
    while !*shutdown.borrow() {
        parts.world.kill.look(&parts.world).await;
        tokio::select! {
            () = parts.clock.sleep_until(parts.clock.now() + limits::KILL_LOOK_EVERY) => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// Runs every loop until `shutdown` turns true, then returns once each has put down what it held.
pub async fn run(parts: Parts, shutdown: watch::Receiver<bool>) {
    let mut loops = tokio::task::JoinSet::new();
    loops.spawn(Runner::new(parts.clone()).run(shutdown.clone()));
    loops.spawn(Courier::new(&parts).run(shutdown.clone()));
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
    while let Some(ended) = loops.join_next().await {
        if let Err(panic) = ended {
            tracing::error!(%panic, "a loop of the engine has ended by a bug; the process stops, the ledger makes that safe");
            std::process::exit(1);
        }
    }
}
