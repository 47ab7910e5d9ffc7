//! The `//!` block at the top of a runbook: title, parameters, scope, undo, approvers.
//!
//! Invariant: a line that is not understood is refused with its place; nothing in a header is silently ignored but
//! prose.

use super::arguments::{ArgumentMismatch, normal, wants};
use super::check::Diagnostic;
use super::near::nearest;
use crate::model::{ImpactScope, ParamType, RunbookHeader, RunbookParam, UndoPolicy};
use serde_json::Value;

const KEYS: [&str; 4] = ["params", "scope", "undo", "approvers"];
/// The name of `scope` before; accepted for one release.
const OLD_SCOPE: &str = "reach";
const REACHES: [(&str, ImpactScope); 5] = [
    ("none", ImpactScope::None),
    ("pod", ImpactScope::Pod),
    ("workload", ImpactScope::Workload),
    ("node", ImpactScope::Node),
    ("cluster", ImpactScope::Cluster),
];
const REGEX_BYTES: usize = 1 << 20;

/// Where a word of the header stands.
#[derive(Clone, Copy)]
struct HeaderPosition {
    line: usize,
    column: usize,
}

/// Reads the header; the diagnostics list its errors.
pub(super) fn parse(text: &str) -> (RunbookHeader, Vec<Diagnostic>) {
    let mut reading = HeaderParser {
        header: RunbookHeader {
            title: String::new(),
            params: Vec::new(),
            reach: ImpactScope::None,
            undo: UndoPolicy::Never,
            approvers: Vec::new(),
        },
        diagnostics: Vec::new(),
        seen: Vec::new(),
        place: HeaderSection::Title,
    };
    let mut lines = 0;
    for (index, line) in text.lines().enumerate() {
        let Some(rest) = line.trim_start().strip_prefix("//!") else {
            if line.trim().is_empty() && lines == 0 {
                continue;
            }
            break;
        };
        lines += 1;
        let before = line.chars().count() - rest.chars().count();
        reading.line(rest, HeaderPosition { line: index + 1, column: before + 1 });
    }
    if reading.header.title.is_empty() {
        let missing = Diagnostic::warning(
            "missing-title",
            HeaderPosition { line: 1, column: 1 }.into(),
            1,
            "the runbook has no title".to_owned(),
        );
        reading
            .diagnostics
            .push(missing.help("start the file with a line such as `//! Empty the node and reset its GPU.`"));
    }
    (reading.header, reading.diagnostics)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HeaderSection {
    /// The first paragraph.
    Title,
    Prose,
    Params,
}

struct HeaderParser {
    header: RunbookHeader,
    diagnostics: Vec<Diagnostic>,
    seen: Vec<&'static str>,
    place: HeaderSection,
}

impl HeaderParser {
    fn line(&mut self, rest: &str, at: HeaderPosition) {
        let text = rest.trim();
        let indent = rest.chars().take_while(|c| c.is_whitespace()).count();
        let at = HeaderPosition { line: at.line, column: at.column + indent };
        if text.is_empty() {
            if self.place == HeaderSection::Title && !self.header.title.is_empty() {
                self.place = HeaderSection::Prose;
            }
            return;
        }
        if self.place == HeaderSection::Params && indent > 1 {
            return self.param(text, at);
        }
        let first = self.header.title.is_empty() && self.place == HeaderSection::Title;
        match key(text) {
            Some((key, value)) if !first || key == OLD_SCOPE || KEYS.contains(&key) => {
                self.key(key, value.trim(), text, at)
            }
            _ if self.place == HeaderSection::Title => {
                let space = if first { "" } else { " " };
                self.header.title = format!("{}{space}{text}", self.header.title);
            }
            _ if self.place == HeaderSection::Params => {
                self.refuse(
                    "bad-header",
                    at,
                    text,
                    "this line is neither a parameter nor a key".to_owned(),
                    "indent parameters by two spaces: `//!   node: Node`",
                );
            }
            _ => {}
        }
    }

    fn key(&mut self, key: &str, value: &str, text: &str, at: HeaderPosition) {
        if key == OLD_SCOPE {
            let old = Diagnostic::note("deprecated-key", at.into(), key.len(), format!("`{OLD_SCOPE}:` is deprecated"));
            self.diagnostics.push(old.help("write `scope:`; the old name is removed in the next release"));
        }
        let meant = if key == OLD_SCOPE { "scope" } else { key };
        let Some(known) = KEYS.into_iter().find(|known| *known == meant) else {
            let help = match nearest(key, KEYS) {
                Some(near) => format!("did you mean `{near}:`?"),
                None => format!("the keys are {}", KEYS.join(", ")),
            };
            self.place = HeaderSection::Prose;
            return self.refuse("unknown-key", at, key, format!("the header has no key `{key}`"), &help);
        };
        if self.seen.contains(&known) {
            return self.refuse(
                "duplicate-key",
                at,
                key,
                format!("`{key}:` stands here a second time"),
                "keep one of them",
            );
        }
        self.seen.push(known);
        self.place = if known == "params" { HeaderSection::Params } else { HeaderSection::Prose };
        let offset = text.chars().count() - text[key.len() + 1..].trim_start().chars().count();
        let value_at = HeaderPosition { line: at.line, column: at.column + offset };
        match known {
            "params" if value.is_empty() => {}
            "params" => self.refuse(
                "bad-header",
                value_at,
                value,
                "parameters stand on lines of their own".to_owned(),
                "write one a line below: `//!   node: Node`",
            ),
            "scope" => match REACHES.iter().find(|(name, _)| *name == value) {
                Some((_, reach)) => self.header.reach = *reach,
                None => self.no_such("scope", value, &REACHES.map(|(name, _)| name), value_at),
            },
            "undo" => match value {
                "never" => self.header.undo = UndoPolicy::Never,
                "on-failure" => self.header.undo = UndoPolicy::OnFailure,
                _ => self.no_such("undo", value, &["never", "on-failure"], value_at),
            },
            _ => {
                self.header.approvers = value.split(',').map(|name| name.trim().to_owned()).collect();
                if self.header.approvers.iter().any(String::is_empty) {
                    self.refuse(
                        "bad-header",
                        value_at,
                        value,
                        "a name is missing in `approvers:`".to_owned(),
                        "write names with commas between: `approvers: alice, bob`",
                    );
                }
            }
        }
    }

    fn param(&mut self, text: &str, at: HeaderPosition) {
        match read_param(text) {
            Ok(param) if self.header.params.iter().any(|other| other.name == param.name) => {
                self.refuse(
                    "duplicate-param",
                    at,
                    &param.name,
                    format!("the parameter `{}` is declared twice", param.name),
                    "keep one of them",
                );
            }
            Ok(param) => self.header.params.push(param),
            Err((message, help)) => self.refuse("bad-param", at, text, message, &help),
        }
    }

    fn no_such(&mut self, key: &str, value: &str, known: &[&str], at: HeaderPosition) {
        let help = match nearest(value, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of {}", known.join(", ")),
        };
        self.refuse("bad-header", at, value, format!("`{key}:` has no value `{value}`"), &help);
    }

    fn refuse(&mut self, code: &'static str, at: HeaderPosition, what: &str, message: String, help: &str) {
        let length = what.chars().count().max(1);
        self.diagnostics.push(Diagnostic::error(code, at.into(), length, message).help(help));
    }
}

impl From<HeaderPosition> for (usize, usize) {
    fn from(at: HeaderPosition) -> Self {
        (at.line, at.column)
    }
}

/// `word: rest` with one word of letters before the colon.
fn key(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once(':')?;
    let word = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphabetic() || c == '-' || c == '_');
    (word && (value.is_empty() || value.starts_with(' '))).then_some((key, value))
}

