//! Where the pages stand, as browsers see it, and whether a form was sent from there.
//!
//! Invariant: a form from anywhere else, or from an origin that the browser does not name, changes nothing.

use crate::config::ListenerConfig;
use crate::server::Problem;
use axum::http::{HeaderMap, StatusCode, header};
use url::{Host, Url};

/// The addresses under which users may use the pages.
pub(super) struct PageOrigins {
    origins: Vec<String>,
    /// Whether cookies are for TLS alone.
    pub secure: bool,
}

impl PageOrigins {
    /// The addresses of the pages: `server.public_url`, and this machine's own.
    pub fn of(server: &ListenerConfig) -> PageOrigins {
        let public = server.public_url.as_deref().and_then(|text| Url::parse(text).ok());
        // In the clear, a cookie is for this machine alone.
        let public = public.filter(|url| url.scheme() == "https" || is_loopback(url) || is_own_name(url));
        let secure = public.as_ref().is_some_and(|url| url.scheme() == "https");
        let mut origins: Vec<String> = public.iter().map(|url| url.origin().ascii_serialization()).collect();
        if server.listen.ip().is_loopback() {
            let port = server.listen.port();
            origins.extend(["127.0.0.1", "localhost", "[::1]"].map(|host| format!("http://{host}:{port}")));
        }
        PageOrigins { origins, secure }
    }

    /// Requires that one of our own pages sent this.
    ///
    /// # Errors
    ///
    /// Fails with 403 unless the browser's headers prove it.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let ours = match (origins.next(), origins.next()) {
            (Some(origin), None) => self.origins.iter().any(|ours| ours.as_bytes() == origin.as_bytes()),
            _ => false,
        };
        if ours && site.is_none_or(|site| site == b"same-origin") {
            return Ok(());
        }
        let hint = match self.origins.first() {
            Some(first) => format!("open {first} and use the form there; `server.public_url` says where the pages are"),
            None => {
                "set `server.public_url: https://…` in nightshift.yaml: without it our own pages cannot be recognized"
                    .to_owned()
            }
        };
        Err(Problem::new(StatusCode::FORBIDDEN, "this form was not sent from one of our pages", hint))
    }
}

/// A name under `localhost`: browsers lead it to their own machine, and keep cookies for it apart from those for
/// `127.0.0.1`. Nothing is sent there by us.
fn is_own_name(url: &Url) -> bool {
    matches!(url.host(), Some(Host::Domain(name)) if name.ends_with(".localhost"))
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(server: &ListenerConfig, headers: &[(&'static str, &str)]) -> bool {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(*name, value.parse().unwrap());
        }
        PageOrigins::of(server).check(&all).is_ok()
    }

    #[test]
    fn a_form_is_taken_only_from_our_own_address() {
        let public = ListenerConfig { public_url: Some("https://ns.example/x".into()), ..ListenerConfig::default() };
        assert!(PageOrigins::of(&public).secure);
        assert!(checks(&public, &[("origin", "https://ns.example")]));
        assert!(checks(&public, &[("origin", "https://ns.example"), ("sec-fetch-site", "same-origin")]));
        assert!(checks(&public, &[("origin", "http://localhost:7676")]), "through a tunnel to this machine");
        for foreign in ["null", "http://ns.example", "https://ns.example:444", "https://evil.ns.example", "https://e.x"]
        {
            assert!(!checks(&public, &[("origin", foreign)]), "{foreign}");
        }
        for site in ["cross-site", "same-site", "none"] {
            assert!(!checks(&public, &[("origin", "https://ns.example"), ("sec-fetch-site", site)]), "{site}");
        }
        assert!(!checks(&public, &[]), "a browser always says where a form comes from");
        assert!(!checks(&public, &[("origin", "https://ns.example"), ("origin", "https://e.x")]));
    }

    #[test]
    fn in_the_clear_only_this_machine_is_served() {
        let open = |url: Option<&str>| ListenerConfig {
            listen: "0.0.0.0:7676".parse().unwrap(),
            behind_tls: true,
            public_url: url.map(str::to_owned),
            ..ListenerConfig::default()
        };
        assert!(!checks(&open(Some("http://ns.example")), &[("origin", "http://ns.example")]));
        assert!(!checks(&open(None), &[("origin", "http://127.0.0.1:7676")]));
        assert!(checks(&open(Some("http://localhost:7676")), &[("origin", "http://localhost:7676")]));
        let named = "http://nightshift.localhost:7676";
        assert!(checks(&open(Some(named)), &[("origin", named)]));
        assert!(!checks(&open(Some("http://localhost.example:7676")), &[("origin", "http://localhost.example:7676")]));
        assert!(!PageOrigins::of(&open(Some("http://localhost:7676"))).secure);
    }
}
