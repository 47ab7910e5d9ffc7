//! Why something was done, or was not: the same blocks that `nightshift why` prints.
//!
//! Invariant: every sentence is the API's own; this only gives it a shape.

use super::words::{moment_with_date, plain, to_run, value};
use crate::limits;
use maud::{Markup, html};
use serde_json::Value;

/// The page's content, from the API's answer about `subject`.
pub fn body(subject: &str, answer: &Value) -> Markup {
    let blocks = answer["blocks"].as_array().cloned().unwrap_or_default();
    html! {
        h1 { "Why: " (plain(subject)) }
        p.dim { "Newest first; within a card in order of time." }
        @for block in blocks.iter().take(limits::WEB_ROWS) {
            section.card {
                h2 { (value(&block["title"])) }
                @if let Some(at) = block["at"].as_str().and_then(|at| at.parse().ok()) { p.dim { (moment_with_date(at)) } }
                @if block["run"].is_string() { p { a href=(to_run(value(&block["run"]))) { (value(&block["run"])) } } }
                ul.list {
                    @for line in block["lines"].as_array().into_iter().flatten().take(limits::WEB_ROWS) {
                        li { span.mark { (value(&line["what"])) } " " (value(&line["text"])) }
                    }
                }
            }
        }
    }
}
