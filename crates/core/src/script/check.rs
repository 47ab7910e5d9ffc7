//! Static checks of a runbook, and diagnostics that read like a good compiler's.
//!
//! Invariant: every diagnostic has a place, an error and a correction.

mod walk;

use super::host::ScriptHost;
use super::near::nearest;
use super::{HostApi, header, host, on_stack};
use crate::limits;
use crate::model::{ImpactScope, RunbookHeader, UndoPolicy};
use rhai::{AST, Dynamic, LexError, ParseError, ParseErrorType, Position, Scope};
use std::collections::BTreeSet;

/// The severity of a diagnostic: an error prevents a run, a warning does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiagnosticLevel {
    Error,
    Warning,
    /// Correct as it is, and to be changed before the next release.
    Note,
}

/// One finding of the checks, with its place in the text.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    pub level: DiagnosticLevel,
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

impl Diagnostic {
    pub(super) fn error(code: &'static str, at: (usize, usize), length: usize, message: String) -> Diagnostic {
        Diagnostic { level: DiagnosticLevel::Error, code, message, line: at.0, column: at.1, length, help: None }
    }

    pub(super) fn warning(code: &'static str, at: (usize, usize), length: usize, message: String) -> Diagnostic {
        Diagnostic { level: DiagnosticLevel::Warning, ..Diagnostic::error(code, at, length, message) }
    }

    pub(super) fn note(code: &'static str, at: (usize, usize), length: usize, message: String) -> Diagnostic {
        Diagnostic { level: DiagnosticLevel::Note, ..Diagnostic::error(code, at, length, message) }
    }

    pub(super) fn help(mut self, help: &str) -> Diagnostic {
        self.help = (!help.is_empty()).then(|| help.to_owned());
        self
    }
}

/// All findings about a runbook that need no run, errors first.
pub fn check(_name: &str, text: &str, api: &HostApi) -> Vec<Diagnostic> {
    analyse(text, &host::of(api)).diagnostics
}

/// Renders diagnostics with the source line, a caret and the suggestion; colors only on request.
pub fn render(name: &str, text: &str, diagnostics: &[Diagnostic], colour: bool) -> String {
    super::render::render(name, text, diagnostics, colour)
}

