//! `nightshift incidents`, and the acts on one: `ack`, `assign`, `silence`.
//!
//! Invariant: a table has relative ages, JSON has RFC 3339.

use super::client::Client;
use super::invocation::Invocation;
use super::page;
use super::stop::Stop;
use crate::api::{AssignRequest, IncidentAnswer, IncidentList, ResolveRequest, SilenceAnswer, SilenceRequest};
use serde_json::json;

pub(super) const EXAMPLES: &str = "\
Examples:
  nightshift incidents                                    open incidents
  nightshift incidents --severity critical --since 12h    critical ones of this shift that are open
  nightshift incidents --all --node gpu-3                 everything about one node
  nightshift incidents --state resolved --rule xid-79     resolved ones";

pub(super) const SILENCE_EXAMPLES: &str = "\
Examples:
  nightshift silence i3 2h --why 'fan is being replaced'
  nightshift silence i3 30m --reason 'known, see i2'";

#[derive(clap::Args)]
pub(super) struct Args {
    /// Include finished ones
    #[arg(short, long)]
    all: bool,
    /// Only in this state: open, acknowledged or resolved
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Minimum severity: info, warning, error or critical
    #[arg(long, value_name = "SEVERITY")]
    severity: Option<String>,
    /// Only about this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only with a run of this rule
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Only opened since then: 2h, or a time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Maximum number
    #[arg(short = 'n', long, default_value_t = crate::limits::LIST_ROWS, value_parser = super::invocation::rows)]
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
    /// A user under `people` in the configuration, or `me`
    to: String,
}

#[derive(clap::Args)]
pub(super) struct SilenceArgs {
    /// The incident (i3)
    id: String,
    /// Duration: 30m, 2h
    lasts: String,
    /// Reason; shown in Alertmanager and recorded in the ledger
    #[arg(short, long, visible_alias = "reason")]
    why: String,
}

#[derive(clap::Args)]
pub(super) struct ResolveArgs {
    /// The incident (i3)
    id: String,
    /// Reason; recorded in the ledger
    #[arg(short, long, visible_alias = "reason")]
    why: String,
    /// Only the alerts that this source holds open [default: all of them]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

pub(super) fn resolve(args: &ResolveArgs, invocation: &Invocation) -> Result<(), Stop> {
    let id = args.id.to_ascii_lowercase();
    let wish = ResolveRequest { why: args.why.clone(), source: args.source.clone() };
    let answer = Client::new(invocation)?.post::<IncidentAnswer>(&format!("incidents/{id}/resolve"), &wish)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let incident = answer.read()?.incident;
    invocation.line(&format!("{} {}", incident.id, page::incident_state(incident.state)))
}

pub(super) fn run(args: &Args, invocation: &Invocation) -> Result<(), Stop> {
    let open = !args.all && args.state.is_none();
    let mut query = vec![("limit", args.limit.to_string()), ("open", open.to_string())];
    let picked = [
        ("state", &args.state),
        ("severity", &args.severity),
        ("node", &args.node),
        ("rule", &args.rule),
        ("since", &args.since),
    ];
    let narrowed = picked.iter().any(|(_, value)| value.is_some());
    query.extend(picked.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    let answer = Client::new(invocation)?.get::<IncidentList>("incidents", &query)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let incidents = answer.read()?.incidents;
    if incidents.is_empty() {
        invocation.say(match (narrowed, open) {
            (true, true) => "no open incident matches; --all includes resolved ones",
            (true, false) => "no incident matches",
            (false, true) => "no open incidents; --all shows the others",
            (false, false) => "no incidents",
        });
        return Ok(());
    }
    let rows = incidents.iter().map(|incident| {
        [
            incident.id.to_string(),
            page::severity(invocation, incident.severity),
            page::standing(incident),
            page::text(incident.owner.as_deref().unwrap_or("-")),
            page::text(&incident.title),
            page::subject(&incident.subject),
            format!("{}/{}", incident.firing, incident.episodes),
            invocation.age(incident.opened_at),
        ]
    });
    invocation.table(["ID", "SEVERITY", "STATE", "OWNER", "TITLE", "ON", "FIRING", "AGE"], rows.collect())
}

pub(super) fn ack(args: &AckArgs, invocation: &Invocation) -> Result<(), Stop> {
    let id = args.id.to_ascii_lowercase();
    let answer = Client::new(invocation)?.post::<IncidentAnswer>(&format!("incidents/{id}/ack"), &json!({}))?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let incident = answer.read()?.incident;
    invocation.line(&format!("{} {}", incident.id, page::incident_state(incident.state)))
}

pub(super) fn assign(args: &AssignArgs, invocation: &Invocation) -> Result<(), Stop> {
    let id = args.id.to_ascii_lowercase();
    let wish = AssignRequest { to: args.to.clone() };
    let answer = Client::new(invocation)?.post::<IncidentAnswer>(&format!("incidents/{id}/assign"), &wish)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let incident = answer.read()?.incident;
    let owner = incident.owner.unwrap_or_default();
    invocation.line(&format!("{} is {}'s", incident.id, page::text(&owner)))
}

pub(super) fn silence(args: &SilenceArgs, invocation: &Invocation) -> Result<(), Stop> {
    let id = args.id.to_ascii_lowercase();
    let wish = SilenceRequest { lasts: args.lasts.clone(), why: args.why.clone() };
    let answer = Client::new(invocation)?.post::<SilenceAnswer>(&format!("incidents/{id}/silence"), &wish)?;
    if invocation.json() {
        return invocation.print_json(&answer.raw);
    }
    let answer = answer.read()?;
    let until = invocation.when(answer.until);
    for made in &answer.silences {
        let (silence, source) = (page::text(&made.silence), page::text(&made.source));
        invocation.line(&format!("silence {silence} at {source} until {until}"))?;
    }
    for left in &answer.left {
        invocation.say(&format!("not silenced: {}", page::text(left)));
    }
    Ok(())
}
