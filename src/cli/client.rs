//! The client of a running engine's `/api/v1`.
//!
//! Invariant: the token goes to the engine that was named and nowhere else: no redirect, no proxy, and never onto a screen.

use super::invocation::Invocation;
use super::stop::{CliError, CliExitCode};
use crate::api::ProblemDetails;
use crate::config::Config;
use crate::limits;
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::marker::PhantomData;
use std::path::Path;
use tokio::runtime::Runtime;

/// An answer of the engine: as it came, for `-o json`, and as its type.
pub(super) struct EngineReply<T> {
    pub raw: Value,
    kind: PhantomData<T>,
}

impl<T: DeserializeOwned> EngineReply<T> {
    pub fn read(self) -> Result<T, CliError> {
        serde_json::from_value(self.raw).map_err(|error| {
            CliError::new(
                CliExitCode::Failure,
                format!("the engine's answer is not understood: {error}"),
                "use the engine's own version of this program, or -o json",
            )
        })
    }
}

impl<'de, T> Deserialize<'de> for EngineReply<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|raw| EngineReply { raw, kind: PhantomData })
    }
}

pub(super) struct EngineClient {
    base: Url,
    token: String,
    http: reqwest::Client,
    runtime: Runtime,
}

/// A file with an error must not keep anyone from a freeze: the engine goes on with what it has read.
fn without_the_file(mut error: CliError) -> CliError {
    let way = "a running engine is reached without this file, too: --server http://127.0.0.1:7676 --token-file DATA_DIR/token";
    error.hint = match error.hint.is_empty() {
        true => way.to_owned(),
        false => format!("{}; {way}", error.hint),
    };
    error
}

impl EngineClient {
    /// A client of the engine that the options, the environment or the configuration name.
    ///
    /// # Errors
    ///
    /// Fails when the configuration or the token cannot be read, or the address is no URL.
    pub fn new(invocation: &Invocation) -> Result<EngineClient, CliError> {
        // The configuration is read only for values that the options leave open.
        let named = invocation.global.server.is_some();
        let given = given_token(invocation)?;
        let config = match named && given.is_some() {
            true => Config::default(),
            false => invocation.config().map_err(without_the_file)?.0,
        };
        let base = base(invocation.global.server.as_deref(), &config)?;
        let token = match given {
            Some(token) => token,
            None => local_token(&config.local_token_path())?,
        };
        EngineClient::with(base, token, invocation)
    }

    /// With this machine's own token, whatever else is set.
    ///
    /// # Errors
    ///
    /// Fails when the configuration or this machine's token cannot be read.
    pub fn of_this_machine(invocation: &Invocation) -> Result<EngineClient, CliError> {
        let config = invocation.config()?.0;
        let token = local_token(&config.local_token_path())?;
        EngineClient::with(base(None, &config)?, token, invocation)
    }

