//! From watchers to the spool, and from the spool to the engine.
//!
//! Invariant: a finding from the channel is on disk before more are taken; a sent finding stays until the engine has
//! it.

use super::spool::Spool;
use super::{EngineLink, RetryBackoff};
use crate::limits;
use crate::model::{Finding, FindingBatch};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Writes findings to the spool, until every watcher has ended.
pub(super) async fn keep(spool: Arc<Mutex<Spool>>, mut heard: mpsc::Receiver<Finding>, stop: watch::Receiver<bool>) {
    let mut findings = Vec::new();
    loop {
        let count = tokio::select! {
            count = heard.recv_many(&mut findings, limits::FINDINGS_AT_ONCE) => count,
            () = ended(stop.clone()) => {
                // Findings in the channel still count.
                while let Ok(finding) = heard.try_recv() {
                    findings.push(finding);
                }
                append(&spool, findings).await;
                return;
            }
        };
        if count == 0 {
            return;
        }
        append(&spool, std::mem::take(&mut findings)).await;
    }
}

async fn append(spool: &Arc<Mutex<Spool>>, findings: Vec<Finding>) {
    if findings.is_empty() {
        return;
    }
    let spool = Arc::clone(spool);
    // A disk may take its time; nothing else waits for it.
    let work = move || {
        let mut spool = lock(&spool);
        let before = spool.standing().trouble;
        spool.append(findings);
        let after = spool.standing().trouble;
        if before != after {
            tracing::warn!(trouble = %after, "the spool changed how it stores findings");
        }
    };
    if let Err(bug) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%bug, "findings were lost because of a bug in the agent");
    }
}

/// Sends the spool's findings, oldest first, one request at a time.
pub(super) async fn send(spool: Arc<Mutex<Spool>>, link: Arc<dyn EngineLink>, stop: watch::Receiver<bool>) {
    let mut grown = lock(&spool).grown();
    let mut patience = RetryBackoff::default();
    let mut stopping = std::pin::pin!(ended(stop));
    loop {
        grown.borrow_and_update();
        let next = batch(&spool).await;
        let Some(reports) = next else {
            tokio::select! {
                changed = grown.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(limits::SPOOL_RETRY) => lock(&spool).retry_disk(),
                () = &mut stopping => return,
            }
            continue;
        };
        // A delivery under way is let end: its answer saves sending it again.
        let wait = match link.report(&reports).await {
            Ok(taken) => {
                patience.calm();
                lock(&spool).taken(&reports.standing.spool, taken.upto);
                Duration::ZERO
            }
            Err(error) => patience.wait(&error, "sending findings"),
        };
        tokio::select! {
            biased;
            () = &mut stopping => return,
            () = tokio::time::sleep(wait), if !wait.is_zero() => lock(&spool).retry_disk(),
            () = std::future::ready(()), if wait.is_zero() => {}
        }
    }
}

async fn batch(spool: &Arc<Mutex<Spool>>) -> Option<FindingBatch> {
    let spool = Arc::clone(spool);
    tokio::task::spawn_blocking(move || lock(&spool).batch()).await.unwrap_or_default()
}

async fn ended(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await;
}

fn lock(spool: &Mutex<Spool>) -> std::sync::MutexGuard<'_, Spool> {
    spool.lock().unwrap_or_else(PoisonError::into_inner)
}
