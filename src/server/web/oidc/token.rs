//! An ID token: its signature, audience, issuer, validity, and its sign-in.
//!
//! Invariant: claims come out only of a token whose every check has passed; the algorithm is one of ours, and never the
//! token's own choice of `none` or of a shared secret.

use super::keys::{ProviderKey, SigningAlgorithm};
use crate::limits;
use crate::model::Time;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

/// The audience of the token.
pub(super) struct ExpectedClaims<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub nonce: &'a str,
    pub now: Time,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum TokenError {
    /// Signed by a key that we have not; the provider may have a new one.
    UnknownKey,
    No(String),
}

fn no(why: impl Into<String>) -> TokenError {
    TokenError::No(why.into())
}

#[derive(Debug, Deserialize)]
pub(super) struct IdTokenClaims {
    iss: String,
    pub sub: String,
    aud: TokenAudience,
    #[serde(default)]
    azp: Option<String>,
    exp: f64,
    iat: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    nonce: String,
    /// Mail, groups and further claims of the provider.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenAudience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that must be understood: we understand none.
    #[serde(default)]
    crit: Option<Value>,
}

pub(super) fn verify(token: &str, keys: &[ProviderKey], wanted: &ExpectedClaims) -> Result<IdTokenClaims, TokenError> {
    if token.len() > limits::OIDC_TOKEN_BYTES {
        return Err(no("it is too long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| no("it is no signed token"))?;
    let (header, claims) = signed.split_once('.').ok_or_else(|| no("it is no signed token"))?;
    let header: TokenHeader = decode(header)?;
    if header.crit.is_some() {
        return Err(no("it requires an unsupported extension"));
    }
    let algorithm = SigningAlgorithm::named(&header.alg).ok_or_else(|| no("its algorithm is not allowed"))?;
    let fit = |key: &&ProviderKey| {
        key.is_for(algorithm) && header.kid.as_ref().is_none_or(|kid| key.kid.as_ref() == Some(kid))
    };
    let mut candidates = keys.iter().filter(fit);
    let (Some(key), None) = (candidates.next(), candidates.next()) else { return Err(TokenError::UnknownKey) };
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| no("its signature cannot be read"))?;
    if !key.signed(algorithm, signed.as_bytes(), &signature) {
        return Err(no("its signature is wrong"));
    }
    let claims: IdTokenClaims = decode(claims)?;
    check(&claims, wanted)?;
    Ok(claims)
}

fn check(claims: &IdTokenClaims, wanted: &ExpectedClaims) -> Result<(), TokenError> {
    let now = wanted.now.as_second() as f64;
    let skew = limits::OIDC_SKEW.as_secs_f64();
    let for_us = match &claims.aud {
        TokenAudience::One(one) => one == wanted.client_id,
        // For others too: then the party that requested it must be us.
        TokenAudience::Many(many) => {
            many.iter().any(|one| one == wanted.client_id)
                && (many.len() == 1 || claims.azp.as_deref() == Some(wanted.client_id))
        }
    };
    let asked_by_us = claims.azp.as_deref().is_none_or(|azp| azp == wanted.client_id);
    let same_sign_in = bool::from(claims.nonce.as_bytes().ct_eq(wanted.nonce.as_bytes()));
    for (holds, why) in [
        (claims.iss == wanted.issuer, "it is from another issuer"),
        (for_us && asked_by_us, "it is for another application"),
        (same_sign_in, "it is for another sign-in"),
        (!claims.sub.is_empty() && claims.sub.len() <= limits::OIDC_SUBJECT_BYTES, "it names no user"),
    ] {
        if !holds {
            return Err(no(why));
        }
    }
    // Almost always it is a clock, and almost always ours: the size shows which.
    let (expired, early) = (now - claims.exp, claims.iat.max(claims.nbf.unwrap_or(claims.iat)) - now);
    if expired >= skew || expired.is_nan() {
        return Err(no(format!("it expired {expired:.0} s ago by our clock: is the time right here?")));
    }
    if early >= skew || early.is_nan() {
        return Err(no(format!("it was issued {early:.0} s after our clock: is the time right here?")));
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| no("it cannot be read"))?;
    serde_json::from_slice(&bytes).map_err(|_| no("a claim is missing or no such thing"))
}

#[cfg(test)]
mod tests;
