//! The rules that match an event, and the run that each of them would start. Compiled once, when files change.
//!
//! Invariant: every rule that matches leaves a decision; a parameter from a label is data with a checked type.

mod bind;
mod compile;
mod syntax;

pub use bind::subject_of;

use super::{MatchOperator, Matcher, MatcherError, XidTable, ladder};
use crate::model::{
    Event, ParamSource, Reason, ReasonCode, Rule, RuleSnapshot, RunInput, RunbookHeader, RunbookPin, Schedule, Subject,
};
use bind::ParamBinder;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// The run that a rule would start for an event.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSpec {
    pub pin: RunbookPin,
    pub input: RunInput,
    pub subject: Subject,
    /// Two starts of one rule with the same bucket in one incident are one run: hash of rule and parameters.
    pub bucket: String,
    pub terms: RuleSnapshot,
}

/// A rule's decision on an event that it matches.
#[derive(Debug, Clone, PartialEq)]
pub enum RuleDecision {
    /// A run (in the rule's mode), unless the store finds that it runs already.
    Run(Box<RunSpec>),
    /// Only notify: the rule names no runbook.
    Tell,
    /// Nothing, and why: muted or ignored, a parameter missing, runbook unknown.
    Nothing(Reason),
}

impl RuleSelection<'_> {
    /// Whether the rule decides: it is neither muted nor there to ignore the event.
    pub fn speaks(&self) -> bool {
        !matches!(&self.chosen, RuleDecision::Nothing(reason) if reason.code == ReasonCode::Muted)
    }
}

/// One rule's decision.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleSelection<'a> {
    pub rule: &'a Rule,
    pub chosen: RuleDecision,
    /// None where it names no runbook: then there is nothing to go far with.
    pub terms: Option<&'a RuleSnapshot>,
}

/// An error in a rule file; it names the rule, and the field where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("rule `{rule}`, `{field}`: {source}")]
    Matcher { rule: String, field: &'static str, source: MatcherError },
    #[error("rule `{rule}`: {what}")]
    Invalid { rule: String, what: String },
    /// `near`: a suggestion of a similar name, or empty.
    #[error("rule `{rule}`: there is no runbook `{runbook}`{near}")]
    NoRunbook { rule: String, runbook: String, near: String },
}

impl RuleError {
    /// The rule's name as its file gives it.
    pub fn rule(&self) -> &str {
        match self {
            RuleError::Matcher { rule, .. } | RuleError::Invalid { rule, .. } | RuleError::NoRunbook { rule, .. } => {
                rule
            }
        }
    }
}

/// Every rule, compiled, with the runbooks that they name.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    pub(super) rules: Vec<CompiledRule>,
    pub(super) runbooks: HashMap<String, (RunbookPin, RunbookHeader)>,
    /// Rules that match exactly this `alertname`, by position, in file order.
    by_name: HashMap<String, Vec<usize>>,
    /// Rules that any event may meet, in file order.
    others: Vec<usize>,
    /// The remedies for GPU fault codes: applied before the rules.
    xids: Arc<XidTable>,
}

#[derive(Debug, Clone)]
pub(super) struct CompiledRule {
    pub rule: Rule,
    pub when: Vec<Matcher>,
    pub unless: Vec<Vec<Matcher>>,
    binder: Option<ParamBinder>,
    terms: Option<RuleSnapshot>,
}

/// An event with the kind of its source, as matchers see it.
#[derive(Clone, Copy)]
struct EventView<'e> {
    event: &'e Event,
    kind: &'e str,
}

impl<'e> EventView<'e> {
    /// The pseudo-labels are the engine's own, whatever labels of these names a sender writes.
    fn label(self, name: &str) -> &'e str {
        match name {
            "__source__" => &self.event.source,
            "__source_kind__" => self.kind,
            _ => self.event.labels.get(name),
        }
    }

    fn meets(self, matchers: &[Matcher]) -> bool {
        matchers.iter().all(|matcher| matcher.accepts(self.label(&matcher.name)))
    }
}

