//! Which rules an event meets, and what each of them would start. Compiled once, when files change.
//!
//! Invariant: every rule that has a say leaves a decision; a parameter from a label is data with a checked type.

use super::{Matcher, MatcherError};
use crate::model::{Event, Header, Input, Labels, Pin, Reason, Rule, Subject};
use std::collections::HashMap;

/// What a rule would start for an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    pub pin: Pin,
    pub input: Input,
    pub subject: Subject,
    /// Two starts of one rule with the same bucket in one incident are one run: hash of rule and parameters.
    pub bucket: String,
}

/// What a rule says to an event that it matches.
#[derive(Debug, Clone, PartialEq)]
pub enum Chosen {
    /// A run (in the rule's mode), unless the store finds that it runs already.
    Run(Box<Start>),
    /// Only tell: the rule names no runbook.
    Tell,
    /// Nothing, and why: muted, a parameter missing, runbook unknown.
    Nothing(Reason),
}

/// One rule's say.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected<'a> {
    pub rule: &'a Rule,
    pub chosen: Chosen,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("rule `{rule}`, `{field}`: {source}")]
    Matcher { rule: String, field: &'static str, source: MatcherError },
    #[error("rule `{rule}`: {what}")]
    Invalid { rule: String, what: String },
}

/// Every rule, compiled, with the runbooks that they name.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    pub(super) rules: Vec<Compiled>,
    pub(super) runbooks: HashMap<String, (Pin, Header)>,
}

#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub rule: Rule,
    pub when: Vec<Matcher>,
    pub unless: Vec<Vec<Matcher>>,
}

impl RuleSet {
    /// Compiles rules against the runbooks at hand (name → pin and header).
    pub fn compile(_rules: Vec<Rule>, _runbooks: HashMap<String, (Pin, Header)>) -> Result<RuleSet, Vec<RuleError>> {
        todo!("policy")
    }

    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|compiled| &compiled.rule)
    }

    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules().find(|rule| rule.name == name)
    }

    /// The rules that match, in file order, each with what it would do. Empty: no rule matched.
    pub fn select<'a>(&'a self, _event: &Event) -> Vec<Selected<'a>> {
        todo!("policy")
    }

    /// For `why`: each rule that does not match, with the first matcher that failed, in words.
    pub fn near_misses(&self, _labels: &Labels) -> Vec<(String, String)> {
        todo!("policy")
    }

    /// Binds and checks parameters for a run by hand or by schedule: unknown, missing or ill-typed ones are refused in words.
    pub fn bind(
        _header: &Header,
        _given: &serde_json::Map<String, serde_json::Value>,
        _event: Option<&Event>,
    ) -> Result<Input, String> {
        todo!("policy")
    }
}
