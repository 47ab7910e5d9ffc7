//! The kill switch at the last moment: a request that changes something asks it once more before it is sent.
//!
//! Invariant: a request whose gate was closed has sent nothing, and the gate remembers that it was.

use super::WorldError;
use crate::planted::planted;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asked before each request that changes something. Between the record of a step and its request a target is read, and
/// that takes as long as the target or a machine without CPU time likes.
#[derive(Clone)]
pub struct Gate {
    stopped: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    closed: Arc<AtomicBool>,
}

impl Gate {
    /// `stopped` returns why everything is stopped, if it is.
    pub fn new(stopped: impl Fn() -> Option<String> + Send + Sync + 'static) -> Gate {
        Gate { stopped: Arc::new(stopped), closed: Arc::default() }
    }

    /// # Errors
    ///
    /// [`WorldError::Unreached`] while everything is stopped: the caller must send nothing.
    pub(in crate::world) fn pass(&self) -> Result<(), WorldError> {
        if planted("stopped-before-the-read-alone") {
            return Ok(());
        }
        let Some(why) = (self.stopped)() else { return Ok(()) };
        self.closed.store(true, Ordering::Release);
        Err(WorldError::Unreached(format!("not sent, because everything is stopped: {why}")))
    }

    /// Whether a request was kept back.
    pub fn was_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("closed", &self.was_closed()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_closed_gate_lets_nothing_through_and_remembers_it() {
        let why = Arc::new(Mutex::new(None));
        let read = why.clone();
        let gate = Gate::new(move || read.lock().unwrap().clone());
        assert!(gate.pass().is_ok() && !gate.was_closed());
        *why.lock().unwrap() = Some("the file /etc/stop exists".to_owned());
        let refused = gate.clone().pass();
        assert!(matches!(&refused, Err(WorldError::Unreached(text)) if text.contains("/etc/stop")), "{refused:?}");
        *why.lock().unwrap() = None;
        assert!(gate.pass().is_ok() && gate.was_closed());
    }
}
