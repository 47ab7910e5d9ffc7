//! Upkeep: expired questions, ended incidents, signed checkpoints, retention.
//!
//! Invariant: nothing here is needed for correctness between two of its passes; it only makes due what time made due.

use super::Parts;
use super::ledger_check::LedgerCheck;
use crate::limits;
use crate::store::ledger::Checkpoint;
use std::time::Duration;
use tokio::sync::watch;

pub(super) async fn run(parts: Parts, mut shutdown: watch::Receiver<bool>) {
    let mut signed_at = None;
    let mut swept_at = None;
    let mut check = LedgerCheck::default();
    while !*shutdown.borrow() {
        let now = parts.clock.now();
        pass(&parts).await;
        if elapsed(signed_at, now, limits::CHECKPOINT_EVERY) {
            let newest = sign(&parts).await;
            if let Err(error) = parts.store.fold().await {
                tracing::warn!(%error, "the write-ahead log was not folded into the database; trying again in a minute");
            }
            check.pass(&parts, newest.as_ref()).await;
            signed_at = Some(now);
        }
        if elapsed(swept_at, now, limits::SWEEP_EVERY) {
            sweep(&parts, &shutdown).await;
            swept_at = Some(now);
        }
        tokio::select! {
            () = parts.clock.sleep_until(now + limits::JANITOR_EVERY) => {}
            _ = shutdown.changed() => {}
        }
    }
    // The last entries must not stay unsigned until the next start.
    sign(&parts).await;
}

/// One pass over what time has made due. Public to the engine's tests.
pub(super) async fn pass(parts: &Parts) {
    match parts.store.tick(parts.clock.now()).await {
        Ok(0) => {}
        Ok(changed) => {
            tracing::debug!(changed, "time has changed something");
            parts.nudge.nudge();
        }
        Err(error) => tracing::error!(%error, "cannot look after expired questions; trying again in a second"),
    }
}

/// The newest checkpoint, where there is one.
async fn sign(parts: &Parts) -> Option<Checkpoint> {
    match parts.store.checkpoint(parts.key.clone(), parts.clock.now()).await {
        Ok(newest) => newest,
        Err(error) => {
            tracing::error!(%error, "cannot sign a checkpoint of the ledger; trying again in a minute");
            None
        }
    }
}

/// Small transactions until nothing is left, so that intake never waits long.
async fn sweep(parts: &Parts, shutdown: &watch::Receiver<bool>) {
    let retention = &parts.config.retention;
    while !*shutdown.borrow() {
        match parts.store.sweep(retention.episodes, retention.bodies, parts.clock.now()).await {
            Ok(0) => return,
            Ok(rows) => tracing::info!(rows, "removed rows that are past their retention"),
            Err(error) => {
                tracing::error!(%error, "cannot remove old rows; trying again in an hour");
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

fn elapsed(last: Option<crate::model::Time>, now: crate::model::Time, every: Duration) -> bool {
    last.is_none_or(|last| now.as_microsecond() - last.as_microsecond() >= every.as_micros() as i64)
}
