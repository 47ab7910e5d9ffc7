//! The identity provider: its metadata, its keys, and a code made into an identity.
//!
//! Invariant: every answer is bounded in time and size and belongs to the issuer of the configuration; an identity comes
//! comes only from a verified token, and names a user, not their rights.

mod keys;
mod known;
mod routes;
mod ticket;
mod token;
mod who;

pub(super) use routes::{begin, callback, end};
pub use who::look;
pub(super) use who::{OidcIdentity, SignInResult, standing};

use crate::config::OidcConfig;
use crate::limits;
use crate::notifiers::one_line;
use crate::planted::planted;
use crate::server::{App, secret};
use crate::world::{HttpAnswer, HttpClient, HttpRequest, WorldError};
use axum::http::StatusCode;
use known::{ProviderCache, ProviderMetadata};
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    ExtraTokenFields, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, StandardRevocableToken,
    StandardTokenResponse, TokenResponse, TokenUrl,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};
use ticket::{SignInTicket, TicketSealer};
use token::{ExpectedClaims, TokenError};
use tokio::sync::Semaphore;
use url::Url;

/// A provider that users sign in with.
pub struct OidcProvider {
    config: OidcConfig,
    secret: RwLock<Option<String>>,
    redirect: RedirectUrl,
    tickets: TicketSealer,
    known: ProviderCache,
    exchanges: Semaphore,
}

type OidcClient = oauth2::Client<
    BasicErrorResponse,
    StandardTokenResponse<IdToken, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// The fields that come with the tokens, beyond OAuth.
#[derive(Serialize, Deserialize)]
struct IdToken {
    #[serde(default)]
    id_token: Option<String>,
}

impl fmt::Debug for IdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdToken(…)")
    }
}

impl ExtraTokenFields for IdToken {}

/// Why a sign-in failed, and its fix; no secret is in it.
struct SignInFailure {
    status: StatusCode,
    why: String,
    hint: String,
}

const AGAIN: &str = "sign in again; if it persists, tell an administrator";

impl SignInFailure {
    /// The provider does not do its part: nothing that the user did is wrong.
    fn provider(why: impl Into<String>) -> SignInFailure {
        let hint = "try again in a moment, or sign in with a token (below); if it persists, tell an administrator";
        SignInFailure { status: StatusCode::BAD_GATEWAY, why: why.into(), hint: hint.to_owned() }
    }

    /// The provider cannot be reached, so no sign-in with it can succeed: the other ways in are named.
    fn unreached(why: String) -> SignInFailure {
        let hint = "sign in with a token (below), or try again in a moment; without one, `nightshift break-glass` on the \
                    engine's machine makes one that lasts for an hour";
        SignInFailure {
            status: StatusCode::BAD_GATEWAY,
            why: format!("you cannot sign in with your organization now: {why}"),
            hint: hint.to_owned(),
        }
    }

    fn refused(why: impl Into<String>, hint: impl Into<String>) -> SignInFailure {
        SignInFailure { status: StatusCode::FORBIDDEN, why: why.into(), hint: hint.into() }
    }
}

impl OidcProvider {
    /// The provider of this configuration. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// Fails when `public_url` is no URL.
    pub fn new(config: OidcConfig, public_url: &str, secret: Option<String>) -> Result<OidcProvider, String> {
        let redirect = RedirectUrl::new(format!("{}/login/callback", public_url.trim_end_matches('/')));
        Ok(OidcProvider {
            redirect: redirect.map_err(|error| format!("`server.public_url`: {error}"))?,
            config,
            secret: RwLock::new(secret),
            tickets: TicketSealer::default(),
            known: ProviderCache::default(),
            exchanges: Semaphore::new(limits::OIDC_EXCHANGES),
        })
    }

    /// From now on this secret is ours; whether it is another one.
    pub(super) fn renew(&self, secret: Option<String>) -> bool {
        let mut held = self.secret.write().unwrap_or_else(PoisonError::into_inner);
        let other = *held != secret;
        *held = secret;
        other
    }

