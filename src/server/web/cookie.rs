//! Our cookies: how one is set, removed and read.
//!
//! Invariant: where there is TLS, a cookie is for TLS and for this very host alone; another one beside it
//! neither replaces it nor hides it.

use super::origin::PageOrigins;
use crate::limits;
use axum::http::{HeaderMap, header};
use std::borrow::Cow;
use std::time::Duration;

pub(super) struct Cookie {
    name: Cow<'static, str>,
    lasts: Duration,
}

/// Names a session.
pub(super) const SESSION: Cookie = Cookie { name: Cow::Borrowed("nightshift"), lasts: limits::WEB_SESSION };
/// How the names of cookies begin that hold the ticket of a sign-in that was begun.
const SIGN_IN: &str = "nightshift-sign-in-";
/// So many letters of a sign-in's state are in the name of its cookie.
const STATE_LETTERS: usize = 8;

impl Cookie {
    /// Holds the ticket of the sign-in with this state: each tab has its own.
    pub fn sign_in(state: &str) -> Cookie {
        let letters = state.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let piece: String = letters.take(STATE_LETTERS).map(char::from).collect();
        Cookie { name: Cow::Owned(format!("{SIGN_IN}{piece}")), lasts: limits::OIDC_SIGN_IN }
    }

    /// Every sign-in that this browser has begun, with its ticket.
    pub fn sign_ins(place: &PageOrigins, headers: &HeaderMap) -> Vec<(Cookie, String)> {
        let start = Cookie { name: Cow::Borrowed(SIGN_IN), lasts: limits::OIDC_SIGN_IN }.name(place);
        let begun = pairs(headers).filter_map(|(name, value)| Some((name.strip_prefix(&start)?, value)));
        begun.map(|(piece, value)| (Cookie::sign_in(piece), value.to_owned())).collect()
    }

    /// The header's value that sets it in a browser.
    pub fn set(&self, place: &PageOrigins, value: &str) -> String {
        self.line(place, value, self.lasts)
    }

    /// … and the one that removes it.
    pub fn unset(&self, place: &PageOrigins) -> String {
        self.line(place, "", Duration::ZERO)
    }

    fn line(&self, place: &PageOrigins, value: &str, lasts: Duration) -> String {
        let (name, age) = (self.name(place), lasts.as_secs());
        let secure = if place.secure { "; Secure" } else { "" };
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}")
    }

    /// Its values, a few at most: in plain HTTP any port of this host may put another one beside ours, so each is tried.
    pub fn all(&self, place: &PageOrigins, headers: &HeaderMap) -> Vec<String> {
        let name = self.name(place);
        let ours = pairs(headers).filter(|(given, _)| *given == name);
        ours.map(|(_, value)| value.to_owned()).take(limits::WEB_COOKIES).collect()
    }

    fn name(&self, place: &PageOrigins) -> String {
        format!("{}{}", if place.secure { "__Host-" } else { "" }, self.name)
    }
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenerConfig;

    fn place(url: Option<&str>) -> PageOrigins {
        PageOrigins::of(&ListenerConfig { public_url: url.map(str::to_owned), ..ListenerConfig::default() })
    }

    #[test]
    fn a_cookie_has_the_prefix_where_there_is_tls() {
        let (tls, plain) = (place(Some("https://ns.example")), place(None));
        let rest = "=v; Path=/; HttpOnly; SameSite=Lax; Max-Age=600";
        let tab = Cookie::sign_in("AbCd-123456");
        assert_eq!(tab.set(&tls, "v"), format!("__Host-nightshift-sign-in-AbCd-123{rest}; Secure"));
        assert_eq!(tab.set(&plain, "v"), format!("nightshift-sign-in-AbCd-123{rest}"));
        assert_eq!(tab.unset(&plain), "nightshift-sign-in-AbCd-123=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0");
    }

    #[test]
    fn a_cookie_is_read_by_its_whole_name_and_another_one_beside_it_does_not_hide_it() {
        let (tls, plain) = (place(Some("https://ns.example")), place(None));
        let headers = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            headers
        };
        let read = |place: &PageOrigins, lines: &[&str]| SESSION.all(place, &headers(lines));
        assert_eq!(read(&plain, &["a=b; nightshift=x; nightshift-sign-in-1=y"]), ["x"]);
        assert!(read(&tls, &["nightshift=x"]).is_empty(), "one that a neighbor without TLS may have set");
        assert_eq!(read(&tls, &["nightshift=x; __Host-nightshift=y"]), ["y"]);
        assert_eq!(read(&plain, &["nightshift=x; nightshift=y"]), ["x", "y"]);
        assert_eq!(read(&plain, &["nightshift=x", "nightshift=z"]), ["x", "z"]);
        assert!(read(&plain, &[]).is_empty());
        let many = vec!["nightshift=x"; 100];
        assert_eq!(read(&plain, &many).len(), limits::WEB_COOKIES);
        let begun =
            Cookie::sign_ins(&plain, &headers(&["nightshift-sign-in-ab=1; nightshift-sign-in-cd=2; nightshift=3"]));
        let begun: Vec<(String, String)> =
            begun.into_iter().map(|(cookie, ticket)| (cookie.name(&plain), ticket)).collect();
        let expect = [("nightshift-sign-in-ab", "1"), ("nightshift-sign-in-cd", "2")];
        assert_eq!(begun, expect.map(|(name, ticket)| (name.to_owned(), ticket.to_owned())));
    }
}
