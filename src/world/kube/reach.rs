//! How a cluster is reached: by URL and token, by a kubeconfig, or from within.
//!
//! Invariant: what is written out in the configuration goes before what is found.

use super::CacheJob;
use crate::world::WorldError;
use serde::{Deserialize, Serialize};

/// How to reach one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubeConfig {
    /// The API server; empty: in-cluster, else the kubeconfig file's current context.
    pub url: String,
    pub kubeconfig: Option<std::path::PathBuf>,
    pub context: Option<String>,
    /// Read again as it rotates, like the certificate.
    pub token_file: Option<std::path::PathBuf>,
    pub ca_file: Option<std::path::PathBuf>,
    /// How models are warmed by a Job on nodes without an agent; left out: they are not.
    pub cache_job: Option<CacheJob>,
}

pub(super) async fn settings(config: &KubeConfig) -> Result<kube::Config, WorldError> {
    use kube::config::{KubeConfigOptions, Kubeconfig};
    if !config.url.is_empty() {
        let url = config.url.parse().map_err(|error| {
            WorldError::Invalid(format!("`{}` is not the URL of an API server: {error}", config.url))
        })?;
        let mut settings = kube::Config::new(url);
        settings.root_cert_file = config.ca_file.clone();
        if config.ca_file.is_none() && settings.cluster_url.scheme_str() == Some("http") {
            // Nobody is to be trusted, so the system need not have CA certificates.
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
