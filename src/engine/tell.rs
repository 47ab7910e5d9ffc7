//! From a board to the store: the conditions of a source of our own, by the ordinary intake.
//!
//! Invariant: a condition leaves the board only once the store has it.

use super::EngineParts;
use super::scheduler::StaleEpisodes;
use crate::limits;
use crate::sources::kubernetes::ConditionTracker;
use crate::store::{BatchOrigin, ControlChange, EventBatch};
use std::sync::{Mutex, MutexGuard, PoisonError};

fn board(board: &Mutex<ConditionTracker>) -> MutexGuard<'_, ConditionTracker> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the board's pending conditions to the store. True: there is more.
pub(super) async fn pass(parts: &EngineParts, source: &str, shared: &Mutex<ConditionTracker>) -> bool {
    let now = parts.clock.now();
    let (events, gaps) = board(shared).take(limits::COMPLAINTS_BATCH, now);
    if events.is_empty() && gaps.is_empty() {
        return false;
    }
    let (said, left_out) = (events.len(), gaps.len());
    let rules = parts.catalog.current().rules.clone();
    let kind = parts.config.sources.get(source).map(|source| source.kind.as_str()).unwrap_or_default();
    let origin = BatchOrigin::of_kind(kind);
    let batch = EventBatch { source: source.to_owned(), events: events.clone(), gaps, rules, now, origin };
    match parts.store.intake(batch).await {
        Ok(heard) => {
            board(shared).told(&events, now);
            parts.metrics.heard(said, heard.refreshed, heard.late);
            parts.metrics.unmatched(source, heard.unmatched);
            parts.metrics.gap(left_out);
            if heard.nudge {
                parts.nudge.nudge();
            }
            said == limits::COMPLAINTS_BATCH
        }
        Err(error) => {
            tracing::error!(%source, %error, "cannot store alerts; retrying");
            false
        }
    }
}

/// Ends conditions that the store holds open from before this start, and that the board does not show.
pub(super) async fn end_what_is_over(parts: &EngineParts, source: &str, shared: &Mutex<ConditionTracker>, why: &str) {
    let now = parts.clock.now();
    let mut unseen = StaleEpisodes::new(source, now);
    let mut over = Vec::new();
    loop {
        let open = match unseen.page(parts).await {
            Ok(open) if open.is_empty() => break,
            Ok(open) => open,
            Err(error) => {
                tracing::error!(%source, %error, "cannot read which alerts are open");
                return;
            }
        };
        let board = board(shared);
        let gone = open.iter().filter(|episode| !board.is_firing(&episode.event.fingerprint));
        over.extend(gone.map(|episode| episode.id));
    }
    if over.is_empty() {
        return;
    }
    let end = ControlChange::EndEpisodes { episodes: over, stale: false, why: why.to_owned() };
    if let Err(error) = parts.store.control(end, now).await {
        tracing::error!(%source, %error, "cannot close resolved alerts");
    }
    parts.nudge.nudge();
}
