//! The catalog of sources: messages about the fleet, decoded into events. One file each.
//!
//! Invariant: a decoder is a pure function of the body; a part that it cannot decode is a gap in words, never a guess.

pub mod agent;
pub mod alertmanager;
pub mod alertmanager_api;
pub mod cloudevents;
pub mod cron;
mod draft;
pub mod kubernetes;
pub mod shape;

use crate::model::Event;

/// The content of a body.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DecodedBody {
    pub events: Vec<Event>,
    /// Parts that the source left out (a truncated list, an alert that could not be read), in words.
    pub gaps: Vec<String>,
}

/// Why a body is refused. Nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyRefusal {
    /// 400 or 422: it can never be accepted.
    #[error("{0}")]
    Malformed(String),
    /// 413: over a bound, which it names.
    #[error("{0}")]
    TooLarge(String),
}