type ParamProblem = (String, String);

/// `name: Type [matching /regex/] [= default] [-- doc]`
fn read_param(text: &str) -> Result<RunbookParam, ParamProblem> {
    let shape = || "write `name: Type`, then as needed ` matching /regex/`, ` = default`, ` -- what it is`".to_owned();
    let (name, rest) = text.split_once(':').ok_or_else(|| (format!("`{text}` declares no parameter"), shape()))?;
    let name = name.trim();
    let reserved = name == "event" || rhai::Token::lookup_symbol_from_syntax(name).is_some();
    if !rhai::is_valid_identifier(name) || reserved {
        return Err((
            format!("`{name}` cannot be the name of a parameter"),
            "use letters, digits and `_`, and no keyword; `event` is reserved".to_owned(),
        ));
    }
    let rest = rest.trim();
    let end = rest.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(rest.len());
    let (ty, mut rest) = rest.split_at(end);
    let ty = ParamType::from_name(ty).ok_or_else(|| {
        let names = || ParamType::NAMES.iter().copied();
        let lower = names().find(|name| name.eq_ignore_ascii_case(ty));
        let help = match lower.or_else(|| nearest(ty, names())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the types are {}", ParamType::NAMES.join(", ")),
        };
        (format!("there is no type `{ty}`"), help)
    })?;
    let mut param = RunbookParam { name: name.to_owned(), ty, default: None, pattern: None, doc: String::new() };
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        } else if let Some(doc) = rest.strip_prefix("--") {
            param.doc = doc.trim().to_owned();
            break;
        } else if let Some(after) = rest.strip_prefix("matching ") {
            rest = pattern(&mut param, after.trim_start())?;
        } else if let Some(after) = rest.strip_prefix('=') {
            rest = default(&mut param, after.trim_start())?;
        } else {
            return Err((format!("`{rest}` is not understood here"), shape()));
        }
    }
    if let Some(value) = &param.default {
        fits(&param, value).map_err(|why| {
            (format!("the default of `{name}` does not fit: {why}"), "fix the default, or leave it out".to_owned())
        })?;
    }
    Ok(param)
}

