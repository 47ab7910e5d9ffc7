//! `nightshift sim`: the simulated fleet as a process of its own, to try rules and runbooks against. Hidden: for authors.
//!
//! Invariant: it listens on loopback only, and nothing real is within its reach.

use super::invocation::Invocation;
use super::stop::Stop;
use crate::world::sim::{SimFleet, SimOptions};
use std::net::SocketAddr;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Listen here, for the Kubernetes API, Prometheus' API and /metrics
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7680")]
    listen: SocketAddr,
    /// GPU nodes, named gpu-1 and so on
    #[arg(long, value_name = "NUMBER", default_value = "4")]
    nodes: usize,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    if !args.listen.ip().is_loopback() {
        return Err(Stop::usage(
            format!(
                "{} can be reached from other machines, and a simulated fleet asks nobody who they are",
                args.listen
            ),
            "listen on 127.0.0.1",
        ));
    }
    let options = SimOptions { nodes: args.nodes, listen: args.listen, ..SimOptions::default() };
    let fleet = SimFleet::start(options).map_err(|error| {
        Stop::failure(format!("cannot listen on {}: {error}", args.listen), "choose another --listen")
    })?;
    let url = fleet.url();
    invocation.say(&format!(
        "a simulated fleet of {} GPU nodes is at {url}; point the engine at it:\n\n  clusters:\n    sim: {{ url: \
         '{url}' }}\n  prometheus:\n    url: '{url}'\n\nCtrl-C ends it",
        args.nodes
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::failure(format!("runtime: {error}"), ""))?;
    runtime
        .block_on(tokio::signal::ctrl_c())
        .map_err(|error| Stop::failure(format!("cannot hear signals: {error}"), ""))
}