impl RuleSet {
    /// Compiles rules against the runbooks at hand (name → pin and header). All errors come at once.
    ///
    /// # Errors
    ///
    /// Fails with every error of every rule: matchers, parameters, and runbooks that do not exist.
    pub fn compile(
        rules: Vec<Rule>,
        runbooks: HashMap<String, (RunbookPin, RunbookHeader)>,
    ) -> Result<RuleSet, Vec<RuleError>> {
        let mut compiled = compile::compile(rules, &runbooks)?;
        for one in &mut compiled {
            one.terms = terms(&one.rule, &runbooks);
        }
        let mut set = RuleSet { rules: compiled, runbooks, ..RuleSet::default() };
        for (at, compiled) in set.rules.iter().enumerate().filter(|(_, compiled)| compiled.rule.at.is_none()) {
            let wanted = compiled.when.iter().find(|m| m.op == MatchOperator::Equal && m.name == "alertname");
            match wanted {
                Some(matcher) => set.by_name.entry(matcher.value.clone()).or_default().push(at),
                None => set.others.push(at),
            }
        }
        Ok(set)
    }

    /// The same rules with another table of GPU faults.
    pub fn with_xids(mut self, xids: Arc<XidTable>) -> RuleSet {
        self.xids = xids;
        self
    }

    /// The table's result for this event becomes labels of it, for rules to match. Every event passes here before
    /// `select`.
    pub fn judge(&self, event: &mut Event) {
        self.xids.judge(event);
    }

    /// The rules, in file order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|compiled| &compiled.rule)
    }

    /// The rule of this name; none where there is no such rule.
    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules().find(|rule| rule.name == name)
    }

    /// The terms that decide a rule's mode; none where there is no such rule, or it names no runbook.
    pub fn terms(&self, name: &str) -> Option<&RuleSnapshot> {
        self.rules.iter().find(|compiled| compiled.rule.name == name)?.terms.as_ref()
    }

    /// The rules that run something, each with the terms that decide its mode, in file order.
    pub fn climbers(&self) -> impl Iterator<Item = (&Rule, &RuleSnapshot)> {
        self.rules.iter().filter_map(|compiled| Some((&compiled.rule, compiled.terms.as_ref()?)))
    }

    /// The rules that run on a schedule, in file order.
    pub fn scheduled(&self) -> impl Iterator<Item = (&Rule, &Schedule)> {
        self.rules().filter_map(|rule| rule.at.as_ref().map(|schedule| (rule, schedule)))
    }

    /// Returns the run that a rule with a schedule would start now.
    ///
    /// # Errors
    ///
    /// Fails with a reason when no rule of this name has a schedule, or its parameters cannot be bound.
    pub fn start_scheduled(&self, rule: &str) -> Result<RunSpec, Reason> {
        let compiled = self.rules.iter().find(|compiled| compiled.rule.name == rule && compiled.rule.at.is_some());
        let Some(compiled) = compiled else {
            return Err(Reason::new(ReasonCode::NoRuleMatched, format!("no rule `{rule}` has a schedule")));
        };
        self.start(compiled, None)
    }

    /// The rules that match, in file order, each with its decision. Empty: no rule matched. The kind of the event's
    /// source is not known.
    pub fn select<'a>(&'a self, event: &Event) -> Vec<RuleSelection<'a>> {
        self.select_from(event, "")
    }

    /// The same for an event from a source of this kind.
    pub fn select_from<'a>(&'a self, event: &Event, kind: &str) -> Vec<RuleSelection<'a>> {
        let from = EventView { event, kind };
        self.candidates(event.labels.get("alertname"))
            .map(|at| &self.rules[at])
            .filter(|compiled| from.meets(&compiled.when))
            .map(|compiled| RuleSelection {
                rule: &compiled.rule,
                chosen: self.choose(compiled, from),
                terms: compiled.terms.as_ref(),
            })
            .collect()
    }

    /// For `why`: each rule that does not match, with the first matcher that failed, in words.
    pub fn near_misses(&self, event: &Event, kind: &str) -> Vec<(String, String)> {
        let from = EventView { event, kind };
        let event_rules = self.rules.iter().filter(|compiled| compiled.rule.at.is_none());
        event_rules
            .filter_map(|compiled| {
                let failed = compiled.when.iter().find(|matcher| !matcher.accepts(from.label(&matcher.name)))?;
                let has = match from.label(&failed.name) {
                    "" => format!("no label `{}`", failed.name),
                    value => format!("{}={}", failed.name, syntax::quote(value)),
                };
                Some((compiled.rule.name.clone(), format!("it requires {failed}, and the event has {has}")))
            })
            .collect()
    }

    /// Binds and checks parameters for a run by hand or by schedule: unknown, missing or mistyped ones are refused in
    /// words.
    ///
    /// # Errors
    ///
    /// Fails when a parameter is unknown, missing or of another type; the message names each.
    pub fn bind(header: &RunbookHeader, given: &Map<String, Value>, event: Option<&Event>) -> Result<RunInput, String> {
        let with = given.iter().map(|(name, value)| (name.clone(), ParamSource::Value(value.clone()))).collect();
        let params = ParamBinder::new(header, &with)
            .and_then(|binder| binder.bind(event))
            .map_err(|problems| problems.join("; "))?;
        Ok(RunInput { params, event: event.map_or(Value::Null, as_seen_by_scripts) })
    }

    /// Positions of the rules that may match, merged back into file order. Allocates nothing.
    fn candidates(&self, alertname: &str) -> impl Iterator<Item = usize> {
        let named = self.by_name.get(alertname).map_or(&[][..], Vec::as_slice);
        let (mut named, mut others) = (named.iter().copied().peekable(), self.others.iter().copied().peekable());
        std::iter::from_fn(move || match (named.peek(), others.peek()) {
            (Some(a), Some(b)) if a < b => named.next(),
            (Some(_), None) => named.next(),
            _ => others.next(),
        })
    }

    fn choose(&self, compiled: &CompiledRule, from: EventView<'_>) -> RuleDecision {
        if let Some(why) = &compiled.rule.ignore {
            let text = format!("rule `{}` ignores it: {why}", compiled.rule.name);
            return RuleDecision::Nothing(Reason::new(ReasonCode::Muted, text));
        }
        if let Some(at) = compiled.unless.iter().position(|set| from.meets(set)) {
            let text = format!("rule `{}` is muted by its `unless: {}`", compiled.rule.name, compiled.rule.unless[at]);
            return RuleDecision::Nothing(Reason::new(ReasonCode::Muted, text));
        }
        if compiled.rule.run.is_none() {
            return RuleDecision::Tell;
        }
        match self.start(compiled, Some(from.event)) {
            Ok(start) => RuleDecision::Run(Box::new(start)),
            Err(reason) => RuleDecision::Nothing(reason),
        }
    }

    fn start(&self, compiled: &CompiledRule, event: Option<&Event>) -> Result<RunSpec, Reason> {
        let rule = &compiled.rule;
        let runbook = rule.run.as_deref().unwrap_or_default();
        let found = (self.runbooks.get(runbook), &compiled.binder, &compiled.terms);
        let (Some((pin, header)), Some(binder), Some(terms)) = found else {
            let text = format!("rule `{}` names runbook `{runbook}`, which does not exist", rule.name);
            return Err(Reason::new(ReasonCode::NoRunbook, text));
        };
        let params = binder.bind(event).map_err(|problems| {
            let text = format!("rule `{}` cannot start runbook `{runbook}`: {}", rule.name, problems.join("; "));
            Reason::new(ReasonCode::ParameterMissing, text)
        })?;
        let subject = subject_of(header, &params, event.map(|event| &event.subject));
        let bucket = bucket(&rule.name, &params);
        let input = RunInput { params, event: event.map_or(Value::Null, as_seen_by_scripts) };
        Ok(RunSpec { pin: pin.clone(), input, subject, bucket, terms: terms.clone() })
    }
}

