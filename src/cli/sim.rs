//! `nightshift sim`: the simulated fleet as a process of its own, to try rules and runbooks against; and faults in it.
//!
//! Invariant: it listens on loopback only, and nothing real is within its reach.

use super::invocation::Invocation;
use super::stop::CliError;
use crate::world::sim::{SimFleet, SimOptions};
use crate::world::{HttpClient, HttpRequest};
use serde_json::{Map, Value};
use std::net::SocketAddr;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct SimArgs {
    /// Listen here, for the Kubernetes API, Prometheus' API and /metrics
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT)]
    listen: SocketAddr,
    /// GPU nodes, named gpu-1 and so on
    #[arg(long, value_name = "NUMBER", default_value = "4")]
    nodes: usize,
    #[command(subcommand)]
    what: Option<SimCommand>,
}

const DEFAULT: &str = "127.0.0.1:7680";

#[derive(clap::Subcommand)]
enum SimCommand {
    /// Inject a fault into a running simulated fleet: `xid node=gpu-3 gpu=5 code=79`, `hot node=gpu-1 gpu=0`,
    /// `ecc node=gpu-1 gpu=0`, `node_not_ready node=gpu-2`, `stalled namespace=inference deployment=llama-70b`
    Fault {
        /// xid, ecc, hot, node_not_ready or stalled
        kind: String,
        /// Target, as name=value
        #[arg(value_name = "NAME=VALUE")]
        values: Vec<String>,
        /// Address of the simulated fleet
        #[arg(long, value_name = "ADDRESS", default_value = DEFAULT)]
        at: SocketAddr,
    },
    /// Repair a node, or one GPU of it: `repair node=gpu-3 gpu=5`
    Repair {
        /// Target, as name=value
        #[arg(value_name = "NAME=VALUE", required = true)]
        values: Vec<String>,
        /// Address of the simulated fleet
        #[arg(long, value_name = "ADDRESS", default_value = DEFAULT)]
        at: SocketAddr,
    },
}

pub(super) fn run(args: &SimArgs, invocation: &Invocation) -> Result<(), CliError> {
    match &args.what {
        None => serve(args, invocation),
        Some(SimCommand::Fault { kind, values, at }) => {
            let mut body = named(values)?;
            body.insert("fault".to_owned(), Value::from(kind.replace('-', "_")));
            post(*at, "/sim/fault", body.into(), invocation)
        }
        Some(SimCommand::Repair { values, at }) => post(*at, "/sim/repair", named(values)?.into(), invocation),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| CliError::failure(format!("runtime: {error}"), ""))
}

fn serve(args: &SimArgs, invocation: &Invocation) -> Result<(), CliError> {
    if !args.listen.ip().is_loopback() {
        return Err(CliError::usage(
            format!("{} is reachable from other machines, and a simulated fleet has no authentication", args.listen),
            "listen on 127.0.0.1",
        ));
    }
    let options = SimOptions { nodes: args.nodes, listen: args.listen, ..SimOptions::default() };
    let fleet = SimFleet::start(options).map_err(|error| {
        CliError::failure(format!("cannot listen on {}: {error}", args.listen), "choose another --listen")
    })?;
    let url = fleet.url();
    let at = match fleet.url().strip_prefix("http://") {
        Some(address) if address != DEFAULT => format!(" --at {address}"),
        _ => String::new(),
    };
    invocation.say(&format!(
        "a simulated fleet of {} GPU nodes is at {url}; point the engine at it:\n\n  clusters:\n    sim: {{ url: \
         '{url}' }}\n  prometheus:\n    url: '{url}'\n\nmake a fault, and repair it:\n\n  nightshift sim fault xid \
         node=gpu-3 gpu=5 code=79{at}\n  nightshift sim repair node=gpu-3 gpu=5{at}\n\nits metrics are at {url}/metrics \
         for a Prometheus with the alerts of rules/prometheus/\nCtrl-C ends it",
        args.nodes
    ));
    runtime()?
        .block_on(tokio::signal::ctrl_c())
        .map_err(|error| CliError::failure(format!("cannot install signal handlers: {error}"), ""))
}

/// `gpu=5` as a number, `node=gpu-3` as a text.
fn named(values: &[String]) -> Result<Map<String, Value>, CliError> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => {
            let value = value.parse::<u32>().map_or_else(|_| Value::from(value), Value::from);
            Ok((name.to_owned(), value))
        }
        None => {
            Err(CliError::usage(format!("`{text}` is not name=value"), "write for example `node=gpu-3 gpu=5 code=79`"))
        }
    };
    values.iter().map(pair).collect()
}

fn post(at: SocketAddr, path: &str, body: Value, invocation: &Invocation) -> Result<(), CliError> {
    let http = HttpClient::new("nightshift", &[]).map_err(|error| CliError::failure(error.to_string(), ""))?;
    let request = HttpRequest {
        method: "POST".to_owned(),
        url: format!("http://{at}{path}"),
        body: body.clone(),
        ..HttpRequest::default()
    };
    let answer = runtime()?.block_on(http.send(&request)).map_err(|error| {
        CliError::failure(format!("{at}: {error}"), "is `nightshift sim` running there? Name its address with --at")
    })?;
    if answer.status == 200 {
        return invocation.line(&format!("done: {body}"));
    }
    let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let why = super::invocation::clean(said["message"].as_str().unwrap_or(&answer.body), 400);
    Err(CliError::usage(format!("the simulated fleet refused: {why}"), "see `nightshift sim fault --help`"))
}
