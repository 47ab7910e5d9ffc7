//! The listener: a bounded number of connections, none of which may dawdle, and an end that lets requests finish.
//!
//! Invariant: no connection lives without a permit, and none waits for headers longer than the pace allows.

use super::App;
use super::rejected::Peer;
use crate::config::Server;
use crate::limits;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

/// How long slow clients are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub headers: Duration,
    pub body: Duration,
    pub shutdown: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { headers: limits::HEADER_TIMEOUT, body: limits::BODY_TIMEOUT, shutdown: limits::SHUTDOWN_GRACE }
    }
}

/// Refuses an address that others can reach unless the configuration says that a TLS proxy stands before it.
pub fn check_listen(server: &Server) -> Result<(), String> {
    if server.listen.ip().is_loopback() || server.behind_tls {
        return Ok(());
    }
    Err(format!(
        "`server.listen: {}` can be reached from outside, and tokens would travel in the clear: \
         listen on 127.0.0.1, or put a TLS proxy before it and set `server.behind_tls: true`",
        server.listen
    ))
}

/// Serves until `shutdown` is done, then lets requests under way end for as long as the pace allows.
pub async fn serve(app: App, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> std::io::Result<()> {
    let pace = app.pace;
    let metrics = Arc::clone(&app.parts.metrics);
    let router = super::router(app.clone());
    let talk = move |stream, stopped| {
        let (router, metrics) = (router.clone(), Arc::clone(&metrics));
        async move {
            metrics.connection_opened();
            connection(stream, router, pace, stopped).await;
            metrics.connection_closed();
        }
    };
    if !accept(listener, limits::CONNECTIONS, pace.shutdown, shutdown, talk).await {
        tracing::warn!("some requests did not end in time and were cut");
    }
    // What was only counted so far is told while there is a store to tell it to.
    app.witness.close(&app).await;
    Ok(())
}

/// Gives each connection to `talk`, at most so many at once, until `shutdown` is done; then tells those that live to end and
/// waits for them so long. Whether all have ended in time.
pub(super) async fn accept<T>(
    listener: TcpListener,
    most: usize,
    patience: Duration,
    shutdown: impl Future<Output = ()> + Send,
    talk: impl Fn(TcpStream, watch::Receiver<()>) -> T,
) -> bool
where
    T: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    let (stop, stopped) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    let mut unaccepted = Unaccepted::default();
    loop {
        // A place first, then a connection: those beyond the bound wait in the kernel's queue.
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        let Ok(place) = place else { break };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or the client was gone: wait a moment rather than spin.
                unaccepted.count(&error, Instant::now());
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let talking = talk(stream, stopped.clone());
        tokio::spawn(async move {
            talking.await;
            drop(place);
        });
    }
    drop(stopped);
    drop(listener);
    let _ = stop.send(());
    // Every connection task holds a receiver, so this ends when the last one has.
    tokio::time::timeout(patience, stop.closed()).await.is_ok()
}

/// Connections that could not be accepted: one line for the first, and then a count once in a while.
#[derive(Default)]
struct Unaccepted {
    count: u64,
    said: Option<Instant>,
}

impl Unaccepted {
    /// Whether a line was written.
    fn count(&mut self, error: &std::io::Error, now: Instant) -> bool {
        self.count += 1;
        if self.said.is_some_and(|said| now < said + limits::UNACCEPTED_SAID_EVERY) {
            return false;
        }
        let tries = std::mem::take(&mut self.count);
        tracing::warn!(%error, tries, "connections could not be accepted; they wait; out of file descriptors is the usual reason");
        self.said = Some(now);
        true
    }
}

async fn connection(stream: TcpStream, router: axum::Router, pace: Pace, mut stopped: watch::Receiver<()>) {
    let peer = stream.peer_addr().ok().map(Peer);
    let service =
        TowerToHyperService::new(router.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            request.map(axum::body::Body::new)
        }));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(pace.headers)
        .max_headers(limits::HEADERS)
        .max_buf_size(limits::HEADER_BYTES.max(64 * 1024))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients that vanish or dawdle are ordinary; the counters of refusals tell the story.
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_descriptors_is_one_line_with_a_count_and_not_twenty_a_second() {
        let (mut unaccepted, began) = (Unaccepted::default(), Instant::now());
        let error = std::io::Error::from_raw_os_error(24);
        let lines = (0..1_000).filter(|at| unaccepted.count(&error, began + Duration::from_millis(50 * at))).count();
        assert_eq!(lines, 5, "fifty seconds, one line in ten");
    }

    #[test]
    fn an_address_that_others_can_reach_needs_tls_before_it() {
        let check = |listen: &str, behind_tls: bool| {
            check_listen(&Server { listen: listen.parse().unwrap(), behind_tls, ..Server::default() })
        };
        assert!(check("127.0.0.1:7676", false).is_ok());
        assert!(check("[::1]:7676", false).is_ok());
        assert!(check("0.0.0.0:7676", true).is_ok());
        for open in ["0.0.0.0:7676", "[::]:7676", "10.0.0.1:80", "[::ffff:10.0.0.1]:80"] {
            assert!(check(open, false).unwrap_err().contains("behind_tls"), "{open}");
        }
    }
}