    fn with(base: Url, token: String, invocation: &Invocation) -> Result<EngineClient, CliError> {
        if base.scheme() == "http" && !is_local(&base) {
            invocation.warn(&format!("{base} is plain HTTP: the token and the answers are sent unencrypted"));
        }
        crate::world::install_tls();
        let make = || {
            reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(limits::CLIENT_TIMEOUT)
                .user_agent(concat!("nightshift/", env!("CARGO_PKG_VERSION")))
        };
        let http = crate::world::built(make).map_err(|error| CliError::failure(error.to_string(), ""))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::failure(format!("runtime: {error}"), ""))?;
        Ok(EngineClient { base, token, http, runtime })
    }

    /// Reads from a path of ours; a user's text stands in it only where it cannot hold a slash.
    ///
    /// # Errors
    ///
    /// Fails when the engine is not reached, refuses, or answers with another type.
    pub fn get<T>(&self, path: &str, query: &impl Serialize) -> Result<EngineReply<T>, CliError> {
        self.send(Method::GET, &segments(path), query, None)
    }

    /// Posts to a path of ours.
    ///
    /// # Errors
    ///
    /// Fails as [`Client::get`] does.
    pub fn post<T>(&self, path: &str, body: &impl Serialize) -> Result<EngineReply<T>, CliError> {
        self.post_to(&segments(path), body)
    }

    /// The same as `get` by the segments of the path, each of which may hold anything: the name of a rule may have a
    /// slash.
    ///
    /// # Errors
    ///
    /// Fails as [`Client::get`] does.
    pub fn get_at<T>(&self, segments: &[&str]) -> Result<EngineReply<T>, CliError> {
        self.send(Method::GET, segments, &(), None)
    }

    /// The same as `post` by the segments of the path.
    ///
    /// # Errors
    ///
    /// Fails as [`Client::get`] does, or when the body cannot be written as JSON.
    pub fn post_to<T>(&self, segments: &[&str], body: &impl Serialize) -> Result<EngineReply<T>, CliError> {
        let body = serde_json::to_value(body).map_err(|error| CliError::failure(format!("request: {error}"), ""))?;
        self.send(Method::POST, segments, &(), Some(body))
    }

    /// Waits a little, or until Ctrl-C.
    ///
    /// # Errors
    ///
    /// Fails with [`Code::Interrupted`] on Ctrl-C.
    pub fn pause(&self) -> Result<(), CliError> {
        self.runtime.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(limits::WAIT_POLL) => Ok(()),
                _ = tokio::signal::ctrl_c() => Err(CliError::new(CliExitCode::Interrupted, "interrupted", "the engine continues; see `nightshift runs`")),
            }
        })
    }

    fn send<T>(
        &self,
        method: Method,
        segments: &[&str],
        query: &impl Serialize,
        body: Option<Value>,
    ) -> Result<EngineReply<T>, CliError> {
        let (status, bytes) = self.runtime.block_on(self.exchange(method, segments, query, body))?;
        if !status.is_success() {
            return Err(refused(status, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            CliError::failure(
                format!("the answer of {} is not understood: {error}", self.base),
                "is it a Nightshift engine of this version? See `nightshift status` and `nightshift --version`",
            )
        })
    }

    async fn exchange(
        &self,
        method: Method,
        segments: &[&str],
        query: &impl Serialize,
        body: Option<Value>,
    ) -> Result<(StatusCode, Vec<u8>), CliError> {
        let mut url = self.base.clone();
        // Segments are escaped one by one, so that an id from the shell stays one segment.
        url.path_segments_mut()
            .map_err(|()| CliError::usage(format!("{} cannot be a server", self.base), "write http://host:port"))?
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(segments);
        let mut request = self.http.request(method, url).bearer_auth(&self.token).query(query);
        // For the ledger, where the token says no more than "this machine".
        request = request.header(crate::server::USER_HEADER, user());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > limits::CLIENT_BODY_BYTES {
                return Err(CliError::failure("the answer is endless", "request less with --limit"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((status, bytes))
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        if error.is_timeout() {
            return CliError::failure(
                format!("{} did not answer in time", self.base),
                "see the engine's log and `nightshift doctor`",
            );
        }
        let why = std::error::Error::source(error).map_or(error.to_string(), deepest);
        CliError::failure(
            format!("no engine answers at {}: {why}", self.base),
            "start it with `nightshift serve`, or give its address with --server or NIGHTSHIFT_SERVER",
        )
    }
}

/// Who runs this program, as far as the machine says: `root (uid 0)`. It proves nothing.
pub(super) fn user() -> String {
    let uid = rustix::process::getuid().as_raw();
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let good =
        |name: &String| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.$".contains(c));
    named.filter(good).map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/').collect()
}

/// The last error of a chain has the cause.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn given_token(invocation: &Invocation) -> Result<Option<String>, CliError> {
    if let Some(path) = &invocation.global.token_file {
        let secret = crate::config::SecretSource::File(path.clone());
        return secret
            .read()
            .map(Some)
            .map_err(|why| CliError::new(CliExitCode::Auth, why, "name a file with one token in it"));
    }
    Ok(std::env::var("NIGHTSHIFT_TOKEN").ok().filter(|token| !token.is_empty()))
}

fn local_token(path: &Path) -> Result<String, CliError> {
    crate::config::SecretSource::File(path.to_owned()).read().map_err(|why| {
        CliError::new(
            CliExitCode::Auth,
            format!("no token: {why}"),
            "set NIGHTSHIFT_TOKEN or --token-file; on the engine's own machine `serve` writes one at its first start",
        )
    })
}

fn base(named: Option<&str>, config: &Config) -> Result<Url, CliError> {
    let text = match named {
        Some(named) => named.to_owned(),
        None => {
            let mut listen = config.server.listen;
            if listen.ip().is_unspecified() {
                let ip: std::net::IpAddr = if listen.is_ipv4() {
                    std::net::Ipv4Addr::LOCALHOST.into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                };
                listen.set_ip(ip);
            }
            format!("http://{listen}")
        }
    };
    match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(CliError::usage(
            format!("`{text}` is not the address of a server"),
            "write http://host:port or https://host",
        )),
    }
}

fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn refused(status: StatusCode, bytes: &[u8]) -> CliError {
    let problem: ProblemDetails = serde_json::from_slice(bytes).unwrap_or_default();
    let word = |text: &str| super::invocation::clean(text, 2_000);
    // An engine of before has no `detail`.
    let detail = if problem.detail.is_empty() { &problem.error } else { &problem.detail };
    let error = match word(detail) {
        text if text.is_empty() => format!("the engine said {status}"),
        text => text,
    };
    let code = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CliExitCode::Auth,
        StatusCode::NOT_FOUND => CliExitCode::NotFound,
        StatusCode::BAD_REQUEST => CliExitCode::Usage,
        _ => CliExitCode::Failure,
    };
    CliError::new(code, error, word(&problem.hint))
}
