//! HTTP for runbooks and notifiers. Runbooks reach only what the allow-list names, at addresses that were checked.
//!
//! Invariant: no redirect is followed, no proxy is taken from the environment, no body is read past its bound.

use super::WorldError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpRequest {
    pub method: String,
    pub url: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Sent as JSON unless it is a string or null.
    #[serde(default)]
    pub body: Value,
}

/// Response headers are kept from scripts but for `Retry-After`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpAnswer {
    pub status: u16,
    pub body: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after: Option<u64>,
}

#[derive(Clone)]
pub struct Http {
    // client, allow-list
}

impl Http {
    /// `allow`: URL prefixes (scheme, host, port, path) that runbooks may reach.
    pub fn new(_identity: &str, _allow: &[String]) -> Result<Http, WorldError> {
        todo!("world")
    }
    /// For destinations from the configuration (notifiers, Alertmanager's API): no allow-list, same bounds.
    pub async fn send(&self, _request: &HttpRequest) -> Result<HttpAnswer, WorldError> {
        todo!("world")
    }
    /// For runbooks: the allow-list decides, every resolved address is checked, and the connection goes to that address.
    pub async fn send_for_runbook(&self, _request: &HttpRequest) -> Result<HttpAnswer, WorldError> {
        todo!("world")
    }
}
