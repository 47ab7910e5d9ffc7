//! The responsiveness of an API server: how fast it answers, its version, and its time.
//!
//! Invariant: `pulse` requests `/version` alone, which every identity may read; the time comes with every answer.

use super::{KubeClient, KubeRequest, decode};
use crate::limits;
use crate::model::Time;
use crate::world::WorldError;
use http::{HeaderMap, Method};
use serde_json::Value;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiHealth {
    /// As in `v1.33.1`.
    pub version: String,
    pub took: Duration,
    /// From its `Date` header, which counts whole seconds.
    pub date: Option<Time>,
}

/// The record of the API server's answers, and of its silence.
#[derive(Debug, Default)]
pub(super) struct ApiContact {
    /// The last answer's date, and when it came.
    date: Option<(Time, Instant)>,
    /// When it last did not answer.
    away: Option<Instant>,
}

impl KubeClient {
    /// Requests the API server's version, and measures the time.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached, refuses, or answers with another body.
    pub async fn pulse(&self) -> Result<ApiHealth, WorldError> {
        let asked = KubeRequest::new("get", "", "version", "");
        let began = Instant::now();
        let (status, headers, bytes) = self.exchange(&asked, Method::GET, "/version".to_owned(), None).await?;
        let took = began.elapsed();
        let said: Value = decode(&asked, status, &headers, &bytes)?;
        Ok(ApiHealth {
            version: said["gitVersion"].as_str().unwrap_or_default().to_owned(),
            took,
            date: date(&headers),
        })
    }

    /// The API server's time, within a second or two, from its last answer; none before the first one.
    pub fn now(&self) -> Option<Time> {
        self.heard().date.map(|(date, at)| date + at.elapsed())
    }

    /// Whether it was not reached a short while ago. An API server that has just started refuses every request until it
    /// has read its roles and accounts: such a no is no answer yet.
    pub(super) fn was_away(&self) -> bool {
        self.heard().away.is_some_and(|at| at.elapsed() < limits::API_SETTLES)
    }

    pub(super) fn note_away(&self, error: &WorldError) {
        if matches!(error, WorldError::Unreached(_) | WorldError::Unavailable(_)) {
            self.heard().away = Some(Instant::now());
        }
    }

    fn heard(&self) -> MutexGuard<'_, ApiContact> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_date(&self, headers: &HeaderMap) {
        if let Some(date) = date(headers) {
            self.heard().date = Some((date, Instant::now()));
        }
    }
}

fn date(headers: &HeaderMap) -> Option<Time> {
    let text = headers.get(http::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}
