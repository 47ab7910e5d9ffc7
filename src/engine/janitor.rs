//! Upkeep: expired questions, ended incidents, signed checkpoints, retention.
//!
//! Invariant: no pass is needed for correctness; each only acts on deadlines that have passed.

use super::EngineParts;
use super::ledger_check::LedgerCheck;
use crate::limits;
use crate::planted::planted;
use crate::store::ledger::Checkpoint;
use std::time::Duration;
use tokio::sync::watch;

pub(super) async fn run(parts: EngineParts, mut shutdown: watch::Receiver<bool>) {
    let mut signed_at = None;
    let mut sweep = SweepTimes::default();
    let mut check = LedgerCheck::default();
    while !*shutdown.borrow() {
        let began = parts.clock.monotonic();
        pass(&parts).await;
        if elapsed(signed_at, began, limits::CHECKPOINT_EVERY) {
            let newest = sign(&parts).await;
            if let Err(error) = parts.store.fold(parts.clock.now()).await {
                tracing::warn!(%error, "write-ahead log checkpoint failed; retrying in 1 min");
            }
            check.pass(&parts, newest.as_ref()).await;
            signed_at = Some(began);
        }
        sweep.pass(&parts, &shutdown).await;
        tokio::select! {
            () = parts.clock.sleep_until_monotonic(began + limits::JANITOR_EVERY) => {}
            _ = shutdown.changed() => {}
        }
    }
    // The last entries must not stay unsigned until the next start.
    sign(&parts).await;
}

/// One pass over passed deadlines. Public to the engine's tests.
pub(super) async fn pass(parts: &EngineParts) {
    match parts.store.tick(parts.clock.now()).await {
        Ok(0) => {}
        Ok(changed) => {
            tracing::debug!(changed, "time has changed something");
            parts.nudge.nudge();
        }
        Err(error) => tracing::error!(%error, "cannot expire approval requests; retrying in 1 s"),
    }
}

/// The newest checkpoint, where there is one.
async fn sign(parts: &EngineParts) -> Option<Checkpoint> {
    match parts.store.checkpoint(parts.key.clone(), parts.clock.now()).await {
        Ok(newest) => newest,
        Err(error) => {
            tracing::error!(%error, "cannot sign a checkpoint of the ledger; retrying in 1 min");
            None
        }
    }
}

/// When old rows were last removed, by the running clock.
#[derive(Debug, Default)]
pub struct SweepTimes {
    tried: Option<Duration>,
    /// When retention was last moved on.
    moved: Option<Duration>,
}

impl SweepTimes {
    /// Removes records past their retention, once an hour. Retention moves on with the time that the engine has lived,
    /// and stands still around a step of the wall clock: a clock that is a year ahead for a minute, or for good, erases
    /// nothing that would have been kept.
    pub async fn pass(&mut self, parts: &EngineParts, shutdown: &watch::Receiver<bool>) {
        let running = parts.clock.monotonic();
        if !elapsed(self.tried, running, limits::SWEEP_EVERY) {
            return;
        }
        let quiet = parts.clock.step().is_none() && elapsed(parts.clock.unsettled_at(), running, limits::CLOCK_QUIET);
        if !quiet && !planted("sweep-trusts-the-clock") {
            return;
        }
        self.tried = Some(running);
        let lived = self.moved.map_or(Duration::ZERO, |moved| running.saturating_sub(moved));
        match parts.store.retain_until(lived * limits::SWEEP_SPEED, parts.clock.now()).await {
            Ok(_) => self.moved = Some(running),
            Err(error) => return tracing::error!(%error, "cannot remove old rows; retrying in 1 h"),
        }
        sweep(parts, shutdown).await;
    }
}

/// Small transactions until nothing is left, so that intake never waits long.
async fn sweep(parts: &EngineParts, shutdown: &watch::Receiver<bool>) {
    let retention = &parts.config.retention;
    while !*shutdown.borrow() {
        match parts.store.sweep(retention.episodes, retention.bodies, parts.clock.now()).await {
            Ok(0) => return,
            Ok(rows) => tracing::info!(rows, "removed rows past their retention"),
            Err(error) => {
                tracing::error!(%error, "cannot remove old rows; retrying in 1 h");
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

fn elapsed(last: Option<Duration>, running: Duration, every: Duration) -> bool {
    last.is_none_or(|last| running.saturating_sub(last) >= every)
}
