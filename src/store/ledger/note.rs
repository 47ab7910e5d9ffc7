//! C2SP signed notes: a checkpoint as text, signed with Ed25519, readable by other tools.
//!
//! Invariant: a statement leaves `verify_note` only with a good signature of the given key.

use super::{Checkpoint, LeafHash, sha256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;

/// The signature type byte of Ed25519 in C2SP signed notes.
const ALGORITHM: u8 = 1;

/// Why the signing key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("signing key {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("signing key {path} can be read by others (mode {mode:o}): chmod 600 it, and make a new one if it leaked")]
    Loose { path: String, mode: u32 },
    #[error("signing key {path}: {what}")]
    Malformed { path: String, what: &'static str },
}

/// Why a note is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("the note is malformed: {0}")]
    Malformed(&'static str),
    #[error("the note carries no signature of {0}")]
    NotSigned(String),
    #[error("the signature of {0} does not verify")]
    Forged(String),
}

/// An Ed25519 key pair for checkpoints.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    /// Keys for other purposes come from it, never it itself.
    others: ring::hmac::Key,
    public: PublicKey,
}

/// The key that verifies checkpoints. As text: `name+key hash+base64`, as C2SP writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub name: String,
    bytes: [u8; 32],
}

/// The content of a good note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteStatement {
    pub origin: String,
    pub size: u64,
    pub root: LeafHash,
}

impl SigningKey {
    /// Reads the key, or makes it at first start. `name` is the origin in notes: no blanks, no plus sign.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read or made, can be read by others, or holds no key.
    pub fn open_or_create(path: &Path, name: &str) -> Result<SigningKey, KeyError> {
        let shown = path.display().to_string();
        let io = |source| KeyError::Io { path: shown.clone(), source };
        match std::fs::File::open(path) {
            Ok(mut file) => {
                let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(KeyError::Loose { path: shown, mode });
                }
                let mut text = String::new();
                Read::by_ref(&mut file).take(256).read_to_string(&mut text).map_err(io)?;
                let malformed = |what| KeyError::Malformed { path: shown.clone(), what };
                let seed = BASE64.decode(text.trim()).map_err(|_| malformed("not base64"))?;
                SigningKey::from_seed(&seed, name).map_err(malformed)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut seed = [0; 32];
                let dry = |_| io(std::io::Error::other("the system gives no random numbers"));
                SystemRandom::new().fill(&mut seed).map_err(dry)?;
                let mut file =
                    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
                writeln!(file, "{}", BASE64.encode(seed)).and_then(|()| file.sync_all()).map_err(io)?;
                SigningKey::from_seed(&seed, name).map_err(|what| KeyError::Malformed { path: shown.clone(), what })
            }
            Err(error) => Err(io(error)),
        }
    }

    fn from_seed(seed: &[u8], name: &str) -> Result<SigningKey, &'static str> {
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '+') {
            return Err("the key's name must not be empty nor hold blanks or `+`");
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| "not an Ed25519 seed of 32 bytes")?;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(pair.public_key().as_ref());
        let others = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, seed);
        Ok(SigningKey { pair, others, public: PublicKey { name: name.to_owned(), bytes } })
    }

    /// A secret of this installation for one other purpose; it reveals neither the key nor the secrets of other
    /// purposes.
    pub fn secret_for(&self, purpose: &str) -> [u8; 32] {
        let mut secret = [0; 32];
        secret.copy_from_slice(ring::hmac::sign(&self.others, purpose.as_bytes()).as_ref());
        secret
    }

    /// The public half of the key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs the statement that the log has `size` entries and this root.
    pub fn sign(&self, size: u64, root: LeafHash) -> Checkpoint {
        let name = &self.public.name;
        let text = format!("{name}\n{size}\n{}\n", BASE64.encode(root.0));
        let mut signature = self.public.key_hash().to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        Checkpoint { size, note: format!("{text}\n\u{2014} {name} {}\n", BASE64.encode(signature)) }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public.to_string()).finish()
    }
}

impl PublicKey {
    /// The first four bytes of SHA-256 over name, newline, algorithm and key.
    fn key_hash(&self) -> [u8; 4] {
        let hash = sha256(&[self.name.as_bytes(), b"\n", &[ALGORITHM], &self.bytes]);
        [hash.0[0], hash.0[1], hash.0[2], hash.0[3]]
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = u32::from_be_bytes(self.key_hash());
        write!(f, "{}+{hash:08x}+{}", self.name, BASE64.encode([&[ALGORITHM][..], &self.bytes].concat()))
    }
}

