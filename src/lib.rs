//! Nightshift: THE MAP is written here at the end.
pub mod limits;
pub mod model;

pub mod policy;
pub mod script;

pub mod clock;
pub mod config;
pub mod store;
pub mod telemetry;
pub mod world;

pub mod actions;
pub mod catalog;
pub mod notifiers;
pub mod sources;

pub mod cli;
pub mod engine;
pub mod server;