fn pattern<'a>(param: &mut RunbookParam, text: &'a str) -> Result<&'a str, ParamProblem> {
    let help = || "write ` matching /[a-z]+/`; a slash inside is `\\/`".to_owned();
    if param.ty != ParamType::String {
        return Err((
            format!("only a String has a pattern, and `{}` is a {}", param.name, param.ty.name()),
            "leave the pattern out".to_owned(),
        ));
    }
    let body = text.strip_prefix('/').ok_or_else(|| ("the pattern does not start with `/`".to_owned(), help()))?;
    let mut escaped = false;
    let end = body.char_indices().find(|(_, c)| {
        let here = *c == '/' && !escaped;
        escaped = *c == '\\' && !escaped;
        here
    });
    let (end, _) = end.ok_or_else(|| ("the pattern does not end with `/`".to_owned(), help()))?;
    let pattern = body[..end].replace("\\/", "/");
    regex(&pattern)
        .map_err(|why| (format!("the pattern of `{}` is no regular expression: {why}", param.name), help()))?;
    param.pattern = Some(pattern);
    Ok(&body[end + 1..])
}

fn default<'a>(param: &mut RunbookParam, text: &'a str) -> Result<&'a str, ParamProblem> {
    // JSON where it reads as such, for it may hold any character; else the bare text up to the next part.
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    if let Some(Ok(value)) = values.next() {
        let rest = &text[values.byte_offset()..];
        if rest.is_empty() || rest.starts_with(' ') {
            param.default = Some(spelled(param.ty, value));
            return Ok(rest);
        }
    }
    let end = [" -- ", " matching /"].iter().filter_map(|part| text.find(part)).min().unwrap_or(text.len());
    let bare = text[..end].trim();
    if bare.is_empty() {
        return Err((
            format!("the default of `{}` is missing", param.name),
            "write it after `=`, or leave `=` out".to_owned(),
        ));
    }
    param.default = Some(spelled(param.ty, Value::String(bare.to_owned())));
    Ok(&text[end..])
}

fn spelled(ty: ParamType, value: Value) -> Value {
    normal(ty, value.clone()).unwrap_or(value)
}

fn regex(pattern: &str) -> Result<regex::Regex, String> {
    let built = regex::RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(REGEX_BYTES).build();
    // The last line of the crate's message is the reason; the ones before draw our own pattern.
    built.map_err(|why| why.to_string().lines().last().unwrap_or_default().trim().to_owned())
}

/// Whether a value fits a parameter: its type and its pattern.
fn fits(param: &RunbookParam, value: &Value) -> Result<Value, String> {
    let value = normal(param.ty, value.clone()).map_err(|wrong| match wrong {
        ArgumentMismatch::Type => format!("`{}` must be {}, not {value}", param.name, wants(param.ty)),
        ArgumentMismatch::Value(why) => format!("`{}`: {why}", param.name),
    })?;
    if let (Some(pattern), Some(text)) = (&param.pattern, value.as_str()) {
        let whole = regex(pattern).map_err(|why| format!("the pattern of `{}`: {why}", param.name))?;
        if !whole.is_match(text) {
            return Err(format!("`{}` is {text:?}, which does not match /{pattern}/", param.name));
        }
    }
    Ok(value)
}
