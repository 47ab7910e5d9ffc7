//! The listener: a bounded number of connections, none of which may dawdle, and an end that lets requests finish.
//!
//! Invariant: no connection lives without a permit, and none waits for headers longer than the pace allows; where all places
//! are taken, a stranger's connection gives way to a new one.

use super::rejected::PeerAddress;
use super::seats::{ConnectionSeats, SeatHandle};
use super::{App, Problem};
use crate::config::ListenerConfig;
use crate::limits;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt as _;

/// How long slow clients are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerTimeouts {
    pub headers: Duration,
    pub body: Duration,
    pub shutdown: Duration,
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        ListenerTimeouts {
            headers: limits::HEADER_TIMEOUT,
            body: limits::BODY_TIMEOUT,
            shutdown: limits::SHUTDOWN_GRACE,
        }
    }
}

/// Refuses an address that others can reach unless the configuration declares a TLS proxy before it.
///
/// # Errors
///
/// Fails when `server.listen` is no loopback address and `server.behind_tls` is not set.
pub fn check_listen(server: &ListenerConfig) -> Result<(), String> {
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
///
/// # Errors
///
/// Never fails today; the socket is bound before.
pub async fn serve(app: App, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> std::io::Result<()> {
    let pace = app.pace;
    let metrics = Arc::clone(&app.parts.metrics);
    let router = super::router(app.clone());
    let talk = move |stream, stopped, seat: SeatHandle| {
        let (router, metrics) = (router.clone(), Arc::clone(&metrics));
        async move {
            metrics.connection_opened();
            tokio::select! {
                () = connection(stream, router, pace, stopped, seat.clone()) => {}
                () = seat.must_leave() => tracing::debug!("an unauthenticated connection was closed in favor of a new one"),
            }
            metrics.connection_closed();
        }
    };
    if !accept_seated(listener, limits::CONNECTIONS, pace.shutdown, shutdown, talk).await {
        tracing::warn!("some requests did not finish in time and were cut");
    }
    // Refusals that were only counted so far are written while there is a store to write to.
    app.witness.close(&app).await;
    Ok(())
}

/// Gives each connection to `talk`, at most so many at once, until `shutdown` is done; then signals the live ones to
/// end and waits for them so long. Whether all have ended in time.
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
    let talk = |stream, stopped, seat: SeatHandle| {
        seat.stays();
        talk(stream, stopped)
    };
    accept_seated(listener, most, patience, shutdown, talk).await
}

/// The same where a connection may have to give way, by its seat.
async fn accept_seated<T>(
    listener: TcpListener,
    most: usize,
    patience: Duration,
    shutdown: impl Future<Output = ()> + Send,
    talk: impl Fn(TcpStream, watch::Receiver<()>, SeatHandle) -> T,
) -> bool
where
    T: Future<Output = ()> + Send + 'static,
{
    let seats = ConnectionSeats::new(most);
    let (stop, stopped) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    let mut unaccepted = AcceptFailures::default();
    loop {
        // The connection first: only where there is one must another give way.
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or the client was gone: wait a moment rather than spin.
                unaccepted.count(&error, Instant::now());
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = tokio::select! {
            biased;
            () = &mut shutdown => break,
            place = seats.place() => place,
        };
        let Some(place) = place else { break };
        let _ = stream.set_nodelay(true);
        let held = seats.sit(place, Some(peer.ip()));
        let talking = talk(stream, stopped.clone(), held.seat.clone());
        tokio::spawn(async move {
            talking.await;
            drop(held);
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
struct AcceptFailures {
    count: u64,
    said: Option<Instant>,
}

impl AcceptFailures {
    /// Whether a line was written.
    fn count(&mut self, error: &std::io::Error, now: Instant) -> bool {
        self.count += 1;
        if self.said.is_some_and(|said| now < said + limits::UNACCEPTED_SAID_EVERY) {
            return false;
        }
        let tries = std::mem::take(&mut self.count);
        tracing::warn!(%error, tries, "cannot accept connections; they wait; the usual cause is a lack of file descriptors");
        self.said = Some(now);
        true
    }
}

async fn connection(
    stream: TcpStream,
    router: axum::Router,
    pace: ListenerTimeouts,
    mut stopped: watch::Receiver<()>,
    seat: SeatHandle,
) {
    let peer = stream.peer_addr().ok().map(PeerAddress);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (router, seat) = (router.clone(), seat.clone());
        async move {
            seat.begins();
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(seat.clone());
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            let answer = router.oneshot(request).await;
            seat.ends();
            answer
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(pace.headers)
        .max_headers(limits::HEADERS)
        .max_buf_size(limits::HEADER_BYTES)
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
        // Clients that vanish or dawdle are ordinary; the counters of refusals show them.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// 431 for headers beyond their bound: the buffer that they are read into holds a little more.
pub(super) async fn bounded_headers(request: Request, next: Next) -> Response {
    let of_headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let of_line = request.uri().path_and_query().map_or(0, |line| line.as_str().len());
    if of_headers + of_line <= limits::HEADER_BYTES {
        return next.run(request).await;
    }
    let error = format!("the headers are longer than {} KiB", limits::HEADER_BYTES / 1024);
    let hint = "send fewer or shorter headers; cookies are headers, too";
    Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, error, hint).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_descriptors_is_one_line_with_a_count_and_not_twenty_a_second() {
        let (mut unaccepted, began) = (AcceptFailures::default(), Instant::now());
        let error = std::io::Error::from_raw_os_error(24);
        let lines = (0..1_000).filter(|at| unaccepted.count(&error, began + Duration::from_millis(50 * at))).count();
        assert_eq!(lines, 5, "fifty seconds, one line in ten");
    }

    #[test]
    fn an_address_that_others_can_reach_needs_tls_before_it() {
        let check = |listen: &str, behind_tls: bool| {
            check_listen(&ListenerConfig { listen: listen.parse().unwrap(), behind_tls, ..ListenerConfig::default() })
        };
        assert!(check("127.0.0.1:7676", false).is_ok());
        assert!(check("[::1]:7676", false).is_ok());
        assert!(check("0.0.0.0:7676", true).is_ok());
        for open in ["0.0.0.0:7676", "[::]:7676", "10.0.0.1:80", "[::ffff:10.0.0.1]:80"] {
            assert!(check(open, false).unwrap_err().contains("behind_tls"), "{open}");
        }
    }
}
