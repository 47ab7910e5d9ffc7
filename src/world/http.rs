//! HTTP for runbooks and notifiers. Runbooks reach only destinations of the allow-list, at addresses that were checked.
//!
//! Invariant: no redirect is followed, no proxy is taken from the environment, no body is read past its bound.

mod reach;
mod secrets;

pub use secrets::{HttpSecret, SecretHeader, SecretHeaders, wrong_host};

use super::WorldError;
use super::gate::GatedBody;
use crate::limits;
use reach::{AddressSpace, AllowEntry, DnsLookup};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// A request of a runbook or a notifier.
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
    /// `X-OAuth-Scopes`: the scopes of the request's token, where the server lists them. Scripts do not see it.
    #[serde(skip)]
    pub scopes: Option<String>,
    /// `Date`: the time at the other side. Scripts do not see it.
    #[serde(skip)]
    pub date: Option<String>,
}

/// Cheap to clone; connections are pooled per kind of destination, so a checked one never serves an unchecked one.
#[derive(Clone)]
pub struct HttpClient {
    configured: reqwest::Client,
    /// Only where the allow-list has an entry for it: a client reads the system's certificates when it is built.
    public: Option<reqwest::Client>,
    private: Option<reqwest::Client>,
    allow: Arc<[AllowEntry]>,
    /// Of the step that this client is for; see `World::gated`.
    gate: Option<super::KillSwitchGate>,
    secrets: Arc<secrets::NamedSecrets>,
}

impl HttpClient {
    /// The same client, whose requests for runbooks that may change something pass this gate.
    pub(super) fn gated(&self, gate: &super::KillSwitchGate) -> HttpClient {
        HttpClient { gate: Some(gate.clone()), ..self.clone() }
    }

    /// `allow`: URL prefixes (scheme, host, port, path) that runbooks may reach. An entry reaches public addresses
    /// only, unless it is written `private+http://…` or `private+https://…`: then loopback and private networks too
    /// (link-local, multicast and the cloud's metadata addresses never).
    ///
    /// # Errors
    ///
    /// Fails when an entry of `allow` cannot be parsed, or a client cannot be built.
    pub fn new(identity: &str, allow: &[String]) -> Result<HttpClient, WorldError> {
        HttpClient::with_lookup(identity, allow, reach::system_lookup())
    }

    fn with_lookup(identity: &str, allow: &[String], lookup: DnsLookup) -> Result<HttpClient, WorldError> {
        super::install_tls();
        let build = |space: Option<AddressSpace>| {
            built(|| match space {
                None => client(identity),
                Some(space) => client(identity).dns_resolver(reach::CheckedResolver { space, lookup: lookup.clone() }),
            })
        };
        let allow: Arc<[AllowEntry]> = allow.iter().map(|entry| AllowEntry::parse(entry)).collect::<Result<_, _>>()?;
        let wanted = |space| allow.iter().any(|entry| entry.space() == space).then(|| build(Some(space))).transpose();
        Ok(HttpClient {
            configured: build(None)?,
            public: wanted(AddressSpace::Public)?,
            private: wanted(AddressSpace::Private)?,
            allow,
            gate: None,
            secrets: Arc::default(),
        })
    }

    /// The same with secrets that headers of runbooks may name.
    pub fn with_secrets(self, secrets: BTreeMap<String, HttpSecret>) -> HttpClient {
        HttpClient { secrets: Arc::new(secrets), ..self }
    }

    /// For destinations from the configuration (notifiers, Alertmanager's API): no allow-list, same bounds. The URL may
    /// be a secret (Slack's are), so errors name the host alone.
    ///
    /// # Errors
    ///
    /// Fails when the URL cannot be parsed, the server is not reached or not in time, or the body is too large.
    pub async fn send(&self, request: &HttpRequest) -> Result<HttpAnswer, WorldError> {
        let url = parse(&request.url)?;
        exchange(&self.configured, url, request).await
    }

    /// GETs a page of a destination from the configuration, or of a pod whose address was checked: its status and body,
    /// within this time and no larger than this.
    pub(super) async fn page(&self, url: &str, within: Duration, most: usize) -> Result<(u16, Vec<u8>), WorldError> {
        let url = parse(url)?;
        let place = place(&url);
        let sent = self.configured.get(url).timeout(within).send().await;
        let answer = sent.map_err(|error| unanswered(&error, &place))?;
        let status = answer.status().as_u16();
        Ok((status, read_body_of(answer, &place, most).await?))
    }

