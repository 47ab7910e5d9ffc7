//! `cache::status`, `cache::warm`, `cache::verify` as an agent does them.
//!
//! Invariant: files are read on threads of their own, and reading stops when the answer is no longer waited for.

use super::read::ReadProgress;
use super::roots::failed;
use super::{CacheSettings, status, verify, warm_all};
use crate::limits;
use crate::model::{AgentCommand, CommandStatus, FailureKind, Outcome, Span, StepFailure};
use crate::node::{AgentVerb, Machine};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Semaphore, watch};

pub(in crate::node) struct CacheStatusVerb;
pub(in crate::node) struct CacheVerifyVerb;
pub(in crate::node) struct CacheWarmVerb;

/// One at a time: two would not be faster, and each would think that the memory is its own.
static TURN: Semaphore = Semaphore::const_new(1);

#[async_trait::async_trait]
impl AgentVerb for CacheStatusVerb {
    fn name(&self) -> &'static str {
        "cache::status"
    }

    fn reads(&self) -> bool {
        true
    }

    async fn perform(
        &self,
        machine: &Machine,
        command: &AgentCommand,
        progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus {
        let path = path(command);
        apart(machine, progress, move |settings, _, _| status(settings, &path?)).await
    }
}

#[async_trait::async_trait]
impl AgentVerb for CacheVerifyVerb {
    fn name(&self) -> &'static str {
        "cache::verify"
    }

    fn reads(&self) -> bool {
        true
    }

    fn stops(&self) -> bool {
        true
    }

    async fn perform(
        &self,
        machine: &Machine,
        command: &AgentCommand,
        progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus {
        let path = path(command);
        let hash = command.args.get("hash") == Some(&Value::Bool(true));
        apart(machine, progress, move |settings, cancel, said| verify(settings, &path?, hash, cancel, said)).await
    }
}

#[async_trait::async_trait]
impl AgentVerb for CacheWarmVerb {
    fn name(&self) -> &'static str {
        "cache::warm"
    }

    fn stops(&self) -> bool {
        true
    }

    async fn perform(
        &self,
        machine: &Machine,
        command: &AgentCommand,
        progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus {
        let Ok(_turn) = TURN.acquire().await else {
            return ended::<Value>(Err(failed(FailureKind::Unavailable, "closed")));
        };
        let (paths, within) = (models(command), within(command));
        let rate = command.args.get("mib_per_second").and_then(Value::as_u64).map(|rate| rate.saturating_mul(1 << 20));
        apart(machine, progress, move |settings, cancel, said| {
            warm_all(settings, &paths?, rate, within?.0, cancel, said)
        })
        .await
    }
}

/// A path, or a list of paths or of models that have one.
fn models(command: &AgentCommand) -> Result<Vec<PathBuf>, StepFailure> {
    let wrong = |what: String| failed(FailureKind::Invalid, format!("{}: {what}", command.verb));
    let given = command.args.get("models").unwrap_or(&Value::Null);
    let list = match given {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    if list.len() > limits::CACHE_MODELS {
        return Err(wrong(format!("{} models at once, more than {}", list.len(), limits::CACHE_MODELS)));
    }
    let mut paths = Vec::new();
    for item in list {
        let path = match item {
            Value::Object(model) => model.get("path").unwrap_or(&Value::Null),
            other => other,
        };
        let path = plain(path).ok_or_else(|| wrong(format!("{item} is no path, and has none")))?;
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn plain(value: &Value) -> Option<PathBuf> {
    let text = value.as_str()?;
    (!text.is_empty() && text.len() <= limits::PATH_BYTES && !text.contains('\0')).then(|| PathBuf::from(text))
}

fn path(command: &AgentCommand) -> Result<PathBuf, StepFailure> {
    let path = command.args.get("path").and_then(plain);
    path.ok_or_else(|| failed(FailureKind::Invalid, format!("{}: `path` is missing or no path", command.verb)))
}

fn within(command: &AgentCommand) -> Result<Span, StepFailure> {
    match command.args.get("within") {
        None | Some(Value::Null) => Ok(limits::CACHE_WITHIN),
        Some(Value::String(text)) => {
            text.parse().map_err(|error| failed(FailureKind::Invalid, format!("{}: `within`: {error}", command.verb)))
        }
        Some(_) => Err(failed(FailureKind::Invalid, format!("{}: `within` is no text like `30m`", command.verb))),
    }
}

/// Stops the threads when the answer is no longer waited for.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type ProgressCallback<'a> = &'a (dyn Fn(ReadProgress) + Sync);

async fn apart<T: Serialize + Send + 'static>(
    machine: &Machine,
    progress: &(dyn Fn(Value) + Sync),
    work: impl FnOnce(&CacheSettings, &AtomicBool, ProgressCallback<'_>) -> Result<T, StepFailure> + Send + 'static,
) -> CommandStatus {
    let settings = CacheSettings::of(&machine.settings.cache);
    let cut = CancelOnDrop(Arc::default());
    let cancel = Arc::clone(&cut.0);
    let (said, mut heard) = watch::channel(ReadProgress::default());
    let mut work = tokio::task::spawn_blocking(move || {
        // A dropped receiver needs no error here: `cancel` ends the work.
        work(&settings, &cancel, &|now| drop(said.send_replace(now)))
    });
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            Ok(()) = heard.changed() => {
                let now = heard.borrow_and_update().clone();
                progress(now.shown());
            }
        }
    };
    ended(
        outcome.unwrap_or_else(|panic| Err(failed(FailureKind::Unavailable, format!("reading ended early: {panic}")))),
    )
}

fn ended<T: Serialize>(result: Result<T, StepFailure>) -> CommandStatus {
    let outcome = match result.map(|report| serde_json::to_value(&report)) {
        Ok(Ok(value)) => Outcome::Ok(value),
        Ok(Err(error)) => {
            Outcome::Failed(failed(FailureKind::Invalid, format!("the answer cannot be written: {error}")))
        }
        Err(failure) => Outcome::Failed(failure),
    };
    CommandStatus::Ended { outcome }
}
