//! A small provider that lies as it is told to, and what comes of it. The honest one is in `provider.rs`.
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
use nightshift::config::{Config, OidcConfig, Person, Role};
use nightshift::server::{App, Provider, Roster, Tokens};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use url::Url;

const SECRET: &str = "p+a/s s%";

/// What the provider says, and what it was asked.
struct Said {
    issuer: String,
    claims: Value,
    header: Value,
    info: Value,
    /// Which of the two keys signs, and which are published.
    signs: usize,
    published: Vec<usize>,
    /// Replaces the signature by one that the client's secret makes.
    by_secret: bool,
    down: bool,
    huge: bool,
    asked: BTreeMap<&'static str, usize>,
    codes: BTreeMap<String, BTreeMap<String, String>>,
    clock: Arc<SimClock>,
}

#[derive(Clone)]
struct Forged {
    url: Url,
    said: Arc<Mutex<Said>>,
    keys: Arc<[EcdsaKeyPair; 2]>,
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
            asked: BTreeMap::new(),
            codes: BTreeMap::new(),
            clock,
        };
        let forged = Forged { url, said: Arc::new(Mutex::new(said)), keys: Arc::new([key(), key()]) };
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

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap()
    }

    /// Counts the question; none is answered while it is down.
    fn hear(&self, what: &'static str) -> Result<MutexGuard<'_, Said>, StatusCode> {
        let mut said = self.said();
        *said.asked.entry(what).or_default() += 1;
        if said.down { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok(said) }
    }

    fn asked(&self, what: &str) -> usize {
        self.said().asked.get(what).copied().unwrap_or_default()
    }
}

async fn describe(State(forged): State<Forged>) -> Result<Response, StatusCode> {
    let said = forged.hear("description")?;
    if said.huge {
        return Ok("x".repeat(3 * 1024 * 1024).into_response());
    }
    let at = |path: &str| forged.url.join(path).unwrap().to_string();
    let answer = json!({
        "issuer": said.issuer, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "jwks_uri": at("/jwks"), "userinfo_endpoint": at("/me"),
    });
    Ok(Json(answer).into_response())
}

