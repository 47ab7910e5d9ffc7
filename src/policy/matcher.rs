//! Alertmanager's matchers in its UTF-8 syntax: `alertname="GpuXid"`, `{severity=~"critical|error", "weird name"!="x"}`.
//!
//! Invariant: a regular expression is anchored at both ends, and a missing label is the empty string.

use crate::model::Labels;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Equal,
    NotEqual,
    Like,
    Unlike,
}

/// One compiled matcher.
#[derive(Debug, Clone)]
pub struct Matcher {
    pub name: String,
    pub op: Op,
    pub value: String,
    pub(super) regex: Option<regex::Regex>,
}

/// What is wrong with a matcher text, where (byte offset), and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at character {at} of `{text}`: {hint}")]
pub struct MatcherError {
    pub text: String,
    pub at: usize,
    pub what: String,
    pub hint: String,
}

/// Parses one matcher or a comma-separated list, with or without braces.
pub fn parse_matchers(_text: &str) -> Result<Vec<Matcher>, MatcherError> {
    todo!("policy")
}

impl Matcher {
    pub fn matches(&self, _labels: &Labels) -> bool {
        todo!("policy")
    }
}

pub fn matches_all(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels))
}
