//! Alertmanager's matchers in its UTF-8 syntax: `alertname="GpuXid"`, `{severity=~"critical|error", "weird name"!="x"}`.
//!
//! Invariant: a regular expression is anchored at both ends, and a missing label is the empty string.

mod parse;

pub(super) use parse::anchored;
pub use parse::parse_matchers;

use crate::model::Labels;
use std::fmt;

/// A matcher's operator, as in Alertmanager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchOperator {
    Equal,
    NotEqual,
    Like,
    Unlike,
}

impl MatchOperator {
    /// The operator as it is written.
    pub fn sign(self) -> &'static str {
        match self {
            MatchOperator::Equal => "=",
            MatchOperator::NotEqual => "!=",
            MatchOperator::Like => "=~",
            MatchOperator::Unlike => "!~",
        }
    }
}

/// One compiled matcher.
#[derive(Debug, Clone)]
pub struct Matcher {
    pub name: String,
    pub op: MatchOperator,
    pub value: String,
    pub(super) regex: Option<regex::Regex>,
}

/// A matcher text's error: the fault, its place (offset in characters, from 0), and the text to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at character {at} of `{text}`: {hint}")]
pub struct MatcherError {
    pub text: String,
    pub at: usize,
    pub what: String,
    pub hint: String,
}

impl Matcher {
    /// Whether the label's value matches; an absent label has the empty value.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.accepts(labels.get(&self.name))
    }

    /// Whether a label of this name with this value (empty: no such label) passes.
    pub fn accepts(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOperator::Equal, _) => self.value == value,
            (MatchOperator::NotEqual, _) => self.value != value,
            (MatchOperator::Like, Some(regex)) => regex.is_match(value),
            (MatchOperator::Unlike, Some(regex)) => !regex.is_match(value),
            // The parser compiles every expression; without one nothing may pass, whatever the sign.
            (MatchOperator::Like | MatchOperator::Unlike, None) => false,
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() || self.name.contains(parse::is_reserved) {
            write_quoted(f, &self.name)?;
        } else {
            f.write_str(&self.name)?;
        }
        f.write_str(self.op.sign())?;
        write_quoted(f, &self.value)
    }
}

/// Whether every matcher matches; true for the empty list.
pub fn matches_all(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels))
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    use fmt::Write;
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            other => f.write_char(other)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests;
