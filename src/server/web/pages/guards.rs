//! The page of the guards: each level with its limit, held nodes, freezes.
//!
//! Invariant: the numbers are the API's own, those of `nightshift guards`.

use super::words::{guards, plain};
use crate::api::GuardLevels;
use maud::{Markup, html};

/// The page's content, from the API's answer.
pub fn body(levels: &GuardLevels, now: crate::model::Time) -> Markup {
    let count = |nodes: &[String]| nodes.len().to_string();
    let allowed = |most: Option<u32>| most.map_or("unknown".to_owned(), |most| most.to_string());
    let (symptom, rule) = match &levels.symptom {
        Some(symptom) => (symptom.nodes, plain(&symptom.rule)),
        None => (0, String::new()),
    };
    let taken = |nodes: &Vec<String>, most| (count(nodes), allowed(most), nodes.join(", "));
    let (out, hour, day) = (
        taken(&levels.nodes_out, levels.nodes_out_allowed),
        taken(&levels.taken_hour, levels.taken_hour_allowed),
        taken(&levels.taken_day, levels.taken_day_allowed),
    );
    let rows = [
        ("nodes out of service", out),
        ("taken out by our runs within an hour", hour),
        ("taken out by our runs within a day", day),
        ("nodes with one symptom", (symptom.to_string(), allowed(levels.correlated_limit), rule)),
    ];
    html! {
        h1 { "Guards" }
        table {
            thead { tr { th { "Guard" } th { "Now" } th { "Limit" } th { "Which" } } }
            tbody {
                @for (name, (now, limit, which)) in rows {
                    tr { td { (name) } td { (now) } td { (limit) } td { (plain(&which)) } }
                }
            }
        }
        @if let Some(total) = levels.nodes_total { p.dim { "Of " (total) " GPU nodes." } }
        (guards(levels, now))
        p.dim { "In the terminal: " code { "nightshift guards" } }
    }
}
