//! Logs and metrics: one table of every metric, labels only from closed enums.
//!
//! Invariant: no label value comes from outside the program.

/// Every metric.
#[derive(Default)]
pub struct Metrics {}
