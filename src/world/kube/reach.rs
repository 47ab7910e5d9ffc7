//! How a cluster is reached: by URL and token, by a kubeconfig, or from within.
//!
//! Invariant: an explicit setting of the configuration goes before a discovered one.

use super::CacheJob;
use crate::limits;
use crate::world::WorldError;
use crate::world::gate::{GatedBody, KillSwitchGate};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};

/// How to reach one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct KubeConfig {
    /// The API server; empty: in-cluster, else the kubeconfig file's current context.
    pub url: String,
    /// A kubeconfig file.
    pub kubeconfig: Option<std::path::PathBuf>,
    /// A context of it; left out: the current one.
    pub context: Option<String>,
    /// Read again as it rotates, like the certificate.
    pub token_file: Option<std::path::PathBuf>,
    /// PEM file of the authority that signed the API server's certificate.
    pub ca_file: Option<std::path::PathBuf>,
    /// How models are warmed by a Job on nodes without an agent; left out: they are not.
    pub cache_job: Option<CacheJob>,
    /// The namespace of the Lease by which only one of several engines of this installation acts on the cluster; left out:
    /// the one that the engine runs in, else `nightshift`; empty: no Lease is kept.
    pub lease_namespace: Option<String>,
}

impl KubeConfig {
    /// Where the Lease lies, if one is kept.
    pub fn lease_namespace(&self) -> Option<String> {
        const OWN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
        let named = self.lease_namespace.clone().or_else(|| {
            let own = std::fs::read_to_string(OWN).ok().map(|text| text.trim().to_owned());
            own.filter(|text| !text.is_empty())
        });
        Some(named.unwrap_or_else(|| "nightshift".to_owned())).filter(|name| !name.is_empty())
    }
}

/// The client of one cluster, built at the first request that can: a kubeconfig may be written after the start.
pub(super) struct ClusterClient {
    config: KubeConfig,
    identity: String,
    built: tokio::sync::OnceCell<kube::Client>,
}

impl ClusterClient {
    /// A client of these settings. Connects to nothing yet.
    pub fn new(config: &KubeConfig, identity: &str) -> ClusterClient {
        ClusterClient { config: config.clone(), identity: identity.to_owned(), built: tokio::sync::OnceCell::new() }
    }

    /// Connects, once.
    ///
    /// # Errors
    ///
    /// Fails when the settings or the files that they name are wrong.
    pub async fn connect(&self) -> Result<&kube::Client, WorldError> {
        self.built.get_or_try_init(|| client(&self.config, &self.identity)).await
    }

    /// # Errors
    /// [`WorldError::Unreached`] as long as the client cannot be built: nothing was sent, and a later request may succeed.
    pub async fn client(&self) -> Result<&kube::Client, WorldError> {
        self.connect().await.map_err(|error| WorldError::Unreached(format!("this cluster: {error}")))
    }
}

async fn client(config: &KubeConfig, identity: &str) -> Result<kube::Client, WorldError> {
    crate::world::install_tls();
    let mut settings = settings(config).await?;
    settings.default_retry = false;
    settings.connect_timeout = Some(limits::CONNECT_TIMEOUT);
    settings.write_timeout = Some(limits::KUBE_TIMEOUT);
    let agent = http::HeaderValue::from_str(identity)
        .map_err(|_| WorldError::Invalid(format!("`{identity}` cannot be a user agent: use plain ASCII")))?;
    settings.headers.push((http::header::USER_AGENT, agent));
    stack(settings).map_err(|error| WorldError::Invalid(format!("no client for the cluster: {error}")))
}

/// The client's layers as `kube` puts them together, but for the body, which passes the gate of its request.
fn stack(settings: kube::Config) -> Result<kube::Client, kube::Error> {
    use kube::client::{Body, ClientBuilder, ConfigExt as _};
    if settings.proxy_url.is_some() {
        // No feature for proxies is compiled, which it says in words.
        return kube::Client::try_from(settings);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(settings.connect_timeout);
    let connector = settings.rustls_https_connector_with_connector(connector)?;
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let gated = |request: http::Request<Body>| {
        let gate = request.extensions().get::<KillSwitchGate>().cloned();
        request.map(|body| GatedBody::new(body, gate))
    };
    let service = tower::ServiceBuilder::new()
        .layer(settings.base_uri_layer())
        .option_layer(settings.auth_layer()?)
        .layer(settings.extra_headers_layer()?)
        .map_request(gated)
        .map_err(tower::BoxError::from)
        .service(client);
    Ok(ClientBuilder::new(service, settings.default_namespace.clone()).build())
}

async fn settings(config: &KubeConfig) -> Result<kube::Config, WorldError> {
    use kube::config::{KubeConfigOptions, Kubeconfig};
    if !config.url.is_empty() {
        let url = config.url.parse().map_err(|error| {
            WorldError::Invalid(format!("`{}` is not the URL of an API server: {error}", config.url))
        })?;
        let mut settings = kube::Config::new(url);
        settings.root_cert_file = config.ca_file.clone();
        if config.ca_file.is_none() && settings.cluster_url.scheme_str() == Some("http") {
            // There is no server to be trusted, so the system need not have CA certificates.
            settings.root_cert = Some(Vec::new());
        }
        settings.auth_info.token_file = config.token_file.as_ref().map(|path| path.to_string_lossy().into_owned());
        return Ok(settings);
    }
    let options = KubeConfigOptions { context: config.context.clone(), ..KubeConfigOptions::default() };
    let unread = |what: &str, error: &dyn std::fmt::Display| {
        WorldError::Invalid(format!("{what}: {error}; set `url` or `kubeconfig` of the cluster in the configuration"))
    };
    if let Some(path) = &config.kubeconfig {
        let file = Kubeconfig::read_from(path).map_err(|error| unread(&path.display().to_string(), &error))?;
        return kube::Config::from_custom_kubeconfig(file, &options)
            .await
            .map_err(|error| unread(&path.display().to_string(), &error));
    }
    if config.context.is_none()
        && let Ok(settings) = kube::Config::incluster()
    {
        return Ok(settings);
    }
    kube::Config::from_kubeconfig(&options)
        .await
        .map_err(|error| unread("neither in a cluster nor with a kubeconfig file", &error))
}
