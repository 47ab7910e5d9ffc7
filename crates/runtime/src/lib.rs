//! Parts of the process that the engine, the agent and the simulated fleet share: the clock, and TLS.
//!
//! Invariant: no part here depends on the program's purpose.

pub mod clock;
pub mod file;
mod tls;

pub use tls::{NO_AUTHORITIES, client, has_no_authorities, install_tls};

use nightshift_core::{limits, model};
