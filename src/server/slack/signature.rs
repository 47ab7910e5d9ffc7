//! Slack's signature: HMAC-SHA256 over version, time and the raw body; each one opens the door once.
//!
//! Invariant: compared in constant time, within five minutes of our clock, and never twice.

use crate::limits;
use crate::model::Time;
use crate::server::auth::digest;
use crate::server::{Problem, signed};
use axum::http::{HeaderMap, StatusCode};
use ring::hmac;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, RwLock};

/// The key (and the hash of its secret), with the signatures that it has seen lately.
#[derive(Debug)]
pub(super) struct SlackSignature {
    key: RwLock<(hmac::Key, [u8; 32])>,
    seen: Mutex<VecDeque<(i64, Vec<u8>)>>,
}

impl SlackSignature {
    pub(super) fn new(secret: &str) -> SlackSignature {
        SlackSignature { key: RwLock::new((signed::key(secret), digest(secret))), seen: Mutex::default() }
    }

    /// From now on this secret signs; whether it is another one.
    pub(super) fn renew(&self, secret: &str) -> bool {
        let next = (signed::key(secret), digest(secret));
        let mut key = self.key.write().unwrap_or_else(PoisonError::into_inner);
        let other = key.1 != next.1;
        *key = next;
        other
    }

    /// The headers' claims: when it was signed, and the signature. A claim that cannot hold for any body needs no
    /// reading of it.
    pub(super) fn claims(&self, headers: &HeaderMap, now: Time) -> Result<(i64, String, Vec<u8>), Problem> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let stamp = text("x-slack-request-timestamp").unwrap_or_default();
        let at: i64 = stamp.parse().map_err(|_| refused("it carries no time"))?;
        if now.as_second().abs_diff(at) > limits::SLACK_SKEW.as_secs() {
            return Err(refused("its time is more than five minutes from ours"));
        }
        let signature = text("x-slack-signature").and_then(|text| text.strip_prefix("v0=")).and_then(signed::bytes);
        let signature = signature.ok_or_else(|| refused("it carries no signature"))?;
        Ok((at, stamp.to_owned(), signature))
    }

    /// Accepts requests that Slack has signed just now.
    pub(super) fn check(&self, headers: &HeaderMap, body: &[u8], now: Time) -> Result<(), Problem> {
        let (at, stamp, signature) = self.claims(headers, now)?;
        let mut signed = Vec::with_capacity(body.len() + 32);
        signed.extend_from_slice(b"v0:");
        signed.extend_from_slice(stamp.as_bytes());
        signed.push(b':');
        signed.extend_from_slice(body);
        let key = self.key.read().unwrap_or_else(PoisonError::into_inner).0.clone();
        hmac::verify(&key, &signed, &signature).map_err(|_| refused("its signature is not Slack's"))?;
        self.once(at, signature, now)
    }

    /// A request that was seen before is a replayed copy.
    fn once(&self, at: i64, signature: Vec<u8>, now: Time) -> Result<(), Problem> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let old = now.as_second() - limits::SLACK_SKEW.as_secs() as i64;
        seen.retain(|(at, _)| *at >= old);
        if seen.iter().any(|(_, other)| *other == signature) {
            return Err(refused("it was sent before"));
        }
        if seen.len() >= limits::SLACK_SEEN {
            return Err(Problem::busy("too many requests from Slack within five minutes"));
        }
        seen.push_back((at, signature));
        Ok(())
    }
}

fn refused(why: &str) -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        format!("this request is not from Slack: {why}"),
        "check `slack.signing_secret`, and that no proxy changes the body",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Slack's own documentation.
    const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    const BODY: &[u8] = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const STAMP: &str = "1531420618";
    const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

    fn door() -> SlackSignature {
        SlackSignature::new(SECRET)
    }

    fn headers(stamp: &str, signature: &str) -> HeaderMap {
        [("x-slack-request-timestamp", stamp), ("x-slack-signature", signature)]
            .into_iter()
            .map(|(name, value)| (name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn at(second: i64) -> Time {
        Time::from_second(second).unwrap()
    }

    #[test]
    fn the_example_of_slacks_documentation_opens_the_door_once() {
        let door = door();
        let headers = headers(STAMP, SIGNATURE);
        assert!(door.check(&headers, BODY, at(1_531_420_618)).is_ok());
        let again = door.check(&headers, BODY, at(1_531_420_619)).unwrap_err();
        assert!(again.error.contains("sent before"), "{}", again.error);
    }

    #[test]
    fn forged_late_early_truncated_and_changed_requests_stay_outside() {
        let now = at(1_531_420_618);
        let check = |headers: &HeaderMap, body: &[u8], now: Time| door().check(headers, body, now).unwrap_err().status;
        let good = headers(STAMP, SIGNATURE);
        assert_eq!(check(&good, BODY, at(1_531_420_618 + 301)), StatusCode::UNAUTHORIZED);
        assert_eq!(check(&good, BODY, at(1_531_420_618 - 301)), StatusCode::UNAUTHORIZED);
        assert_eq!(check(&good, &BODY[1..], now), StatusCode::UNAUTHORIZED);
        assert_eq!(check(&HeaderMap::new(), BODY, now), StatusCode::UNAUTHORIZED);
        for (stamp, signature) in [
            ("soon", SIGNATURE),
            ("", SIGNATURE),
            (STAMP, ""),
            (STAMP, "v0="),
            (STAMP, &SIGNATURE[..60]),
            (STAMP, &SIGNATURE[3..]),
            (STAMP, "v0=b2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
            (STAMP, "v0=ééééééééééééééééééééééééééééééééé"),
            ("1531420619", SIGNATURE),
        ] {
            let mut all = HeaderMap::new();
            if let Ok(value) = stamp.parse() {
                all.insert("x-slack-request-timestamp", value);
            }
            if let Ok(value) = axum::http::HeaderValue::from_bytes(signature.as_bytes()) {
                all.insert("x-slack-signature", value);
            }
            assert_eq!(check(&all, BODY, now), StatusCode::UNAUTHORIZED, "{stamp} {signature}");
        }
    }
}
