//! Refusals of the API: `{"error", "hint"}` with the right status.
//!
//! Invariant: every refusal says what happened and what to do.

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

/// What the store could not do, as the caller should hear it.
pub(super) fn store(error: StoreError) -> Problem {
    match error {
        StoreError::NotFound { what } => missing(what, "see `nightshift runs` and `nightshift incidents`"),
        StoreError::Refused(why) => conflict(why, "look at how it stands now, then decide again"),
        StoreError::Fenced { run } => {
            conflict(format!("run {run} belongs to another engine"), "ask the engine that runs it")
        }
        StoreError::Busy(why) => {
            with(StatusCode::SERVICE_UNAVAILABLE, format!("the store is busy: {why}"), "try again in a moment")
        }
        other => with(
            StatusCode::INTERNAL_SERVER_ERROR,
            other.to_string(),
            "look at the engine's log and at `nightshift doctor`",
        ),
    }
}

/// Parses an identifier out of the path.
pub(super) fn id<T: FromStr<Err = crate::model::IdError>>(text: &str) -> Result<T, Problem> {
    text.to_ascii_lowercase().parse().map_err(|error: crate::model::IdError| {
        with(StatusCode::NOT_FOUND, error.to_string(), "identifiers are shown in tables and messages")
    })
}

/// Words that a person gives as a reason: there, and not endless.
pub(super) fn reason(why: &str) -> Result<String, Problem> {
    let why = why.trim();
    if why.is_empty() {
        return Err(bad("a reason is missing", "say why: it goes into the ledger, and somebody will read it"));
    }
    bounded(why)
}

/// The same where saying nothing is fine.
pub(super) fn bounded(why: &str) -> Result<String, Problem> {
    let bound = crate::limits::WHY_BYTES;
    if why.len() > bound {
        return Err(bad(format!("the reason has {} bytes", why.len()), format!("say it in at most {bound}")));
    }
    Ok(why.trim().to_owned())
}
