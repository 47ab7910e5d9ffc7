//! The keys that a provider signs with, and the algorithms that count here.
//!
//! Invariant: a key verifies only signatures of its own kind; nothing symmetric and nothing weaker than RSA 2048 is in
//! the list.

use crate::limits;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;

/// Whose signatures count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SigningAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl SigningAlgorithm {
    const NAMES: [(&str, SigningAlgorithm); 9] = [
        ("RS256", SigningAlgorithm::Rs256),
        ("RS384", SigningAlgorithm::Rs384),
        ("RS512", SigningAlgorithm::Rs512),
        ("PS256", SigningAlgorithm::Ps256),
        ("PS384", SigningAlgorithm::Ps384),
        ("PS512", SigningAlgorithm::Ps512),
        ("ES256", SigningAlgorithm::Es256),
        ("ES384", SigningAlgorithm::Es384),
        ("EdDSA", SigningAlgorithm::EdDsa),
    ];

    /// The algorithm of this name in a token's header; none where it is not accepted.
    pub fn named(name: &str) -> Option<SigningAlgorithm> {
        SigningAlgorithm::NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }
}

#[derive(Debug, Clone)]
pub(super) struct ProviderKey {
    pub kid: Option<String>,
    /// The one algorithm that the provider restricts it to.
    only: Option<SigningAlgorithm>,
    kind: KeyMaterial,
}

#[derive(Debug, Clone)]
enum KeyMaterial {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a set that can sign; those of other kinds are left out, as the set may hold keys for other uses.
pub(super) fn read(text: &str) -> Result<Vec<ProviderKey>, String> {
    let set: Value = serde_json::from_str(text).map_err(|_| "its keys are no JSON".to_owned())?;
    let list = set["keys"].as_array().ok_or_else(|| "its keys are no list".to_owned())?;
    if list.len() > limits::OIDC_KEYS {
        return Err(format!("it has {} keys, more than {}", list.len(), limits::OIDC_KEYS));
    }
    Ok(list.iter().filter_map(|jwk| key(serde_json::from_value(jwk.clone()).ok()?)).collect())
}

fn key(jwk: Jwk) -> Option<ProviderKey> {
    if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let only = match jwk.alg.as_deref() {
        None => None,
        Some(name) => Some(SigningAlgorithm::named(name)?),
    };
    let bytes = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
    let point = |x: Option<String>, y: Option<String>, size: usize| {
        let (x, y) = (bytes(x)?, bytes(y)?);
        (x.len() == size && y.len() == size).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
    };
    let kind = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => KeyMaterial::Rsa { n: trimmed(bytes(jwk.n)?), e: trimmed(bytes(jwk.e)?) },
        ("EC", Some("P-256")) => KeyMaterial::P256(point(jwk.x, jwk.y, 32)?),
        ("EC", Some("P-384")) => KeyMaterial::P384(point(jwk.x, jwk.y, 48)?),
        ("OKP", Some("Ed25519")) => KeyMaterial::Ed25519(bytes(jwk.x)?),
        _ => return None,
    };
    Some(ProviderKey { kid: jwk.kid, only, kind })
}

/// Without the zeros in front that some providers write.
fn trimmed(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().skip_while(|byte| *byte == 0).collect()
}

impl ProviderKey {
    /// Whether the key is of the algorithm's kind, and not restricted to another one.
    pub fn is_for(&self, algorithm: SigningAlgorithm) -> bool {
        use SigningAlgorithm::*;
        let kind = match &self.kind {
            KeyMaterial::Rsa { .. } => matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
            KeyMaterial::P256(_) => algorithm == Es256,
            KeyMaterial::P384(_) => algorithm == Es384,
            KeyMaterial::Ed25519(_) => algorithm == EdDsa,
        };
        kind && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether `by` is the key's signature of `message`.
    pub fn signed(&self, algorithm: SigningAlgorithm, message: &[u8], by: &[u8]) -> bool {
        let plain = |how: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(how, key).verify(message, by).is_ok()
        };
        match &self.kind {
            KeyMaterial::P256(point) => plain(&signature::ECDSA_P256_SHA256_FIXED, point),
            KeyMaterial::P384(point) => plain(&signature::ECDSA_P384_SHA384_FIXED, point),
            KeyMaterial::Ed25519(key) => plain(&signature::ED25519, key),
            KeyMaterial::Rsa { n, e } => {
                let how = match algorithm {
                    SigningAlgorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    SigningAlgorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    SigningAlgorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    SigningAlgorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    SigningAlgorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
                    SigningAlgorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
                    SigningAlgorithm::Es256 | SigningAlgorithm::Es384 | SigningAlgorithm::EdDsa => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(how, message, by).is_ok()
            }
        }
    }
}
