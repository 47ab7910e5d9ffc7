//! Who is asking: bearer tokens, or basic authentication whose password is a token. Kept as SHA-256, compared in
//! constant time, all of them every time.
//!
//! Invariant: a `Caller` exists only for a token that was presented in this very request; nothing is cached.

use super::{App, Problem};
use crate::config::{Role, Server};
use crate::limits;
use axum::extract::FromRequestParts;
use axum::http::request::Parts as RequestParts;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use ring::rand::SecureRandom;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use subtle::ConstantTimeEq;

/// A token as it was read, before it is hashed.
#[derive(Clone)]
pub struct GivenToken {
    pub name: String,
    pub role: Role,
    pub sources: Vec<String>,
    pub text: String,
}

/// Every token that opens a door, hashed. Two with one name are both valid: that is how one is rotated.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Known>);

#[derive(Clone)]
struct Known {
    caller: Caller,
    hash: [u8; 32],
}

/// Who asks, for the length of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub name: String,
    pub role: Role,
    /// For role `source`: where it may post.
    pub sources: Vec<String>,
}

impl Tokens {
    /// Errors name the token, never its text.
    pub fn new(given: Vec<GivenToken>) -> Result<Tokens, String> {
        let mut known: Vec<Known> = Vec::with_capacity(given.len());
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
                    "token `{name}` has role source but no `sources:`, so it opens nothing: list them"
                ));
            }
            let hash = digest(&token.text);
            if known.iter().any(|other| other.hash == hash && other.caller.name != name) {
                return Err(format!("token `{name}` has the same text as another one: nobody could tell them apart"));
            }
            known.push(Known { caller: Caller { name, role: token.role, sources: token.sources }, hash });
        }
        Ok(Tokens(known))
    }

    /// Reads the secrets of the configuration and adds the local token of `data_dir`.
    pub fn load(server: &Server, data_dir: &Path) -> Result<Tokens, String> {
        let mut given = vec![GivenToken {
            name: "local".to_owned(),
            role: Role::Admin,
            sources: Vec::new(),
            text: local_token(data_dir)?,
        }];
        for token in &server.tokens {
            let text = token.secret.read().map_err(|why| format!("token `{}`: {why}", token.name))?;
            given.push(GivenToken {
                name: token.name.clone(),
                role: token.role,
                sources: token.sources.clone(),
                text: text.trim().to_owned(),
            });
        }
        Tokens::new(given)
    }

    fn find(&self, presented: &str) -> Option<&Caller> {
        self.by_hash(&digest(presented))
    }

    /// Whose token has this hash, now.
    pub(super) fn by_hash(&self, hash: &[u8; 32]) -> Option<&Caller> {
        // Every token is compared, so that the time tells nothing about which one came close.
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.hash.ct_eq(hash)) {
                found = Some(&known.caller);
            }
        }
        found
    }
}

impl Caller {
    /// 403 unless the role is at least this one.
    pub fn need(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("`{}` has role {}, this needs {}", self.name, word(self.role), word(role)),
            "use a token with that role; roles are given under `server.tokens` in nightshift.yaml",
        ))
    }

    /// 403 unless it may post events to this source: its own one, or anything for an operator.
    pub fn need_source(&self, source: &str) -> Result<(), Problem> {
        if self.role >= Role::Operator || self.sources.iter().any(|name| name == source) {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("`{}` may not post events to source `{source}`", self.name),
            "list the source under the token's `sources:` in nightshift.yaml",
        ))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut RequestParts, app: &App) -> Result<Caller, Problem> {
        // Put there by our own code alone, for whom a signature has identified.
        if let Some(inside) = parts.extensions.get::<Caller>() {
            return Ok(inside.clone());
        }
        let found = presented(&parts.headers).and_then(|token| app.tokens.find(&token).cloned());
        found.ok_or_else(|| {
            app.parts.metrics.auth_failed();
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "no valid token came with the request",
                "send `Authorization: Bearer <token>`, or basic authentication with the token as password",
            )
        })
    }
}

