//! Runbooks: a pure function from a journal to the next call. Rhai in a sandbox; stop and replay.
//!
//! Invariant: `advance` acts on nothing, and its turn depends on its arguments alone.

mod check;
mod header;
mod host;
mod sandbox;
mod session;
mod shape;

pub use check::{Diagnostic, Level, check, render};
pub use shape::{Shape, ShapeError};

use crate::model::{ActionSpec, Call, Header, Input, Pin, Reason, Step};
use serde_json::Value;

/// The actions that scripts may call.
#[derive(Clone)]
pub struct HostApi {
    pub specs: Vec<&'static ActionSpec>,
}

/// A compiled runbook. Cheap to clone, safe to share.
#[derive(Clone)]
pub struct Runbook {
    pub pin: Pin,
    pub text: String,
    pub header: Header,
    // compiled parts: private to script
}

/// What happens next in a run, given all that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// The journal does not answer this call: begin it as the next step.
    Call(Call),
    Done(Value),
    /// `stop("why")`.
    Stopped(String),
    /// An uncaught failure or script error: message with `name.rhai:line:column` and the chain of calls.
    Failed(String),
    /// A human must look: diverged, over a limit, panicked.
    Broken(Reason),
}

/// Compiles and checks; errors prevent it, warnings do not (ask `check` for those).
pub fn compile(_name: &str, _text: &str, _api: &HostApi) -> Result<Runbook, Vec<Diagnostic>> {
    todo!("script")
}

/// Runs the script from the top. `journal` holds the ended steps of the script in order (undo steps left out).
/// Needs a thread with `limits::SCRIPT_STACK_BYTES` of stack.
pub fn advance(_runbook: &Runbook, _input: &Input, _journal: &[Step]) -> Turn {
    todo!("script")
}
