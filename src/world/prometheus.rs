//! Instant queries through prometheus-http-query.
//!
//! Invariant: "no data" is an empty list and never zero.

use super::WorldError;
use crate::model::Labels;
use serde::{Deserialize, Serialize};

/// One series of an instant vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub labels: Labels,
    pub value: f64,
    /// Seconds since 1970.
    pub at: f64,
}

#[derive(Clone)]
pub struct Prometheus {
    // client
}

impl Prometheus {
    pub fn connect(_url: &str, _token: Option<String>) -> Result<Prometheus, WorldError> {
        todo!("world")
    }
    pub async fn query(&self, _promql: &str) -> Result<Vec<Sample>, WorldError> {
        todo!("world")
    }
}
