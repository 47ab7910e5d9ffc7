//! How an API server answers when it is asked for nothing: how fast, as which version, and what time it thinks it is.
//!
//! Invariant: asks for `/version` alone, which every identity may read.

use super::{Asked, Kube, decode};
use crate::model::Time;
use crate::world::WorldError;
use http::Method;
use serde_json::Value;
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
        let date = headers.get(http::header::DATE).and_then(|value| value.to_str().ok());
        Ok(Pulse {
            version: said["gitVersion"].as_str().unwrap_or_default().to_owned(),
            took,
            date: date.and_then(|text| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()),
        })
    }
}
