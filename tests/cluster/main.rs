//! Tests against a real Kubernetes control plane, one binary: `make test-cluster`. How to use it stands in `plane/mod.rs`.

// Tests say what they expect by unwrapping, in the functions they share as well.
#![allow(clippy::unwrap_used)]

mod actions;
mod bars;
mod chart;
mod drain;
mod faults;
#[allow(dead_code)]
#[path = "../it/gpus.rs"]
mod gpus;
#[allow(dead_code)]
#[path = "../it/harness.rs"]
mod harness;
#[allow(dead_code)]
mod plane;
mod pretend;
mod proxy;
#[allow(dead_code)]
mod rig;
mod watch;
