//! How verbs reach the watch: they send requests, and the loop that owns NVML answers or releases the library.
//!
//! Invariant: only the watch holds NVML; it takes the library back when the guard is dropped, wherever that is.

use crate::limits;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// The way to the watch of this node's GPUs. Without a watch NVML is not held, and no request is answered.
#[derive(Debug, Clone, Default)]
pub struct NvmlClient(Arc<Mutex<Option<mpsc::Sender<NvmlRequest>>>>);

/// While this lives the agent holds no GPU.
#[derive(Debug)]
pub struct NvmlReleaseGuard {
    _back: Option<oneshot::Sender<()>>,
}

/// A verb's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GpuQuery {
    Health,
    Recovery,
    Processes,
}

pub(super) type GpuQueryReply = oneshot::Sender<Result<Value, String>>;

#[derive(Debug)]
pub(super) enum NvmlRequest {
    Read { question: GpuQuery, gpu: Option<String>, reply: GpuQueryReply },
    Release(oneshot::Sender<Result<NvmlReleaseGuard, String>>),
}

impl NvmlReleaseGuard {
    /// The guard, and the receiver that ends when the guard is dropped.
    pub(super) fn new() -> (NvmlReleaseGuard, oneshot::Receiver<()>) {
        let (back, dropped) = oneshot::channel();
        (NvmlReleaseGuard { _back: Some(back) }, dropped)
    }
}

impl NvmlClient {
    /// Lets go of every handle and of the library, for a reset; it comes back when the guard is dropped.
    ///
    /// # Errors
    ///
    /// Fails when NVML is not released within `NVML_RELEASE_WITHIN`, or the watch refuses.
    pub async fn release(&self) -> Result<NvmlReleaseGuard, String> {
        let Some(watch) = self.watch() else { return Ok(NvmlReleaseGuard { _back: None }) };
        let (reply, comes) = oneshot::channel();
        if watch.send(NvmlRequest::Release(reply)).await.is_err() {
            return Ok(NvmlReleaseGuard { _back: None });
        }
        match tokio::time::timeout(limits::NVML_RELEASE_WITHIN, comes).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Ok(NvmlReleaseGuard { _back: None }),
            Err(_) => Err("the agent cannot let go of NVML in time".to_owned()),
        }
    }

    pub(super) async fn ask(&self, question: GpuQuery, gpu: Option<String>) -> Result<Value, String> {
        let nobody = || "no NVML on this node: the agent does not watch its GPUs".to_owned();
        let watch = self.watch().ok_or_else(nobody)?;
        let (reply, comes) = oneshot::channel();
        watch.send(NvmlRequest::Read { question, gpu, reply }).await.map_err(|_| nobody())?;
        match tokio::time::timeout(limits::NVML_ANSWER_WITHIN, comes).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(nobody())),
            Err(_) => Err("NVML does not answer in time".to_owned()),
        }
    }

    fn watch(&self) -> Option<mpsc::Sender<NvmlRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The watch begins, or ends.
    pub(super) fn set(&self, watch: Option<mpsc::Sender<NvmlRequest>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = watch;
    }
}