    /// Where to send a browser, and the state and ticket that it must bring back. `other`: as another user than the one
    /// whose session the provider has.
    async fn begin(&self, app: &App, to: &str, other: bool) -> Result<(Url, String, String), SignInFailure> {
        let described = self.known.described(app, &self.config).await.map_err(SignInFailure::unreached)?;
        if !planted("provider-gone-is-not-noticed") {
            self.known.answers(app, &self.config).await.map_err(SignInFailure::unreached)?;
        }
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let ticket = SignInTicket {
            state: ticket::state(to),
            nonce: secret::text::<32>(),
            verifier: verifier.into_secret(),
            to: to.to_owned(),
            until: app.parts.clock.now() + limits::OIDC_SIGN_IN,
        };
        let client = self.client(&described).map_err(SignInFailure::provider)?;
        let state = ticket.state.clone();
        let mut request = client
            .authorize_url(|| CsrfToken::new(state))
            .add_scopes(self.config.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(challenge)
            .add_extra_param("nonce", &ticket.nonce);
        if other {
            request = request.add_extra_param("prompt", described.other_user());
        }
        let (url, _) = request.url();
        let sealed = self.tickets.seal(&ticket);
        Ok((url, ticket.state, sealed))
    }

    /// Where the provider ends its own session, for a link.
    pub(super) fn end_session(&self) -> Option<Url> {
        let mut url = Url::parse(&self.known.end_session()?).ok()?;
        url.query_pairs_mut().append_pair("client_id", &self.config.client_id);
        Some(url)
    }

    /// Who came back with this code.
    async fn identify(
        &self,
        app: &App,
        ticket: &SignInTicket,
        code: String,
    ) -> Result<(OidcIdentity, who::RefusalClaims), SignInFailure> {
        let place = tokio::time::timeout(limits::OIDC_PLACE, self.exchanges.acquire()).await;
        let Ok(Ok(_place)) = place else {
            let why = "too many sign-ins at this moment".to_owned();
            return Err(SignInFailure {
                status: StatusCode::SERVICE_UNAVAILABLE,
                why,
                hint: "try again in a moment".to_owned(),
            });
        };
        let described = self.known.described(app, &self.config).await.map_err(SignInFailure::provider)?;
        let http = app.parts.world.http.clone();
        let send = move |request: oauth2::HttpRequest| carry(http.clone(), request);
        let client = self.client(&described).map_err(SignInFailure::provider)?;
        let exchange = client
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(PkceCodeVerifier::new(ticket.verifier.clone()))
            .request_async(&send);
        let tokens = exchange.await.map_err(|error| match error {
            oauth2::RequestTokenError::ServerResponse(refusal) => {
                self.code_refused(refusal.error().as_ref(), refusal.error_description().map(String::as_str))
            }
            oauth2::RequestTokenError::Request(error) => SignInFailure::provider(unanswered(&error)),
            _ => SignInFailure::provider("the provider's answer to the code cannot be read"),
        })?;
        let Some(id_token) = &tokens.extra_fields().id_token else {
            return Err(SignInFailure::provider(
                "the provider sent no ID token: is `openid` among the scopes it allows?",
            ));
        };
        let claims = self.proved(app, id_token, &ticket.nonce).await?;
        let more = self.asked_further(app, &described, &claims, tokens.access_token().secret()).await;
        Ok(OidcIdentity::of(&self.config, &app.roster.now(), claims.sub, &[claims.rest, more]))
    }

    /// The provider sent a user back with an error instead of a code.
    fn not_signed_in(&self, code: &str, description: Option<&str>) -> SignInFailure {
        let word: String = code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(40).collect();
        let hint = match word.as_str() {
            "invalid_scope" => format!(
                "`server.oidc.scopes` asks for `{}`: does the provider allow all of them to the client?",
                self.config.scopes.join(" ")
            ),
            "unauthorized_client" => format!(
                "is the authorization code flow (standard flow) on for the client `{}` at the provider?",
                self.config.client_id
            ),
            "access_denied" => "you or the provider refused; sign in again, or with a token (below)".to_owned(),
            "login_required" | "interaction_required" | "temporarily_unavailable" => "sign in again".to_owned(),
            _ => AGAIN.to_owned(),
        };
        SignInFailure::refused(format!("the provider did not sign you in: {word}{}", described(description)), hint)
    }

    /// The provider does not take the code that it gave.
    fn code_refused(&self, code: &str, description: Option<&str>) -> SignInFailure {
        let why = format!("the provider refuses the code: {}{}", one_line(code, 60), described(description));
        match code {
            "invalid_client" | "unauthorized_client" => {
                let client = &self.config.client_id;
                let hint = match &self.config.client_secret {
                    Some(_) => format!(
                        "most likely `server.oidc.client_secret` differs from the provider's secret for `{client}`; tell an administrator"
                    ),
                    None => format!(
                        "most likely the provider requires a `server.oidc.client_secret` for `{client}`; tell an administrator"
                    ),
                };
                SignInFailure { hint, ..SignInFailure::provider(why) }
            }
            _ => SignInFailure::refused(why, AGAIN),
        }
    }

    /// The claims of a token, with keys that are fetched again where it names a new one.
    async fn proved(&self, app: &App, id_token: &str, nonce: &str) -> Result<token::IdTokenClaims, SignInFailure> {
        let wanted = || ExpectedClaims {
            issuer: &self.config.issuer,
            client_id: &self.config.client_id,
            nonce,
            now: app.parts.clock.now(),
        };
        let keys = self.known.keys(app, &self.config, false).await.map_err(SignInFailure::provider)?;
        let told = match token::verify(id_token, &keys, &wanted()) {
            Err(TokenError::UnknownKey) => {
                let keys = self.known.keys(app, &self.config, true).await.map_err(SignInFailure::provider)?;
                token::verify(id_token, &keys, &wanted())
            }
            told => told,
        };
        told.map_err(|wrong| match wrong {
            TokenError::UnknownKey => SignInFailure::refused(
                "the provider's token is refused: it is signed by a key that is not among those that the provider showed \
                 within the last minute",
                "if the provider has just changed its keys, try again in a minute; if it persists, tell an administrator",
            ),
            TokenError::No(why) => SignInFailure::refused(format!("the provider's token is refused: {why}"), AGAIN),
        })
    }

    /// Mail and groups, where the token itself lacks them; none where the provider has none either.
    async fn asked_further(
        &self,
        app: &App,
        described: &ProviderMetadata,
        claims: &token::IdTokenClaims,
        access: &str,
    ) -> Map<String, Value> {
        let said = |name: &str| claims.rest.contains_key(name);
        let Some(url) =
            described.userinfo_endpoint.as_ref().filter(|_| !said("email") || !said(&self.config.groups_claim))
        else {
            return Map::new();
        };
        let headers = BTreeMap::from([("authorization".to_owned(), format!("Bearer {access}"))]);
        let why = match get(&app.parts.world.http, url, headers).await {
            Err(why) => why,
            Ok(answer) => match serde_json::from_str::<Map<String, Value>>(&answer.body) {
                Ok(info) if info.get("sub").and_then(Value::as_str) == Some(claims.sub.as_str()) => return info,
                Ok(_) => "its `sub` is not that of the ID token".to_owned(),
                Err(_) if answer.body.starts_with("eyJ") => {
                    "it is a signed token (application/jwt): let the client have plain JSON".to_owned()
                }
                Err(_) => "it is no JSON object".to_owned(),
            },
        };
        tracing::warn!(%why, url, "userinfo of the identity provider not used; mail and groups are those of the ID token");
        Map::new()
    }

    fn client(&self, described: &ProviderMetadata) -> Result<OidcClient, String> {
        let wrong = |error: oauth2::url::ParseError| format!("the provider's addresses cannot be read: {error}");
        let id = ClientId::new(self.config.client_id.clone());
        let in_body = described
            .token_endpoint_auth_methods_supported
            .as_ref()
            .is_some_and(|methods| !methods.iter().any(|method| method == "client_secret_basic"));
        let client = oauth2::Client::new(id)
            .set_auth_uri(AuthUrl::new(described.authorization_endpoint.clone()).map_err(wrong)?)
            .set_token_uri(TokenUrl::new(described.token_endpoint.clone()).map_err(wrong)?)
            .set_redirect_uri(self.redirect.clone())
            .set_auth_type(if in_body { AuthType::RequestBody } else { AuthType::BasicAuth });
        let secret = self.secret.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(match secret {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret)),
            None => client,
        })
    }
}

