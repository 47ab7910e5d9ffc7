//! A button's value: sealed words that mean nothing to Slack, open nothing elsewhere, and expire.
//!
//! Invariant: only this installation makes and opens a seal, and only for the button that it was made for. The same words
//! make the same seal, so a message that did not change is not edited.

use crate::limits::SLACK_SEAL_BYTES;
use crate::model::Time;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

/// Distinguishes seals from the values of buttons before there were any.
const MARK: &str = "n1.";

/// The key that seals the values of buttons.
pub struct ButtonSeal {
    /// Makes the nonce from the words, so that it never serves two of them.
    words: hmac::Key,
    key: LessSafeKey,
    install: String,
}

/// The content of a seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedValue {
    /// The object of the button: `a3`, `r7`, `i3`.
    pub id: String,
    /// The state that was shown with it: the hash of a plan; empty where there is none.
    pub shown: String,
}

/// Why one is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// Of another installation, another button, or altered.
    Foreign,
    /// Its time is over.
    Late,
}

impl ButtonSeal {
    /// `secret` is the installation's own, made for this purpose alone.
    pub fn new(secret: &[u8; 32], install: &str) -> ButtonSeal {
        let of = |purpose: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), purpose);
        let key = UnboundKey::new(&CHACHA20_POLY1305, of(b"seal").as_ref()).expect("a SHA-256 is a key of 32 bytes");
        let words = hmac::Key::new(hmac::HMAC_SHA256, of(b"words").as_ref());
        ButtonSeal { words, key: LessSafeKey::new(key), install: install.to_owned() }
    }

    fn bound(&self, action: &str) -> Vec<u8> {
        format!("{action}\n{}", self.install).into_bytes()
    }

    /// For the button of this action, until then.
    pub fn close(&self, action: &str, id: &str, shown: &str, until: Time) -> String {
        let bound = self.bound(action);
        let mut sealed = format!("{}\n{id}\n{shown}", until.as_second()).into_bytes();
        let tag = hmac::sign(&self.words, &[&bound[..], b"\0", &sealed[..]].concat());
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&tag.as_ref()[..NONCE_LEN]);
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce_of, Aad::from(bound), &mut sealed)
            .expect("a few hundred bytes are fewer than the cipher takes");
        format!("{MARK}{}", URL_SAFE_NO_PAD.encode([&nonce[..], &sealed[..]].concat()))
    }

    /// The content of a seal, if this installation made it for this button's action.
    ///
    /// # Errors
    ///
    /// Fails with [`Broken::Late`] for a seal that has expired, and [`Broken::Foreign`] for any other value.
    pub fn open(&self, action: &str, value: &str, now: Time) -> Result<SealedValue, SealError> {
        let text = value.strip_prefix(MARK).filter(|text| text.len() <= SLACK_SEAL_BYTES).ok_or(SealError::Foreign)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| SealError::Foreign)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(SealError::Foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Foreign)?;
        let mut sealed = sealed.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(self.bound(action)), &mut sealed);
        let words = std::str::from_utf8(opened.map_err(|_| SealError::Foreign)?).map_err(|_| SealError::Foreign)?;
        let mut words = words.splitn(3, '\n');
        let until: i64 = words.next().and_then(|until| until.parse().ok()).ok_or(SealError::Foreign)?;
        let (Some(id), Some(shown)) = (words.next(), words.next()) else { return Err(SealError::Foreign) };
        if now.as_second() > until {
            return Err(SealError::Late);
        }
        Ok(SealedValue { id: id.to_owned(), shown: shown.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_seal_opens_for_its_button_at_its_installation_until_its_time_and_shows_nothing() {
        let now: Time = "2026-11-23T03:00:00Z".parse().unwrap();
        let until = now + Duration::from_secs(60);
        let (ours, theirs) = (ButtonSeal::new(&[1; 32], "prod"), ButtonSeal::new(&[2; 32], "prod"));
        let value = ours.close("approve", "a3", &"ab".repeat(32), until);
        assert_eq!(value, ours.close("approve", "a3", &"ab".repeat(32), until), "the same words, the same seal");
        assert!(value.len() <= SLACK_SEAL_BYTES && !value.contains("a3") && !value.contains("abab"), "{value}");
        let carried = SealedValue { id: "a3".to_owned(), shown: "ab".repeat(32) };
        assert_eq!(ours.open("approve", &value, until), Ok(carried));
        assert_eq!(ours.open("approve", &value, until + Duration::from_secs(1)), Err(SealError::Late));
        assert_eq!(ours.open("deny", &value, now), Err(SealError::Foreign), "another button");
        assert_eq!(theirs.open("approve", &value, now), Err(SealError::Foreign), "another secret");
        assert_eq!(
            ButtonSeal::new(&[1; 32], "dev").open("approve", &value, now),
            Err(SealError::Foreign),
            "another name"
        );
        for no in 0..value.len() {
            let mut altered = value.clone().into_bytes();
            altered[no] = if altered[no] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            // The last letter has bits that carry nothing; the decoder refuses them set.
            assert_eq!(ours.open("approve", &altered, now), Err(SealError::Foreign), "{no}");
        }
        for wrong in ["", "a3", "n1.", "n1.AAAA", &"n1.A".repeat(10_000), "n1.\u{202e}"] {
            assert_eq!(ours.open("approve", wrong, now), Err(SealError::Foreign));
        }
    }
}
