//! Why something was done, or was not: the same blocks that `nightshift why` prints.
//!
//! Invariant: every sentence is the API's own; this only gives it a shape.

use super::words::{moment_with_date, plain, to_run};
use crate::api::Explanation;
use crate::limits;
use maud::{Markup, html};

/// The page's content, from the API's answer about `subject`.
pub fn body(subject: &str, explanation: &Explanation) -> Markup {
    html! {
        h1 { "Why: " (plain(subject)) }
        p.dim { "Newest first; within a card in order of time." }
        @for block in explanation.blocks.iter().take(limits::WEB_ROWS) {
            section.card {
                h2 { (plain(&block.title)) }
                p.dim { (moment_with_date(block.at)) }
                @if let Some(run) = block.run { p { a href=(to_run(run)) { (run) } } }
                ul.list {
                    @for line in block.lines.iter().take(limits::WEB_ROWS) {
                        li { span.mark { (line.what.word()) } " " (plain(&line.text)) }
                    }
                }
            }
        }
    }
}
