//! `nightshift agents`: the agents on GPU nodes, tokens by which they join, and their removal.
//!
//! Invariant: a join token is printed once, on stdout, and kept nowhere.

use super::client::Client;
use super::invocation::{Invocation, Paint};
use super::page;
use super::stop::Stop;
use crate::api::{AgentList, AgentRemoval, AgentRemoved, JoinTokenMade, JoinTokenRequest};
use crate::model::Span;

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
            let lasts = expires.parse::<Span>();
            let lasts = lasts.map_err(|error| Stop::usage(format!("`--expires`: {error}"), "write 15m or 1h"))?;
            let (node, cluster) = (node.clone(), cluster.clone());
            join_token(&JoinTokenRequest { node, cluster, expires: Some(lasts) }, invocation)
        }
        Some(What::Remove { node, cluster, why, yes }) => {
            invocation.confirm(*yes, &format!("take the certificate of {}'s agent away", page::text(node)))?;
            let path = format!("agents/{node}/remove");
            let wish = AgentRemoval { why: why.clone(), cluster: cluster.clone() };
            let answer = Client::new(invocation)?.post::<AgentRemoved>(&path, &wish)?;
            if invocation.json() {
                return invocation.print_json(&answer.raw);
            }
            invocation.line(&format!("{} removed", page::text(node)))
        }
    }
}

fn list(invocation: &Invocation) -> Result<(), Stop> {
    let answer = Client::new(invocation)?.get::<AgentList>("agents", &())?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let agents = answer.read()?.agents;
    if agents.is_empty() {
        invocation
            .say("no agents; see `nightshift agents join-token --help`, or `serve --with-agent` for this machine");
        return Ok(());
    }
    let rows = agents.iter().map(|agent| {
        let standing = &agent.standing;
        let state = match agent.connected {
            true => invocation.paint(Paint::Good, "here"),
            false => invocation.paint(Paint::Bad, "silent"),
        };
        let (waiting, lost) = (standing.waiting, standing.dropped);
        let boot: String = page::text(&standing.boot).chars().take(8).collect();
        [
            match page::text(&agent.cluster).as_str() {
                "" => page::text(&agent.node),
                cluster => format!("{cluster}/{}", page::text(&agent.node)),
            },
            state,
            invocation.age(agent.seen_at),
            agent.how.word().to_owned(),
            page::text(&standing.version),
            boot,
            if lost > 0 { format!("{waiting} ({lost} lost)") } else { waiting.to_string() },
            page::text(&standing.trouble),
        ]
    });
    invocation.table(["NODE", "STATE", "SEEN", "BY", "VERSION", "BOOT", "WAITING", "TROUBLE"], rows.collect())
}

fn join_token(wanted: &JoinTokenRequest, invocation: &Invocation) -> Result<(), Stop> {
    let answer = Client::new(invocation)?.post::<JoinTokenMade>("agents/join-tokens", wanted)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let made = answer.read()?;
    invocation.line(&made.token)?;
    invocation.say(&format!(
        "good once, until {}: on the node run `nightshift agent --engine https://…:7677 --join -` and give it the token on stdin",
        made.expires_at
    ));
    Ok(())
}
