//! The TLS provider of the process, and HTTP clients that start on a system without CA certificates.
//!
//! Invariant: one provider, ring, whatever the order of start-up.

use std::sync::atomic::{AtomicBool, Ordering};

/// How to have CA certificates, where there are none.
pub const NO_AUTHORITIES: &str = "this system has no CA certificates: install the package ca-certificates, or set \
                                  SSL_CERT_FILE";
static HAS_NO_AUTHORITIES: AtomicBool = AtomicBool::new(false);

/// Makes ring the TLS provider of the process. Each client calls it, so that no order of start-up matters.
pub fn install_tls() {
    // An error means that a provider is installed already, which is all that is needed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The client that `make` describes. An image without CA certificates is no reason not to start: plain HTTP needs none, and
/// HTTPS then trusts no authority, and its errors have the reason.
///
/// # Errors
/// Fails with the client's own error, where it is not for want of CA certificates.
pub fn client(make: impl Fn() -> reqwest::ClientBuilder) -> Result<reqwest::Client, reqwest::Error> {
    let first = match make().build() {
        Ok(client) => return Ok(client),
        Err(error) => error,
    };
    // With authorities of its own it reads none of the system's; any other error stays an error.
    let client = make().tls_certs_only([]).build().map_err(|_| first)?;
    if !HAS_NO_AUTHORITIES.swap(true, Ordering::Relaxed) {
        tracing::warn!("{NO_AUTHORITIES}; until then no https:// address is trusted");
    }
    Ok(client)
}

/// Whether a client was built without CA certificates, for want of them.
pub fn has_no_authorities() -> bool {
    HAS_NO_AUTHORITIES.load(Ordering::Relaxed)
}