impl FromStr for PublicKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<PublicKey, NoteError> {
        let wrong = NoteError::Malformed("a public key is written `name+hash+base64`");
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong);
        };
        let key = BASE64.decode(key).map_err(|_| wrong.clone())?;
        let [ALGORITHM, bytes @ ..] = key.as_slice() else {
            return Err(NoteError::Malformed("the public key is not of Ed25519"));
        };
        let bytes = bytes.try_into().map_err(|_| NoteError::Malformed("a public key has 32 bytes"))?;
        let key = PublicKey { name: name.to_owned(), bytes };
        if format!("{:08x}", u32::from_be_bytes(key.key_hash())) != hash {
            return Err(NoteError::Malformed("the public key does not match its hash"));
        }
        Ok(key)
    }
}

/// Reads a note and checks its signature by `key`. Signatures of others are passed over.
///
/// # Errors
///
/// Fails when the note is malformed, has no signature of `key`, or that one does not verify.
pub fn verify_note(note: &str, key: &PublicKey) -> Result<NoteStatement, NoteError> {
    let (text, signatures) =
        note.rsplit_once("\n\n").ok_or(NoteError::Malformed("no empty line before the signatures"))?;
    let text = format!("{text}\n");
    let mut found = false;
    for line in signatures.lines() {
        let Some((name, signature)) = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' ')) else {
            return Err(NoteError::Malformed("a signature line is `— name base64`"));
        };
        let bytes = BASE64.decode(signature).map_err(|_| NoteError::Malformed("a signature is not base64"))?;
        let Some((hash, signature)) = bytes.split_first_chunk::<4>() else {
            return Err(NoteError::Malformed("a signature is too short"));
        };
        if name != key.name || *hash != key.key_hash() {
            continue;
        }
        UnparsedPublicKey::new(&ED25519, &key.bytes)
            .verify(text.as_bytes(), signature)
            .map_err(|_| NoteError::Forged(key.name.clone()))?;
        found = true;
    }
    if !found {
        return Err(NoteError::NotSigned(key.name.clone()));
    }
    let mut lines = text.lines();
    let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(NoteError::Malformed("a checkpoint has three lines"));
    };
    let number = size.parse().map_err(|_| NoteError::Malformed("the size is not a number"))?;
    let root = BASE64.decode(root).ok().and_then(|bytes| bytes.try_into().ok());
    let root = root.ok_or(NoteError::Malformed("the root is not 32 bytes of base64"))?;
    if origin != key.name || size != u64::to_string(&number) {
        return Err(NoteError::Malformed("the origin is not the key's name, or the size is not in plain digits"));
    }
    Ok(NoteStatement { origin: origin.to_owned(), size: number, root: LeafHash(root) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32], "nightshift.example/eu-1").unwrap()
    }

    #[test]
    fn a_note_verifies_and_each_changed_byte_is_noticed() {
        let key = key();
        let root = LeafHash([9; 32]);
        let note = key.sign(17, root).note;
        let good = NoteStatement { origin: "nightshift.example/eu-1".to_owned(), size: 17, root };
        assert_eq!(verify_note(&note, key.public()), Ok(good.clone()));
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(verify_note(&changed, key.public()).is_err(), "byte {at}");
        }
        let other = SigningKey::from_seed(&[8; 32], "nightshift.example/eu-1").unwrap();
        assert!(matches!(verify_note(&note, other.public()), Err(NoteError::NotSigned(_))));
    }

    #[test]
    fn a_public_key_prints_and_parses_back() {
        let text = key().public().to_string();
        assert_eq!(text.parse::<PublicKey>().as_ref(), Ok(key().public()));
        let mut wrong = text.clone().into_bytes();
        let end = wrong.len() - 3;
        wrong[end] = if wrong[end] == b'A' { b'B' } else { b'A' };
        assert!(String::from_utf8(wrong).unwrap().parse::<PublicKey>().is_err());
        for wrong in ["", "a+b", "a+00000000+AQ==", "a b"] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_example_key_of_the_format_is_read() {
        // The verifier key in the documentation of golang.org/x/mod/sumdb/note.
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key: PublicKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
    }

    #[test]
    fn a_key_is_made_once_kept_private_and_refused_when_others_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        let made = SigningKey::open_or_create(&path, "n").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = SigningKey::open_or_create(&path, "n").unwrap();
        assert_eq!(made.public(), read.public());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SigningKey::open_or_create(&path, "n"), Err(KeyError::Loose { mode: 0o640, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(SigningKey::open_or_create(&path, "bad name").is_err());
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(SigningKey::open_or_create(&path, "n"), Err(KeyError::Malformed { .. })));
    }
}
