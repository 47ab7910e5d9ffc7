//! What a browser carries from the beginning of a sign-in to its end: sealed, so that it can neither be read nor made.
//!
//! Invariant: a ticket ends one sign-in, in the browser where it began, within ten minutes; a restart voids them all.

use crate::limits;
use crate::model::Time;
use crate::server::auth::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub state: String,
    pub nonce: String,
    /// PKCE's.
    pub verifier: String,
    /// Where the person wanted to go.
    pub to: String,
    pub until: Time,
}

/// Seals tickets, and remembers which have been used.
pub(super) struct Tickets {
    key: LessSafeKey,
    used: Mutex<HashMap<[u8; 32], Time>>,
}

impl Default for Tickets {
    fn default() -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &random::<32>()).expect("an AES-256 key has 32 bytes");
        Tickets { key: LessSafeKey::new(key), used: Mutex::default() }
    }
}

impl Tickets {
    pub fn seal(&self, ticket: &Ticket) -> String {
        let nonce = random::<NONCE_LEN>();
        let mut bytes = serde_json::to_vec(ticket).expect("a ticket is made of texts and a time");
        let sealed = self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes);
        sealed.expect("a ticket is far below what AES-GCM seals");
        URL_SAFE_NO_PAD.encode([nonce.as_slice(), &bytes].concat())
    }

    /// The ticket, the first time that it is shown.
    pub fn redeem(&self, text: &str, state: &str, now: Time) -> Option<Ticket> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
        let ticket: Ticket = serde_json::from_slice(plain).ok()?;
        let same = bool::from(subtle::ConstantTimeEq::ct_eq(ticket.state.as_bytes(), state.as_bytes()));
        (same && now < ticket.until && self.first_use(&ticket, now)).then_some(ticket)
    }

    fn first_use(&self, ticket: &Ticket, now: Time) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, until| now < *until);
        // Full: nobody signs in for a while, rather than one ticket twice.
        used.len() < limits::OIDC_TICKETS && used.insert(digest(&ticket.state), ticket.until).is_none()
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes once it has started");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_taken_once_in_time_and_only_as_we_sealed_it() {
        let (tickets, others) = (Tickets::default(), Tickets::default());
        let now: Time = "2026-11-23T03:00:00Z".parse().unwrap();
        let until = now + std::time::Duration::from_secs(600);
        let word = |word: &str| word.to_owned();
        let ticket = Ticket { state: word("s"), nonce: word("n"), verifier: word("v"), to: word("/"), until };
        let sealed = tickets.seal(&ticket);
        assert!(!sealed.contains("verifier"));
        assert_eq!(tickets.redeem(&sealed, "other", now), None);
        assert_eq!(others.redeem(&sealed, "s", now), None, "another process, or the same after a restart");
        assert_eq!(tickets.redeem(&sealed, "s", until), None);
        let mut forged = sealed.clone().into_bytes();
        forged[20] ^= 1;
        assert_eq!(tickets.redeem(&String::from_utf8(forged).unwrap(), "s", now), None);
        assert_eq!(tickets.redeem("", "s", now), None);
        assert_eq!(tickets.redeem(&sealed, "s", now), Some(ticket));
        assert_eq!(tickets.redeem(&sealed, "s", now), None, "twice");
    }
}
