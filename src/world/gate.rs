//! The kill switch at the last moment: a request that changes something asks it once more before it is sent.
//!
//! Invariant: a request whose gate was closed has sent nothing, and the gate remembers that it was.

use super::WorldError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tower::BoxError;

/// Asked before each request that changes something. Between the record of a step and its request a target is read, and
/// that takes as long as the target or a machine without CPU time likes.
#[derive(Clone)]
pub struct KillSwitchGate {
    stopped: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    closed: Arc<AtomicBool>,
}

impl KillSwitchGate {
    /// `stopped` returns why everything is stopped, if it is.
    pub fn new(stopped: impl Fn() -> Option<String> + Send + Sync + 'static) -> KillSwitchGate {
        KillSwitchGate { stopped: Arc::new(stopped), closed: Arc::default() }
    }

    /// # Errors
    ///
    /// [`WorldError::Unreached`] while everything is stopped: the caller must send nothing.
    pub(in crate::world) fn pass(&self) -> Result<(), WorldError> {
        let Some(why) = (self.stopped)() else { return Ok(()) };
        self.closed.store(true, Ordering::Release);
        Err(WorldError::Unreached(format!("not sent, because everything is stopped: {why}")))
    }

    /// The error of a request that the gate ended, if it ended one: nothing of it was sent whole.
    pub(in crate::world) fn ended(&self) -> Option<WorldError> {
        let words = || WorldError::Unreached("not sent, because everything is stopped".to_owned());
        self.was_closed().then(words)
    }

    /// Whether a request was kept back.
    pub fn was_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// A request's body that passes the gate when the connection takes it. A client hands a request to its connection, which may
/// have to be opened first, and to another thread; after this question only the write to the socket is left.
///
/// Invariant: a body whose gate was closed ends in an error before its first byte, so that its request is never whole.
#[derive(Debug)]
pub(in crate::world) struct GatedBody<B> {
    body: B,
    /// Until it was asked.
    gate: Option<KillSwitchGate>,
}

impl<B> GatedBody<B> {
    pub fn new(body: B, gate: Option<KillSwitchGate>) -> GatedBody<B> {
        GatedBody { body, gate }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for GatedBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(Err(error)) = self.gate.take().map(|gate| gate.pass()) {
            return Poll::Ready(Some(Err(error.into())));
        }
        Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.gate.is_none() && self.body.is_end_stream()
    }

    /// Unknown for an empty body until the gate was asked: a client never polls a body of which it knows that it is empty.
    fn size_hint(&self) -> SizeHint {
        match (&self.gate, self.body.size_hint()) {
            (Some(_), size) if size.exact() == Some(0) => SizeHint::default(),
            (_, size) => size,
        }
    }
}

impl std::fmt::Debug for KillSwitchGate {
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
        let gate = KillSwitchGate::new(move || read.lock().unwrap().clone());
        assert!(gate.pass().is_ok() && !gate.was_closed());
        *why.lock().unwrap() = Some("the file /etc/stop exists".to_owned());
        let refused = gate.clone().pass();
        assert!(matches!(&refused, Err(WorldError::Unreached(text)) if text.contains("/etc/stop")), "{refused:?}");
        *why.lock().unwrap() = None;
        assert!(gate.pass().is_ok() && gate.was_closed());
    }

    /// A server that takes connections and never answers; returns what it was sent by the end of each of them.
    async fn silent() -> (String, tokio::sync::mpsc::Receiver<String>) {
        use tokio::io::AsyncReadExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (send, sent) = tokio::sync::mpsc::channel(8);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all).await;
                let _ = send.send(String::from_utf8_lossy(&all).into_owned()).await;
            }
        });
        (url, sent)
    }

    /// The switch that is thrown after it was first asked: while the connection was being opened.
    fn thrown_meanwhile() -> KillSwitchGate {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        KillSwitchGate::new(move || {
            (asked.fetch_add(1, Ordering::Relaxed) > 0).then(|| "the file /etc/stop exists".to_owned())
        })
    }

    #[tokio::test]
    async fn a_switch_that_is_thrown_while_the_connection_is_opened_keeps_the_request_back() {
        crate::world::install_tls();
        let (url, mut sent) = silent().await;
        // A client never polls a body of which it knows that it is empty.
        for body in [serde_json::json!({ "restart": true }), "".into(), serde_json::Value::Null] {
            let gate = thrown_meanwhile();
            let http =
                crate::world::HttpClient::new("nightshift/test", &[format!("private+{url}")]).unwrap().gated(&gate);
            let request = crate::world::HttpRequest {
                method: "POST".to_owned(),
                url: format!("{url}/hook"),
                body,
                ..Default::default()
            };
            let refused = http.send_for_runbook(&request).await;
            assert!(matches!(&refused, Err(WorldError::Unreached(why)) if why.contains("not sent")), "{refused:?}");
            assert!(gate.was_closed());
            let arrived = sent.recv().await.unwrap();
            assert!(!arrived.contains("restart"), "nothing of the body went out");
            assert!(!arrived.contains("content-length: 0") && !arrived.ends_with("0\r\n\r\n"), "not whole: {arrived}");
        }

        let gate = thrown_meanwhile();
        let config = crate::world::KubeConfig { url, ..Default::default() };
        let kube = crate::world::KubeClient::connect(&config, "nightshift/test").await.unwrap().gated(&gate);
        let refused = kube.patch_node("gpu-1", serde_json::json!({ "spec": { "unschedulable": true } }), None).await;
        assert!(matches!(&refused, Err(WorldError::Unreached(why)) if why.contains("not sent")), "{refused:?}");
        assert!(gate.was_closed());
        assert!(!sent.recv().await.unwrap().contains("unschedulable"), "nothing of the body went out");
    }
}
