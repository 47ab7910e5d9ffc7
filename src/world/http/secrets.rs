//! Headers whose value is a secret of the configuration: named by a runbook, read when the request is sent, shown nowhere.
//!
//! Invariant: the text of a secret leaves this file only in a header for a host that the secret is for; no error, request,
//! answer or debug print holds it.

use super::{WorldError, place};
use crate::limits;
use crate::planted::planted;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use url::Url;

/// The value of a header: the text of this secret, behind this prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretHeader {
    pub secret: String,
    pub prefix: String,
}

/// Where a secret is read, and the hosts that it may be sent to: `host`, or `host:port` where the port is not the scheme's.
#[derive(Clone)]
pub struct HttpSecret {
    pub read: Arc<dyn Fn() -> Result<String, String> + Send + Sync>,
    pub hosts: Vec<String>,
}

impl fmt::Debug for HttpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSecret").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// Headers by name.
pub type SecretHeaders = BTreeMap<String, SecretHeader>;

pub(super) type NamedSecrets = BTreeMap<String, HttpSecret>;

/// The headers of one request that hold secrets, and what must not be seen of them.
pub(super) struct OpenedHeaders {
    pub headers: HeaderMap,
    texts: Vec<String>,
}

impl OpenedHeaders {
    /// An answer without the secrets that were sent, should the other side repeat them.
    pub fn hide(&self, body: String) -> String {
        if planted("secret-header-shown") {
            return body;
        }
        self.texts.iter().fold(body, |body, text| {
            let quoted = serde_json::Value::from(text.as_str()).to_string();
            body.replace(text.as_str(), "***").replace(quoted.trim_matches('"'), "***")
        })
    }
}

/// Reads the secrets of a request to this address.
///
/// # Errors
/// `Invalid` or `Forbidden`, in words: no such secret, another host, no TLS to a public address, or a text that is no header's value.
pub(super) fn open(
    secrets: &NamedSecrets,
    url: &Url,
    is_public: bool,
    wanted: &SecretHeaders,
) -> Result<OpenedHeaders, WorldError> {
    let mut opened = OpenedHeaders { headers: HeaderMap::new(), texts: Vec::new() };
    for (header, SecretHeader { secret: name, prefix }) in wanted {
        let shown = name.escape_debug();
        let Some(secret) = secrets.get(name) else {
            let known: Vec<&str> = secrets.keys().map(String::as_str).take(limits::NAMES_SHOWN).collect();
            let known = if known.is_empty() {
                "none is configured".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            return Err(WorldError::Invalid(format!(
                "the header `{}` names the secret `{shown}`, which is not under `http_secrets` in nightshift.yaml; {known}",
                header.escape_debug()
            )));
        };
        if !is_for(secret, url) && !planted("secret-header-anywhere") {
            return Err(WorldError::Forbidden(format!(
                "the secret `{shown}` is only for {}, not for {}: no request was sent; `http_secrets.{shown}.hosts` in nightshift.yaml \
                 lists its hosts",
                secret.hosts.join(", "),
                place(url)
            )));
        }
        if is_public && url.scheme() != "https" {
            return Err(WorldError::Forbidden(format!(
                "the secret `{shown}` is not sent in the clear to {}: use https",
                place(url)
            )));
        }
        let text = (secret.read)().map_err(|why| WorldError::Invalid(format!("the secret `{shown}`: {why}")))?;
        if text.len() < limits::HTTP_SECRET_BYTES_MIN {
            let least = limits::HTTP_SECRET_BYTES_MIN;
            return Err(WorldError::Invalid(format!(
                "the secret `{shown}` is shorter than {least} bytes, so that an answer that repeats it could not be cleaned"
            )));
        }
        let wrong = |what: &str| WorldError::Invalid(format!("the secret `{shown}` cannot be sent: {what}"));
        let header: HeaderName = header.parse().map_err(|_| wrong("that is no name of a header"))?;
        let value = HeaderValue::from_str(&format!("{prefix}{text}"));
        let mut value =
            value.map_err(|_| wrong("its text is no header's value (a line break, a control character)"))?;
        value.set_sensitive(true);
        opened.headers.insert(header, value);
        opened.texts.push(text);
    }
    Ok(opened)
}

fn is_for(secret: &HttpSecret, url: &Url) -> bool {
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return false };
    let full = format!("{host}:{port}");
    let is_default = url.port().is_none();
    secret
        .hosts
        .iter()
        .any(|entry| entry.eq_ignore_ascii_case(&full) || (is_default && entry.eq_ignore_ascii_case(host)))
}

/// Why this cannot be an entry of `hosts`, if it cannot.
pub fn wrong_host(entry: &str) -> Option<&'static str> {
    let parsed = Url::parse(&format!("https://{entry}/")).ok();
    let same = parsed.as_ref().is_some_and(|url| {
        let host = url.host_str().unwrap_or_default();
        let with_port = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
        entry.eq_ignore_ascii_case(host) || entry.eq_ignore_ascii_case(&with_port)
    });
    (!same).then_some("write a host, or `host:port`, without scheme and path: `api.example.com`")
}
