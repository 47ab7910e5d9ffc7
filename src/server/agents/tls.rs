//! The listener for agents: TLS 1.3, HTTP/2 or 1.1, client certificates of our own authority looked at where they are shown.
//!
//! Invariant: no connection lives without a permit, none dawdles in its handshake, and nothing but `/agent/v1` is behind it.

use super::authority::AgentAuthority;
use super::who::{AgentCertificate, PeerCertificate, UnprovenPeer};
use crate::config::AgentsConfig;
use crate::limits;
use crate::model::{AgentName, Time};
use crate::server::listen::accept;
use crate::server::{App, problem, rejected};
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// The TLS settings of the agents' listener.
///
/// # Errors
///
/// Fails when a file cannot be read, a certificate cannot be made, or certificate and key do not fit; the message has
/// the fix.
pub fn listen(config: &AgentsConfig, authority: &AgentAuthority, now: Time) -> Result<TlsAcceptor, String> {
    crate::world::install_tls();
    let (certificate, key) = match (&config.cert_file, &config.key_file) {
        (Some(certificate), Some(key)) => {
            let read = |path: &std::path::Path| {
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
            };
            (read(certificate)?, read(key)?)
        }
        (None, None) => {
            let own = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
            let address =
                config.listen.map(|listen| listen.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
            let names: Vec<String> =
                config.names.iter().cloned().chain(own).chain(address.map(|ip| ip.to_string())).collect();
            authority.door(&names, now)?
        }
        _ => return Err("`agents.cert_file` and `agents.key_file` go together".to_owned()),
    };
    let wrong = |error: &dyn std::fmt::Display| format!("agent listener: {error}");
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| wrong(&error))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.der().to_vec())).map_err(|error| wrong(&error))?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
    let verifier = verifier.map_err(|error| wrong(&error))?;
    let mut tls = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&error))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

/// Serves agents until `shutdown` is done.
///
/// # Errors
///
/// Never fails today; the socket is bound before.
pub async fn serve(
    app: App,
    listener: TcpListener,
    tls: TlsAcceptor,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let router = Router::new()
        .merge(super::routes())
        .merge(super::join_route())
        .fallback(problem::no_such_page)
        .layer(axum::middleware::from_fn(problem::harden))
        .layer(axum::middleware::from_fn_with_state(app.clone(), rejected::watch))
        .with_state(app);
    let strangers = Arc::new(Semaphore::new(limits::AGENT_STRANGERS));
    let talk = move |stream, stopped| connection(stream, tls.clone(), router.clone(), Arc::clone(&strangers), stopped);
    // Long polls need not end: their answers are requested again.
    accept(listener, limits::AGENT_CONNECTIONS, limits::SHUTDOWN_SIGN, shutdown, talk).await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    tls: TlsAcceptor,
    router: Router,
    strangers: Arc<Semaphore>,
    mut stopped: watch::Receiver<()>,
) {
    let stream = match tokio::time::timeout(limits::HEADER_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake at the agent listener failed"),
        Err(_) => return tracing::debug!("TLS handshake with an agent timed out"),
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(shown);
    let stranger = match (&shown, strangers.try_acquire_owned()) {
        (Some(_), _) => UnprovenPeer::default(),
        (None, Ok(place)) => UnprovenPeer::holding(place),
        (None, Err(_)) => return tracing::debug!("too many connections have shown no certificate; this one is closed"),
    };
    let (peer, proving) = (PeerCertificate(shown), stranger.clone());
    let service = TowerToHyperService::new(router.map_request(move |request: http::Request<hyper::body::Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(proving.clone());
        request
    }));
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits::HEADER_TIMEOUT).max_headers(limits::HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::AGENT_STREAMS)
        .max_header_list_size(limits::HEADER_BYTES as u32)
        .keep_alive_interval(limits::AGENT_POLL)
        .keep_alive_timeout(limits::HTTP_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stranger.overdue() => return tracing::debug!("connection closed: no certificate and no authentication in time"),
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an agent's connection ended early");
    }
}

/// Node, cluster and family of a certificate that the handshake has verified.
fn shown(der: &CertificateDer<'_>) -> Option<AgentCertificate> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let node = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    // Certificates from before generations were counted have the family alone.
    let word = subject.iter_organizational_unit().next()?.as_str().ok()?;
    let (family, generation) = word.split_once('.').unwrap_or((word, "0"));
    let (family, generation) = (family.to_owned(), generation.parse().ok()?);
    let cluster = subject.iter_organization().next().map_or(Ok(""), |name| name.as_str()).ok()?;
    Some(AgentCertificate { name: AgentName::new(cluster, &node), family, generation })
}
