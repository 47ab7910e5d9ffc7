//! `nightshift freeze` and `nightshift unfreeze`: the kill switch.
//!
//! Invariant: a freeze names who and why; without arguments it only lists.

use super::client::Client;
use super::invocation::Invocation;
use super::page;
use super::stop::Stop;
use crate::api::{FreezeAnswer, FreezeList, FreezeRequest, ScopeRequest, UnfreezeAnswer};
use crate::model::Freeze;

pub(super) const EXAMPLES: &str = "\
Examples:
  nightshift freeze --why 'storage upgrade' --for 2h    stop everything, for two hours
  nightshift freeze --scope rule:gpu-reset --why '…'    stop one rule, until it is released
  nightshift freeze                                     list freezes
  nightshift unfreeze --scope rule:gpu-reset --why '…'  release it";

#[derive(clap::Args)]
pub(super) struct Args {
    /// Scope to freeze: all, cluster:NAME or rule:NAME
    #[arg(long, default_value = "all")]
    scope: String,
    /// Reason; without it, list freezes
    #[arg(short, long, visible_alias = "reason")]
    why: Option<String>,
    /// Duration (30m, 2h) [default: until it is released]
    #[arg(long = "for", value_name = "TIME", requires = "why")]
    lasts: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct UnfreezeArgs {
    /// Scope to release: all, cluster:NAME or rule:NAME
    #[arg(long, default_value = "all")]
    scope: String,
    /// Reason; recorded in the ledger
    #[arg(short, long, visible_alias = "reason")]
    why: String,
    /// Skip the confirmation; for scripts
    #[arg(short, long)]
    yes: bool,
}

/// Stopping is never asked about: it must work at once, from everywhere.
pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let client = Client::new(invocation)?;
    let Some(why) = &args.why else { return list(invocation, &client) };
    let body = FreezeRequest { scope: args.scope.clone(), why: why.clone(), lasts: args.lasts.clone() };
    let answer = client.post::<FreezeAnswer>("freezes", &body)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let FreezeAnswer { freeze, notified, .. } = answer.read()?;
    invocation.line(&format!("frozen: {} {}", page::text(&freeze.scope), lasts(&freeze, invocation)))?;
    match notified.as_slice() {
        [] => invocation.warn("no `channels` are configured, so no one is notified"),
        told => invocation.say(&format!("being notified: {}", page::text(&told.join(", ")))),
    }
    let back = page::text(&freeze.way_back());
    invocation.say(&format!("running steps finish; no new step starts. To release: `{back}`"));
    Ok(())
}

pub(super) fn unfreeze(args: &UnfreezeArgs, invocation: &Invocation) -> Result<(), Stop> {
    invocation.confirm(args.yes, &format!("let automation go on ({})", page::text(&args.scope)))?;
    let body = ScopeRequest { scope: args.scope.clone(), why: args.why.clone() };
    let answer = Client::new(invocation)?.post::<UnfreezeAnswer>("unfreeze", &body)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    if answer.read()?.asked.is_some() {
        invocation.line(&format!("release of {} requested; it is still frozen", page::text(&args.scope)))?;
        invocation.say("a second person must confirm within 30 minutes");
        return Ok(());
    }
    invocation.line(&format!("not frozen any more: {}", page::text(&args.scope)))
}

fn list(invocation: &Invocation, client: &Client) -> Result<(), Stop> {
    let answer = client.get::<FreezeList>("freezes", &())?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let freezes = answer.read()?.freezes;
    if freezes.is_empty() {
        invocation.say("no freeze is active; to stop all actions: `nightshift freeze --why '…'`");
        return Ok(());
    }
    table(invocation, &freezes)?;
    for freeze in &freezes {
        invocation.say(&format!("to go on: `{}`", page::text(&freeze.way_back())));
    }
    Ok(())
}

fn lasts(freeze: &Freeze, invocation: &Invocation) -> String {
    freeze.until.map_or_else(|| "until it is released".to_owned(), |until| format!("until {}", invocation.when(until)))
}

pub(super) fn table(invocation: &Invocation, freezes: &[Freeze]) -> Result<(), Stop> {
    let row = |freeze: &Freeze| {
        [
            page::text(&freeze.scope),
            page::text(&freeze.by),
            invocation.age(freeze.since),
            freeze.until.map_or_else(|| "released".to_owned(), |until| invocation.when(until)),
            page::text(&freeze.why),
        ]
    };
    invocation.table(["FROZEN", "BY", "AGE", "UNTIL", "WHY"], freezes.iter().map(row).collect())
}