fn terms(rule: &Rule, runbooks: &HashMap<String, (RunbookPin, RunbookHeader)>) -> Option<RuleSnapshot> {
    let (pin, _) = runbooks.get(rule.run.as_deref()?)?;
    let content = ladder::content(rule, &pin.hash);
    Some(RuleSnapshot { content, file: rule.mode, bake: rule.bake, demote: rule.demote, tell: rule.tell.clone() })
}

/// The event as a script sees it.
fn as_seen_by_scripts(event: &Event) -> Value {
    json!({
        "source": event.source,
        "labels": event.labels,
        "annotations": event.annotations,
        "subject": event.subject,
        "summary": event.summary,
        "severity": event.severity,
        "starts_at": event.starts_at.to_string(),
    })
}

/// 32 hex digits over the rule's name and the parameters in order of their names.
fn bucket(rule: &str, params: &Map<String, Value>) -> String {
    let mut sorted: Vec<(&String, String)> = params.iter().map(|(name, value)| (name, value.to_string())).collect();
    sorted.sort();
    let mut hash = Sha256::new();
    // Lengths go in, so that no text can be shifted from one field to the next.
    let mut eat = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    eat(rule);
    for (name, value) in &sorted {
        eat(name);
        eat(value);
    }
    hex::encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests;
