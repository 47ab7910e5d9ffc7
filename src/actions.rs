//! The catalog of actions: what a runbook can do to the world. One file each, one line in `CATALOG`.
//!
//! Invariant: `perform` is the only way to touch the world, and is called only after a committed `begin`.

use crate::model::{ActionSpec, Call, Outcome, Step, Subject};
use crate::world::{World, WorldError};
use serde_json::Value;
use std::time::Duration;

/// What came of performing a step once.
#[derive(Debug, Clone, PartialEq)]
pub enum Performed {
    /// Settled, for good or ill.
    Done(Outcome),
    /// Settled, and people on these channels hear it: (channel, text).
    Tell(Outcome, Vec<(String, String)>),
    /// Under way: perform again after this long, with what is carried. Not counted as a failed attempt.
    Again { after: Duration, why: String, carry: Value },
    /// The target did not answer: try again, a bounded number of times.
    Retry { why: String, after: Option<Duration> },
}

/// One action. The engine alone calls these.
#[async_trait::async_trait]
pub trait Action: Send + Sync {
    fn spec(&self) -> &'static ActionSpec;

    /// What the call touches, from its arguments alone.
    fn target(&self, call: &Call) -> Subject;

    /// Reads the witness that `perform` will compare with; null where there is none.
    async fn witness(&self, _world: &World, _call: &Call) -> Result<Value, WorldError> {
        Ok(Value::Null)
    }

    /// Does it, or settles it if a crash left it open. Must be right however often it is called for one step.
    async fn perform(&self, world: &World, step: &Step) -> Performed;

    /// What `perform` would most likely answer, without touching anything. Reads are performed instead.
    async fn predict(&self, world: &World, call: &Call) -> Outcome;

    /// The call that takes a successful step back, if one does and it changed something.
    fn undo(&self, _step: &Step) -> Option<Call> {
        None
    }
}

/// Every action, in alphabetic order.
pub fn catalog() -> Vec<&'static dyn Action> {
    todo!("actions")
}

/// The action of that name.
pub fn find(name: &str) -> Option<&'static dyn Action> {
    catalog().into_iter().find(|action| action.spec().name == name)
}
