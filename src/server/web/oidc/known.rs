//! A provider's metadata and keys: fetched by one request at a time and cached, and so is a failure to answer.
//!
//! Invariant: however many strangers come, a provider that does not answer keeps a few of them waiting, and the others are
//! refused at once; the cache belongs to the issuer of the configuration.

use super::get;
use super::keys::{self, ProviderKey};
use crate::config::OidcConfig;
use crate::limits;
use crate::model::Time;
use crate::server::App;
use crate::world::HttpClient;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

/// The provider's metadata.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ProviderMetadata {
    issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    pub userinfo_endpoint: Option<String>,
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Where the provider ends its own session.
    #[serde(default)]
    pub end_session_endpoint: Option<String>,
    #[serde(default)]
    prompt_values_supported: Option<Vec<String>>,
}

impl ProviderMetadata {
    /// The value of `prompt`, so that another user can sign in: to choose an account where the provider can, else to
    /// authenticate again.
    pub fn other_user(&self) -> &'static str {
        let choose = |values: &Vec<String>| values.iter().any(|value| value == "select_account");
        if self.prompt_values_supported.as_ref().is_some_and(choose) { "select_account" } else { "login" }
    }
}

pub(super) struct ProviderCache {
    said: Mutex<CachedMetadata>,
    /// One request at a time goes to the provider, and the others wait for its answer …
    turn: tokio::sync::Mutex<()>,
    /// … and there is room for so many of them.
    room: Semaphore,
}

#[derive(Default)]
struct CachedMetadata {
    described: Option<(Time, ProviderMetadata)>,
    keys: Option<(Time, Vec<ProviderKey>)>,
    /// When it has last answered anything.
    here: Option<(Time, ())>,
    /// When it did not answer, or not so that it can be used, and why: it is left alone for a moment.
    failed: Option<(Time, String)>,
}

impl Default for ProviderCache {
    fn default() -> Self {
        ProviderCache {
            said: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            room: Semaphore::new(limits::OIDC_WAITING),
        }
    }
}

impl ProviderCache {
    /// The provider's metadata, not older than an hour.
    ///
    /// # Errors
    ///
    /// Fails when the provider does not answer, or its answer is not the configured issuer's; the failure is cached for
    /// `OIDC_RETRY`.
    pub async fn described(&self, app: &App, config: &OidcConfig) -> Result<ProviderMetadata, String> {
        self.remembered(app, limits::OIDC_KNOWN, |said| &mut said.described, async {
            describe(&app.parts.world.http, config).await.map(|(described, _)| described)
        })
        .await
    }

    /// Checks that it answers, not longer ago than some seconds. Its metadata is cached for much longer, and a browser
    /// that is sent to a provider that is gone shows an error page of its own.
    ///
    /// # Errors
    ///
    /// Fails when the provider does not answer within `OIDC_LOOK`, or answers with a server's error.
    pub async fn answers(&self, app: &App, config: &OidcConfig) -> Result<(), String> {
        self.remembered(app, limits::OIDC_HERE, |said| &mut said.here, is_there(&app.parts.world.http, config)).await
    }

    /// Where the provider ends its own session, if it is known to do so.
    pub fn end_session(&self) -> Option<String> {
        self.said().described.as_ref()?.1.end_session_endpoint.clone()
    }

    /// Its keys; fetched anew at most once a minute, however many tokens name one that is not there.
    ///
    /// # Errors
    ///
    /// Fails when the provider does not answer, or its keys cannot be read.
    pub async fn keys(&self, app: &App, config: &OidcConfig, anew: bool) -> Result<Vec<ProviderKey>, String> {
        let described = self.described(app, config).await?;
        let lasts = if anew { limits::OIDC_KEYS_PACE } else { limits::OIDC_KNOWN };
        let ask = keys_of(&app.parts.world.http, &described);
        self.remembered(app, lasts, |said| &mut said.keys, ask).await
    }

