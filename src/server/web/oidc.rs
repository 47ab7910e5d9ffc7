//! The identity provider: what it says of itself, its keys, and a code made into an identity.
//!
//! Invariant: every answer is bounded in time and size and belongs to the issuer of the configuration; an identity comes
//! out only of a token that was proved, and says who somebody is, not what they may do.

mod keys;
mod known;
mod routes;
mod ticket;
mod token;
mod who;

pub(super) use routes::{begin, callback};
pub(super) use who::{Identity, caller};

use crate::config::OidcConfig;
use crate::limits;
use crate::server::{App, secret};
use crate::world::{Http, HttpRequest, WorldError};
use known::{Described, Known};
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
use ticket::{Ticket, Tickets};
use token::{Wanted, Wrong};
use tokio::sync::Semaphore;
use url::Url;

/// A provider that people sign in with.
pub struct Provider {
    config: OidcConfig,
    secret: RwLock<Option<String>>,
    redirect: RedirectUrl,
    tickets: Tickets,
    known: Known,
    exchanges: Semaphore,
}

type Client = oauth2::Client<
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

/// What comes with the tokens, beyond OAuth.
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

impl Provider {
    pub fn new(config: OidcConfig, public_url: &str, secret: Option<String>) -> Result<Provider, String> {
        let redirect = RedirectUrl::new(format!("{}/login/callback", public_url.trim_end_matches('/')));
        Ok(Provider {
            redirect: redirect.map_err(|error| format!("`server.public_url`: {error}"))?,
            config,
            secret: RwLock::new(secret),
            tickets: Tickets::default(),
            known: Known::default(),
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

    /// Where to send a browser, and the ticket that it must bring back.
    async fn begin(&self, app: &App, to: &str) -> Result<(Url, String), String> {
        let described = self.known.described(app, &self.config).await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let ticket = Ticket {
            state: secret::text::<32>(),
            nonce: secret::text::<32>(),
            verifier: verifier.into_secret(),
            to: to.to_owned(),
            until: app.parts.clock.now() + limits::OIDC_SIGN_IN,
        };
        let client = self.client(&described)?;
        let state = ticket.state.clone();
        let (url, _) = client
            .authorize_url(|| CsrfToken::new(state))
            .add_scopes(self.config.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(challenge)
            .add_extra_param("nonce", &ticket.nonce)
            .url();
        Ok((url, self.tickets.seal(&ticket)))
    }

    /// Who came back with this code. The words say what is wrong, and hold no secret.
    async fn identify(&self, app: &App, ticket: &Ticket, code: String) -> Result<Identity, String> {
        let place = tokio::time::timeout(limits::OIDC_PLACE, self.exchanges.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err("too many people sign in at this moment; try again".to_owned());
        };
        let described = self.known.described(app, &self.config).await?;
        let http = app.parts.world.http.clone();
        let send = move |request: oauth2::HttpRequest| carry(http.clone(), request);
        let client = self.client(&described)?;
        let exchange = client
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(PkceCodeVerifier::new(ticket.verifier.clone()))
            .request_async(&send);
        let tokens = exchange.await.map_err(|error| match error {
            oauth2::RequestTokenError::ServerResponse(refusal) => {
                let word = crate::notifiers::one_line(refusal.error().as_ref(), 60);
                format!("the provider refuses the code: {word}")
            }
            oauth2::RequestTokenError::Request(error) => format!("the provider does not answer: {error}"),
            _ => "the provider's answer cannot be read".to_owned(),
        })?;
        let Some(id_token) = &tokens.extra_fields().id_token else {
            return Err("the provider sent no ID token: is `openid` among the scopes it allows?".to_owned());
        };
        let claims = self.proved(app, id_token, &ticket.nonce).await?;
        let more = self.asked_further(app, &described, &claims, tokens.access_token().secret()).await;
        Ok(Identity::of(&self.config, claims.sub, [claims.rest, more]))
    }

    /// The claims of a token, with keys that are asked for again where it names one that is new.
    async fn proved(&self, app: &App, id_token: &str, nonce: &str) -> Result<token::Claims, String> {
        let wanted = || Wanted {
            issuer: &self.config.issuer,
            client_id: &self.config.client_id,
            nonce,
            now: app.parts.clock.now(),
        };
        let keys = self.known.keys(app, &self.config, false).await?;
        let told = match token::verify(id_token, &keys, &wanted()) {
            Err(Wrong::UnknownKey) => {
                token::verify(id_token, &self.known.keys(app, &self.config, true).await?, &wanted())
            }
            told => told,
        };
        told.map_err(|wrong| match wrong {
            Wrong::UnknownKey => {
                "the provider's token is refused: it is signed by a key that it does not publish".to_owned()
            }
            Wrong::No(why) => format!("the provider's token is refused: {why}"),
        })
    }

    /// Mail and groups, where the token itself does not say them; nothing where the provider does not either.
    async fn asked_further(
        &self,
        app: &App,
        described: &Described,
        claims: &token::Claims,
        access: &str,
    ) -> Map<String, Value> {
        let said = |name: &str| claims.rest.contains_key(name);
        let Some(url) =
            described.userinfo_endpoint.as_ref().filter(|_| !said("email") || !said(&self.config.groups_claim))
        else {
            return Map::new();
        };
        let headers = BTreeMap::from([("authorization".to_owned(), format!("Bearer {access}"))]);
        match get(app, url, headers).await.map(|text| serde_json::from_str::<Map<String, Value>>(&text)) {
            Ok(Ok(info)) if info.get("sub").and_then(Value::as_str) == Some(claims.sub.as_str()) => info,
            Ok(_) => {
                tracing::warn!("what the provider says of a user is about nobody who signs in, or cannot be read");
                Map::new()
            }
            Err(why) => {
                tracing::warn!(%why, "the provider does not say more of a user");
                Map::new()
            }
        }
    }

    fn client(&self, described: &Described) -> Result<Client, String> {
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

async fn get(app: &App, url: &str, headers: BTreeMap<String, String>) -> Result<String, String> {
    let request = HttpRequest { method: "GET".to_owned(), url: url.to_owned(), headers, body: Value::Null };
    let asked = tokio::time::timeout(limits::OIDC_TIMEOUT, app.parts.world.http.send(&request)).await;
    match asked {
        Ok(Ok(answer)) if answer.status == 200 => Ok(answer.body),
        Ok(Ok(answer)) => Err(format!("the provider answers {url} with {}", answer.status)),
        Ok(Err(error)) => Err(format!("the provider does not answer: {error}")),
        Err(_) => Err("the provider does not answer in time".to_owned()),
    }
}

/// A request of `oauth2`'s by our own client, with its bounds.
async fn carry(http: Http, request: oauth2::HttpRequest) -> Result<oauth2::HttpResponse, WorldError> {
    let invalid = |what: &str| WorldError::Invalid(what.to_owned());
    let mut headers = BTreeMap::new();
    for (name, value) in request.headers() {
        let value = value.to_str().map_err(|_| invalid("a header is no text"))?;
        headers.insert(name.as_str().to_owned(), value.to_owned());
    }
    let (method, url) = (request.method().to_string(), request.uri().to_string());
    let body = String::from_utf8(request.into_body()).map_err(|_| invalid("the request is no text"))?;
    let ours = HttpRequest { method, url, headers, body: Value::String(body) };
    let late = |_| WorldError::Unavailable("not in time".to_owned());
    let answer = tokio::time::timeout(limits::OIDC_TIMEOUT, http.send(&ours)).await.map_err(late)??;
    let mut response = oauth2::HttpResponse::new(answer.body.into_bytes());
    *response.status_mut() =
        oauth2::http::StatusCode::from_u16(answer.status).map_err(|_| invalid("no such status"))?;
    Ok(response)
}
