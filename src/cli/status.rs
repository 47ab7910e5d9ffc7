//! `nightshift status`: how the engine stands.
//!
//! Invariant: a level that could not be read is said to be unknown, not zero.

use super::break_glass;
use super::client::Client;
use super::freeze;
use super::invocation::{Invocation, Paint};
use super::page;
use super::show::understood;
use super::stop::Stop;
use crate::model::Freeze;
use serde_json::{Value, json};

#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let client = Client::new(invocation)?;
    let status: Value = client.get("status", &[])?;
    let guards: Value = client.get("guards", &[])?;
    if invocation.json() {
        return invocation.print_json(&json!({ "status": status, "guards": guards }));
    }
    let number = |value: &Value| value.as_u64().map_or("unknown".to_owned(), |number| number.to_string());
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    invocation.line(&format!(
        "{} {}  (mode ceiling {})",
        invocation.paint(Paint::Strong, &word(&status["install"])),
        word(&status["version"]),
        word(&status["mode_ceiling"])
    ))?;
    let out = guards["nodes_out"].as_array().map_or(0, Vec::len);
    let rows = [
        ("incidents open", number(&status["incidents_open"])),
        ("runs not over", number(&status["runs_unfinished"])),
        ("pending approvals", number(&status["approvals_open"])),
        ("notices due", number(&status["notices_due"])),
        ("rules", number(&status["rules"])),
        ("runbooks", number(&status["runbooks"])),
        ("ledger", format!("{} entries, {} signed", number(&status["entries"]), number(&status["signed"]))),
        (
            "nodes out",
            match guards["nodes_total"].as_u64() {
                Some(total) => format!("{out} of {total}, {} allowed at once", number(&guards["nodes_out_allowed"])),
                None => "unknown (no cluster answers), so steps that disturb a node are on hold".to_owned(),
            },
        ),
    ];
    let slack = match &status["slack"] {
        Value::Null => None,
        slack if slack["connected"] == true => Some(format!("connected since {} (Socket Mode)", word(&slack["since"]))),
        slack => Some(format!("not connected since {}: {}", word(&slack["since"]), word(&slack["why"]))),
    };
    for (name, value) in rows.into_iter().chain(slack.map(|slack| ("slack", slack))) {
        invocation.line(&format!("  {name:<16}  {value}"))?;
    }
    if let Some(why) = status["store"].as_str().filter(|store| *store != "ok") {
        invocation.line(&format!("  {:<16}  {}", invocation.paint(Paint::Bad, "store"), page::text(why)))?;
    }
    if let Some(refused) = status["files_refused"].as_u64().filter(|refused| *refused > 0) {
        let line = format!("{refused} refused, their last good version is active: nightshift check");
        invocation.line(&format!("  {:<16}  {line}", invocation.paint(Paint::Bad, "files")))?;
    }
    for off in status["off"].as_array().into_iter().flatten() {
        let line = format!("{}: {}; {}", word(&off["what"]), word(&off["why"]), word(&off["off"]));
        invocation.line(&format!("  {:<16}  {}", invocation.paint(Paint::Bad, "off"), page::text(&line)))?;
    }
    break_glass::broken(invocation, &status)?;
    super::ladder::moved(invocation, &status["moved"])?;
    let freezes: Vec<Freeze> = understood(guards["freezes"].clone())?;
    if freezes.is_empty() { Ok(()) } else { freeze::table(invocation, &freezes) }
}
