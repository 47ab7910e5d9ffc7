//! The meaning of the API server's answer: status codes and Status bodies as our errors.
//!
//! Invariant: a refusal names the request, and a missing right names the RBAC line to add.

use super::{EvictAnswer, WorldError};
use crate::limits;
use crate::model::KubePermission;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// The request, in the words of RBAC, for messages.
#[derive(Clone, Copy)]
pub(super) struct KubeRequest<'a> {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> KubeRequest<'a> {
    /// A request for one cluster-wide object; an empty name means a list.
    pub const fn new(
        verb: &'static str,
        group: &'static str,
        resource: &'static str,
        name: &'a str,
    ) -> KubeRequest<'a> {
        KubeRequest { verb, group, resource, namespace: "", name }
    }

    /// The same request with another verb.
    pub fn with_verb(self, verb: &'static str) -> KubeRequest<'a> {
        KubeRequest { verb, ..self }
    }

    /// The same request in this namespace.
    pub fn within(self, namespace: &'a str) -> KubeRequest<'a> {
        KubeRequest { namespace, ..self }
    }

    fn object(&self) -> String {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        format!("{} {}{slash}{}", self.resource, self.namespace, self.name).trim_end().to_owned()
    }
}

impl fmt::Display for KubeRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.object())
    }
}