/// A runbook taken apart.
pub(super) struct RunbookAnalysis {
    pub(super) header: RunbookHeader,
    /// None where the text does not parse.
    pub(super) ast: Option<AST>,
    /// Numbers of the actions that the text names: the list that a reviewer reads, and the only calls that a run may
    /// make.
    pub(super) actions: BTreeSet<usize>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// The result of all checks of a runbook's text.
pub(super) fn analyse(text: &str, host: &ScriptHost) -> RunbookAnalysis {
    if text.len() > limits::SCRIPT_BYTES {
        return too_long(text);
    }
    match on_stack(|| take_apart(text, host)) {
        Ok(analysis) => analysis,
        Err(why) => refused(Diagnostic::error("syntax", (0, 0), 1, why)),
    }
}

fn take_apart(text: &str, host: &ScriptHost) -> RunbookAnalysis {
    let (header, mut diagnostics) = header::parse(text);
    let mut scope = Scope::new();
    for param in &header.params {
        scope.push_dynamic(param.name.as_str(), Dynamic::UNIT);
    }
    scope.push_dynamic("event", Dynamic::UNIT);
    let mut actions = BTreeSet::new();
    let ast = match host.engine.compile_with_scope(&scope, text) {
        Ok(ast) => {
            let walked = walk::walk(text, &ast, &header, host);
            diagnostics.extend(walked.diagnostics);
            actions = walked.actions;
            Some(ast)
        }
        Err(error) => {
            diagnostics.push(parse_error(text, &header, host, &error));
            None
        }
    };
    diagnostics.sort_by(|a, b| (a.level, a.line, a.column, a.code).cmp(&(b.level, b.line, b.column, b.code)));
    diagnostics.dedup();
    diagnostics.truncate(limits::DIAGNOSTICS);
    RunbookAnalysis { header, ast, actions, diagnostics }
}

fn too_long(text: &str) -> RunbookAnalysis {
    let message = format!("the runbook has {} bytes; the most is {}", text.len(), limits::SCRIPT_BYTES);
    let help = "split it: an on-call engineer must be able to read a runbook from top to bottom";
    refused(Diagnostic::error("too-long", (0, 0), 1, message).help(help))
}

fn refused(diagnostic: Diagnostic) -> RunbookAnalysis {
    let header = RunbookHeader {
        title: String::new(),
        params: Vec::new(),
        reach: ImpactScope::None,
        undo: UndoPolicy::Never,
        approvers: Vec::new(),
    };
    RunbookAnalysis { header, ast: None, actions: BTreeSet::new(), diagnostics: vec![diagnostic] }
}

/// The one error that Rhai's parser stops at, in our words.
fn parse_error(text: &str, header: &RunbookHeader, host: &ScriptHost, error: &ParseError) -> Diagnostic {
    let at = spot(text, error.position());
    let length = word_at(text, at).chars().count().max(1);
    let (code, message, help) = match error.err_type() {
        ParseErrorType::VariableUndefined(name) => {
            ("undefined-variable", format!("there is no variable `{name}`"), undefined_help(text, header, name))
        }
        ParseErrorType::ModuleUndefined(name) => {
            let word = word_at(text, at);
            let near = nearest(word, host.callable()).map(|near| format!("did you mean `{near}`?"));
            let known = || format!("the namespaces are {}", namespaces(host));
            ("unknown-action", format!("there is no namespace `{name}`"), near.unwrap_or_else(known))
        }
        ParseErrorType::Reserved(word) | ParseErrorType::BadInput(LexError::ImproperSymbol(word, _))
            if word == "eval" =>
        {
            (
                "eval",
                "`eval` is not allowed: it would run text that was not reviewed".to_owned(),
                "write the code itself".to_owned(),
            )
        }
        ParseErrorType::ExprTooDeep => (
            "too-deep",
            "this is nested too deeply".to_owned(),
            "take parts out into variables or functions".to_owned(),
        ),
        ParseErrorType::WrongDocComment => (
            "syntax",
            "a `///` comment stands before something that is no function".to_owned(),
            "write `//`".to_owned(),
        ),
        ParseErrorType::MissingToken(token, _) if token == ";" => {
            ("syntax", "a `;` is missing before this".to_owned(), "end the statement before it with `;`".to_owned())
        }
        ParseErrorType::BadInput(LexError::MalformedChar(text)) => (
            "syntax",
            format!("single quotes are for one character, and `{}` is a text", text.trim_matches('\'')),
            format!("use double quotes: `\"{}\"`", text.trim_matches('\'')),
        ),
        other => ("syntax", other.to_string(), String::new()),
    };
    Diagnostic::error(code, at, length, message).help(&help)
}

fn undefined_help(text: &str, header: &RunbookHeader, name: &str) -> String {
    let mut known: Vec<&str> = header.params.iter().map(|param| param.name.as_str()).chain(["event"]).collect();
    if known.contains(&name) || declared(text).any(|other| other == name) {
        return format!("a function sees only its own parameters: give `{name}` to it as one");
    }
    known.extend(declared(text));
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("declare it in the header (`//! params:`) or with `let {name} = …;`"),
    }
}

/// Names after `let` and `const`, found roughly: good enough for a suggestion.
fn declared(text: &str) -> impl Iterator<Item = &str> {
    let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    std::iter::from_fn(move || {
        words.by_ref().find(|word| matches!(*word, "let" | "const"))?;
        words.next()
    })
}

fn namespaces(host: &ScriptHost) -> String {
    let names: BTreeSet<&str> =
        host.specs.iter().filter_map(|spec| spec.name.rsplit_once("::")).map(|(ns, _)| ns).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// Line and column of a position; without one, the end of the text.
pub(super) fn spot(text: &str, at: Position) -> (usize, usize) {
    match (at.line(), at.position()) {
        (Some(line), Some(column)) => (line, column - namespace_before(text, line, column)),
        (Some(line), None) => (line, 1),
        _ => {
            let last = text.lines().last().unwrap_or_default();
            (text.lines().count().max(1), last.chars().count().max(1))
        }
    }
}

/// Rhai places `k8s::cordon` at `cordon`; users look at the whole of it.
fn namespace_before(text: &str, line: usize, column: usize) -> usize {
    let Some(line) = text.lines().nth(line - 1) else { return 0 };
    let before: String = line.chars().take(column - 1).collect();
    if !before.ends_with("::") {
        return 0;
    }
    before.chars().rev().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').count()
}

/// The word (with `::`) or the text literal that starts at a place, to underline it.
pub(super) fn word_at(text: &str, (line, column): (usize, usize)) -> &str {
    let Some(line) = text.lines().nth(line.saturating_sub(1)) else { return "" };
    let start = line.char_indices().nth(column.saturating_sub(1)).map_or(line.len(), |(at, _)| at);
    let rest = &line[start..];
    if let Some(inside) = rest.strip_prefix('"') {
        return inside.find('"').map_or(rest, |end| &rest[..end + 2]);
    }
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
    rest[..end].trim_end_matches(':')
}
