//! The thread that waits for NVML's events, in slices of half a second, so that it can be stopped.
//!
//! Invariant: an error of one GPU never costs the others their events; an error of the wait makes a new set.

use super::raw::{self, Code, DeviceHandle, NvmlEvent, NvmlEventSet};
use super::session::NvmlSession;
use crate::limits;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// The events to receive, of all that the GPU can send: not p-states and clocks, of which there are hundreds an hour.
const WANTED: u64 = 0x8 | 0x2 | 0x100 | 0x200 | 0x400 | 0x800 | 0x1000 | 0x2000 | 0x4000 | 0x8000;

#[derive(Debug)]
pub(super) enum NvmlListenerEvent {
    Told(NvmlEvent),
    /// The wait failed; it is begun again.
    Broken(Code),
    /// It waits again, after it was broken.
    Works,
}

/// The waiting thread as its owner sees it.
pub(super) struct NvmlListener {
    pub heard: mpsc::Receiver<NvmlListenerEvent>,
    shared: Arc<NvmlListenerState>,
    ended: oneshot::Receiver<()>,
    thread: Thread,
}

struct NvmlListenerState {
    stop: AtomicBool,
    /// GPUs to be registered.
    wanted: Mutex<Vec<DeviceHandle>>,
    /// When the thread was last outside of the library.
    beat: Mutex<Instant>,
}

impl NvmlListener {
    /// Starts the thread that waits for events of the session.
    ///
    /// # Errors
    ///
    /// Fails when the thread cannot be started.
    pub fn start(session: Arc<NvmlSession>) -> std::io::Result<NvmlListener> {
        let (told, heard) = mpsc::channel(limits::NVML_EVENTS);
        let (ends, ended) = oneshot::channel();
        let shared = Arc::new(NvmlListenerState {
            stop: AtomicBool::new(false),
            wanted: Mutex::new(Vec::new()),
            beat: Mutex::new(Instant::now()),
        });
        let mine = Arc::clone(&shared);
        let listen = move || {
            listen(&session, &mine, &told);
            // The session first: who sees the end may count on it.
            drop(session);
            let _ = ends.send(());
        };
        let builder = std::thread::Builder::new().name("nvml-events".to_owned()).stack_size(limits::NVML_STACK);
        let thread = builder.spawn(listen)?.thread().clone();
        Ok(NvmlListener { heard, shared, ended, thread })
    }

    /// Has a GPU registered that answers; one that is registered already costs nothing.
    pub fn want(&self, gpu: DeviceHandle) {
        let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if !wanted.contains(&gpu) {
            wanted.push(gpu);
            self.thread.unpark();
        }
    }

    /// How long the thread has been inside the library.
    pub fn silent_for(&self) -> Duration {
        self.shared.beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// Where the thread does not end in that time: the receiver that completes when it does.
    pub async fn stop(self, within: Duration) -> Result<(), oneshot::Receiver<()>> {
        let NvmlListener { heard, shared, mut ended, thread } = self;
        shared.stop.store(true, Ordering::SeqCst);
        // A thread that waits for room in the channel sees that the channel is closed.
        drop(heard);
        thread.unpark();
        match tokio::time::timeout(within, &mut ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ended),
        }
    }
}

impl NvmlListenerState {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

fn listen(session: &NvmlSession, shared: &NvmlListenerState, told: &mpsc::Sender<NvmlListenerEvent>) {
    // As if it had been broken, so that the first wait that works is reported.
    let mut ear = NvmlEventWaiter { set: None, registered: Vec::new(), broken: true };
    while !shared.stopped() {
        shared.beat();
        let heard = match ear.turn(session, shared) {
            Ok(Some(event)) => Some(NvmlListenerEvent::Told(event)),
            Ok(None) if ear.broken => {
                ear.broken = false;
                Some(NvmlListenerEvent::Works)
            }
            Ok(None) => None,
            Err(code) => {
                ear.broken = true;
                ear.forget(session, shared);
                Some(NvmlListenerEvent::Broken(code))
            }
        };
        let failed = matches!(heard, Some(NvmlListenerEvent::Broken(_)));
        if heard.is_some_and(|heard| told.blocking_send(heard).is_err()) {
            break;
        }
        if failed {
            std::thread::park_timeout(limits::NVML_EVENT_WAIT);
        }
    }
    ear.forget(session, shared);
}

struct NvmlEventWaiter {
    set: Option<NvmlEventSet>,
    registered: Vec<DeviceHandle>,
    broken: bool,
}

impl NvmlEventWaiter {
    /// Registers who is new, and waits once.
    fn turn(&mut self, session: &NvmlSession, shared: &NvmlListenerState) -> Result<Option<NvmlEvent>, Code> {
        let set = match self.set {
            Some(set) => set,
            None => *self.set.insert(raw::set_create(&session.nvml)?),
        };
        let wanted = std::mem::take(&mut *shared.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        for gpu in wanted {
            if self.registered.contains(&gpu) {
                continue;
            }
            match raw::set_register(&session.nvml, set, gpu, WANTED) {
                Ok(()) => self.registered.push(gpu),
                // It is registered again when it answers again.
                Err(code) => tracing::debug!(%code, "a GPU does not register for events"),
            }
        }
        if self.registered.is_empty() {
            std::thread::park_timeout(limits::NVML_EVENT_WAIT);
            return Ok(None);
        }
        let milliseconds = u32::try_from(limits::NVML_EVENT_WAIT.as_millis()).unwrap_or(u32::MAX);
        raw::set_wait(&session.nvml, set, milliseconds)
    }

    /// Releases the set; its GPUs are registered again.
    fn forget(&mut self, session: &NvmlSession, shared: &NvmlListenerState) {
        if let Some(set) = self.set.take() {
            // A session that is over has no sets any more.
            let _ = raw::set_free(&session.nvml, set);
        }
        shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.registered);
    }
}
