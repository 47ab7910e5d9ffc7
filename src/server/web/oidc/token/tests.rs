//! Tokens that are right but for one thing.

use super::super::keys;
use super::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

const NOW: &str = "2026-11-23T03:00:00Z";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Signer {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        Signer(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap())
    }

    fn jwk(&self, kid: &str) -> Value {
        let point = self.0.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
    }

    fn keys(&self) -> Vec<ProviderKey> {
        keys::read(&json!({ "keys": [self.jwk("k1")] }).to_string()).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature))
    }
}

fn claims() -> Value {
    let now = NOW.parse::<Time>().unwrap().as_second();
    json!({ "iss": "https://login.example", "sub": "00u1", "aud": "ns", "exp": now + 300, "iat": now, "nonce": "n1" })
}

fn header() -> Value {
    json!({ "alg": "ES256", "kid": "k1" })
}

fn told(token: &str, keys: &[ProviderKey]) -> Result<String, TokenError> {
    let wanted =
        ExpectedClaims { issuer: "https://login.example", client_id: "ns", nonce: "n1", now: NOW.parse().unwrap() };
    verify(token, keys, &wanted).map(|claims| claims.sub)
}

#[test]
fn a_token_is_believed_only_if_everything_about_it_is_right() {
    let signer = Signer::new();
    let with = |changes: Value| {
        let mut claims = claims();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        told(&signer.sign(&header(), &claims), &signer.keys())
    };
    assert_eq!(with(json!({})), Ok("00u1".to_owned()));
    assert_eq!(with(json!({ "aud": ["ns"] })), Ok("00u1".to_owned()));
    assert_eq!(with(json!({ "aud": ["ns", "other"], "azp": "ns" })), Ok("00u1".to_owned()));
    let now = NOW.parse::<Time>().unwrap().as_second();
    for (changes, why) in [
        (json!({ "iss": "https://login.example/" }), "it is from another issuer"),
        (json!({ "aud": "other" }), "it is for another application"),
        (json!({ "aud": [] }), "it is for another application"),
        (json!({ "aud": ["ns", "other"] }), "it is for another application"),
        (json!({ "aud": "ns", "azp": "other" }), "it is for another application"),
        (json!({ "nonce": "n2" }), "it is for another sign-in"),
        (json!({ "nonce": "" }), "it is for another sign-in"),
        (json!({ "exp": now - 61 }), "it expired 61 s ago by our clock: is the time right here?"),
        (json!({ "iat": now + 61 }), "it was issued 61 s after our clock: is the time right here?"),
        (json!({ "nbf": now + 61 }), "it was issued 61 s after our clock: is the time right here?"),
        (json!({ "sub": "" }), "it names no user"),
        (json!({ "sub": "x".repeat(256) }), "it names no user"),
        (json!({ "exp": "never" }), "a claim is missing or no such thing"),
        (json!({ "exp": null }), "a claim is missing or no such thing"),
        (json!({ "aud": null }), "a claim is missing or no such thing"),
    ] {
        assert_eq!(with(changes.clone()), Err(no(why)), "{changes}");
    }
    let mut bare = claims();
    bare.as_object_mut().unwrap().remove("exp");
    assert!(matches!(told(&signer.sign(&header(), &bare), &signer.keys()), Err(TokenError::No(_))));
}

#[test]
fn the_token_does_not_choose_how_it_is_checked() {
    let signer = Signer::new();
    let by = |header: Value| told(&signer.sign(&header, &claims()), &signer.keys());
    for alg in ["none", "None", "HS256", "HS512", "ES512", ""] {
        assert_eq!(by(json!({ "alg": alg, "kid": "k1" })), Err(no("its algorithm is not allowed")), "{alg}");
    }
    // An RSA algorithm over a key that is none, and a key of another name.
    assert_eq!(by(json!({ "alg": "RS256", "kid": "k1" })), Err(TokenError::UnknownKey));
    assert_eq!(by(json!({ "alg": "ES256", "kid": "k2" })), Err(TokenError::UnknownKey));
    assert!(matches!(by(json!({ "alg": "ES256", "kid": "k1", "crit": ["x"] })), Err(TokenError::No(_))));
    // The token's own key in its header is not even looked at.
    let other = Signer::new();
    let own = json!({ "alg": "ES256", "kid": "k1", "jwk": other.jwk("k1") });
    assert_eq!(told(&other.sign(&own, &claims()), &signer.keys()), Err(no("its signature is wrong")));
    let good = signer.sign(&header(), &claims());
    let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
    assert_eq!(told(&unsigned, &signer.keys()), Err(no("its signature is wrong")));
    for broken in ["", "a", "a.b", "..", "a.b.c", &"x".repeat(70_000)] {
        assert!(matches!(told(broken, &signer.keys()), Err(TokenError::No(_))), "{broken}");
    }
}

#[test]
fn without_a_name_a_key_is_taken_only_if_it_is_the_only_one() {
    let (signer, other) = (Signer::new(), Signer::new());
    let token = signer.sign(&json!({ "alg": "ES256" }), &claims());
    assert!(told(&token, &signer.keys()).is_ok());
    let two = json!({ "keys": [signer.jwk("k1"), other.jwk("k2")] });
    assert_eq!(told(&token, &keys::read(&two.to_string()).unwrap()), Err(TokenError::UnknownKey));
}

#[test]
fn keys_for_other_uses_and_other_kinds_are_left_out() {
    let signer = Signer::new();
    let mut secret = json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "k0" });
    assert!(keys::read(&json!({ "keys": [secret] }).to_string()).unwrap().is_empty());
    secret = signer.jwk("k1");
    secret["use"] = json!("enc");
    assert!(keys::read(&json!({ "keys": [secret] }).to_string()).unwrap().is_empty());
    secret["use"] = json!("sig");
    secret["alg"] = json!("HS256");
    assert!(keys::read(&json!({ "keys": [secret] }).to_string()).unwrap().is_empty());
    assert!(keys::read("{}").is_err() && keys::read("x").is_err());
    let many = vec![signer.jwk("k"); limits::OIDC_KEYS + 1];
    assert!(keys::read(&json!({ "keys": many }).to_string()).is_err());
}
