//! The page of the guards: each level with its limit, held nodes, freezes.
//!
//! Invariant: the numbers are the API's own, those of `nightshift guards`.

use super::words::{guards, plain, value};
use maud::{Markup, html};
use serde_json::Value;

/// The page's content, from the API's answer.
pub fn body(answer: &Value, now: crate::model::Time) -> Markup {
    let names = |key: &str| {
        let names: Vec<String> = answer[key].as_array().into_iter().flatten().map(value).collect();
        names.join(", ")
    };
    let count = |key: &str| answer[key].as_array().map_or("unknown".to_owned(), |list| list.len().to_string());
    let allowed = |key: &str| match &answer[key] {
        Value::Null => "unknown".to_owned(),
        number => number.to_string(),
    };
    let total = value(&answer["nodes_total"]);
    let symptom = answer["symptom"]["nodes"].as_u64().unwrap_or(0).to_string();
    let rows = [
        ("nodes out of service", count("nodes_out"), allowed("nodes_out_allowed"), names("nodes_out")),
        (
            "taken out by our runs within an hour",
            count("taken_hour"),
            allowed("taken_hour_allowed"),
            names("taken_hour"),
        ),
        ("taken out by our runs within a day", count("taken_day"), allowed("taken_day_allowed"), names("taken_day")),
        ("nodes with one symptom", symptom, allowed("correlated_limit"), value(&answer["symptom"]["rule"])),
    ];
    html! {
        h1 { "Guards" }
        table {
            thead { tr { th { "Guard" } th { "Now" } th { "Limit" } th { "Which" } } }
            tbody {
                @for (name, now, limit, which) in rows {
                    tr { td { (name) } td { (now) } td { (limit) } td { (plain(&which)) } }
                }
            }
        }
        @if !total.is_empty() { p.dim { "Of " (total) " GPU nodes." } }
        (guards(answer, now))
        p.dim { "In the terminal: " code { "nightshift guards" } }
    }
}
