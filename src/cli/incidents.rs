//! `nightshift incidents`, and what people do with one: `ack`, `assign`, `silence`.
//!
//! Invariant: a table has relative ages, JSON has RFC 3339.

use super::client::Client;
use super::invocation::Invocation;
use super::page;
use super::show::understood;
use super::stop::Stop;
use crate::model::Incident;
use serde_json::{Value, json};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Also those that are over
    #[arg(short, long)]
    all: bool,
    /// At most so many
    #[arg(short = 'n', long, default_value_t = crate::limits::LIST_ROWS)]
    limit: usize,
}

#[derive(clap::Args)]
pub(super) struct AckArgs {
    /// The incident (i3)
    id: String,
}

#[derive(clap::Args)]
pub(super) struct AssignArgs {
    /// The incident (i3)
    id: String,
    /// A person of the configuration, or `me`
    to: String,
}

#[derive(clap::Args)]
pub(super) struct SilenceArgs {
    /// The incident (i3)
    id: String,
    /// How long: 30m, 2h
    lasts: String,
    /// Why; it stands at Alertmanager and in the ledger
    #[arg(short, long, visible_alias = "reason")]
    why: String,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let query = [("limit", args.limit.to_string()), ("open", (!args.all).to_string())];
    let answer: Value = Client::new(invocation)?.get("incidents", &query)?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    let incidents: Vec<Incident> = understood(answer["incidents"].clone())?;
    if incidents.is_empty() {
        invocation.say(if args.all { "no incidents" } else { "no open incidents; --all shows the others" });
        return Ok(());
    }
    let rows = incidents.iter().map(|incident| {
        [
            incident.id.to_string(),
            page::severity(invocation, incident.severity),
            page::incident_state(incident.state).to_owned(),
            page::text(incident.owner.as_deref().unwrap_or("-")),
            super::invocation::clean(&incident.title, 70),
            page::subject(&incident.subject),
            format!("{}/{}", incident.firing, incident.episodes),
            invocation.age(incident.opened_at),
        ]
    });
    invocation.table(["ID", "SEVERITY", "STATE", "OWNER", "TITLE", "ON", "FIRING", "AGE"], rows.collect())
}

pub(super) fn ack(args: &AckArgs, invocation: &Invocation) -> Result<(), Stop> {
    let id = args.id.to_ascii_lowercase();
    let answer: Value = Client::new(invocation)?.post(&format!("incidents/{id}/ack"), &json!({}))?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    let incident: Incident = understood(answer["incident"].clone())?;
    invocation.line(&format!("{} {}", incident.id, page::incident_state(incident.state)))
}

pub(super) fn assign(args: &AssignArgs, invocation: &Invocation) -> Result<(), Stop> {
    let id = args.id.to_ascii_lowercase();
    let answer: Value = Client::new(invocation)?.post(&format!("incidents/{id}/assign"), &json!({ "to": args.to }))?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    let incident: Incident = understood(answer["incident"].clone())?;
    let owner = incident.owner.unwrap_or_default();
    invocation.line(&format!("{} is {}'s", incident.id, page::text(&owner)))
}

pub(super) fn silence(args: &SilenceArgs, invocation: &Invocation) -> Result<(), Stop> {
    let id = args.id.to_ascii_lowercase();
    let wish = json!({ "lasts": args.lasts, "why": args.why });
    let answer: Value = Client::new(invocation)?.post(&format!("incidents/{id}/silence"), &wish)?;
    if invocation.json() {
        return invocation.print_json(&answer);
    }
    let text = |value: &Value| page::text(value.as_str().unwrap_or_default());
    for made in answer["silences"].as_array().into_iter().flatten() {
        let (silence, source) = (text(&made["silence"]), text(&made["source"]));
        invocation.line(&format!("silence {silence} at {source} until {}", text(&answer["until"])))?;
    }
    for left in answer["left"].as_array().into_iter().flatten() {
        invocation.say(&format!("not silenced: {}", text(left)));
    }
    Ok(())
}