    /// For runbooks: the allow-list decides, every resolved address is checked, and the connection goes to that address.
    ///
    /// # Errors
    ///
    /// Fails when the request sets a header of ours, the allow-list or an address refuses it, or as [`HttpClient::send`]
    /// does.
    pub async fn send_for_runbook(&self, request: &HttpRequest) -> Result<HttpAnswer, WorldError> {
        self.send_with_secrets(request, &SecretHeaders::new()).await
    }

    /// The same with headers whose values are secrets of the configuration, read now. An answer that repeats one holds `***` there.
    ///
    /// # Errors
    /// `Invalid` or `Forbidden` before anything is sent, where a secret is not known or not for this host.
    pub async fn send_with_secrets(
        &self,
        request: &HttpRequest,
        wanted: &SecretHeaders,
    ) -> Result<HttpAnswer, WorldError> {
        let (url, space, opened) = self.checked(request, wanted)?;
        let client = match space {
            AddressSpace::Public => &self.public,
            AddressSpace::Private => &self.private,
        };
        let client = client.as_ref().expect("an entry of the allow-list granted it, and each entry's client was built");
        let gate = self.gate.as_ref().filter(|_| !request.method.eq_ignore_ascii_case("GET"));
        gate.map_or(Ok(()), super::KillSwitchGate::pass)?;
        let answer = exchange_with(client, url, request, opened.headers.clone(), gate).await?;
        Ok(HttpAnswer { body: opened.hide(answer.body), ..answer })
    }

    /// Whether these secrets would be sent with this request. Sends nothing.
    ///
    /// # Errors
    /// What `send_with_secrets` answers before it sends.
    pub fn check_secrets(&self, request: &HttpRequest, wanted: &SecretHeaders) -> Result<(), WorldError> {
        if wanted.is_empty() { Ok(()) } else { self.checked(request, wanted).map(drop) }
    }

    fn checked(
        &self,
        request: &HttpRequest,
        wanted: &SecretHeaders,
    ) -> Result<(Url, AddressSpace, secrets::OpenedHeaders), WorldError> {
        let url = parse(&request.url)?;
        if let Some(name) = request.headers.keys().chain(wanted.keys()).find(|name| is_ours(name)) {
            return Err(WorldError::Invalid(format!("a runbook may not set the header `{name}`: the client does")));
        }
        let space = reach::space_of(&self.allow, &url)?;
        let opened = secrets::open(&self.secrets, &url, space == AddressSpace::Public, wanted)?;
        Ok((url, space, opened))
    }
}

/// The client that `make` describes.
///
/// # Errors
/// [`WorldError::Invalid`] where it cannot be built.
pub fn built(make: impl Fn() -> reqwest::ClientBuilder) -> Result<reqwest::Client, WorldError> {
    nightshift_runtime::client(make).map_err(|error| WorldError::Invalid(format!("no HTTP client: {error:?}")))
}

/// The bounds that every client here has.
pub(super) fn client(identity: &str) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(identity)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(limits::HTTP_TIMEOUT)
        .connect_timeout(limits::CONNECT_TIMEOUT)
}

/// Why no request goes to this address, whatever named it: it is link-local, multicast or the cloud's metadata.
pub(super) fn out_of_bounds(ip: IpAddr) -> Option<&'static str> {
    reach::objection(ip, AddressSpace::Private)
}

/// The whole body, unless it is larger than allowed.
pub(super) async fn read_body(answer: reqwest::Response, place: &str) -> Result<Vec<u8>, WorldError> {
    read_body_of(answer, place, limits::HTTP_BODY_BYTES).await
}

async fn read_body_of(mut answer: reqwest::Response, place: &str, most: usize) -> Result<Vec<u8>, WorldError> {
    let status = answer.status();
    let too_large = || {
        let mib = most / (1024 * 1024);
        WorldError::Invalid(format!("{place} answered {status} with more than {mib} MiB, which is not read"))
    };
    if answer.content_length().is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > most => return Err(too_large()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => {
                return Err(WorldError::Unavailable(format!("{place}: the answer broke off: {}", last(&error))));
            }
        }
    }
}

