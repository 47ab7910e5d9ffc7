//! Refusals of the API: `{"error", "hint"}` with the right status.
//!
//! Invariant: every refusal has the error and its fix.

use super::Problem;
use crate::store::StoreError;
use http::StatusCode;
use std::fmt::Display;
use std::str::FromStr;

pub(super) fn with(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem::new(status, error, hint)
}

pub(super) fn bad(error: impl Into<String>, hint: impl Into<String>) -> Problem {
    with(StatusCode::BAD_REQUEST, error, hint)
}

pub(super) fn missing(what: impl Display, hint: impl Into<String>) -> Problem {
    with(StatusCode::NOT_FOUND, format!("there is no {what}"), hint)
}

pub(super) fn conflict(error: impl Into<String>, hint: impl Into<String>) -> Problem {
    with(StatusCode::CONFLICT, error, hint)
}

/// The store's error, in the words for the caller.
pub(in crate::server) fn store(error: StoreError) -> Problem {
    match error {
        StoreError::NotFound { what } => missing(what, "see `nightshift runs` and `nightshift incidents`"),
        StoreError::Refused(why) => conflict(why, "check its current state, then decide again"),
        StoreError::Fenced { run } => {
            conflict(format!("run {run} belongs to another engine"), "send it to the engine that runs it")
        }
        StoreError::Busy(why) => {
            with(StatusCode::SERVICE_UNAVAILABLE, format!("the store is busy: {why}"), "try again in a moment")
        }
        other => {
            with(StatusCode::INTERNAL_SERVER_ERROR, other.to_string(), "see the engine's log and `nightshift doctor`")
        }
    }
}

/// Parses an identifier out of the path.
pub(super) fn id<T: FromStr<Err = crate::model::IdError>>(text: &str) -> Result<T, Problem> {
    text.to_ascii_lowercase().parse().map_err(|error: crate::model::IdError| {
        with(StatusCode::NOT_FOUND, error.to_string(), "identifiers are shown in tables and messages")
    })
}

/// Words that a user gives as a reason: there, and not endless.
pub(super) fn reason(why: &str) -> Result<String, Problem> {
    let why = why.trim();
    if why.is_empty() {
        return Err(bad("a reason is missing", "give a reason: it is recorded in the ledger"));
    }
    bounded(why)
}

/// The same where an empty text is fine.
pub(super) fn bounded(why: &str) -> Result<String, Problem> {
    let bound = crate::limits::WHY_BYTES;
    if why.len() > bound {
        return Err(bad(format!("the reason has {} bytes", why.len()), format!("use at most {bound}")));
    }
    Ok(why.trim().to_owned())
}

/// The error of the JSON and query readers, in plain words: the key or value, and the expected one, no type names and
/// no columns.
pub(super) fn in_words(text: &str) -> String {
    let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text);
    let text = text.split(" at line ").next().unwrap_or(text);
    // A query names the key first, a body does not.
    if let Some((key, rest)) = text.split_once(": ").filter(|(key, _)| !key.contains([' ', '`', '"'])) {
        return format!("{key}: {}", in_words(rest));
    }
    let listed = |rest: &str| rest.replace("expected one of ", "one of ").replace("expected ", "");
    if let Some((name, rest)) = text.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", ")) {
        return format!("{name} is unknown; write {}", listed(rest));
    }
    if let Some((name, rest)) = text.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", ")) {
        return format!("unknown key {name}; keys: {}", listed(rest));
    }
    if let Some(name) = text.strip_prefix("missing field ") {
        return format!("{name} is missing");
    }
    let text = text.replace("invalid digit found in string", "not a whole number");
    let text = text.replace("provided string was not `true` or `false`", "write `true` or `false`");
    let text = text.replace("invalid type: ", "found ").replace("invalid value: ", "found ");
    for (ty, words) in
        [("u64", "a whole number"), ("usize", "a whole number"), ("u32", "a whole number"), ("i64", "a whole number")]
    {
        if let Some(head) = text.strip_suffix(&format!("expected {ty}")) {
            return format!("{head}expected {words}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn a_refusal_of_a_body_has_no_word_of_the_program_that_read_it() {
        for (text, expect) in [
            (
                "unknown variant `king`, expected one of `viewer`, `admin` at line 1 column 56",
                "`king` is unknown; write one of `viewer`, `admin`",
            ),
            (
                "unknown field `wy`, expected `scope` or `why` at line 1 column 3",
                "unknown key `wy`; keys: `scope` or `why`",
            ),
            (
                "Failed to deserialize query string: severity: unknown variant `awful`, expected one of `info`, `error`",
                "severity: `awful` is unknown; write one of `info`, `error`",
            ),
            ("missing field `scope` at line 1 column 2", "`scope` is missing"),
            ("Failed to deserialize query string: limit: invalid digit found in string", "limit: not a whole number"),
            (
                "invalid type: string \"x\", expected u64 at line 1 column 9",
                "found string \"x\", expected a whole number",
            ),
        ] {
            assert_eq!(in_words(text), expect);
        }
    }
}
