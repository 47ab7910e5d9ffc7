//! Nightshift on a GPU node: what only a node can do, and the agent that does it for the engine.
//!
//! Invariant: it connects out and listens on nothing.

/// Watch, spool, send; take a command, run it, answer.
pub mod agent;
/// What an agent needs to know.
pub mod config;
/// NVML, the kernel log, MIG, caches: watchers and commands.
pub mod node;

use nightshift_core::{limits, model, policy};
use nightshift_runtime::clock;
