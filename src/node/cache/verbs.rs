//! `cache::status`, `cache::warm`, `cache::verify` as an agent does them.
//!
//! Invariant: files are read on threads of their own, and reading stops when nobody waits for the answer any more.

use super::read::Progress;
use super::roots::failed;
use super::{Settings, status, verify, warm};
use crate::limits;
use crate::model::{Answer, Command, Failure, FailureKind, Outcome, Span};
use crate::node::{Machine, Verb};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Semaphore, watch};

pub(in crate::node) struct CacheStatus;
pub(in crate::node) struct CacheVerify;
pub(in crate::node) struct CacheWarm;

/// One at a time: two would not be faster, and each would think that the memory is its own.
static TURN: Semaphore = Semaphore::const_new(1);

#[async_trait::async_trait]
impl Verb for CacheStatus {
    fn name(&self) -> &'static str {
        "cache::status"
    }

    async fn perform(&self, machine: &Machine, command: &Command, progress: &(dyn Fn(Value) + Sync)) -> Answer {
        let path = path(command);
        apart(machine, progress, move |settings, _, _| status(settings, &path?)).await
    }
}

#[async_trait::async_trait]
impl Verb for CacheVerify {
    fn name(&self) -> &'static str {
        "cache::verify"
    }

    async fn perform(&self, machine: &Machine, command: &Command, progress: &(dyn Fn(Value) + Sync)) -> Answer {
        let path = path(command);
        let hash = command.args.get("hash") == Some(&Value::Bool(true));
        apart(machine, progress, move |settings, cancel, said| verify(settings, &path?, hash, cancel, said)).await
    }
}

#[async_trait::async_trait]
impl Verb for CacheWarm {
    fn name(&self) -> &'static str {
        "cache::warm"
    }

    async fn perform(&self, machine: &Machine, command: &Command, progress: &(dyn Fn(Value) + Sync)) -> Answer {
        let Ok(_turn) = TURN.acquire().await else { return ended::<Value>(Err(failed(FailureKind::Unavailable, "closed"))) };
        let path = path(command);
        let rate = command.args.get("mib_per_second").and_then(Value::as_u64).map(|rate| rate.saturating_mul(1 << 20));
        let within = within(command);
        apart(machine, progress, move |settings, cancel, said| {
            warm(settings, &path?, rate, within?.0, cancel, said)
        })
        .await
    }
}

fn path(command: &Command) -> Result<PathBuf, Failure> {
    match command.args.get("path") {
        Some(Value::String(path)) if !path.is_empty() && path.len() <= limits::PATH_BYTES && !path.contains('\0') => {
            Ok(PathBuf::from(path))
        }
        _ => Err(failed(FailureKind::Invalid, format!("{}: `path` is missing or no path", command.verb))),
    }
}

fn within(command: &Command) -> Result<Span, Failure> {
    match command.args.get("within") {
        None | Some(Value::Null) => Ok(limits::CACHE_WITHIN),
        Some(Value::String(text)) => {
            text.parse().map_err(|error| failed(FailureKind::Invalid, format!("{}: `within`: {error}", command.verb)))
        }
        Some(_) => Err(failed(FailureKind::Invalid, format!("{}: `within` is no text like `30m`", command.verb))),
    }
}

/// Tells the threads to stop when the answer is no longer waited for.
struct Cut(Arc<AtomicBool>);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Said<'a> = &'a (dyn Fn(Progress) + Sync);

async fn apart<T: Serialize + Send + 'static>(
    machine: &Machine,
    progress: &(dyn Fn(Value) + Sync),
    work: impl FnOnce(&Settings, &AtomicBool, Said<'_>) -> Result<T, Failure> + Send + 'static,
) -> Answer {
    let settings = machine.cache.clone();
    let cut = Cut(Arc::default());
    let cancel = Arc::clone(&cut.0);
    let (said, mut heard) = watch::channel(Progress::default());
    let mut work = tokio::task::spawn_blocking(move || {
        // Nobody listening any more is what `cancel` is for.
        work(&settings, &cancel, &|now| drop(said.send_replace(now)))
    });
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            Ok(()) = heard.changed() => {
                let now = heard.borrow_and_update().clone();
                progress(shown(&now));
            }
        }
    };
    ended(outcome.unwrap_or_else(|panic| Err(failed(FailureKind::Unavailable, format!("reading ended early: {panic}")))))
}

fn shown(now: &Progress) -> Value {
    let percent = if now.total == 0 { 0 } else { now.done.saturating_mul(100) / now.total };
    let mut value = json!({ "done_bytes": now.done, "bytes": now.total, "read_bytes": now.read, "percent": percent });
    if let Some(waits) = &now.waits {
        value["waits"] = json!(waits);
    }
    value
}

fn ended<T: Serialize>(result: Result<T, Failure>) -> Answer {
    let outcome = match result.map(|report| serde_json::to_value(&report)) {
        Ok(Ok(value)) => Outcome::Ok(value),
        Ok(Err(error)) => Outcome::Failed(failed(FailureKind::Invalid, format!("the answer cannot be written: {error}"))),
        Err(failure) => Outcome::Failed(failure),
    };
    Answer::Ended { outcome }
}
