//! `nightshift runs` and `nightshift cancel`.
//!
//! Invariant: a table has relative ages, JSON has RFC 3339.

use super::client::Client;
use super::invocation::Invocation;
use super::page;
use super::stop::Stop;
use crate::api::{ReasonRequest, RunAnswer, RunList};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Include finished ones
    #[arg(short, long)]
    all: bool,
    /// Only of this incident (i3)
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
    /// Only in this state: held, asking, done, failed, cancelled, withdrawn, refused, …
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only about this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only of this rule
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Only created since then: 2h, or a time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Maximum number
    #[arg(short = 'n', long, default_value_t = crate::limits::LIST_ROWS, value_parser = super::invocation::rows)]
    limit: usize,
}

#[derive(clap::Args)]
pub(super) struct CancelArgs {
    /// The run (r17)
    id: String,
    /// Reason; recorded in the ledger
    #[arg(short, long, visible_alias = "reason")]
    why: String,
    /// Skip the confirmation; for scripts
    #[arg(short, long)]
    yes: bool,
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let open = !args.all && args.incident.is_none() && args.state.is_none();
    let mut query = vec![("limit", args.limit.to_string()), ("open", open.to_string())];
    let picked = [("state", &args.state), ("node", &args.node), ("rule", &args.rule), ("since", &args.since)];
    let narrowed = picked.iter().any(|(_, value)| value.is_some());
    query.extend(picked.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    if let Some(incident) = &args.incident {
        query.push(("incident", incident.to_ascii_lowercase()));
    }
    let answer = Client::new(invocation)?.get::<RunList>("runs", &query)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let runs = answer.read()?.runs;
    if runs.is_empty() {
        invocation.say(match (narrowed, open) {
            (true, true) => "no unfinished run matches; --all includes finished ones",
            (true, false) => "no run matches",
            (false, true) => "no unfinished runs; --all shows the others",
            (false, false) => "no runs",
        });
        return Ok(());
    }
    let rows = runs.iter().map(|run| {
        [
            run.id.to_string(),
            page::state(invocation, &run.state),
            page::text(&run.runbook.name),
            page::subject(&run.subject),
            run.mode.to_string(),
            page::text(run.rule.as_deref().unwrap_or(&run.requested_by)),
            run.incident.map(|id| id.to_string()).unwrap_or_default(),
            invocation.age(run.created_at),
        ]
    });
    invocation.table(["ID", "STATE", "RUNBOOK", "ON", "MODE", "BY", "INCIDENT", "AGE"], rows.collect())
}

pub(super) fn cancel(args: &CancelArgs, invocation: &Invocation) -> Result<(), Stop> {
    let id = args.id.to_ascii_lowercase();
    invocation.confirm(args.yes, &format!("cancel {}", page::text(&id)))?;
    let wish = ReasonRequest { why: args.why.clone() };
    let answer = Client::new(invocation)?.post::<RunAnswer>(&format!("runs/{id}/cancel"), &wish)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let run = answer.read()?.run;
    // One that was over before keeps its state.
    invocation.line(&format!("{} {}", run.id, run.state.name()))
}
