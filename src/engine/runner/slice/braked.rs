//! A turn that the brake ended: tried again later, because a slow machine is no fault of the runbook.
//!
//! Invariant: a run is stuck for its CPU time only after `limits::SCRIPT_BRAKED` such turns in a row, in one life of the
//! engine; a start counts from one again.

use super::{RunTurn, TurnFlow};
use crate::limits;
use crate::model::{Reason, Run, RunId, RunState};
use crate::policy::backoff;
use crate::store::StoreError;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// By run: how many of its last turns were braked.
#[derive(Default)]
pub(in crate::engine::runner) struct BrakedRuns(Mutex<HashMap<RunId, u32>>);

impl BrakedRuns {
    /// One more; returns how many in a row.
    fn count(&self, run: RunId) -> u32 {
        let mut braked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = braked.entry(run).or_default();
        *count += 1;
        *count
    }

    /// Drops the run's count.
    pub fn forget(&self, run: RunId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }
}

impl RunTurn<'_> {
    pub(super) async fn turn_again(&self, run: &Run, reason: Reason) -> Result<TurnFlow, StoreError> {
        let braked = self.braked.count(self.id);
        if braked >= limits::SCRIPT_BRAKED {
            self.braked.forget(self.id);
            let text = format!("{}, {braked} times in a row", reason.text);
            self.stuck(run, reason.code, text).await?;
            return Ok(TurnFlow::Rest);
        }
        let wait = backoff(braked, limits::BACKOFF_FIRST, limits::BACKOFF_MAX, self.id.0 as u64);
        let why = format!("{} ({braked} of {}); it is tried again", reason.text, limits::SCRIPT_BRAKED);
        tracing::warn!(run = %self.id, why, "a turn of a runbook was ended early");
        let state = RunState::Waiting { why };
        self.parts.store.park(self.id, run.epoch, None, state, self.now() + wait, self.now()).await?;
        Ok(TurnFlow::Rest)
    }
}
