//! Static checks of a runbook, and diagnostics that read like a good compiler's.
//!
//! Invariant: every diagnostic has a place, says what is wrong, and suggests what to write.

use super::HostApi;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    pub level: Level,
    /// A stable word: `unknown-action`, `wrong-arity`, `missing-verify`, …
    pub code: &'static str,
    pub message: String,
    /// From 1; 0 where the whole file is meant.
    pub line: usize,
    pub column: usize,
    /// Characters to underline, at least 1.
    pub length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// All that can be said about a runbook without running it, errors first.
pub fn check(_name: &str, _text: &str, _api: &HostApi) -> Vec<Diagnostic> {
    todo!("script")
}

/// Renders diagnostics with the source line, a caret and the suggestion; colours only if asked.
pub fn render(_name: &str, _text: &str, _diagnostics: &[Diagnostic], _colour: bool) -> String {
    todo!("script")
}
