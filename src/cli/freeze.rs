//! `nightshift freeze` and `nightshift unfreeze`: the kill switch.
//!
//! Invariant: a freeze names who and why; without arguments it only lists.

use super::client::Client;
use super::invocation::Invocation;
use super::page;
use super::show::understood;
use super::stop::Stop;
use crate::model::Freeze;
use serde_json::{Value, json};

#[derive(clap::Args)]
pub(super) struct Args {
    /// What to stop: all, cluster:NAME or rule:NAME
    #[arg(long, default_value = "all")]
    scope: String,
    /// Why; left out: list what is frozen
    #[arg(short, long)]
    why: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct UnfreezeArgs {
    /// What may go on: all, cluster:NAME or rule:NAME
    #[arg(long, default_value = "all")]
    scope: String,
    /// Why; it goes into the ledger
    #[arg(short, long)]
    why: String,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let client = Client::new(invocation)?;
    let Some(why) = &args.why else { return list(invocation, &client) };
    let answer: Value = client.post("freezes", &json!({ "scope": args.scope, "why": why }))?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    invocation.line(&format!("frozen: {}", page::text(&args.scope)))?;
    invocation
        .say("steps that have begun are finished; no other one begins. To go on: `nightshift unfreeze --why '…'`");
    Ok(())
}

pub(super) fn unfreeze(args: &UnfreezeArgs, invocation: &Invocation) -> Result<(), Stop> {
    let answer: Value = Client::new(invocation)?.post("unfreeze", &json!({ "scope": args.scope, "why": args.why }))?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    if answer["asked"].is_string() {
        invocation.line(&format!("asked for the release of {}: it is still frozen", page::text(&args.scope)))?;
        invocation.say("a second person must say the same within 30 minutes");
        return Ok(());
    }
    invocation.line(&format!("not frozen any more: {}", page::text(&args.scope)))
}

fn list(invocation: &Invocation, client: &Client) -> Result<(), Stop> {
    let answer: Value = client.get("freezes", &[])?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    let freezes: Vec<Freeze> = understood(answer["freezes"].clone())?;
    if freezes.is_empty() {
        invocation.say("nothing is frozen; to stop all actions: `nightshift freeze --why '…'`");
        return Ok(());
    }
    table(invocation, &freezes)
}

pub(super) fn table(invocation: &Invocation, freezes: &[Freeze]) -> Result<(), Stop> {
    let row = |freeze: &Freeze| {
        [page::text(&freeze.scope), page::text(&freeze.by), invocation.age(freeze.since), page::text(&freeze.why)]
    };
    invocation.table(["FROZEN", "BY", "AGE", "WHY"], freezes.iter().map(row).collect())
}
