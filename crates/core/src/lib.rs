//! The decisions of Nightshift: types, bounds, policy, and runbooks.
//!
//! Invariant: pure. No clock, no network, no disk, no threads of its own; `Cargo.toml` lists nothing that could.

/// Every bound, with its reason.
pub mod limits;
/// Events, incidents, rules, runs, steps, reasons, entries. Every other file uses these types.
pub mod model;
/// Seeded bugs that tests switch on, to show that tests catch them; nothing in a release.
pub mod planted;
/// Rule matching, event correlation, and the guards that decide whether a step may begin.
pub mod policy;
/// Runbooks: sandbox, static checks, and `advance`.
pub mod script;
