//! The list of incidents, open and resolved, the newest first, with a form that narrows it.
//!
//! Invariant: the form is a GET, so that the list has an address that can be sent to others.

use super::home::row;
use super::words::{moment_with_date, since};
use crate::limits;
use crate::model::{Incident, Time};
use crate::server::web::read::IncidentFilter;
use maud::{Markup, html};

const STATES: [&str; 3] = ["open", "acknowledged", "resolved"];
const SEVERITIES: [&str; 4] = ["info", "warning", "error", "critical"];

/// The page's content; `wanted` fills the form.
pub fn body(incidents: &[Incident], wanted: &IncidentFilter, now: Time) -> Markup {
    html! {
        h1 { "Incidents" }
        form.filter method="get" action="/incidents" {
            label for="state" { "State" }
            select id="state" name="state" { (choices(&STATES, &wanted.state)) }
            label for="severity" { "Severity, or worse" }
            select id="severity" name="severity" { (choices(&SEVERITIES, &wanted.severity)) }
            label for="node" { "Node" }
            input id="node" name="node" value=(wanted.node) maxlength="253" autocomplete="off";
            button.quiet type="submit" { "Show" }
        }
        @if incidents.is_empty() { p.dim { "No incidents." } }
        ul.list { @for incident in incidents { (row(incident, &state(incident, now))) } }
        @if incidents.len() >= limits::WEB_ROWS {
            p.dim { "Only the newest " (limits::WEB_ROWS) " are shown: " code { "nightshift incidents --all -n 500" } }
        }
    }
}

fn choices(all: &[&str], chosen: &str) -> Markup {
    html! {
        option value="" { "any" }
        @for one in all { option value=(one) selected[*one == chosen] { (one) } }
    }
}

/// When it was opened and, where it is over, when that was.
fn state(incident: &Incident, now: Time) -> Markup {
    html! {
        (moment_with_date(incident.opened_at))
        @match incident.closed_at {
            Some(at) => { " · resolved " (since(at, now)) },
            None => { " · open" },
        }
    }
}
