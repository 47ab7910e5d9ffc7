//! Nightshift on a GPU node: the commands that need the node itself, and the agent that runs them for the engine.
//!
//! Invariant: it connects out and listens on nothing.

/// Watch, spool, send; take a command, run it, answer.
pub mod agent;
/// The agent's configuration.
pub mod config;
/// NVML, the kernel log, MIG, caches: watchers and commands.
pub mod node;

use nightshift_core::{limits, model, policy};
use nightshift_runtime::clock;
