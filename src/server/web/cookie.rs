//! Our cookies: how one is set, taken back and read.
//!
//! Invariant: where there is TLS, a cookie is for TLS and for this very host alone; one that comes twice is none.

use super::origin::Place;
use crate::limits;
use axum::http::{HeaderMap, header};
use std::time::Duration;

pub(super) struct Cookie {
    name: &'static str,
    lasts: Duration,
}

/// Names a session.
pub(super) const SESSION: Cookie = Cookie { name: "nightshift", lasts: limits::WEB_SESSION };
/// Holds the ticket of a sign-in that was begun.
pub(super) const SIGN_IN: Cookie = Cookie { name: "nightshift-sign-in", lasts: limits::OIDC_SIGN_IN };

impl Cookie {
    /// The header's value that sets it in a browser.
    pub fn set(&self, place: &Place, value: &str) -> String {
        self.line(place, value, self.lasts)
    }

    /// … and the one that takes it back.
    pub fn unset(&self, place: &Place) -> String {
        self.line(place, "", Duration::ZERO)
    }

    fn line(&self, place: &Place, value: &str, lasts: Duration) -> String {
        let (name, age) = (self.name(place), lasts.as_secs());
        let secure = if place.secure { "; Secure" } else { "" };
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}")
    }

    /// Its value; one only, so that nobody can slip in a second one.
    pub fn of(&self, place: &Place, headers: &HeaderMap) -> Option<String> {
        let name = self.name(place);
        let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut found = pairs.filter(|(given, _)| *given == name).map(|(_, value)| value.to_owned());
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    fn name(&self, place: &Place) -> String {
        format!("{}{}", if place.secure { "__Host-" } else { "" }, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Server;

    fn place(url: Option<&str>) -> Place {
        Place::of(&Server { public_url: url.map(str::to_owned), ..Server::default() })
    }

    #[test]
    fn a_cookie_has_the_prefix_where_there_is_tls() {
        let (tls, plain) = (place(Some("https://ns.example")), place(None));
        let rest = "=v; Path=/; HttpOnly; SameSite=Lax; Max-Age=600";
        assert_eq!(SIGN_IN.set(&tls, "v"), format!("__Host-nightshift-sign-in{rest}; Secure"));
        assert_eq!(SIGN_IN.set(&plain, "v"), format!("nightshift-sign-in{rest}"));
        assert_eq!(SIGN_IN.unset(&plain), "nightshift-sign-in=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0");
    }

    #[test]
    fn a_cookie_is_read_by_its_whole_name_and_only_if_it_stands_there_once() {
        let (tls, plain) = (place(Some("https://ns.example")), place(None));
        let read = |place: &Place, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            SESSION.of(place, &headers)
        };
        assert_eq!(read(&plain, &["a=b; nightshift=x; nightshift-sign-in=y"]), Some("x".to_owned()));
        assert_eq!(read(&tls, &["nightshift=x"]), None, "one that a neighbour without TLS may have set");
        assert_eq!(read(&tls, &["nightshift=x; __Host-nightshift=y"]), Some("y".to_owned()));
        assert_eq!(read(&plain, &["nightshift=x; nightshift=x"]), None);
        assert_eq!(read(&plain, &["nightshift=x", "nightshift=z"]), None);
        assert_eq!(read(&plain, &[]), None);
    }
}
