//! From an answer of the world to the engine's next act: settled, again, or retry.
//!
//! Invariant: an answer that another attempt may change is a retry; every other one is final and bounded.

use super::PerformResult;
use crate::limits;
use crate::model::{FailureKind, Outcome, Span, Step, StepFailure};
use crate::world::{World, WorldError};
use serde_json::Value;
use std::time::Duration;

/// Inside actions, `?` returns the engine's next act.
pub(super) type ActionResult<T> = Result<T, PerformResult>;

impl From<WorldError> for PerformResult {
    fn from(error: WorldError) -> PerformResult {
        match error {
            // Another writer came between our read and our write: read again.
            WorldError::Conflict(_) => PerformResult::Retry { why: error.to_string(), after: None },
            error if error.is_transient() => PerformResult::Retry { why: error.to_string(), after: error.after() },
            error => PerformResult::Done(Outcome::Failed(error.failure())),
        }
    }
}

impl From<StepFailure> for PerformResult {
    fn from(failure: StepFailure) -> PerformResult {
        PerformResult::Done(Outcome::Failed(failure))
    }
}

pub(super) fn settle(settled: ActionResult<PerformResult>) -> PerformResult {
    settled.unwrap_or_else(|early| early)
}

/// A prediction is an outcome whatever happens; a target that does not answer is a failure of the plan.
pub(super) fn foresee(settled: ActionResult<Value>) -> Outcome {
    match settled.map(done) {
        Ok(performed) | Err(performed) => match performed {
            PerformResult::Done(outcome) | PerformResult::Tell(outcome, _) => outcome,
            PerformResult::Again { why, .. } | PerformResult::Retry { why, .. } | PerformResult::InDoubt { why } => {
                failed(FailureKind::Unavailable, why)
            }
        },
    }
}

/// Success, unless the answer is too large to keep: a journal entry is bounded, and a cut answer would look whole.
pub(super) fn done(value: Value) -> PerformResult {
    let bytes = match &value {
        // Nearly all outcomes are a few fields; only lists and texts can be large.
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        other => other.to_string().len(),
    };
    if bytes > limits::OUTCOME_BYTES {
        return PerformResult::Done(failed(
            FailureKind::Invalid,
            format!(
                "the answer has {bytes} bytes, more than the {} that a step may store: request less",
                limits::OUTCOME_BYTES
            ),
        ));
    }
    PerformResult::Done(Outcome::Ok(value))
}

pub(super) fn failed(kind: FailureKind, message: impl Into<String>) -> Outcome {
    Outcome::Failed(StepFailure::new(kind, message))
}

/// How long a step has waited, by the world's clock; zero if the clock stepped back.
pub(super) fn waited(world: &World, step: &Step) -> Duration {
    let micros = world.clock.now().as_microsecond().saturating_sub(step.begun_at.as_microsecond());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// To whole seconds, for users.
pub(super) fn spoken(duration: Duration) -> Span {
    Span::seconds(duration.as_secs())
}

/// Look again soon at first, then less often.
pub(super) fn poll(waited: Duration, why: String, carry: Value) -> PerformResult {
    let after = (waited / 4).clamp(limits::POLL_FIRST, limits::POLL_MAX);
    PerformResult::Again { after, why, carry }
}

/// For steps that wait on the world: silence is one more thing to wait for, until the step's own time is up.
pub(super) fn patient(error: WorldError, waited: Duration, within: Span, carry: Value) -> PerformResult {
    if !error.is_transient() {
        return error.into();
    }
    if waited >= within.0 {
        return PerformResult::Done(failed(FailureKind::Timeout, format!("not done within {within}: {error}")));
    }
    let after = error.after().unwrap_or((waited / 4).clamp(limits::POLL_FIRST, limits::POLL_MAX));
    PerformResult::Again { after: after.min(limits::BACKOFF_MAX), why: error.to_string(), carry }
}
