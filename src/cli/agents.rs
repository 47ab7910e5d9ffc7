//! `nightshift agents`: the agents on GPU nodes, tokens by which they join, and their removal.
//!
//! Invariant: a join token is printed once, on stdout, and kept nowhere.

use super::client::Client;
use super::invocation::{Invocation, Paint};
use super::page;
use super::stop::Stop;
use crate::model::Time;
use serde_json::{Value, json};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// Create a one-time token for one agent to get its certificate
    JoinToken {
        /// Restrict it to the agent of this node, which may then replace an existing one
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Restrict it to an agent of this cluster
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// Lifetime
        #[arg(long, value_name = "TIME", default_value = "15m")]
        expires: String,
    },
    /// Remove an agent and its certificate
    Remove {
        /// Node of the agent
        node: String,
        /// Cluster of the agent, if several clusters have a node of that name
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// Reason; recorded in the ledger
        #[arg(short, long, visible_alias = "reason")]
        why: String,
        /// Skip the confirmation; for scripts
        #[arg(short, long)]
        yes: bool,
    },
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    match &args.what {
        None => list(invocation),
        Some(What::JoinToken { node, cluster, expires }) => {
            let wanted = json!({ "node": node, "cluster": cluster, "expires": expires });
            join_token(&wanted, invocation)
        }
        Some(What::Remove { node, cluster, why, yes }) => {
            invocation.confirm(*yes, &format!("take the certificate of {}'s agent away", page::text(node)))?;
            let path = format!("agents/{node}/remove");
            let answer: Value = Client::new(invocation)?.post(&path, &json!({ "why": why, "cluster": cluster }))?;
            if invocation.json() {
                return invocation.print_json(&answer);
            }
            invocation.line(&format!("{} removed", page::text(node)))
        }
    }
}

fn list(invocation: &Invocation) -> Result<(), Stop> {
    let answer: Value = Client::new(invocation)?.get("agents", &[])?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    let agents = answer["agents"].as_array().cloned().unwrap_or_default();
    if agents.is_empty() {
        invocation
            .say("no agents; see `nightshift agents join-token --help`, or `serve --with-agent` for this machine");
        return Ok(());
    }
    let text = |value: &Value| page::text(value.as_str().unwrap_or_default());
    let rows = agents.iter().map(|agent| {
        let standing = &agent["standing"];
        let here = agent["connected"] == json!(true);
        let state = if here { invocation.paint(Paint::Good, "here") } else { invocation.paint(Paint::Bad, "silent") };
        let seen = agent["seen_at"].as_str().and_then(|at| at.parse::<Time>().ok());
        let waiting = standing["waiting"].as_u64().unwrap_or(0);
        let lost = standing["dropped"].as_u64().filter(|count| *count > 0);
        let boot: String = text(&standing["boot"]).chars().take(8).collect();
        [
            match text(&agent["cluster"]).as_str() {
                "" => text(&agent["node"]),
                cluster => format!("{cluster}/{}", text(&agent["node"])),
            },
            state,
            seen.map(|at| invocation.age(at)).unwrap_or_default(),
            text(&agent["how"]),
            text(&standing["version"]),
            boot,
            lost.map_or_else(|| waiting.to_string(), |lost| format!("{waiting} ({lost} lost)")),
            text(&standing["trouble"]),
        ]
    });
    invocation.table(["NODE", "STATE", "SEEN", "BY", "VERSION", "BOOT", "WAITING", "TROUBLE"], rows.collect())
}

fn join_token(wanted: &Value, invocation: &Invocation) -> Result<(), Stop> {
    let made: Value = Client::new(invocation)?.post("agents/join-tokens", wanted)?;
    if invocation.json() {
        return invocation.print_json(&made);
    }
    invocation.line(made["token"].as_str().unwrap_or_default())?;
    invocation.say(&format!(
        "good once, until {}: on the node run `nightshift agent --engine https://…:7677 --join -` and give it the token on stdin",
        made["expires_at"].as_str().unwrap_or_default()
    ));
    Ok(())
}
