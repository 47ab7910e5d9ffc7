//! What the engine, the agent and the simulated fleet share of the process: the clock, TLS, and files that are replaced whole.
//!
//! Invariant: no part here depends on what the program does.

pub mod clock;
pub mod file;
mod tls;

pub use tls::{NO_AUTHORITIES, client, has_no_authorities, install_tls};

use nightshift_core::{limits, model};
