//! Ingest over real HTTP: the twenty rules of Alertmanager's webhook, each by its number, and bad input.
//!
//! Invariant: every body here goes through the listener, authentication, bounds and decoder that production uses.

mod bad_input;
mod doors;
mod rig;
mod rules;
mod shapes;
