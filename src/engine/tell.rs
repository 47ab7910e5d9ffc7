//! From a board to the store: the conditions of a source of our own, by the ordinary intake.
//!
//! Invariant: a condition leaves the board only once the store has it.

use super::EngineParts;
use super::scheduler::StaleEpisodes;
use crate::limits;
use crate::model::{Episode, EpisodeId};
use crate::sources::kubernetes::ConditionTracker;
use crate::store::{BatchOrigin, ControlChange, EventBatch, StoreError};
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
    loop {
        let open = match unseen.page(parts).await {
            Ok(open) if open.is_empty() => break,
            Ok(open) => open,
            Err(error) => {
                tracing::error!(%source, %error, "cannot read which alerts are open");
                return;
            }
        };
        let over = ids_of(&open, |episode| !board(shared).is_firing(&episode.event.fingerprint));
        // A page at a time: one transaction over all of them would keep every other operation waiting.
        if let Err(error) = end(parts, over, false, why).await {
            tracing::error!(%source, %error, "cannot close resolved alerts");
        }
    }
}

pub(super) fn ids_of(page: &[Episode], is_over: impl Fn(&Episode) -> bool) -> Vec<EpisodeId> {
    page.iter().filter(|episode| is_over(episode)).map(|episode| episode.id).collect()
}

/// Ends the episodes of one page, if there are any.
pub(super) async fn end(
    parts: &EngineParts,
    episodes: Vec<EpisodeId>,
    stale: bool,
    why: &str,
) -> Result<(), StoreError> {
    if episodes.is_empty() {
        return Ok(());
    }
    let end = ControlChange::EndEpisodes { episodes, stale, why: why.to_owned() };
    let ended = parts.store.control(end, parts.clock.now()).await;
    parts.nudge.nudge();
    ended
}
