//! A small provider that lies as it is told to. What comes of it is in `sign_in.rs`; the honest one is in `provider.rs`.
//!
//! Invariant: the lie is one thing at a time; all else about the sign-in is right, and PKCE and the client's secret are
//! checked as a provider does.

use super::browser::{Browser, Page};
use super::desk::Desk;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use nightshift::clock::{Clock, SimClock};
use nightshift::config::{Config, OidcConfig, PersonConfig, Role};
use nightshift::server::{App, ConfiguredTokens, OidcProvider};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use url::Url;

const SECRET: &str = "p+a/s s%";

/// What the provider says, and what it was asked.
pub struct Said {
    pub issuer: String,
    pub claims: Value,
    pub header: Value,
    pub info: Value,
    /// Which of the two keys signs, and which are published.
    pub signs: usize,
    pub published: Vec<usize>,
    /// Replaces the signature by one that the client's secret makes.
    pub by_secret: bool,
    pub down: bool,
    pub huge: bool,
    /// Its set of keys is no such thing.
    pub odd: bool,
    /// Takes no code, and says so: error and description.
    pub refuses: Option<(&'static str, &'static str)>,
    /// How long each answer takes by the engine's clock.
    pub takes: Duration,
    pub asked: BTreeMap<&'static str, usize>,
    pub codes: BTreeMap<String, BTreeMap<String, String>>,
    pub clock: Arc<SimClock>,
}

#[derive(Clone)]
pub struct Forged {
    pub url: Url,
    pub said: Arc<Mutex<Said>>,
    pub keys: Arc<[EcdsaKeyPair; 2]>,
    /// While it is true, nothing is answered that the engine asks before somebody is signed in.
    pub silent: Arc<watch::Sender<bool>>,
}

