//! The integration tests, one binary. Each module is one story line; nothing here sleeps on the wall clock.

mod actions;
mod cli;
mod ingest;
mod notifiers;
mod recording;
mod sim;
mod store;
