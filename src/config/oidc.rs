//! An identity provider (OpenID Connect) that users sign in with on the pages.
//!
//! Invariant: who is let in is written down here or under `people`; to be known to the provider is not enough.

use super::{Role, SecretSource};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The identity provider with which users sign in to the pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// Exactly as the provider writes it in its tokens: `https://login.example.com/realms/main`.
    pub issuer: String,
    /// The client's id at the provider.
    pub client_id: String,
    /// Left out: a public client, which PKCE alone protects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretSource>,
    /// The scopes to request.
    #[serde(default = "OidcConfig::usual_scopes")]
    pub scopes: Vec<String>,
    /// The claim that lists the user's groups.
    #[serde(default = "OidcConfig::usual_groups")]
    pub groups_claim: String,
    /// Roles of the provider's groups; of several, the widest applies, and `none` blocks. Empty: groups give no access.
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
    /// Members of a group of `roles` act in these clusters alone; a group that is not here: in every one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub group_clusters: BTreeMap<String, Vec<String>>,
}

impl OidcConfig {
    fn usual_scopes() -> Vec<String> {
        vec!["openid".to_owned(), "email".to_owned()]
    }

    fn usual_groups() -> String {
        "groups".to_owned()
    }
}
