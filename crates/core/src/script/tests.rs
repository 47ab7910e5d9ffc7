//! Stories about runbooks: how they are answered, stopped, caught and refused.
//!
//! Invariant: every test compiles a runbook against the small catalog below.

mod catalog;
mod checks;
mod headers;
mod hostile;
mod replay;
mod shapes;
mod verifying;
