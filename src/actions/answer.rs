//! From an answer of the world to the engine's next act: settled, again, or retry.
//!
//! Invariant: an answer that another attempt may change is a retry; every other one is final and bounded.

use super::Performed;
use crate::limits;
use crate::model::{Failure, FailureKind, Outcome, Span, Step};
use crate::world::{World, WorldError};
use serde_json::Value;
use std::time::Duration;

/// Inside actions, `?` returns the engine's next act.
pub(super) type Settled<T> = Result<T, Performed>;

impl From<WorldError> for Performed {
    fn from(error: WorldError) -> Performed {
        match error {
            // Another writer came between our read and our write: read again.
            WorldError::Conflict(_) => Performed::Retry { why: error.to_string(), after: None },
            error if error.is_transient() => Performed::Retry { why: error.to_string(), after: error.after() },
            error => Performed::Done(Outcome::Failed(error.failure())),
        }
    }
}

impl From<Failure> for Performed {
    fn from(failure: Failure) -> Performed {
        Performed::Done(Outcome::Failed(failure))
    }
}

pub(super) fn settle(settled: Settled<Performed>) -> Performed {
    settled.unwrap_or_else(|early| early)
}

/// A prediction is an outcome whatever happens; a target that does not answer is a failure of the plan.
pub(super) fn foresee(settled: Settled<Value>) -> Outcome {
    match settled.map(done) {
        Ok(performed) | Err(performed) => match performed {
            Performed::Done(outcome) | Performed::Tell(outcome, _) => outcome,
            Performed::Again { why, .. } | Performed::Retry { why, .. } | Performed::InDoubt { why } => {
                failed(FailureKind::Unavailable, why)
            }
        },
    }
}

/// Success, unless the answer is too large to keep: a journal entry is bounded, and a cut answer would look whole.
pub(super) fn done(value: Value) -> Performed {
    let bytes = match &value {
        // Nearly all outcomes are a few fields; only lists and texts can be large.
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        other => other.to_string().len(),
    };
    if bytes > limits::OUTCOME_BYTES {
        return Performed::Done(failed(
            FailureKind::Invalid,
            format!(
                "the answer has {bytes} bytes, more than the {} that a step may store: request less",
                limits::OUTCOME_BYTES
            ),
        ));
    }
    Performed::Done(Outcome::Ok(value))
}

pub(super) fn failed(kind: FailureKind, message: impl Into<String>) -> Outcome {
    Outcome::Failed(Failure::new(kind, message))
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
pub(super) fn poll(waited: Duration, why: String, carry: Value) -> Performed {
    let after = (waited / 4).clamp(limits::POLL_FIRST, limits::POLL_MAX);
    Performed::Again { after, why, carry }
}

/// For steps that wait on the world: silence is one more thing to wait for, until the step's own time is up.
pub(super) fn patient(error: WorldError, waited: Duration, within: Span, carry: Value) -> Performed {
    if !error.is_transient() {
        return error.into();
    }
    if waited >= within.0 {
        return Performed::Done(failed(FailureKind::Timeout, format!("not done within {within}: {error}")));
    }
    let after = error.after().unwrap_or((waited / 4).clamp(limits::POLL_FIRST, limits::POLL_MAX));
    Performed::Again { after: after.min(limits::BACKOFF_MAX), why: error.to_string(), carry }
}