/// A provider's description of an error: one line, bounded, for the log and the page.
fn described(description: Option<&str>) -> String {
    let text = description.map(|text| one_line(text, limits::OIDC_WORDS)).unwrap_or_default();
    if text.is_empty() { text } else { format!(" ({text})") }
}

fn unanswered(error: &WorldError) -> String {
    match error {
        WorldError::Unavailable(why) | WorldError::Unreached(why) => format!("the provider does not answer: {why}"),
        other => format!("the provider does not answer: {other}"),
    }
}

fn asking(url: &str, headers: BTreeMap<String, String>) -> HttpRequest {
    HttpRequest { method: "GET".to_owned(), url: url.to_owned(), headers, body: Value::Null }
}

async fn get(http: &HttpClient, url: &str, headers: BTreeMap<String, String>) -> Result<HttpAnswer, String> {
    let asked = tokio::time::timeout(limits::OIDC_TIMEOUT, http.send(&asking(url, headers))).await;
    match asked {
        Ok(Ok(answer)) if answer.status == 200 => Ok(answer),
        Ok(Ok(answer)) => Err(format!("the provider answers {url} with {}", answer.status)),
        Ok(Err(error)) => Err(unanswered(&error)),
        Err(_) => Err("the provider does not answer in time".to_owned()),
    }
}

/// A request of `oauth2`'s by our own client, with its bounds.
async fn carry(http: HttpClient, request: oauth2::HttpRequest) -> Result<oauth2::HttpResponse, WorldError> {
    let invalid = |what: &str| WorldError::Invalid(what.to_owned());
    let mut headers = BTreeMap::new();
    for (name, value) in request.headers() {
        let value = value.to_str().map_err(|_| invalid("a header is no text"))?;
        headers.insert(name.as_str().to_owned(), value.to_owned());
    }
    let (method, url) = (request.method().to_string(), request.uri().to_string());
    let body = String::from_utf8(request.into_body()).map_err(|_| invalid("the request is no text"))?;
    let ours = HttpRequest { method, url, headers, body: Value::String(body) };
    let late = |_| WorldError::Unavailable(format!("not within {} s", limits::OIDC_TIMEOUT.as_secs()));
    let answer = tokio::time::timeout(limits::OIDC_TIMEOUT, http.send(&ours)).await.map_err(late)??;
    let mut response = oauth2::HttpResponse::new(answer.body.into_bytes());
    *response.status_mut() =
        oauth2::http::StatusCode::from_u16(answer.status).map_err(|_| invalid("no such status"))?;
    Ok(response)
}