/// Why there is no answer: refused by our own check, never connected, or silence after sending.
pub(super) fn unanswered(error: &reqwest::Error, place: &str) -> WorldError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<reach::RefusedAddress>() {
            return WorldError::Forbidden(refused.to_string());
        }
        cause = error.source();
    }
    let mut why = if error.is_timeout() { "timed out".to_owned() } else { last(error) };
    why.push_str(&distrust(&why));
    if error.is_connect() || error.is_builder() {
        WorldError::Unreached(format!("{place}: {why}"))
    } else {
        WorldError::Unavailable(format!("{place}: {why}"))
    }
}

/// The fix where the server's certificate is the fault.
pub(super) fn distrust(why: &str) -> String {
    match why.contains("certificate") {
        true if nightshift_runtime::has_no_authorities() => format!(" ({})", super::NO_AUTHORITIES),
        true if why.contains("UnknownIssuer") => {
            " (its certificate authority is not trusted by this system: install it there, or name a CA file in SSL_CERT_FILE)"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// Scheme, host and port: enough to locate it, without a secret path or query.
pub(super) fn place(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn parse(text: &str) -> Result<Url, WorldError> {
    let url = Url::parse(text).map_err(|error| WorldError::Invalid(format!("the URL cannot be read: {error}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(WorldError::Invalid(format!("`{other}` is not http or https"))),
    }
}

async fn exchange(client: &reqwest::Client, url: Url, request: &HttpRequest) -> Result<HttpAnswer, WorldError> {
    exchange_with(client, url, request, HeaderMap::new(), None).await
}

/// `more`: headers besides the request's own; `gate`: what its body passes.
async fn exchange_with(
    client: &reqwest::Client,
    url: Url,
    request: &HttpRequest,
    more: HeaderMap,
    gate: Option<&super::KillSwitchGate>,
) -> Result<HttpAnswer, WorldError> {
    let place = place(&url);
    let method: reqwest::Method = request
        .method
        .parse()
        .map_err(|_| WorldError::Invalid(format!("`{}` is not an HTTP method", request.method)))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let wrong = || WorldError::Invalid(format!("the header `{}` cannot be sent", name.escape_debug()));
        let name: HeaderName = name.parse().map_err(|_| wrong())?;
        headers.insert(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    headers.extend(more);
    let typed = headers.contains_key(reqwest::header::CONTENT_TYPE);
    let writes = !method.is_safe();
    let mut builder = client.request(method, url).headers(headers);
    builder = match &request.body {
        // An empty body is asked the gate as well.
        Value::Null if writes && gate.is_some() => builder.body(body(String::new(), gate)),
        Value::Null => builder,
        Value::String(text) => builder.body(body(text.clone(), gate)),
        json if typed => builder.body(body(json.to_string(), gate)),
        json => builder.header(reqwest::header::CONTENT_TYPE, "application/json").body(body(json.to_string(), gate)),
    };
    let answer = builder
        .send()
        .await
        .map_err(|error| gate.and_then(super::KillSwitchGate::ended).unwrap_or_else(|| unanswered(&error, &place)))?;
    let status = answer.status().as_u16();
    let retry_after =
        answer.headers().get(reqwest::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let header = |name: &str| answer.headers().get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
    let (scopes, date) = (header("x-oauth-scopes"), header("date"));
    let body = read_body(answer, &place).await?;
    Ok(HttpAnswer { status, body: String::from_utf8_lossy(&body).into_owned(), retry_after, scopes, date })
}

fn body(text: String, gate: Option<&super::KillSwitchGate>) -> reqwest::Body {
    match gate {
        None => text.into(),
        Some(gate) => {
            reqwest::Body::wrap(GatedBody::new(http_body_util::Full::<bytes::Bytes>::from(text), Some(gate.clone())))
        }
    }
}

/// Headers that decide where a request goes or how long it is.
fn is_ours(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    const OURS: [&str; 8] =
        ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "expect", "keep-alive"];
    OURS.contains(&name.as_str()) || name.starts_with("proxy-")
}

/// The innermost cause, which is the one that a user can act on; it holds no URL.
fn last(error: &reqwest::Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<reqwest::Error>() {
        // Only reqwest's own error prints the URL, and it has no source here.
        Some(own) if own.is_timeout() => "timed out".to_owned(),
        Some(own) if own.is_body() || own.is_decode() => "the body could not be read".to_owned(),
        Some(_) => "the request could not be sent".to_owned(),
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests;
