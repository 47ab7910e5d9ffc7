//! The shapes that are shipped, each with its samples.
//!
//! Invariant: every folder in `integrations/` with a `decode.rhai` has samples, and every sample its expected events.