/// The local token: born at first start, 256 random bits, readable by its owner alone.
pub fn local_token(data_dir: &Path) -> Result<String, String> {
    let path = data_dir.join("token");
    let shown = path.display();
    if !path.exists() {
        let mut bytes = [0_u8; 32];
        ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no randomness".to_owned())?;
        let mut text = String::with_capacity(65);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
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
    let mode = std::fs::metadata(&path).map_err(|e| format!("cannot look at {shown}: {e}"))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{shown} can be read by others (mode {:o}): run `chmod 600 {shown}`", mode & 0o777));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| format!("cannot read {shown}: {e}"))?;
    Ok(text.trim().to_owned())
}

/// The token in the `Authorization` header; one header only, so that nobody can smuggle a second one past a proxy.
fn presented(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let value = all.next()?.to_str().ok()?;
    if all.next().is_some() {
        return None;
    }
    let (scheme, rest) = value.split_once(' ')?;
    let token = if scheme.eq_ignore_ascii_case("bearer") {
        rest.trim().to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
        String::from_utf8(decoded).ok()?.split_once(':')?.1.to_owned()
    } else {
        return None;
    };
    Some(token).filter(|token| !token.is_empty())
}

pub(super) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

pub(super) fn word(role: Role) -> &'static str {
    match role {
        Role::Source => "source",
        Role::Viewer => "viewer",
        Role::Responder => "responder",
        Role::Approver => "approver",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, role: Role, sources: &[&str], text: &str) -> GivenToken {
        GivenToken {
            name: name.to_owned(),
            role,
            sources: sources.iter().map(|s| (*s).to_owned()).collect(),
            text: text.to_owned(),
        }
    }

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn bearer_and_basic_carry_the_same_token() {
        assert_eq!(presented(&headers("Bearer abc")), Some("abc".to_owned()));
        assert_eq!(presented(&headers("bearer abc")), Some("abc".to_owned()));
        // user:abc and a token that holds a colon
        assert_eq!(presented(&headers("Basic dXNlcjphYmM=")), Some("abc".to_owned()));
        assert_eq!(presented(&headers("Basic dXNlcjphOmI=")), Some("a:b".to_owned()));
        for wrong in ["abc", "Bearer ", "Basic !!!", "Basic dXNlcg==", "Digest abc", "Basic dXNlcjo="] {
            assert_eq!(presented(&headers(wrong)), None, "{wrong}");
        }
        let mut two = headers("Bearer abc");
        two.append(header::AUTHORIZATION, "Bearer def".parse().unwrap());
        assert_eq!(presented(&two), None);
    }

    #[test]
    fn a_token_that_is_weak_or_opens_nothing_or_is_ambiguous_is_refused_at_start() {
        let good = "0123456789abcdef0123456789abcdef";
        assert!(Tokens::new(vec![token("a", Role::Viewer, &[], "")]).is_err());
        assert!(Tokens::new(vec![token("a", Role::Viewer, &[], "short")]).is_err());
        assert!(Tokens::new(vec![token("a", Role::Source, &[], good)]).is_err());
        let twice = vec![token("a", Role::Viewer, &[], good), token("b", Role::Admin, &[], good)];
        assert!(Tokens::new(twice).is_err());
        let tokens = Tokens::new(vec![token("a", Role::Viewer, &[], good)]).unwrap();
        assert_eq!(tokens.find(good).map(|c| c.name.as_str()), Some("a"));
        assert!(tokens.find("0123456789abcdef0123456789abcdeg").is_none());
    }

    #[test]
    fn a_source_posts_only_where_it_is_listed_and_reads_nothing() {
        let source = Caller { name: "am".into(), role: Role::Source, sources: vec!["prod".into()] };
        assert!(source.need_source("prod").is_ok());
        assert_eq!(source.need_source("lab").unwrap_err().status, StatusCode::FORBIDDEN);
        assert_eq!(source.need(Role::Viewer).unwrap_err().status, StatusCode::FORBIDDEN);
        let viewer = Caller { name: "v".into(), role: Role::Viewer, sources: vec![] };
        assert!(viewer.need_source("prod").is_err());
        let operator = Caller { name: "o".into(), role: Role::Operator, sources: vec![] };
        assert!(operator.need_source("prod").is_ok());
        assert!(operator.need(Role::Approver).is_ok());
        assert!(operator.need(Role::Admin).is_err());
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