    /// The cached answer, or the cached failure; else a new one.
    async fn remembered<T: Clone>(
        &self,
        app: &App,
        lasts: Duration,
        part: fn(&mut CachedMetadata) -> &mut Option<(Time, T)>,
        ask: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let look = || {
            let (now, mut said) = (app.parts.clock.now(), self.said());
            if let Some((_, known)) = part(&mut said).as_ref().filter(|(at, _)| now < *at + lasts) {
                return Some(Ok(known.clone()));
            }
            said.failed.as_ref().filter(|(at, _)| now < *at + limits::OIDC_RETRY).map(|(_, why)| Err(why.clone()))
        };
        if let Some(known) = look() {
            return known;
        }
        let waiting = || "the provider does not answer, and others wait for it already".to_owned();
        let _room = self.room.try_acquire().map_err(|_| waiting())?;
        // A request may end in the middle of it: then the next one goes to the provider, and none waits for all of
        // them.
        let _turn = timeout(limits::OIDC_TIMEOUT, self.turn.lock()).await.map_err(|_| waiting())?;
        if let Some(known) = look() {
            return known;
        }
        let answer = ask.await;
        // As of the answer: from the question on, a failure would be forgotten as soon as it is known.
        let (now, mut said) = (app.parts.clock.now(), self.said());
        said.failed = answer.as_ref().err().map(|why| (now, why.clone()));
        if let Ok(known) = &answer {
            said.here = Some((now, ()));
            *part(&mut said) = Some((now, known.clone()));
        }
        answer
    }

    fn said(&self) -> MutexGuard<'_, CachedMetadata> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it answers at all: the content is checked where it matters.
async fn is_there(http: &HttpClient, config: &OidcConfig) -> Result<(), String> {
    let url = description(config);
    match timeout(limits::OIDC_LOOK, http.send(&super::asking(&url, BTreeMap::new()))).await {
        Ok(Ok(answer)) if answer.status < 500 => Ok(()),
        Ok(Ok(answer)) => Err(format!("the provider answers {url} with {}", answer.status)),
        Ok(Err(error)) => Err(super::unanswered(&error)),
        Err(_) => Err("the provider does not answer in time".to_owned()),
    }
}

fn description(config: &OidcConfig) -> String {
    format!("{}/.well-known/openid-configuration", config.issuer.trim_end_matches('/'))
}

/// The metadata of the provider at the issuer of `server.oidc`, and its time.
pub(super) async fn describe(
    http: &HttpClient,
    config: &OidcConfig,
) -> Result<(ProviderMetadata, Option<String>), String> {
    let url = description(config);
    let answer = get(http, &url, BTreeMap::new()).await?;
    let described: ProviderMetadata = serde_json::from_str(&answer.body)
        .map_err(|_| format!("{url} is no description of a provider; is `server.oidc.issuer` right?"))?;
    if described.issuer != config.issuer {
        let theirs = crate::notifiers::one_line(&described.issuer, 200);
        return Err(format!("the provider's issuer is {theirs}, and `server.oidc.issuer` differs"));
    }
    let plain = config.issuer.starts_with("http://");
    let all = [&described.authorization_endpoint, &described.token_endpoint, &described.jwks_uri];
    let more = described.userinfo_endpoint.iter().chain(&described.end_session_endpoint);
    if !all.into_iter().chain(more).all(|url| may_ask(url, plain)) {
        return Err("the provider names an address without TLS".to_owned());
    }
    Ok((described, answer.date))
}

pub(super) async fn keys_of(http: &HttpClient, described: &ProviderMetadata) -> Result<Vec<ProviderKey>, String> {
    keys::read(&get(http, &described.jwks_uri, BTreeMap::new()).await?.body)
}

fn may_ask(url: &str, plain: bool) -> bool {
    Url::parse(url).is_ok_and(|url| {
        url.scheme() == "https" || (plain && url.scheme() == "http" && super::super::origin::is_loopback(&url))
    })
}
