//! Answers of the simulated API: objects, and `Status` bodies in the words of a real API server.
//!
//! Invariant: every refusal is a `Status` object with a reason and the code that the HTTP status line bears.

use super::object::ObjectKind;
use serde_json::{Value, json};

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SimResponse {
    pub code: u16,
    pub retry_after: Option<u64>,
    pub body: SimBody,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum SimBody {
    Json(Value),
    Text(&'static str, String),
}

impl SimResponse {
    /// A JSON body with this status.
    pub fn json(code: u16, value: Value) -> SimResponse {
        SimResponse { code, retry_after: None, body: SimBody::Json(value) }
    }

    /// A JSON body with status 200.
    pub fn ok(value: Value) -> SimResponse {
        SimResponse::json(200, value)
    }

    /// A text body of this content type, with status 200.
    pub fn text(kind: &'static str, text: String) -> SimResponse {
        SimResponse { code: 200, retry_after: None, body: SimBody::Text(kind, text) }
    }

    /// A failed request.
    pub fn refusal(code: u16, reason: &str, message: impl Into<String>, details: Value) -> SimResponse {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message.into(), "code": code,
        });
        if !reason.is_empty() {
            body["reason"] = reason.into();
        }
        if !details.is_null() {
            body["details"] = details;
        }
        SimResponse::json(code, body)
    }

    /// A `Status` object of Kubernetes that reports success.
    pub fn success(code: u16, details: Value) -> SimResponse {
        let mut body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code});
        if !details.is_null() {
            body["details"] = details;
        }
        SimResponse::json(code, body)
    }

    /// 404: the object does not exist, in Kubernetes' words.
    pub fn not_found(kind: ObjectKind, name: &str) -> SimResponse {
        let what = qualified(kind);
        SimResponse::refusal(404, "NotFound", format!("{what} \"{name}\" not found"), details(kind, name))
    }

    /// 404: the path is not served, in Kubernetes' words.
    pub fn no_such_path() -> SimResponse {
        SimResponse::refusal(404, "NotFound", "the server could not find the requested resource", json!({}))
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> SimResponse {
        SimResponse::refusal(400, "BadRequest", message, Value::Null)
    }

    /// 409: the object's version is not the one in the request.
    pub fn modified(kind: ObjectKind, name: &str) -> SimResponse {
        let what = qualified(kind);
        let message = format!(
            "Operation cannot be fulfilled on {what} \"{name}\": the object has been modified; \
             please apply your changes to the latest version and try again"
        );
        SimResponse::refusal(409, "Conflict", message, details(kind, name))
    }

    /// 409: a precondition of the request does not hold.
    pub fn precondition(kind: ObjectKind, name: &str, field: &str, wanted: &str, found: &str) -> SimResponse {
        let what = qualified(kind);
        let message = format!(
            "Operation cannot be fulfilled on {what} \"{name}\": Precondition failed: {field} in precondition: \
             {wanted}, {field} in object meta: {found}"
        );
        SimResponse::refusal(409, "Conflict", message, details(kind, name))
    }

    /// 409: an object of this name exists already.
    pub fn exists(kind: ObjectKind, name: &str) -> SimResponse {
        let what = qualified(kind);
        SimResponse::refusal(409, "AlreadyExists", format!("{what} \"{name}\" already exists"), details(kind, name))
    }

    /// 422: a field of the object is invalid.
    pub fn invalid(kind: ObjectKind, name: &str, field: &str, why: &str) -> SimResponse {
        let resource = kind.resource();
        let message = format!("{} \"{name}\" is invalid: {field}: {why}", resource.name);
        let mut details = details(kind, name);
        details["kind"] = resource.name.into();
        details["causes"] = json!([{"reason": "FieldValueInvalid", "message": why, "field": field}]);
        SimResponse::refusal(422, "Invalid", message, details)
    }

    /// 403: RBAC does not allow the verb.
    pub fn forbidden(kind: ObjectKind, name: &str, verb: &str) -> SimResponse {
        let resource = kind.resource();
        let message = format!(
            "{} \"{name}\" is forbidden: User \"system:serviceaccount:nightshift:nightshift\" cannot {verb} resource \
             \"{}\" in API group \"{}\" at the cluster scope",
            qualified(kind),
            resource.plural,
            resource.group
        );
        SimResponse::refusal(403, "Forbidden", message, details(kind, name))
    }

    /// The API's answer to an injected fault.
    pub fn fault(code: u16, retry_after: Option<u64>) -> SimResponse {
        let (reason, message) = match code {
            401 => ("Unauthorized", "Unauthorized"),
            403 => ("Forbidden", "forbidden by the simulated fleet"),
            409 => (
                "Conflict",
                "the object has been modified; please apply your changes to the latest version and try again",
            ),
            429 => ("TooManyRequests", "Too many requests, please try again later."),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => ("Timeout", "Timeout: request did not complete within the allotted timeout"),
            _ => ("InternalError", "Internal error occurred: etcdserver: request timed out"),
        };
        let details = retry_after.map_or(Value::Null, |s| json!({"retryAfterSeconds": s}));
        SimResponse { retry_after, ..SimResponse::refusal(code, reason, message, details) }
    }
}

/// `deployments.apps`, as the API server names a resource in its messages.
fn qualified(kind: ObjectKind) -> String {
    let resource = kind.resource();
    if resource.group.is_empty() {
        resource.plural.to_owned()
    } else {
        format!("{}.{}", resource.plural, resource.group)
    }
}

fn details(kind: ObjectKind, name: &str) -> Value {
    let resource = kind.resource();
    let mut details = json!({"name": name, "kind": resource.plural});
    if !resource.group.is_empty() {
        details["group"] = resource.group.into();
    }
    details
}