/// The parts of a `Status` that decide something.
#[derive(Deserialize, Default)]
#[serde(default)]
struct KubeStatus {
    message: String,
    reason: String,
    details: StatusDetails,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct StatusDetails {
    retry_after_seconds: u64,
    causes: Vec<StatusCause>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusCause {
    reason: String,
    message: String,
}

/// An answer other than 2xx.
pub(super) fn refusal(asked: &KubeRequest<'_>, code: StatusCode, headers: &HeaderMap, body: &[u8]) -> WorldError {
    let status = read(body);
    let said = words(&status, body);
    match code.as_u16() {
        404 => WorldError::NotFound(asked.object()),
        409 => WorldError::Conflict(format!("{asked}: {said}")),
        401 => WorldError::Forbidden(format!(
            "{asked}: the API server rejects our credentials (401); check the token: {said}"
        )),
        403 if is_admission(&said) => {
            WorldError::Forbidden(format!("{asked}: an admission policy of the cluster denied it: {said}"))
        }
        403 => WorldError::Forbidden(format!("{asked}: {}; {said}", missing_right(asked))),
        429 => WorldError::TooMany { why: format!("{asked}: {said}"), after: retry_after(&status, headers) },
        400..=499 => WorldError::Invalid(format!("{asked}: {code}: {said}")),
        _ => WorldError::Unavailable(format!("{asked}: {code}: {said}")),
    }
}

/// The meaning of a 401 or 403 from an API server that was away until a moment ago.
pub(super) fn not_yet(asked: &KubeRequest<'_>, code: StatusCode, body: &[u8]) -> Option<WorldError> {
    let said = words(&read(body), body);
    let is_refusal = code == StatusCode::UNAUTHORIZED || code == StatusCode::FORBIDDEN && !is_admission(&said);
    is_refusal.then(|| {
        WorldError::Unavailable(format!(
            "{asked}: refused ({}) by an API server that has just restarted and may not have loaded its roles yet: {said}",
            code.as_u16()
        ))
    })
}

/// The eviction API uses four status codes with a meaning of its own.
pub(super) fn eviction(
    asked: &KubeRequest<'_>,
    code: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<EvictAnswer, WorldError> {
    if code.is_success() {
        return Ok(EvictAnswer::Accepted);
    }
    let status = read(body);
    let said = words(&status, body);
    let lower = said.to_lowercase();
    let budget =
        lower.contains("disruption budget") || status.details.causes.iter().any(|c| c.reason == "DisruptionBudget");
    match code.as_u16() {
        // Only the API server itself can report that a pod is gone; a proxy's 404 is no proof.
        404 if status.reason == "NotFound" => Ok(EvictAnswer::Gone),
        404 => Err(WorldError::Unavailable(format!("{asked}: a 404 that is not the API server's: {said}"))),
        409 if lower.contains("uid") => Ok(EvictAnswer::Gone),
        429 if budget => Ok(EvictAnswer::Blocked { why: with_causes(said, &status) }),
        500 if lower.contains("poddisruptionbudget") => Ok(EvictAnswer::Misconfigured { why: said }),
        _ => Err(refusal(asked, code, headers, body)),
    }
}

/// No answer at all.
pub(super) fn unanswered(asked: &KubeRequest<'_>, error: &kube::Error) -> WorldError {
    let mut message = format!("{asked}: ");
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut connecting = false;
    let mut last = String::new();
    while let Some(error) = cause {
        if let Some(client) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            connecting |= client.is_connect();
        }
        last = error.to_string();
        cause = error.source();
    }
    // The innermost cause is the one that a user can act on: "connection refused", "certificate expired".
    message.push_str(&last);
    match error {
        kube::Error::Auth(_) => WorldError::Forbidden(message),
        _ if connecting => WorldError::Unreached(message),
        _ => WorldError::Unavailable(message),
    }
}

fn read(body: &[u8]) -> KubeStatus {
    serde_json::from_slice(body).unwrap_or_default()
}

fn words(status: &KubeStatus, body: &[u8]) -> String {
    let text = if status.message.is_empty() { String::from_utf8_lossy(body) } else { status.message.as_str().into() };
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.trim().chars().take(limits::REASON_CHARS).collect()
}

fn with_causes(said: String, status: &KubeStatus) -> String {
    let causes: Vec<&str> = status.details.causes.iter().map(|cause| cause.message.as_str()).collect();
    let more = causes.join("; ");
    if more.is_empty() || said.contains(&more) {
        said
    } else {
        format!("{said} {more}").chars().take(2 * limits::REASON_CHARS).collect()
    }
}

fn missing_right(asked: &KubeRequest<'_>) -> String {
    format!("add to the role: {}", KubePermission::new(asked.group, asked.resource, asked.verb).rule())
}

/// A webhook or policy that denies answers 403 too, and no right that could be added would help.
fn is_admission(said: &str) -> bool {
    said.contains("denied the request") || said.contains("denied request:")
}

fn retry_after(status: &KubeStatus, headers: &HeaderMap) -> Option<Duration> {
    let header = headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let body = Some(status.details.retry_after_seconds).filter(|seconds| *seconds > 0);
    header.or(body).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> KubeRequest<'static> {
        KubeRequest::new("create", "", "pods/eviction", "llm-0").within("prod")
    }

    fn evict(code: u16, body: &str) -> Result<EvictAnswer, WorldError> {
        eviction(&asked(), StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn the_eviction_api_is_understood_in_each_of_its_answers() {
        assert_eq!(evict(201, ""), Ok(EvictAnswer::Accepted));
        assert_eq!(evict(404, r#"{"reason":"NotFound","message":"pods \"llm-0\" not found"}"#), Ok(EvictAnswer::Gone));
        assert!(matches!(evict(404, "no such page"), Err(WorldError::Unavailable(_))), "a proxy's 404 is no answer");
        assert_eq!(
            evict(
                409,
                r#"{"reason":"Conflict","message":"the UID in the precondition (a) does not match the UID in record (b)"}"#
            ),
            Ok(EvictAnswer::Gone)
        );
        assert!(matches!(evict(409, r#"{"message":"try again"}"#), Err(WorldError::Conflict(_))));
        let blocked = evict(
            429,
            r#"{"message":"Cannot evict pod as it would violate the pod's disruption budget.",
                "details":{"causes":[{"reason":"DisruptionBudget","message":"The disruption budget llm needs 2 healthy pods and has 2 currently"}]}}"#,
        );
        assert!(
            matches!(&blocked, Ok(EvictAnswer::Blocked { why }) if why.contains("needs 2 healthy pods")),
            "{blocked:?}"
        );
        let shed =
            evict(429, r#"{"message":"too many requests, please try again later","details":{"retryAfterSeconds":7}}"#);
        assert!(matches!(shed, Err(WorldError::TooMany { after: Some(after), .. }) if after.as_secs() == 7));
        let two = evict(
            500,
            r#"{"message":"This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}"#,
        );
        assert!(matches!(two, Ok(EvictAnswer::Misconfigured { .. })));
        assert!(matches!(evict(500, "etcd leader changed"), Err(WorldError::Unavailable(_))));
    }

    #[test]
    fn a_status_code_becomes_the_error_of_its_meaning() {
        let refuse = |code: u16| refusal(&asked(), StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), b"{}");
        assert!(matches!(refuse(400), WorldError::Invalid(_)));
        assert!(matches!(refuse(401), WorldError::Forbidden(_)));
        assert!(matches!(refuse(404), WorldError::NotFound(what) if what == "pods/eviction prod/llm-0"));
        assert!(matches!(refuse(409), WorldError::Conflict(_)));
        assert!(matches!(refuse(422), WorldError::Invalid(_)));
        assert!(matches!(refuse(429), WorldError::TooMany { after: None, .. }));
        for code in [500, 502, 503, 504] {
            assert!(matches!(refuse(code), WorldError::Unavailable(_)), "{code}");
        }
        let forbidden = refuse(403).to_string();
        let line = r#"add to the role: - {apiGroups: [""], resources: ["pods/eviction"], verbs: ["create"]}"#;
        assert!(forbidden.contains(line), "{forbidden}");
        for words in [
            "admission webhook \"policy.example\" denied the request: not at night",
            "nodes \"gpu-1\" is forbidden: ValidatingAdmissionPolicy 'nodes' with binding 'nodes' denied request: no",
        ] {
            let body = serde_json::json!({ "message": words }).to_string();
            let denied = refusal(&asked(), StatusCode::FORBIDDEN, &HeaderMap::new(), body.as_bytes()).to_string();
            assert!(denied.contains("admission policy") && !denied.contains("add to the role"), "{denied}");
        }
    }
}
