//! The integration tests, one binary. Each module is one story line; nothing here sleeps on the wall clock.

mod actions;
mod cli;
mod crash;
mod docs;
mod engine;
mod harness;
mod ingest;
mod night;
mod notifiers;
mod runbooks;
mod recording;
mod sim;
mod store;
mod tidy;
