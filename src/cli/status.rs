//! `nightshift status`: how the engine stands.
//!
//! Invariant: a level that could not be read is said to be unknown, not zero.

use super::break_glass;
use super::client::Client;
use super::freeze;
use super::invocation::{Invocation, Paint};
use super::page;
use super::stop::Stop;
use crate::api::{EngineStatus, GuardLevels};
use serde_json::json;

#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let client = Client::new(invocation)?;
    let status = client.get::<EngineStatus>("status", &())?;
    let guards = client.get::<GuardLevels>("guards", &())?;
    if invocation.json() {
        return invocation.print_json(&json!({ "status": status.raw, "guards": guards.raw }));
    }
    let (status, guards) = (status.read()?, guards.read()?);
    invocation.line(&format!(
        "{} {}  (mode ceiling {})",
        invocation.paint(Paint::Strong, &status.install),
        status.version,
        status.mode_ceiling
    ))?;
    let number = |number: Option<u32>| number.map_or("unknown".to_owned(), |number| number.to_string());
    let out = guards.nodes_out.len();
    let rows = [
        ("incidents open", status.incidents_open.to_string()),
        ("runs not over", status.runs_unfinished.to_string()),
        ("pending approvals", status.approvals_open.to_string()),
        ("notices due", status.notices_due.to_string()),
        ("rules", status.rules.to_string()),
        ("runbooks", status.runbooks.to_string()),
        ("ledger", format!("{} entries, {} signed", status.entries, status.signed)),
        (
            "nodes out",
            match guards.nodes_total {
                Some(total) => format!("{out} of {total}, {} allowed at once", number(guards.nodes_out_allowed)),
                None => "unknown (no cluster answers), so steps that disturb a node are on hold".to_owned(),
            },
        ),
    ];
    let slack = status.slack.as_ref().map(|slack| {
        let since = slack.since.map(|at| at.to_string()).unwrap_or_default();
        match slack.connected {
            true => format!("connected since {since} (Socket Mode)"),
            false => format!("not connected since {since}: {}", slack.why.as_deref().unwrap_or_default()),
        }
    });
    for (name, value) in rows.into_iter().chain(slack.map(|slack| ("slack", slack))) {
        invocation.line(&format!("  {name:<16}  {value}"))?;
    }
    troubles(invocation, &status)?;
    super::ladder::moved(invocation, &status.moved)?;
    if guards.freezes.is_empty() { Ok(()) } else { freeze::table(invocation, &guards.freezes) }
}

/// What does not work now, a line each.
fn troubles(invocation: &Invocation, status: &EngineStatus) -> Result<(), Stop> {
    if status.store != "ok" {
        let line = page::text(&status.store);
        invocation.line(&format!("  {:<16}  {line}", invocation.paint(Paint::Bad, "store")))?;
    }
    if status.files_refused > 0 {
        let line = format!("{} refused, their last good version is active: nightshift check", status.files_refused);
        invocation.line(&format!("  {:<16}  {line}", invocation.paint(Paint::Bad, "files")))?;
    }
    for off in &status.off {
        let line = format!("{}: {}; {}", off.what, off.why, off.off);
        invocation.line(&format!("  {:<16}  {}", invocation.paint(Paint::Bad, "off"), page::text(&line)))?;
    }
    break_glass::broken(invocation, &status.break_glass)
}
