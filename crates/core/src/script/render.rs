//! Diagnostics as a good compiler prints them: the source line, a caret, a suggestion.
//!
//! Invariant: whatever place a diagnostic names, it renders; control characters of the source never reach a terminal.

use super::check::{Diagnostic, DiagnosticLevel};
use annotate_snippets::{AnnotationKind, Level as Shown, Renderer, Snippet};

/// Each diagnostic with its line; a blank line between two.
pub(super) fn render(name: &str, text: &str, diagnostics: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    // Callers give a runbook's name or its path.
    let path = format!("{}.rhai", name.trim_end_matches(".rhai"));
    // Every control character becomes one space, so that places stay where they are.
    let text: String = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    let lines: Vec<&str> = text.split('\n').collect();
    let shown: Vec<String> = diagnostics.iter().map(|one| render_one(&renderer, &path, &lines, one)).collect();
    shown.join("\n\n")
}

fn render_one(renderer: &Renderer, path: &str, lines: &[&str], diagnostic: &Diagnostic) -> String {
    let level = match diagnostic.level {
        DiagnosticLevel::Error => Shown::ERROR,
        DiagnosticLevel::Warning => Shown::WARNING,
        DiagnosticLevel::Note => Shown::NOTE,
    };
    let message = clean(&diagnostic.message);
    let help = diagnostic.help.as_deref().map(clean);
    let title = level.primary_title(&message).id(diagnostic.code);
    let mut group = match lines.get(diagnostic.line.wrapping_sub(1)) {
        Some(line) => {
            let start = byte_of(line, diagnostic.column.saturating_sub(1));
            let end = byte_of(line, (diagnostic.column.saturating_sub(1)).saturating_add(diagnostic.length.max(1)));
            let mark = AnnotationKind::Primary.span(start..end.max(start));
            title.element(Snippet::source(*line).line_start(diagnostic.line).path(path).annotation(mark))
        }
        None => title.element(annotate_snippets::Origin::path(path)),
    };
    if let Some(help) = &help {
        group = group.element(Shown::HELP.message(help));
    }
    renderer.render(&[group])
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

fn byte_of(line: &str, column: usize) -> usize {
    line.char_indices().nth(column).map_or(line.len(), |(at, _)| at)
}
