//! A call, that call numbered in a run's journal, and the world's answer.
//!
//! Invariant: an outcome, once recorded, is final; a step without one is settled by its effect, never guessed.

use super::{Effect, RunId, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// A named action with checked arguments. Arguments are by name, so that a journal reads like a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Call {
    pub action: String,
    pub args: Map<String, Value>,
}

impl Call {
    /// A call of `action` with these arguments.
    pub fn new(action: &str, args: impl IntoIterator<Item = (&'static str, Value)>) -> Call {
        Call {
            action: action.to_owned(),
            args: args.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    /// A text argument, or the empty string.
    pub fn text(&self, name: &str) -> &str {
        self.args.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.action)?;
        for (at, (name, value)) in self.args.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match value {
                Value::String(text) => write!(f, "{comma}{name}: {text}")?,
                other => write!(f, "{comma}{name}: {other}")?,
            }
        }
        f.write_str(")")
    }
}

/// Why the world said no. Closed, so that scripts, metrics and tests can rely on it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum FailureKind {
    /// The thing is not there.
    NotFound,
    /// It changed under us, or belongs to another owner.
    Conflict,
    /// A right is missing.
    Forbidden,
    /// A guard or a policy refused it.
    Refused,
    /// The target did not answer, also after retries.
    Unavailable,
    /// It did not get done in the time given.
    Timeout,
    /// The arguments make no sense to the target.
    Invalid,
    /// The condition did not come true.
    Unverified,
}

impl FailureKind {
    /// The kind's name in scripts and in the ledger.
    pub fn name(self) -> &'static str {
        self.into_str()
    }
}

/// A step's failure: its kind for scripts, and a message for users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

impl Failure {
    /// A failure of this kind with this message.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }
}

/// The world's answer, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Ok(Value),
    /// Thrown in the script where the call stands, so `try`/`catch` works and replays.
    Failed(Failure),
}

/// A call in a run's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Step {
    pub run: RunId,
    /// From 0, in the order the script made the calls; undo calls follow after them.
    pub no: u32,
    pub call: Call,
    pub effect: Effect,
    /// The number of the step that this one reverses.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub undoes: Option<u32>,
    pub begun_at: Time,
    /// A successor settles an open step only after this.
    pub deadline: Time,
    /// How often it was performed, from 1.
    pub attempt: u32,
    /// The state that was read just before the first attempt of a conditional effect; also the position of a long step.
    #[serde(skip_serializing_if = "Value::is_null", default)]
    pub carry: Value,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at: Option<Time>,
    /// The incarnation of the store in which it was begun; empty before there were any.
    #[serde(skip)]
    pub incarnation: String,
}

impl Step {
    /// The idempotency key at targets that take one: stable over crashes and retries, and another one for the step of the
    /// same number that a restored or copied store begins.
    pub fn key(&self) -> String {
        match self.born() {
            "" => format!("nightshift-{}-{}", self.run, self.no),
            born => format!("nightshift-{}-{}-{born}", self.run, self.no),
        }
    }

    fn born(&self) -> &str {
        if crate::planted::planted("step-key-without-incarnation") { "" } else { &self.incarnation }
    }

    /// The agent's key of the command that this step gives.
    pub fn command_key(&self) -> String {
        super::command::key(self.run, self.no, self.born())
    }
}
