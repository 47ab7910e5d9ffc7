//! A generic webhook: `integrations/<shape>/encode.rhai` turns a notice into a request.
//!
//! Invariant: the shape decides the body, never the address: that and the secret headers come from the configuration. A shape
//! may only go on below it.

use super::{Notifier, answer, text};
use crate::limits::{LABELS_PER_ALERT, RECEIPT_BYTES, SCRIPT_STACK_BYTES};
use crate::model::{DeliveryReceipt, DeliveryResult, IncidentDigest, IncidentNotice};
use crate::script::ShapeScript;
use crate::telemetry::ChannelKind;
use crate::world::{HttpClient, HttpRequest};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A channel to a vendor's webhook, through its `encode.rhai`.
pub struct WebhookNotifier {
    http: HttpClient,
    encode: Arc<ShapeScript>,
    url: String,
    headers: BTreeMap<String, String>,
}

/// The return value of `encode`; `()` means: nothing to send.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodedRequest {
    #[serde(default)]
    method: Option<String>,
    /// The rest of the address after the configured one, `/alerts/x?by=alias`; for vendors with an address for each
    /// verb.
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
    /// Nothing is sent, but the receipt is kept.
    #[serde(default)]
    skip: bool,
    /// Kept and given back as `prior` with the next notice of the incident.
    #[serde(default)]
    receipt: Option<Value>,
}

impl WebhookNotifier {
    /// A channel to this address. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// Fails when the address is no web address.
    pub fn new(
        http: HttpClient,
        encode: Arc<ShapeScript>,
        url: String,
        headers: BTreeMap<String, String>,
    ) -> Result<WebhookNotifier, String> {
        match url::Url::parse(&url) {
            Ok(parsed) if matches!(parsed.scheme(), "https" | "http") => {
                Ok(WebhookNotifier { http, encode, url, headers })
            }
            _ => Err("`url` is not a web address".to_owned()),
        }
    }

    async fn say(&self, input: Value) -> DeliveryResult {
        let encoded = match self.encoded(input).await {
            Ok(Some(encoded)) => encoded,
            Ok(None) => return DeliveryResult::Nothing(None),
            Err(why) => return DeliveryResult::Refused { why },
        };
        if encoded.skip {
            return DeliveryResult::Nothing(encoded.receipt.map(DeliveryReceipt));
        }
        let receipt = encoded.receipt.map_or_else(|| DeliveryReceipt(json!({ "said": true })), DeliveryReceipt);
        let mut headers = encoded.headers;
        headers.extend(self.headers.clone());
        let request = HttpRequest {
            method: encoded.method.unwrap_or_else(|| "POST".to_owned()),
            url: match encoded.path {
                Some(path) => format!("{}{path}", self.url.trim_end_matches('/')),
                None => self.url.clone(),
            },
            headers,
            body: encoded.body,
        };
        match answer::accepted("the webhook", self.http.send(&request).await) {
            Ok(_) => DeliveryResult::Delivered(receipt),
            Err(delivery) => self
                .headers
                .values()
                .fold(answer::without(&self.url, delivery), |delivery, secret| answer::without(secret, delivery)),
        }
    }

    /// Calls the shape. Its errors are the integration's author's to fix, so they are refusals in words.
    async fn encoded(&self, input: Value) -> Result<Option<EncodedRequest>, String> {
        let shape = self.encode.clone();
        // A script needs time and a deep stack, away from the threads that carry everything else.
        let called = tokio::task::spawn_blocking(move || {
            let thread = std::thread::Builder::new().name("encode".to_owned()).stack_size(SCRIPT_STACK_BYTES);
            thread.spawn(move || shape.call(&input)).ok()?.join().ok()
        })
        .await;
        let value = called
            .ok()
            .flatten()
            .ok_or_else(|| format!("{} failed; see the log", self.encode.name))?
            .map_err(|error| text::plain(&error.to_string(), 500))?;
        if value.is_null() {
            return Ok(None);
        }
        let name = &self.encode.name;
        let encoded: EncodedRequest = serde_json::from_value(value).map_err(|error| {
            format!(
                "{name}: encode must return #{{ method, headers, body, receipt }} or (): {}",
                text::plain(&error.to_string(), 200)
            )
        })?;
        if let Some(method) = &encoded.method
            && !matches!(method.as_str(), "POST" | "PUT" | "PATCH" | "GET" | "DELETE")
        {
            return Err(format!("{name}: `{}` is not an HTTP method", text::plain(method, 20)));
        }
        if let Some(path) = &encoded.path
            && !goes_below(path)
        {
            return Err(format!("{name}: `{}` is not a path below the address", text::plain(path, 80)));
        }
        if encoded.headers.len() > LABELS_PER_ALERT {
            return Err(format!("{name}: more than {LABELS_PER_ALERT} headers"));
        }
        if encoded.receipt.as_ref().is_some_and(|receipt| receipt.to_string().len() > RECEIPT_BYTES) {
            return Err(format!("{name}: the receipt is longer than {RECEIPT_BYTES} bytes"));
        }
        Ok(Some(encoded))
    }
}

/// A path, perhaps with a query, that cannot leave the address it is put after: a part of it may come from a label.
fn goes_below(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~/?=&".contains(c);
    let (folders, _) = path.split_once('?').unwrap_or((path, ""));
    path.starts_with('/')
        && path.chars().all(plain)
        && folders.split('/').skip(1).all(|part| !part.is_empty() && !part.chars().all(|c| c == '.'))
}

#[async_trait::async_trait]
impl Notifier for WebhookNotifier {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Webhook
    }

    async fn deliver(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        self.say(json!({ "what": "notice", "notice": notice, "prior": prior })).await
    }

    async fn digest(&self, digest: &IncidentDigest, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        self.say(json!({ "what": "digest", "digest": digest, "prior": prior })).await
    }

    async fn probe(&self) -> Result<String, String> {
        let host =
            url::Url::parse(&self.url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        Ok(format!(
            "{} with {}; it can only be tried by sending, and nothing was sent",
            text::plain(&host, 200),
            self.encode.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::goes_below;

    #[test]
    fn a_shape_goes_on_below_its_address_and_nowhere_else() {
        for good in ["/i3/close?identifierType=alias", "/a-b_c.d~e", "/a/b/c"] {
            assert!(goes_below(good), "{good}");
        }
        let bad = [
            "",
            "i3/close",
            "//evil.example/x",
            "/../admin",
            "/a/./b",
            "/a//b",
            "@evil.example",
            "/a#b",
            "/a\\b",
            "/a%2e",
            "/ü",
        ];
        for bad in bad {
            assert!(!goes_below(bad), "{bad}");
        }
    }
}
