//! A browser's state from the beginning of a sign-in to its end: sealed, so that it can neither be read nor made.
//!
//! Invariant: a ticket ends one sign-in, in the browser where it began, within ten minutes; a restart voids them all.
//! Tickets of strangers take no place from those with which users have signed in, and block none.

use crate::limits;
use crate::model::Time;
use crate::server::auth::digest;
use crate::server::secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SignInTicket {
    pub state: String,
    pub nonce: String,
    /// PKCE's.
    pub verifier: String,
    /// The page that the user requested.
    pub to: String,
    pub until: Time,
}

/// A new state. It also holds the requested page, for when the ticket is void by the time the user comes back.
pub(super) fn state(to: &str) -> String {
    format!("{}.{}", secret::text::<32>(), URL_SAFE_NO_PAD.encode(to))
}

/// The page in a state. A state can be forged: it is good for a page of ours alone.
pub(super) fn wish(state: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(state.split_once('.')?.1).ok()?).ok()
}

/// Seals tickets, and remembers the used ones.
pub(super) struct TicketSealer {
    key: LessSafeKey,
    /// A code was sent to the provider for these …
    tried: Mutex<TicketMarks>,
    /// … and these it took.
    ended: Mutex<TicketMarks>,
}

/// Tickets that something was done with, until they are void anyway.
#[derive(Default)]
struct TicketMarks(HashMap<[u8; 32], Time>);

impl TicketMarks {
    /// Whether it happens for the first time. The oldest is forgotten rather than a new one refused: any stranger can
    /// begin a sign-in and come back with nonsense, and a code that was taken once the provider itself takes no second
    /// time.
    fn first(&mut self, ticket: &SignInTicket, now: Time) -> bool {
        let TicketMarks(all) = self;
        all.retain(|_, until| now < *until);
        let name = digest(&ticket.state);
        if all.contains_key(&name) {
            return false;
        }
        if all.len() >= limits::OIDC_TICKETS
            && let Some(oldest) = all.iter().min_by_key(|(_, until)| **until).map(|(name, _)| *name)
        {
            all.remove(&oldest);
        }
        all.insert(name, ticket.until).is_none()
    }
}

impl Default for TicketSealer {
    fn default() -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &secret::bytes::<32>()).expect("an AES-256 key has 32 bytes");
        TicketSealer { key: LessSafeKey::new(key), tried: Mutex::default(), ended: Mutex::default() }
    }
}

impl TicketSealer {
    /// Seals a ticket for a cookie.
    pub fn seal(&self, ticket: &SignInTicket) -> String {
        let nonce = secret::bytes::<NONCE_LEN>();
        let mut bytes = serde_json::to_vec(ticket).expect("a ticket is made of texts and a time");
        let sealed = self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes);
        sealed.expect("a ticket is far below what AES-GCM seals");
        URL_SAFE_NO_PAD.encode([nonce.as_slice(), &bytes].concat())
    }

    /// The ticket, where it is one of ours, of this sign-in, and in time. That it is shown changes nothing yet.
    pub fn open(&self, text: &str, state: &str, now: Time) -> Option<SignInTicket> {
        let ticket = self.unsealed(text, now)?;
        bool::from(subtle::ConstantTimeEq::ct_eq(ticket.state.as_bytes(), state.as_bytes())).then_some(ticket)
    }

    /// When one of our tickets becomes void; none where already in that state.
    pub fn until(&self, text: &str, now: Time) -> Option<Time> {
        self.unsealed(text, now).map(|ticket| ticket.until)
    }

    fn unsealed(&self, text: &str, now: Time) -> Option<SignInTicket> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
        let ticket: SignInTicket = serde_json::from_slice(plain).ok()?;
        (now < ticket.until).then_some(ticket)
    }

    /// Whether a code may be sent to the provider for it: once, and not beside itself.
    pub fn may_try(&self, ticket: &SignInTicket, now: Time) -> bool {
        let ended = lock(&self.ended).0.contains_key(&digest(&ticket.state));
        !ended && lock(&self.tried).first(ticket, now)
    }

    /// The provider took its code: whether a user signs in by it now, for the first and last time.
    pub fn end(&self, ticket: &SignInTicket, now: Time) -> bool {
        lock(&self.ended).first(ticket, now)
    }
}

fn lock(marks: &Mutex<TicketMarks>) -> MutexGuard<'_, TicketMarks> {
    marks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-23T03:00:00Z";

    fn ticket(state: &str, until: Time) -> SignInTicket {
        let word = |word: &str| word.to_owned();
        SignInTicket { state: word(state), nonce: word("n"), verifier: word("v"), to: word("/"), until }
    }

    #[test]
    fn a_ticket_is_taken_once_in_time_and_only_as_we_sealed_it() {
        let (tickets, others) = (TicketSealer::default(), TicketSealer::default());
        let now: Time = NOW.parse().unwrap();
        let until = now + limits::OIDC_SIGN_IN;
        let ticket = ticket("s", until);
        let sealed = tickets.seal(&ticket);
        assert!(!sealed.contains("verifier"));
        assert_eq!(tickets.open(&sealed, "other", now), None);
        assert_eq!(others.open(&sealed, "s", now), None, "another process, or the same after a restart");
        assert_eq!(tickets.open(&sealed, "s", until), None);
        let mut forged = sealed.clone().into_bytes();
        forged[20] ^= 1;
        assert_eq!(tickets.open(&String::from_utf8(forged).unwrap(), "s", now), None);
        assert_eq!(tickets.open("", "s", now), None);
        assert_eq!(tickets.open(&sealed, "s", now), Some(ticket.clone()));
        assert!(tickets.may_try(&ticket, now));
        assert!(!tickets.may_try(&ticket, now), "a second code, or the same in the same moment");
        assert!(tickets.end(&ticket, now));
        assert!(!tickets.end(&ticket, now), "twice");
    }

    #[test]
    fn strangers_with_nonsense_keep_nobody_out_and_bring_no_used_ticket_back() {
        let tickets = TicketSealer::default();
        let now: Time = NOW.parse().unwrap();
        let until = now + limits::OIDC_SIGN_IN;
        let ann = ticket("ann", now + limits::OIDC_SIGN_IN / 2);
        assert!(tickets.may_try(&ann, now) && tickets.end(&ann, now));
        for stranger in 0..=limits::OIDC_TICKETS {
            assert!(tickets.may_try(&ticket(&stranger.to_string(), until), now), "{stranger}");
        }
        assert!(tickets.may_try(&ticket("bob", until), now), "bob signs in like on any other day");
        assert!(!tickets.may_try(&ann, now));
        assert_eq!(lock(&tickets.tried).0.len(), limits::OIDC_TICKETS);
    }
}
