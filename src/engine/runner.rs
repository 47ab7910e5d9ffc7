//! Runs due work: an open step is performed, else the script returns the next turn.
//!
//! Invariant: nothing is performed before its `begin` is committed, the first pass after a crash is the recovery, and each
//! cluster has slots of its own.

mod slice;
mod texts;

pub use texts::RunbookCache;

use super::EngineParts;
use super::silences::SilenceCache;
use crate::limits;
use crate::model::{RunId, Time};
use crate::policy::backoff;
use crate::store::StoreError;
use slice::{BrakedRuns, RunTurn};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The loop that advances runs.
pub struct Runner {
    parts: EngineParts,
    texts: Arc<RunbookCache>,
    silences: SilenceCache,
    braked: BrakedRuns,
    /// Runs whose last slice met an error of ours, and when to look at them again, so that one never blocks the rest; by
    /// the running clock.
    ailing: Mutex<HashMap<RunId, (u32, Duration)>>,
}

impl Runner {
    /// A runner of this engine's runs.
    pub fn new(parts: EngineParts) -> Runner {
        let texts = Arc::new(RunbookCache::new(parts.store.clone(), parts.catalog.clone()));
        Runner {
            parts,
            texts,
            silences: SilenceCache::default(),
            braked: BrakedRuns::default(),
            ailing: Mutex::default(),
        }
    }

    /// Runs until `shutdown`; slices in flight are finished, not cut off.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let mut nudged = this.parts.nudge.listen();
        let mut slices: JoinSet<RunId> = JoinSet::new();
        let mut in_flight: InFlight = HashMap::new();
        while !*shutdown.borrow() {
            let wake = this.launch(&mut slices, &mut in_flight).await;
            tokio::select! {
                () = nudged.heard() => {}
                () = this.parts.clock.sleep_until(wake) => {}
                Some(done) = slices.join_next(), if !slices.is_empty() => {
                    forget(done, &mut in_flight);
                    while let Some(done) = slices.try_join_next() {
                        forget(done, &mut in_flight);
                    }
                }
                _ = shutdown.changed() => {}
            }
        }
        while slices.join_next().await.is_some() {}
    }

    /// Advances everything that is due, until nothing is: for tests and tools. Returns how many slices ran.
    pub async fn drain(&self) -> usize {
        let mut ran = 0;
        loop {
            let now = self.parts.clock.now();
            let due = match self.parts.store.due(now, self.batch(0)).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::error!(%error, "cannot read due runs");
                    return ran;
                }
            };
            let runs: Vec<RunId> = due.runs.into_iter().filter(|run| self.is_well(*run)).collect();
            if runs.is_empty() {
                return ran;
            }
            for run in runs {
                self.slice(run).await;
                ran += 1;
            }
        }
    }

    async fn launch(self: &Arc<Self>, slices: &mut JoinSet<RunId>, in_flight: &mut InFlight) -> Time {
        let now = self.parts.clock.now();
        let later = now + Duration::from_secs(1);
        let due = match self.parts.store.due(now, self.batch(in_flight.len())).await {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "cannot read due runs; retrying in 1 s");
                return later;
            }
        };
        let slots = slots(self.parts.world.clusters.len());
        let mut taken: HashMap<String, usize> = HashMap::new();
        for cluster in in_flight.values() {
            *taken.entry(cluster.clone()).or_default() += 1;
        }
        for (run, cluster) in due.runs.into_iter().zip(due.clusters) {
            let cluster = if cluster.is_empty() { self.parts.world.default_cluster.clone() } else { cluster };
            let of_cluster = taken.entry(cluster.clone()).or_default();
            if *of_cluster < slots && !in_flight.contains_key(&run) && self.is_well(run) {
                *of_cluster += 1;
                in_flight.insert(run, cluster);
                let this = self.clone();
                slices.spawn(async move {
                    this.slice(run).await;
                    run
                });
            }
        }
        // With everything in flight, the end of a slice wakes us; a poll each second is the net below that.
        due.next.filter(|next| *next > now).map_or(later, |next| next.min(later))
    }

    async fn slice(&self, run: RunId) {
        match RunTurn::new(&self.parts, &self.texts, &self.silences, &self.braked, run).go().await {
            Ok(()) => {
                self.ailing.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&run);
            }
            Err(StoreError::Fenced { .. }) => {
                self.parts.metrics.fenced(crate::telemetry::Fence::Store);
                tracing::warn!(%run, "another owner holds this run; releasing it");
            }
            Err(error) => {
                if let StoreError::Damaged(why) = &error {
                    self.parts.metrics.invariant_violated();
                    tracing::error!(%run, %why, "the stored state of a run cannot be read; the run is set aside");
                    let now = self.parts.clock.now();
                    if self.parts.store.set_aside(run, why.clone(), now).await.is_ok() {
                        self.parts.nudge.nudge();
                        return;
                    }
                }
                self.fell_ill(run, &error);
            }
        }
    }

    /// The number of due runs to read: those that are under way or ailing are due as well, and must not fill the list.
    fn batch(&self, in_flight: usize) -> usize {
        let ailing = self.ailing.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len();
        limits::DUE_BATCH + in_flight + ailing
    }

    fn fell_ill(&self, run: RunId, error: &StoreError) {
        let mut ailing = self.ailing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let attempt = ailing.get(&run).map_or(1, |(attempt, _)| attempt.saturating_add(1));
        let wait = backoff(attempt, limits::BACKOFF_FIRST, limits::BACKOFF_MAX, run.0 as u64);
        // One that was cancelled meanwhile is never due again: do not keep it for ever.
        let now = self.parts.clock.monotonic();
        ailing.retain(|_, (_, until)| *until + 2 * limits::BACKOFF_MAX > now);
        tracing::error!(%run, %error, attempt, "a run's turn failed; retrying later");
        ailing.insert(run, (attempt, now + wait));
    }

    fn is_well(&self, run: RunId) -> bool {
        let now = self.parts.clock.monotonic();
        let ailing = self.ailing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ailing.get(&run).is_none_or(|(_, until)| *until <= now)
    }
}

/// Runs whose slice is on its way, each with its cluster.
type InFlight = HashMap<RunId, String>;

/// Slices of one cluster that run together: one that hangs keeps its own slots alone.
fn slots(clusters: usize) -> usize {
    (limits::RUNS_AT_ONCE / clusters.max(1)).max(limits::RUNS_PER_CLUSTER)
}

fn forget(done: Result<RunId, tokio::task::JoinError>, in_flight: &mut InFlight) {
    match done {
        Ok(run) => drop(in_flight.remove(&run)),
        // A panic inside a slice is a bug of ours: stop, the ledger makes that safe.
        Err(panic) => {
            tracing::error!(%panic, "a run's turn panicked; the process stops");
            std::process::exit(1);
        }
    }
}
