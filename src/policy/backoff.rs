//! How long to wait before the next attempt: exponential, capped, with jitter that a seed fixes.
//!
//! Invariant: the wait never exceeds the cap, and never is zero.

use std::time::Duration;

/// The wait before attempt `attempt + 1` (attempts count from 1); `seed` spreads retries of different steps.
pub fn backoff(_attempt: u32, _first: Duration, _max: Duration, _seed: u64) -> Duration {
    todo!("policy")
}