async fn keys(State(forged): State<Forged>) -> Result<Json<Value>, StatusCode> {
    let said = forged.hear("keys")?;
    let jwk = |at: &usize| {
        let point = forged.keys[*at].public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "kid": format!("k{at}"), "x": encode(&point[1..33]), "y": encode(&point[33..]) })
    };
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
    let mut said = forged.hear("token")?;
    let refused = (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response();
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

fn person(name: &str, role: Role, oidc: &str) -> Person {
    Person { oidc: Some(oidc.into()), ..Person::new(name, role) }
}

/// The pages of an engine that believes this provider.
async fn believing(change: impl FnOnce(&mut Config)) -> (Desk, Forged) {
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
    let app = App::new(desk.night.parts.clone(), Tokens::default());
    let provider = Provider::new(oidc, desk.url.as_str(), Some(SECRET.to_owned())).unwrap();
    desk.app = app.with_provider(provider);
    desk.become_app(desk.app.clone());
    (desk, forged)
}

async fn sign_in(desk: &Desk) -> (Browser, Page) {
    let mut browser = Browser::new();
    let page = browser.open(&desk.at("/login/provider?to=/runs/r1")).await;
    (browser, page)
}

#[tokio::test]
async fn nobody_is_let_in_by_default_and_is_told_what_to_tell() {
    let (desk, forged) = believing(|_| {}).await;
    forged.said().claims = json!({ "email": "ada@example.com", "email_verified": true, "groups": ["everybody"] });
    let (browser, page) = sign_in(&desk).await;
    assert_eq!((page.status, browser.session()), (403, None));
    let words = page.words();
    for part in
        ["knows you as `00u1` (mail ada@example.com)", "`oidc: 00u1`", forged.url.as_str().trim_end_matches('/')]
    {
        assert!(words.contains(part), "{part}: {words}");
    }
}

#[tokio::test]
async fn somebody_is_who_the_configuration_says_by_subject_by_verified_mail_or_by_group() {
    let people = vec![
        person("ada", Role::Approver, "Ada@example.com"),
        person("bob", Role::Viewer, "00u2"),
        person("dan", Role::Admin, "dan@example.com"),
    ];
    let (desk, forged) = believing(|config| config.people = people).await;
    desk.asking().await;
    let told = |claims: Value, info: Value| {
        let mut said = forged.said();
        (said.claims, said.info) = (claims, info);
    };
    let nothing = || json!({});
    for (claims, info, who) in [
        (json!({ "email": "ADA@example.com", "email_verified": true }), nothing(), "ada · approver"),
        // The token says nothing; the provider does when it is asked.
        (nothing(), json!({ "sub": "00u1", "email": "ada@example.com", "email_verified": true }), "ada · approver"),
        (json!({ "sub": "00u2", "groups": ["leads"] }), nothing(), "bob · viewer"),
        (json!({ "groups": ["everybody", "sre"] }), nothing(), "oidc:00u1 · responder"),
        (nothing(), json!({ "sub": "00u1", "groups": ["sre", "leads"] }), "oidc:00u1 · operator"),
    ] {
        told(claims.clone(), info.clone());
        let (_, page) = sign_in(&desk).await;
        assert_eq!((page.status, page.url.path()), (200, "/runs/r1"), "{}", page.words());
        assert!(page.words().contains(who), "{claims} {info}: {}", page.words());
    }
    for (claims, info) in [
        (json!({ "email": "ada@example.com" }), nothing()),
        (json!({ "email": "ada@example.com", "email_verified": false }), nothing()),
        (json!({ "email": "ada@example.com", "email_verified": "true" }), nothing()),
        // A subject that looks like somebody's address.
        (json!({ "sub": "dan@example.com" }), nothing()),
        // What is said of somebody else, or half of it here and half of it there.
        (nothing(), json!({ "sub": "00u2", "email": "ada@example.com", "email_verified": true })),
        (
            json!({ "email": "ada@example.com", "email_verified": false }),
            json!({ "sub": "00u1", "email_verified": true }),
        ),
        (json!({ "groups": [7, null, "nobody"] }), nothing()),
        (json!({ "groups": { "sre": true } }), nothing()),
    ] {
        told(claims.clone(), info.clone());
        let (browser, page) = sign_in(&desk).await;
        assert_eq!((page.status, browser.session()), (403, None), "{claims} {info}: {}", page.words());
    }
}

#[tokio::test]
async fn a_token_that_is_wrong_in_one_thing_opens_nothing() {
    let (desk, forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    assert_eq!(
        sign_in(&desk).await.1.url.path(),
        "/runs/r1",
        "all right, so each of these is refused for its lie alone"
    );
    let now = desk.night.now().as_second();
    for (claims, header, why) in [
        (json!({ "iss": "https://evil.example" }), json!({}), "from another issuer"),
        (json!({ "aud": "other" }), json!({}), "for another application"),
        (json!({ "nonce": "n" }), json!({}), "for another sign-in"),
        (json!({ "exp": now - 3_600 }), json!({}), "has expired"),
        (json!({}), json!({ "alg": "none" }), "algorithm is not allowed"),
        (json!({}), json!({ "alg": "HS256" }), "algorithm is not allowed"),
        (json!({}), json!({ "kid": "k1" }), "signed by a key that it does not publish"),
    ] {
        {
            let mut said = forged.said();
            said.by_secret = header["alg"] == "HS256";
            (said.claims, said.header) = (claims, header);
        }
        let (browser, page) = sign_in(&desk).await;
        assert_eq!((page.status, browser.session()), (403, None), "{why}");
        assert!(page.words().contains(why), "{why}: {}", page.words());
    }
    {
        let mut said = forged.said();
        (said.claims, said.header, said.by_secret) = (json!({}), json!({ "kid": "k0" }), false);
        said.signs = 1;
    }
    let (browser, page) = sign_in(&desk).await;
    assert_eq!((page.status, browser.session()), (403, None));
    assert!(page.words().contains("signature is wrong"), "{}", page.words());
}

#[tokio::test]
async fn a_code_is_taken_once_and_only_in_the_browser_where_the_sign_in_began() {
    let (desk, forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    let (mut browser, page) = sign_in(&desk).await;
    let back = page.way.iter().find(|url| url.path() == "/login/callback").unwrap().clone();
    assert_eq!(forged.asked("token"), 1);
    let again = browser.open(&back).await;
    assert_eq!(again.status, 400, "the ticket is gone from the browser");
    assert!(again.words().contains("was not begun in this browser, has been used"), "{}", again.words());
    // A victim who is led to the attacker's answer does not become the attacker.
    let mut victim = Browser::new();
    assert_eq!((victim.open(&back).await.status, victim.session()), (400, None));
    // Not even a copy of the ticket opens twice.
    let mut first = Browser::new();
    let leaving = first.leave(&desk.at("/login/provider")).await;
    let returning = first.leave(&leaving).await;
    let mut second = Browser::new();
    second.jar = first.jar.clone();
    assert_eq!(first.leave(&returning).await.path(), "/");
    let late = second.open(&returning).await;
    assert_eq!((late.status, second.session()), (400, None));
    assert_eq!(forged.asked("token"), 2, "a code that was used is not even sent");
    // Ten minutes later, the code and the ticket are worth nothing.
    let mut slow = Browser::new();
    let leaving = slow.leave(&desk.at("/login/provider")).await;
    let returning = slow.leave(&leaving).await;
    desk.night.pass(Duration::from_secs(600)).await;
    assert_eq!((slow.open(&returning).await.status, slow.session()), (400, None));
    // A state of somebody's own, and an answer of another provider.
    let mut odd = Browser::new();
    let mut returning = {
        let leaving = odd.leave(&desk.at("/login/provider")).await;
        odd.leave(&leaving).await
    };
    let honest = returning.clone();
    returning.query_pairs_mut().clear().append_pair("code", "code-9").append_pair("state", "x");
    assert_eq!(odd.clone().open(&returning).await.status, 400);
    let mut foreign = honest.clone();
    foreign.query_pairs_mut().append_pair("iss", "https://evil.example");
    let page = odd.open(&foreign).await;
    assert_eq!(page.status, 400);
    assert!(page.words().contains("from another provider"), "{}", page.words());
    assert_eq!(forged.asked("token"), 2);
}

#[tokio::test]
async fn a_provider_that_says_no_is_quoted_in_one_harmless_word() {
    let (desk, _forged) = believing(|_| {}).await;
    let mut browser = Browser::new();
    let leaving = browser.leave(&desk.at("/login/provider?to=//evil.example")).await;
    let state = leaving.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let mut back = desk.at("/login/callback");
    back.query_pairs_mut().append_pair("error", "access_denied<script>alert(1)").append_pair("state", &state);
    let page = browser.open(&back).await;
    assert_eq!(page.status, 403);
    assert!(page.words().contains("did not sign you in: access_deniedscriptalert1"), "{}", page.words());
    assert!(!page.text.contains("<script>alert") && !page.text.contains("evil.example"));
}

#[tokio::test]
async fn new_keys_are_asked_for_when_a_token_names_one_but_not_for_every_forged_token() {
    let (desk, forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    sign_in(&desk).await;
    forged.said().header = json!({ "kid": "made-up" });
    for _ in 0..20 {
        assert_eq!(sign_in(&desk).await.1.status, 403);
    }
    assert_eq!((forged.asked("keys"), forged.asked("description")), (1, 1), "within the first minute");
    // The provider changes its key.
    {
        let mut said = forged.said();
        (said.header, said.signs, said.published) = (json!({}), 1, vec![0, 1]);
    }
    assert_eq!(sign_in(&desk).await.1.status, 403);
    desk.night.pass(Duration::from_secs(60)).await;
    assert_eq!(sign_in(&desk).await.1.url.path(), "/runs/r1");
    assert_eq!(forged.asked("keys"), 2);
    // What is published no longer counts no longer, an hour later.
    {
        let mut said = forged.said();
        (said.signs, said.published) = (0, vec![1]);
    }
    desk.night.pass(Duration::from_secs(3_600)).await;
    assert_eq!(sign_in(&desk).await.1.status, 403);
}

#[tokio::test]
async fn a_provider_that_is_down_too_talkative_or_somebody_else_is_refused_in_words() {
    let (desk, forged) = believing(|_| {}).await;
    let refused = async |why: &str| {
        let (browser, page) = sign_in(&desk).await;
        assert_eq!((page.status, browser.session()), (502, None));
        assert!(page.words().contains(why), "{why}: {}", page.words());
        desk.night.pass(Duration::from_secs(5)).await;
    };
    forged.said().down = true;
    for _ in 0..5 {
        assert_eq!(sign_in(&desk).await.1.status, 502);
    }
    assert_eq!(forged.asked("description"), 1, "not asked again at once");
    desk.night.pass(Duration::from_secs(5)).await;
    forged.said().down = false;
    forged.said().huge = true;
    refused("more than 1 MiB, which is not read").await;
    forged.said().huge = false;
    forged.said().issuer = "https://evil.example".into();
    refused("calls itself https://evil.example").await;
}

#[tokio::test]
async fn somebody_who_is_taken_off_the_list_is_out_at_the_next_click() {
    let (desk, _forged) = believing(|config| config.people = vec![person("ada", Role::Approver, "00u1")]).await;
    let known = |people| Roster::new(people, Tokens::default());
    let run = desk.asking().await;
    let (mut ada, page) = sign_in(&desk).await;
    let form = page.form("/web/approvals/a1").with("answer", "approve");
    desk.app.roster.replace(known(vec![person("ada", Role::Viewer, "00u1")]));
    let refused = ada.send(&form).await;
    assert!(refused.status == 403 && refused.words().contains("`ada` has role viewer"), "{}", refused.words());
    desk.app.roster.replace(known(Vec::new()));
    assert_eq!(ada.send(&form).await.status, 401);
    assert_eq!(ada.open(&desk.at("/")).await.url.path(), "/login");
    assert!(desk.waits(run).await);
}
