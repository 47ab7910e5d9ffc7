//! Signatures of other services: HMAC-SHA256 in hexadecimal digits.
//!
//! Invariant: compared in constant time; a text that is no signature matches nothing.

use ring::hmac;

/// A key from the text of a secret.
pub(super) fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.trim().as_bytes())
}

/// The bytes of 64 hexadecimal digits.
pub(super) fn bytes(hex: &str) -> Option<Vec<u8>> {
    hex::decode(hex).ok().filter(|bytes| bytes.len() == 32)
}

/// Whether these digits sign the message.
pub(super) fn signs(key: &hmac::Key, message: &[u8], hex: &str) -> bool {
    bytes(hex).is_some_and(|signature| hmac::verify(key, message, &signature).is_ok())
}
