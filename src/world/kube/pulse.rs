//! How an API server answers when it is asked for nothing: how fast, as which version, and what time it thinks it is.
//!
//! Invariant: `pulse` asks for `/version` alone, which every identity may read; the time comes with every answer.

use super::{Asked, Kube, decode};
use crate::model::Time;
use crate::world::WorldError;
use http::{HeaderMap, Method};
use serde_json::Value;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// As in `v1.33.1`.
    pub version: String,
    pub took: Duration,
    /// From its `Date` header, which counts whole seconds.
    pub date: Option<Time>,
}

impl Kube {
    pub async fn pulse(&self) -> Result<Pulse, WorldError> {
        let asked = Asked::new("get", "", "version", "");
        let began = Instant::now();
        let (status, headers, bytes) = self.exchange(&asked, Method::GET, "/version".to_owned(), None).await?;
        let took = began.elapsed();
        let said: Value = decode(&asked, status, &headers, &bytes)?;
        Ok(Pulse { version: said["gitVersion"].as_str().unwrap_or_default().to_owned(), took, date: date(&headers) })
    }

    /// What time the API server thinks it is, within a second or two, from its last answer; none before the first one.
    pub fn now(&self) -> Option<Time> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map(|(date, at)| date + at.elapsed())
    }

    pub(super) fn note_date(&self, headers: &HeaderMap) {
        if let Some(date) = date(headers) {
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((date, Instant::now()));
        }
    }
}

fn date(headers: &HeaderMap) -> Option<Time> {
    let text = headers.get(http::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}