fn key() -> EcdsaKeyPair {
    let rng = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap()
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Forged {
    async fn begin(clock: Arc<SimClock>) -> Forged {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let issuer = url.as_str().trim_end_matches('/').to_owned();
        let said = Said {
            issuer,
            claims: json!({}),
            header: json!({}),
            info: Value::Null,
            signs: 0,
            published: vec![0],
            by_secret: false,
            down: false,
            huge: false,
            odd: false,
            refuses: None,
            takes: Duration::ZERO,
            asked: BTreeMap::new(),
            codes: BTreeMap::new(),
            clock,
        };
        let said = Arc::new(Mutex::new(said));
        let forged = Forged { url, said, keys: Arc::new([key(), key()]), silent: Arc::default() };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(describe))
            .route("/jwks", get(keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/me", get(info))
            .with_state(forged.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        forged
    }

    pub fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap()
    }

    /// Counts the question; none is answered while it is down.
    fn hear(&self, what: &'static str) -> Result<MutexGuard<'_, Said>, StatusCode> {
        let mut said = self.said();
        *said.asked.entry(what).or_default() += 1;
        said.clock.advance(said.takes);
        if said.down { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok(said) }
    }

    /// Until it says something again.
    async fn speaks(&self) {
        let _ = self.silent.subscribe().wait_for(|silent| !*silent).await;
    }

    pub fn asked(&self, what: &str) -> usize {
        self.said().asked.get(what).copied().unwrap_or_default()
    }
}

async fn describe(State(forged): State<Forged>) -> Result<Response, StatusCode> {
    drop(forged.hear("description")?);
    forged.speaks().await;
    let said = forged.said();
    if said.huge {
        return Ok("x".repeat(3 * 1024 * 1024).into_response());
    }
    let at = |path: &str| forged.url.join(path).unwrap().to_string();
    let answer = json!({
        "issuer": said.issuer, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "jwks_uri": at("/jwks"), "userinfo_endpoint": at("/me"), "end_session_endpoint": at("/end"),
    });
    Ok(Json(answer).into_response())
}

async fn keys(State(forged): State<Forged>) -> Result<Json<Value>, StatusCode> {
    let said = forged.hear("keys")?;
    let jwk = |at: &usize| {
        let point = forged.keys[*at].public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "kid": format!("k{at}"), "x": encode(&point[1..33]), "y": encode(&point[33..]) })
    };
    if said.odd {
        return Ok(Json(json!({ "keys": "none" })));
    }
    Ok(Json(json!({ "keys": said.published.iter().map(jwk).collect::<Vec<_>>() })))
}

/// Signs everybody in at once and sends them back.
async fn authorize(
    State(forged): State<Forged>,
    Query(asked): Query<BTreeMap<String, String>>,
) -> Result<Redirect, StatusCode> {
    let mut said = forged.hear("authorize")?;
    let code = format!("code-{}", said.codes.len());
    let mut back: Url = asked["redirect_uri"].parse().unwrap();
    assert_eq!((asked["response_type"].as_str(), asked["code_challenge_method"].as_str()), ("code", "S256"));
    assert!(asked["scope"].split(' ').any(|scope| scope == "openid"));
    back.query_pairs_mut().append_pair("code", &code).append_pair("state", &asked["state"]);
    said.codes.insert(code, asked);
    Ok(Redirect::to(back.as_str()))
}

async fn token(State(forged): State<Forged>, headers: HeaderMap, body: String) -> Result<Response, StatusCode> {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    drop(forged.hear("token")?);
    forged.speaks().await;
    let mut said = forged.said();
    let refused = (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response();
    if let Some((error, description)) = said.refuses {
        let body = Json(json!({ "error": error, "error_description": description }));
        return Ok((StatusCode::UNAUTHORIZED, body).into_response());
    }
    let Some(asked) = said.codes.remove(&form["code"]) else { return Ok(refused) };
    // As RFC 6749 says: both form-encoded before they are joined.
    let encoded: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    let expected = format!("Basic {}", STANDARD.encode(format!("ns:{encoded}")));
    assert_eq!(headers["authorization"].to_str().unwrap(), expected);
    let digest = ring::digest::digest(&ring::digest::SHA256, form["code_verifier"].as_bytes());
    assert_eq!(encode(digest), asked["code_challenge"], "PKCE");
    let now = said.clock.now().as_second();
    let mut claims = json!({ "iss": forged.url.as_str().trim_end_matches('/'), "aud": "ns", "sub": "00u1", "nonce": asked["nonce"], "iat": now, "exp": now + 300 });
    let mut header = json!({ "alg": "ES256", "kid": format!("k{}", said.signs) });
    for (into, from) in [(&mut claims, &said.claims), (&mut header, &said.header)] {
        for (name, value) in from.as_object().unwrap() {
            into[name] = value.clone();
        }
    }
    let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = match said.by_secret {
        true => {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
            encode(ring::hmac::sign(&key, signed.as_bytes()))
        }
        false if header["alg"] == "none" => String::new(),
        false => encode(forged.keys[said.signs].sign(&SystemRandom::new(), signed.as_bytes()).unwrap()),
    };
    let answer = json!({ "access_token": "at", "token_type": "Bearer", "id_token": format!("{signed}.{signature}"), "expires_in": 60 });
    Ok(Json(answer).into_response())
}

async fn info(State(forged): State<Forged>) -> Result<Json<Value>, StatusCode> {
    Ok(Json(forged.hear("info")?.info.clone()))
}

pub fn person(name: &str, role: Role, oidc: &str) -> PersonConfig {
    PersonConfig { oidc: Some(oidc.into()), ..PersonConfig::new(name, role) }
}

/// The pages of an engine that believes this provider.
pub async fn believing(change: impl FnOnce(&mut Config)) -> (Desk, Forged) {
    let mut desk = Desk::set(|config, url| {
        config.server.public_url = Some(url.to_string());
        change(config);
    })
    .await;
    let forged = Forged::begin(desk.night.clock.clone()).await;
    let oidc = json!({
        "issuer": forged.url.as_str().trim_end_matches('/'), "client_id": "ns", "roles": { "sre": "responder", "leads": "operator" },
    });
    let oidc: OidcConfig = serde_json::from_value(oidc).unwrap();
    desk.night.configure(|config| config.server.oidc = Some(oidc.clone()));
    let app = App::new(desk.night.parts.clone(), ConfiguredTokens::default());
    let provider = OidcProvider::new(oidc, desk.url.as_str(), Some(SECRET.to_owned())).unwrap();
    desk.app = app.with_provider(provider);
    desk.become_app(desk.app.clone());
    (desk, forged)
}

pub async fn sign_in(desk: &Desk) -> (Browser, Page) {
    let mut browser = Browser::new();
    let page = browser.open(&desk.at("/login/provider?to=/runs/r1")).await;
    (browser, page)
}
