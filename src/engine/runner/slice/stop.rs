//! A run that was cancelled in the middle of a step: the work that the step left under way is stopped.
//!
//! Invariant: the store keeps such a run due until this is settled, so a crash in between only makes it happen later.

use super::RunTurn;
use crate::actions::{self, PerformResult};
use crate::limits;
use crate::store::StoreError;

impl RunTurn<'_> {
    pub(super) async fn stop(&self) -> Result<(), StoreError> {
        let Some((run, step)) = self.parts.store.abandoned(self.id).await? else { return Ok(()) };
        let world = self.parts.world.within(run.subject.cluster.as_deref());
        let stopped = match actions::find(&step.call.action) {
            None => None,
            Some(action) => tokio::time::timeout(action.spec().deadline.0, action.stop(&world, &step))
                .await
                .unwrap_or_else(|_| Some(PerformResult::Retry { why: "no answer".to_owned(), after: None })),
        };
        let later = match stopped {
            None => return self.parts.store.look_again(self.id, run.epoch, None).await,
            Some(PerformResult::Done(outcome) | PerformResult::Tell(outcome, _)) => {
                return self.parts.store.end(self.id, run.epoch, step.no, outcome, Vec::new(), self.now()).await;
            }
            Some(PerformResult::Again { after, .. }) => after.max(limits::AGAIN_MIN),
            Some(PerformResult::InDoubt { why }) => {
                tracing::warn!(run = %self.id, why, call = %step.call, "the outcome of a cancelled step is unknown");
                limits::CANCEL_AGAIN
            }
            Some(PerformResult::Retry { why, after }) => {
                tracing::warn!(run = %self.id, why, call = %step.call, "cannot stop a cancelled step yet; retrying");
                after.unwrap_or(limits::CANCEL_AGAIN)
            }
        };
        self.parts.store.look_again(self.id, run.epoch, Some(self.now() + later)).await
    }
}
