//! Random bytes and text that cannot be guessed: names of sessions, tickets, forms, tokens.
//!
//! Invariant: every secret that the server makes comes from the system's generator, through here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};

pub(super) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes once it has started");
    bytes
}

/// So many random bytes in URL-safe letters.
pub(super) fn text<const N: usize>() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<N>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_is_another_one_and_goes_into_a_url_as_it_is() {
        let all: BTreeSet<String> = (0..100).map(|_| text::<32>()).collect();
        assert_eq!(all.len(), 100);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        assert!(all.iter().all(|text| text.len() == 43 && text.chars().all(plain)), "{all:?}");
        assert_eq!(bytes::<8>().len(), 8);
    }
}
