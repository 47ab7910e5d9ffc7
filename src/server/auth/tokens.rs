//! Tokens that are written in the configuration, and this machine's own: kept as SHA-256, compared in constant time, all
//! of them every time.
//!
//! Invariant: the text of a token is nowhere after it was read; an error names the token, never its text.

use crate::config::{ListenerConfig, Role};
use crate::limits;
use crate::model::RoleGrant;
use ring::rand::SecureRandom;
use sha2::{Digest, Sha256};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use subtle::ConstantTimeEq;

pub use crate::model::LOCAL;

/// A token as it was read, before it is hashed.
#[derive(Clone)]
pub struct GivenToken {
    pub name: String,
    pub role: Role,
    pub sources: Vec<String>,
    pub clusters: Option<Vec<String>>,
    pub text: String,
}

/// Every token that opens a door, hashed. Two with one name are both valid: that is how one is rotated.
#[derive(Clone, Default)]
pub struct ConfiguredTokens(Vec<HashedToken>);

#[derive(Clone)]
pub(in crate::server) struct HashedToken {
    pub name: String,
    pub grant: RoleGrant,
    pub sources: Vec<String>,
    hash: [u8; 32],
}

impl ConfiguredTokens {
    /// The tokens by the hash of their text.
    ///
    /// # Errors
    ///
    /// Fails when a token is too short, opens nothing, or has the text of another one; the message names the token,
    /// never its text.
    pub fn new(given: Vec<GivenToken>) -> Result<ConfiguredTokens, String> {
        let mut known: Vec<HashedToken> = Vec::with_capacity(given.len());
        for token in given {
            let name = token.name;
            if token.text.len() < limits::TOKEN_BYTES_MIN {
                return Err(format!(
                    "token `{name}` is shorter than {} bytes, so it can be guessed: make one with `openssl rand -hex 32`",
                    limits::TOKEN_BYTES_MIN
                ));
            }
            if token.role == Role::Source && token.sources.is_empty() {
                return Err(format!(
                    "token `{name}` has role source but no `sources:`, so it has no rights: list them"
                ));
            }
            let hash = digest(&token.text);
            if known.iter().any(|other| other.hash == hash && other.name != name) {
                return Err(format!(
                    "token `{name}` has the same text as another one, so they cannot be distinguished"
                ));
            }
            let grant = RoleGrant { role: token.role, clusters: token.clusters };
            known.push(HashedToken { name, grant, sources: token.sources, hash });
        }
        Ok(ConfiguredTokens(known))
    }

    /// Reads the secrets of the configuration and adds the local token of `data_dir`.
    ///
    /// # Errors
    ///
    /// Fails when a secret or the local token cannot be read, and as [`Tokens::new`] does.
    pub fn load(server: &ListenerConfig, data_dir: &Path) -> Result<ConfiguredTokens, String> {
        let mut given = vec![GivenToken {
            name: LOCAL.to_owned(),
            role: Role::Admin,
            sources: Vec::new(),
            clusters: None,
            text: local_token(data_dir)?,
        }];
        for token in &server.tokens {
            let text = token.secret.read().map_err(|why| format!("token `{}`: {why}", token.name))?;
            given.push(GivenToken {
                name: token.name.clone(),
                role: token.role,
                sources: token.sources.clone(),
                clusters: token.clusters.clone(),
                text: text.trim().to_owned(),
            });
        }
        ConfiguredTokens::new(given)
    }

    /// Whether the same texts open.
    pub(in crate::server) fn same_secrets(&self, other: &ConfiguredTokens) -> bool {
        let hashes = |tokens: &ConfiguredTokens| {
            tokens.0.iter().map(|known| known.hash).collect::<std::collections::BTreeSet<_>>()
        };
        hashes(self) == hashes(other)
    }

    /// Each token's name and rights.
    pub(in crate::server) fn all(&self) -> impl Iterator<Item = &HashedToken> {
        self.0.iter()
    }

    /// The token with this hash.
    pub(in crate::server) fn by_hash(&self, hash: &[u8; 32]) -> Option<&HashedToken> {
        // Every token is compared, so that the time does not reveal which one came close.
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.hash.ct_eq(hash)) {
                found = Some(known);
            }
        }
        found
    }
}

/// The local token: born at first start, 256 random bits, readable by its owner alone.
///
/// # Errors
///
/// Fails when the file cannot be read or made, or others may read it.
pub fn local_token(data_dir: &Path) -> Result<String, String> {
    let path = data_dir.join("token");
    let shown = path.display();
    if !path.exists() {
        let mut bytes = [0_u8; 32];
        ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no randomness".to_owned())?;
        let text = hex::encode(bytes);
        std::fs::create_dir_all(data_dir).map_err(|e| format!("cannot make {}: {e}", data_dir.display()))?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| format!("cannot make {shown}: {e}"))?;
        writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(|e| format!("cannot write {shown}: {e}"))?;
        return Ok(text);
    }
    let mode = std::fs::metadata(&path).map_err(|e| format!("cannot read {shown}: {e}"))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{shown} can be read by others (mode {:o}): run `chmod 600 {shown}`", mode & 0o777));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| format!("cannot read {shown}: {e}"))?;
    Ok(text.trim().to_owned())
}

pub(in crate::server) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, role: Role, sources: &[&str], text: &str) -> GivenToken {
        GivenToken {
            name: name.to_owned(),
            role,
            sources: sources.iter().map(|s| (*s).to_owned()).collect(),
            clusters: None,
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_token_that_is_weak_or_opens_nothing_or_is_ambiguous_is_refused_at_start() {
        let good = "0123456789abcdef0123456789abcdef";
        assert!(ConfiguredTokens::new(vec![token("a", Role::Viewer, &[], "")]).is_err());
        assert!(ConfiguredTokens::new(vec![token("a", Role::Viewer, &[], "short")]).is_err());
        assert!(ConfiguredTokens::new(vec![token("a", Role::Source, &[], good)]).is_err());
        let twice = vec![token("a", Role::Viewer, &[], good), token("b", Role::Admin, &[], good)];
        assert!(ConfiguredTokens::new(twice).is_err());
        let tokens = ConfiguredTokens::new(vec![token("a", Role::Viewer, &[], good)]).unwrap();
        assert_eq!(tokens.by_hash(&digest(good)).map(|known| known.name.as_str()), Some("a"));
        assert!(tokens.by_hash(&digest("0123456789abcdef0123456789abcdeg")).is_none());
    }

    #[test]
    fn the_local_token_is_born_once_and_must_stay_private() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = local_token(&data).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(local_token(&data).unwrap(), first);
        let path = data.join("token");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(local_token(&data).unwrap_err().contains("chmod 600"));
    }
}
