//! `nightshift simulate`: the plan of a runbook now, against the live, read-only world.
//!
//! Invariant: nothing is started and nothing is changed.

use super::client::{Client, Reply};
use super::invocation::{Invocation, Paint};
use super::page;
use super::stop::Stop;
use crate::api::Simulation;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The runbook's name: its file without `.rhai`
    runbook: String,
    /// Parameters of the runbook, as in `node=gpu-3`
    #[arg(value_name = "NAME=VALUE", value_parser = param)]
    params: Vec<(String, Value)>,
    /// The same as an option
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE", value_parser = param)]
    more: Vec<(String, Value)>,
    /// JSON file with an event, passed to the script as `event`
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
    /// The cluster where it would run [default: `default_cluster` of the configuration]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let event: Option<Value> = match &args.event {
        None => None,
        Some(path) => {
            let wrong = |why: String| {
                Stop::usage(
                    format!("{}: {why}", path.display()),
                    "give one event as JSON, as `nightshift audit log -o json` shows them",
                )
            };
            let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            Some(serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?)
        }
    };
    let client = Client::new(invocation)?;
    let params = [args.params.clone(), args.more.clone()].concat();
    let answer = plan(&client, &args.runbook, &params, event, args.cluster.as_deref())?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    show(invocation, &answer.read()?)
}

/// Asks the engine for a plan.
pub(super) fn plan(
    client: &Client,
    runbook: &str,
    params: &[(String, Value)],
    event: Option<Value>,
    cluster: Option<&str>,
) -> Result<Reply<Simulation>, Stop> {
    let mut body = json!({ "runbook": runbook, "params": gather(params)? });
    if let Some(cluster) = cluster {
        body["cluster"] = json!(cluster);
    }
    if let Some(event) = event {
        body["event"] = event;
    }
    client.post("simulate", &body)
}

pub(super) fn show(invocation: &Invocation, simulated: &Simulation) -> Result<(), Stop> {
    invocation.line(&format!(
        "{}  {}  on {}  (scope {})",
        invocation.paint(Paint::Strong, &page::text(&simulated.runbook.name)),
        page::text(&simulated.header.title),
        page::subject(&simulated.subject),
        simulated.header.reach,
    ))?;
    page::plan_now(invocation, &simulated.plan, &simulated.guards)
}

/// The parameters as one object; one that is given twice is a slip.
pub(super) fn gather(params: &[(String, Value)]) -> Result<Map<String, Value>, Stop> {
    let mut map = Map::new();
    for (name, value) in params {
        if map.insert(name.clone(), value.clone()).is_some() {
            return Err(Stop::usage(format!("parameter `{name}` is given twice"), "keep the one that is meant"));
        }
    }
    Ok(map)
}

/// `replicas=3`, `deep=true`, `node=gpu-3`, `gpu="3"`: JSON where it is a number, truth value or quoted text.
pub(super) fn param(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, as in `node=gpu-3`")?;
    if name.is_empty() {
        return Err("the name before `=` is missing".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_json_where_it_can_be_and_text_otherwise() {
        let value = |text: &str| param(text).unwrap().1;
        assert_eq!(value("node=gpu-3"), json!("gpu-3"));
        assert_eq!(value("n=3"), json!(3));
        assert_eq!(value("deep=true"), json!(true));
        assert_eq!(value("gpu=\"3\""), json!("3"));
        assert_eq!(value("q=a=b"), json!("a=b"));
        assert!(param("node").is_err());
        assert!(param("=x").is_err());
    }
}
