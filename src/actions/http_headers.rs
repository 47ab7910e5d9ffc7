//! The option `headers` of `http::get` and `http::post`.
//!
//! Invariant: a header is a text, or the name of a secret; the text of a secret never comes here.

use super::args;
use crate::model::{ActionCall, ParamSpec, ParamType, StepFailure};
use crate::world::{SecretHeader, SecretHeaders};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) const HEADERS: ParamSpec = args::optional(
    "headers",
    ParamType::Any,
    "a map of texts, or of `#{secret: \"NAME\"}`, an entry of `http_secrets` that is sent and never shown; `prefix: \"Bearer \"` puts \
     a text before it",
);

/// Headers that stand in the runbook, and those that name secrets.
#[derive(Default)]
pub(super) struct RunbookHeaders {
    pub plain: BTreeMap<String, String>,
    pub secret: SecretHeaders,
}

pub(super) fn of(call: &ActionCall) -> Result<RunbookHeaders, StepFailure> {
    let mut headers = RunbookHeaders::default();
    let map = match call.args.get("headers") {
        None | Some(Value::Null) => return Ok(headers),
        Some(Value::Object(map)) => map,
        Some(other) => {
            return Err(args::invalid(format!("{}: `headers` is {other}, but must be a map", call.action)));
        }
    };
    for (name, value) in map {
        match value {
            Value::String(text) => drop(headers.plain.insert(name.clone(), text.clone())),
            Value::Object(reference) => {
                let known = reference.keys().all(|key| matches!(key.as_str(), "secret" | "prefix"));
                let text = |key: &str| reference.get(key).map_or(Some(""), Value::as_str);
                let (Some(secret), Some(prefix), true) =
                    (text("secret").filter(|name| !name.is_empty()), text("prefix"), known)
                else {
                    return Err(args::invalid(format!(
                        "{}: header `{name}` is {value}, but must be a text, or `#{{secret: \"NAME\"}}` with an optional `prefix`",
                        call.action
                    )));
                };
                headers
                    .secret
                    .insert(name.clone(), SecretHeader { secret: secret.to_owned(), prefix: prefix.to_owned() });
            }
            other => {
                return Err(args::invalid(format!(
                    "{}: header `{name}` is {other}, but must be a text, or `#{{secret: \"NAME\"}}`",
                    call.action
                )));
            }
        }
    }
    Ok(headers)
}
