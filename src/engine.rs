//! The loops: intake, runner, courier, janitor, scheduler. They hold no queues; they ask the store what is due.
//!
//! Invariant: a loop takes no input; a nudge carries no data; the first pass after a crash is the recovery.

mod courier;
pub mod story;
pub use courier::Courier;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::Config;
use crate::notifiers::Notifier;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// Wakes the loops early. Carries nothing, so nothing is lost when it is lost.
#[derive(Clone, Default)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    pub fn nudge(&self) {
        self.0.notify_waiters();
    }

    pub async fn nudged(&self) {
        self.0.notified().await;
    }
}

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
}

/// What a run would do, from a dry advance over the live, read-only world. Errors are for people.
pub async fn plan(
    _parts: &Parts,
    _runbook: &crate::script::Runbook,
    _input: &crate::model::Input,
) -> Result<crate::model::Plan, String> {
    Err("the planner is being written".to_owned())
}

/// Runs the loops until told to stop; returns when what was under way is recorded.
pub async fn run(parts: Parts, shutdown: tokio::sync::watch::Receiver<bool>) {
    Courier::new(&parts).run(shutdown).await;
}
