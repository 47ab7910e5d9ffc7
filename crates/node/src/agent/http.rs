//! The way to the engine over HTTPS: a ServiceAccount token or a certificate authenticates the agent.
//!
//! Invariant: requests go to the configured engine and nowhere else: no redirect, no proxy; and a certificate is
//! renewed long before it ends.

use super::identity::{self, IdentityFiles};
use super::{EngineLink, LinkError};
use crate::config::AgentConfig;
use crate::limits;
use crate::model::{AgentCommand, AgentStatus, CommandBatch, CommandReport, FindingAck, FindingBatch, Time};
use crate::node::NodeClock;
use reqwest::{StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// With a token: the cluster whose API server reviews it.
pub const CLUSTER_HEADER: &str = "nightshift-cluster";

/// The connection to the engine, over HTTPS.
pub struct HttpLink {
    base: Url,
    settings: Arc<AgentConfig>,
    client: RwLock<LinkClient>,
    clock: NodeClock,
}

#[derive(Clone)]
struct LinkClient {
    http: reqwest::Client,
    /// When its certificate is to be renewed, and when it ends.
    life: Option<(Time, Time)>,
}

impl HttpLink {
    /// Reads the credentials. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// Fails when the engine's address is no URL, or a credential cannot be read.
    pub fn new(settings: Arc<AgentConfig>, clock: &NodeClock) -> Result<HttpLink, String> {
        let base = engine(&settings)?;
        let client = RwLock::new(build(&settings)?);
        Ok(HttpLink { base, settings, client, clock: clock.clone() })
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, LinkError> {
        let url = self.base.join(path).map_err(|error| LinkError::Away(error.to_string()))?;
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut request = client.http.post(url).timeout(within).json(body);
        if let Some(path) = &self.settings.token_file {
            // The kubelet puts a new one in its place every hour.
            let token = std::fs::read_to_string(path)
                .map_err(|error| LinkError::Refused(format!("the token {}: {error}", path.display())))?;
            request = request.bearer_auth(token.trim());
            if let Some(cluster) = &self.settings.cluster {
                request = request.header(CLUSTER_HEADER, cluster);
            }
        }
        match request.send().await {
            Ok(answer) => understand(answer).await,
            // The handshake's own message names no correction.
            Err(error) => Err(match client.life {
                Some((_, ends)) if ends <= self.clock.now() => LinkError::Refused(format!(
                    "this agent's certificate ended at {ends}: make a token with `nightshift agents join-token --node {}` \
                     and join again with `nightshift agent --join -`, which reads it from stdin ({})",
                    identity::node_name(&self.settings),
                    causes(&error)
                )),
                _ => LinkError::Away(causes(&error)),
            }),
        }
    }

    /// Requests another certificate for a new key once most of the time of the present one is used up.
    async fn renew_if_due(&self) {
        let life = self.client.read().unwrap_or_else(PoisonError::into_inner).life;
        if life.is_none_or(|(due, _)| self.clock.now() < due) {
            return;
        }
        match self.renew().await {
            Ok(()) => tracing::info!("agent certificate renewed"),
            Err(why) => tracing::warn!(why, "agent certificate not renewed; retrying"),
        }
    }

    async fn renew(&self) -> Result<(), String> {
        let (key, request) = identity::request(&identity::node_name(&self.settings))?;
        let body = identity::RenewalRequest { request };
        let granted: identity::IssuedCertificate =
            self.post("agent/v1/renew", &body, limits::HTTP_TIMEOUT).await.map_err(|error| error.to_string())?;
        identity::keep(&self.settings.data_dir, &key, &granted)?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = build(&self.settings)?;
        Ok(())
    }
}

#[async_trait::async_trait]
impl EngineLink for HttpLink {
    async fn report(&self, reports: &FindingBatch) -> Result<FindingAck, LinkError> {
        self.post("agent/v1/reports", reports, limits::HTTP_TIMEOUT).await
    }

    async fn poll(&self, standing: &AgentStatus) -> Result<Vec<AgentCommand>, LinkError> {
        self.renew_if_due().await;
        let within = limits::AGENT_POLL + limits::HTTP_TIMEOUT;
        let commands: CommandBatch = self.post("agent/v1/poll", standing, within).await?;
        Ok(commands.commands)
    }

    async fn answer(&self, answered: &CommandReport) -> Result<bool, LinkError> {
        let said: serde_json::Value = self.post("agent/v1/answers", answered, limits::HTTP_TIMEOUT).await?;
        // An engine that does not answer this waits.
        Ok(said["wanted"] != false)
    }
}

/// The engine's address: HTTPS, or plain HTTP to this very machine.
pub(super) fn engine(settings: &AgentConfig) -> Result<Url, String> {
    let text =
        settings.engine.as_deref().ok_or("`engine` is missing: write where it is, as in `https://nightshift:7677`")?;
    let mut url = Url::parse(text).map_err(|error| format!("engine `{text}`: {error}"))?;
    let local = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if local => {}
        "http" => {
            return Err(format!(
                "engine `{text}` is plain HTTP, which would send this agent's credentials unencrypted: use https://"
            ));
        }
        _ => return Err(format!("engine `{text}` must begin with https://")),
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn build(settings: &AgentConfig) -> Result<LinkClient, String> {
    let identity = if settings.token_file.is_some() { None } else { IdentityFiles::load(&settings.data_dir)? };
    let mut authorities = identity.iter().map(|identity| identity.ca.clone()).collect::<Vec<_>>();
    if let Some(path) = &settings.ca_file {
        authorities
            .push(std::fs::read_to_string(path).map_err(|error| format!("ca_file {}: {error}", path.display()))?);
    }
    let http = client(&authorities, identity.as_ref())?;
    Ok(LinkClient { http, life: identity.map(|identity| (identity.renew_at, identity.ends)) })
}

/// A client that trusts these authorities alone, or the system's where there are none.
pub(super) fn client(authorities: &[String], identity: Option<&IdentityFiles>) -> Result<reqwest::Client, String> {
    nightshift_runtime::install_tls();
    let make = || {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(limits::CONNECT_TIMEOUT)
            .pool_max_idle_per_host(2)
            .user_agent(concat!("nightshift-agent/", env!("CARGO_PKG_VERSION")))
    };
    let mut roots = Vec::new();
    for text in authorities {
        let bundle = reqwest::Certificate::from_pem_bundle(text.as_bytes());
        roots.extend(bundle.map_err(|error| format!("an authority's certificate: {error}"))?);
    }
    let pem = identity.map(|identity| format!("{}\n{}", identity.key, identity.certificate));
    let own = pem.map(|pem| reqwest::Identity::from_pem(pem.as_bytes())).transpose();
    let own = own.map_err(|error| format!("this agent's certificate: {error}"))?;
    let built = nightshift_runtime::client(|| {
        let builder = if roots.is_empty() { make() } else { make().tls_certs_only(roots.iter().cloned()) };
        match &own {
            Some(own) => builder.identity(own.clone()).tls_version_min(reqwest::tls::Version::TLS_1_3),
            None => builder,
        }
    });
    built.map_err(|error| format!("no HTTP client: {error:?}"))
}

/// The body of a successful answer, or the message of a refusal.
pub(super) async fn understand<T: DeserializeOwned>(mut answer: reqwest::Response) -> Result<T, LinkError> {
    let status = answer.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| LinkError::Away(causes(&error)))? {
        if bytes.len() + chunk.len() > limits::AGENT_ANSWER_BYTES {
            return Err(LinkError::Away("the answer is endless".to_owned()));
        }
        bytes.extend_from_slice(&chunk);
    }
    if status.is_success() {
        let wrong = |error| LinkError::Away(format!("the answer is not understood: {error}"));
        return serde_json::from_slice(&bytes).map_err(wrong);
    }
    let said: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let part = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    let why = format!("{} {}: {}", status.as_u16(), part("error"), part("hint"));
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(LinkError::Away(why)),
        status if status.is_client_error() => Err(LinkError::Refused(why)),
        _ => Err(LinkError::Away(why)),
    }
}

/// The whole chain: "error sending request" alone has no cause.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_reached_by_https_or_on_this_machine_alone() {
        let of =
            |engine: &str| super::engine(&AgentConfig { engine: Some(engine.to_owned()), ..AgentConfig::default() });
        assert_eq!(of("https://nightshift:7677").unwrap().join("agent/v1/poll").unwrap().path(), "/agent/v1/poll");
        assert_eq!(of("https://x/behind").unwrap().join("agent/v1/poll").unwrap().path(), "/behind/agent/v1/poll");
        assert!(of("http://127.0.0.1:7676").is_ok() && of("http://localhost:1").is_ok());
        for bad in ["http://nightshift:7677", "nightshift:7677", "ftp://x", ""] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
