//! Probes inference engines again and again, and sends their faults to the store, as any other source does.
//!
//! Invariant: an engine that hangs costs its own probe and no other's; the number of probes at once is bounded.

mod desk;
mod round;

use super::{EngineParts, tell};
use crate::limits;
use desk::ProbeSource;
use round::{ProbeEvent, ProbeSchedule};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(super) async fn run(parts: EngineParts, mut shutdown: watch::Receiver<bool>) {
    let desks: Vec<Arc<ProbeSource>> = ProbeSource::all(&parts).into_iter().map(Arc::new).collect();
    let mut loops = JoinSet::new();
    for desk in &desks {
        loops.spawn(talk(parts.clone(), desk.clone()));
    }
    if !desks.is_empty() {
        loops.spawn(look(parts.clone(), desks));
    }
    tokio::select! {
        _ = shutdown.wait_for(|stop| *stop) => {}
        // None of them ends by itself, so one that did has met a bug: the caller stops the process.
        Some(Err(panic)) = loops.join_next() => std::panic::resume_unwind(panic.into_panic()),
    }
    loops.shutdown().await;
}

async fn look(parts: EngineParts, desks: Vec<Arc<ProbeSource>>) {
    let mut round = ProbeSchedule::new(&parts, desks);
    let mut under_way: JoinSet<ProbeEvent> = JoinSet::new();
    loop {
        round.begin(&parts, &mut under_way);
        let wake = round.wake(parts.clock.now());
        tokio::select! {
            Some(came) = under_way.join_next() => match came {
                Ok(came) => round.take(&parts, came),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            },
            () = parts.clock.sleep_until(wake) => {}
        }
    }
}

/// Sends a target set's pending conditions to the store, and ends those from before this start that are over.
async fn talk(parts: EngineParts, desk: Arc<ProbeSource>) {
    let mut settled = None;
    loop {
        let (now, began) = (parts.clock.now(), parts.clock.monotonic());
        while tell::pass(&parts, &desk.source, &desk.board).await {}
        if desk.is_whole(now) && settled.is_none_or(|last| began >= last + limits::RECONCILE_EVERY) {
            tell::end_what_is_over(&parts, &desk.source, &desk.board, "the engine no longer shows it").await;
            settled = Some(began);
        }
        parts.clock.sleep_until_monotonic(began + limits::COMPLAINTS_EVERY).await;
    }
}
