//! `nightshift approve` and `nightshift deny`: the answers to approval requests.
//!
//! Invariant: an answer is for the plan that is shown; the engine voids it when the plan changes.

use super::client::Client;
use super::invocation::Invocation;
use super::page;
use super::show::{approval_page, understood};
use super::stop::Stop;
use crate::model::Approval;
use serde_json::{Value, json};

pub(super) const EXAMPLES: &str = "\
Examples:
  nightshift approve                              list the open requests
  nightshift show a5                              the plan, and the guards' current decisions
  nightshift approve a5 --why 'pods may move'     asks for confirmation on a terminal
  nightshift approve a5 --yes --why '…'           in a script
  nightshift deny a5 --why 'not before the demo'";

#[derive(clap::Args)]
pub(super) struct Args {
    /// Approval (a5); without it, list the open ones
    id: Option<String>,
    /// Reason; recorded in the ledger
    #[arg(short, long, visible_alias = "reason", default_value = "")]
    why: String,
    /// Skip the plan and the confirmation; for scripts
    #[arg(short, long)]
    yes: bool,
}

#[derive(clap::Args)]
pub(super) struct DenyArgs {
    /// The approval (a5)
    id: String,
    /// Reason; recorded in the ledger
    #[arg(short, long, visible_alias = "reason", default_value = "")]
    why: String,
    /// Skip the confirmation; for scripts
    #[arg(short, long)]
    yes: bool,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let client = Client::new(invocation)?;
    let Some(id) = &args.id else { return list(invocation, &client) };
    let id = id.to_ascii_lowercase();
    // On a terminal the plan is shown once more; a script has read it with `show`, and says so.
    if !args.yes && invocation.can_ask() && !invocation.json() {
        let answer: Value = client.get(&format!("approvals/{id}"), &[])?;
        approval_page(invocation, &understood(answer["approval"].clone())?)?;
    }
    invocation.confirm(args.yes, &format!("approve {}", page::text(&id)))?;
    answer(invocation, &client, &id, true, &args.why)
}

pub(super) fn deny(args: &DenyArgs, invocation: &Invocation) -> Result<(), Stop> {
    let id = args.id.to_ascii_lowercase();
    invocation.confirm(args.yes, &format!("deny {}", page::text(&id)))?;
    answer(invocation, &Client::new(invocation)?, &id, false, &args.why)
}

fn answer(invocation: &Invocation, client: &Client, id: &str, approve: bool, why: &str) -> Result<(), Stop> {
    let answer: Value = client.post(&format!("approvals/{id}"), &json!({ "approve": approve, "why": why }))?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    let approval: Approval = understood(answer["approval"].clone())?;
    let word = if approve { "approved" } else { "denied" };
    invocation.line(&format!("{} {word}", approval.id))?;
    invocation.say(&format!("see `nightshift show {}`", approval.run));
    Ok(())
}

fn list(invocation: &Invocation, client: &Client) -> Result<(), Stop> {
    let answer: Value = client.get("approvals", &[("open", "true".to_owned())])?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    let approvals: Vec<Approval> = understood(answer["approvals"].clone())?;
    if approvals.is_empty() {
        invocation.say("nothing is asked");
        return Ok(());
    }
    let rows = approvals.iter().map(|approval| {
        [
            approval.id.to_string(),
            approval.run.to_string(),
            page::text(&approval.question),
            invocation.age(approval.asked_at),
            invocation.format(approval.expires_at, "%H:%M:%S %Z"),
        ]
    });
    invocation.table(["ID", "RUN", "QUESTION", "AGE", "NO AFTER"], rows.collect())
}
