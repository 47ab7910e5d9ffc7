//! What the engine, the agent and the simulated fleet share of the process: the clock, and TLS.
//!
//! Invariant: no part here depends on what the program does.

pub mod clock;
mod tls;

pub use tls::{NO_AUTHORITIES, client, has_no_authorities, install_tls};

use nightshift_core::{limits, model};
