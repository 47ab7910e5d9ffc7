//! One request and its answer: pages of lists, bodies, time limits, and names that cannot bend a path.
//!
//! Invariant: an answer that is not understood, and silence, are never taken for success.

use super::answer::{self, KubeRequest, refusal, unanswered};
use super::wire::ObjectList;
use super::{KubeClient, WorldError};
use crate::limits;
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

impl KubeClient {
    /// All pages of a list. More than `most` objects is an error: a list cut short would look like the truth.
    pub(super) async fn list<W, T>(
        &self,
        asked: KubeRequest<'_>,
        path: &str,
        filter: &str,
        most: usize,
    ) -> Result<Vec<T>, WorldError>
    where
        W: DeserializeOwned + Into<T>,
        T: Send,
    {
        let mut all = Vec::new();
        self.pages(asked, path, filter, most, &mut |item: W| all.push(item.into())).await?;
        Ok(all)
    }

    /// A list page by page, each object as it is read, so that a large one is never in memory as a whole. Returns its
    /// version.
    pub(super) async fn pages<W: DeserializeOwned>(
        &self,
        asked: KubeRequest<'_>,
        path: &str,
        filter: &str,
        most: usize,
        each: &mut (dyn FnMut(W) + Send),
    ) -> Result<String, WorldError> {
        let (mut count, mut from) = (0, String::new());
        loop {
            let mut page = format!("{path}?limit={}", limits::KUBE_PAGE);
            if !filter.is_empty() {
                page.push('&');
                page.push_str(filter);
            }
            if !from.is_empty() {
                page.push_str("&continue=");
                page.push_str(&escape(&from));
            }
            let list: ObjectList<W> = self.get(asked, page).await?;
            let items = list.items.unwrap_or_default();
            count += items.len();
            if count > most {
                return Err(WorldError::Invalid(format!("{asked}: more than {most} objects, our limit")));
            }
            items.into_iter().for_each(&mut *each);
            from = list.metadata.more;
            if from.is_empty() {
                return Ok(list.metadata.resource_version);
            }
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, asked: KubeRequest<'_>, path: String) -> Result<T, WorldError> {
        let (status, headers, bytes) = self.exchange(&asked, Method::GET, path, None).await?;
        decode(&asked, status, &headers, &bytes)
    }

    pub(super) async fn write<T: DeserializeOwned>(
        &self,
        asked: KubeRequest<'_>,
        method: Method,
        path: String,
        body: &Value,
    ) -> Result<T, WorldError> {
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        self.send(asked, method, path, body, content_type).await
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        asked: KubeRequest<'_>,
        method: Method,
        path: String,
        body: &Value,
        content_type: &str,
    ) -> Result<T, WorldError> {
        let (status, headers, bytes) = self.exchange(&asked, method, path, Some((body, content_type))).await?;
        decode(&asked, status, &headers, &bytes)
    }

    /// One request and its answer, whatever its status; silence is the only error. A body comes with its type.
    pub(super) async fn exchange(
        &self,
        asked: &KubeRequest<'_>,
        method: Method,
        path: String,
        body: Option<(&Value, &str)>,
    ) -> Result<(http::StatusCode, http::HeaderMap, bytes::Bytes), WorldError> {
        let content_type = body.map_or("application/json", |(_, content_type)| content_type);
        let gate = self.gate.as_ref().filter(|_| method != Method::GET);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, content_type)
            .body(Body::from(body.map(|(value, _)| value.to_string().into_bytes()).unwrap_or_default()))
            .map_err(|error| WorldError::Invalid(format!("{asked}: {error}")))?;
        let talk = async {
            let client = self.link.client().await?;
            // Before the request, and in its body once more; see `GatedBody`.
            if let Some(gate) = gate {
                gate.pass()?;
                request.extensions_mut().insert(gate.clone());
            }
            let answer = client.send(request).await.map_err(|error| {
                gate.and_then(super::super::KillSwitchGate::ended).unwrap_or_else(|| unanswered(asked, &error))
            })?;
            let (head, body) = answer.into_parts();
            self.note_date(&head.headers);
            let bytes = Limited::new(body, limits::KUBE_BODY_BYTES)
                .collect()
                .await
                .map_err(|error| WorldError::Unavailable(format!("{asked}: the answer broke off: {error}")))?;
            Ok((head.status, head.headers, bytes.to_bytes()))
        };
        let answer = tokio::time::timeout(limits::KUBE_TIMEOUT, talk).await.unwrap_or_else(|_| {
            let seconds = limits::KUBE_TIMEOUT.as_secs();
            Err(WorldError::Unavailable(format!("{asked}: no answer within {seconds} s")))
        });
        match &answer {
            Ok((status, _, bytes)) if self.was_away() => answer::not_yet(asked, *status, bytes).map_or(answer, Err),
            Ok(_) => answer,
            Err(error) => {
                self.note_away(error);
                answer
            }
        }
    }
}

pub(super) fn decode<T: DeserializeOwned>(
    asked: &KubeRequest<'_>,
    status: http::StatusCode,
    headers: &http::HeaderMap,
    bytes: &[u8],
) -> Result<T, WorldError> {
    if !status.is_success() {
        return Err(refusal(asked, status, headers, bytes));
    }
    // The effect of a write has happened, but the answer may be a proxy's: let the step ask again.
    serde_json::from_slice(bytes)
        .map_err(|error| WorldError::Unavailable(format!("{asked}: the answer is not a valid API object: {error}")))
}

pub(super) fn conditional(mut patch: Value, resource_version: Option<&str>) -> Value {
    if let Some(version) = resource_version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    patch
}

pub(super) fn pod_path(namespace: &str, name: &str) -> Result<String, WorldError> {
    Ok(format!("/api/v1/namespaces/{}/pods/{}", segment("namespace", namespace)?, segment("pod", name)?))
}

/// A name that is one path segment and nothing more: DNS-1123 letters only, so that no label can bend the path.
pub(super) fn segment<'a>(what: &str, name: &'a str) -> Result<&'a str, WorldError> {
    let fits = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && !name.starts_with(['.', '-'])
        && !name.ends_with(['.', '-']);
    if fits {
        return Ok(name);
    }
    let shown: String = name.chars().take(64).collect();
    Err(WorldError::Invalid(format!(
        "{shown:?} is not a valid {what}: Kubernetes allows lower-case letters, digits, `-` and `.`"
    )))
}

pub(super) fn escape(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
