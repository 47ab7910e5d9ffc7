//! Parameters of a runbook from the rule's values, from the subject, from defaults; in this order.
//!
//! Invariant: a bound value has the type that the header declares; a parameter that cannot be bound is named, never
//! guessed; a label of an event fills a parameter only where the rule allows it, and a `Query` never.

use super::syntax;
use crate::model::{Event, ParamSource, ParamType, RunbookHeader, RunbookParam, Subject};
use crate::planted::planted;
use crate::policy::matcher::anchored;
use crate::policy::suggest::did_you_mean;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How to fill the parameters of one runbook, worked out once.
#[derive(Debug, Clone)]
pub(super) struct ParamBinder {
    slots: Vec<ParamSlot>,
}

#[derive(Debug, Clone)]
struct ParamSlot {
    param: RunbookParam,
    given: Option<ParamSource>,
    pattern: Option<Regex>,
    /// The part of the subject that it stands for, if it stands for one.
    part: Option<&'static str>,
}

impl ParamBinder {
    /// Refuses unknown names, values of the wrong type, and bad patterns.
    pub(super) fn new(
        header: &RunbookHeader,
        with: &BTreeMap<String, ParamSource>,
    ) -> Result<ParamBinder, Vec<String>> {
        let names = || header.params.iter().map(|param| param.name.as_str());
        let mut problems: Vec<String> = with
            .keys()
            .filter(|name| !names().any(|known| known == name.as_str()))
            .map(|name| match names().next() {
                None => format!("parameter `{name}` is given, but the runbook takes none"),
                Some(_) => format!("the runbook has no parameter `{name}`{}", did_you_mean(name, names())),
            })
            .collect();
        let mut slots = Vec::with_capacity(header.params.len());
        for param in &header.params {
            match ParamSlot::new(param, header, with.get(&param.name)) {
                Ok(slot) => slots.push(slot),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(ParamBinder { slots }) } else { Err(problems) }
    }

    /// Parameters that nothing can ever fill.
    pub(super) fn never_filled(&self, scheduled: bool) -> Vec<String> {
        let open = |slot: &&ParamSlot| slot.given.is_none() && slot.param.default.is_none();
        self.slots
            .iter()
            .filter(open)
            .filter(|slot| scheduled || slot.part.is_none())
            .map(|slot| {
                let (name, ty) = (&slot.param.name, slot.param.ty.name());
                let fix = match slot.param.ty {
                    ParamType::String if !scheduled => {
                        format!(" a value, or `{name}: {{label: {name}}}` to take it from the alert's label")
                    }
                    _ => String::new(),
                };
                format!("parameter `{name}` ({ty}) is never given: add it under `with:`{fix}")
            })
            .collect()
    }

    /// All parameters, or every one that cannot be bound.
    pub(super) fn bind(&self, event: Option<&Event>) -> Result<Map<String, Value>, Vec<String>> {
        let mut params = Map::new();
        let mut problems = Vec::new();
        for slot in &self.slots {
            match slot.fill(event) {
                Ok(value) => drop(params.insert(slot.param.name.clone(), value)),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(params) } else { Err(problems) }
    }
}

impl ParamSlot {
    fn new(param: &RunbookParam, header: &RunbookHeader, given: Option<&ParamSource>) -> Result<ParamSlot, String> {
        let pattern = param.pattern.as_deref().map(anchored).transpose().map_err(|error| {
            format!("parameter `{}` has a bad pattern in the runbook's header: {error}", param.name)
        })?;
        let slot = ParamSlot { param: param.clone(), given: given.cloned(), pattern, part: part_of(param, header) };
        match given {
            Some(ParamSource::Value(value)) => drop(slot.checked(value, || format!("is {}", shown(value)))?),
            Some(ParamSource::Label { label }) if label.is_empty() => {
                return Err(format!("parameter `{}` names an empty label", param.name));
            }
            Some(ParamSource::Label { label }) if slot.part == Some("cluster") => {
                return Err(format!(
                    "parameter `{}` is the run's cluster and is taken from label `{label}`: senders of alerts must not choose a \
                     cluster beyond the one that the alert is about; map the label in the source (`labels: {{cluster: {label}}}`), \
                     where the limits of sources and tokens hold, and leave the parameter out here",
                    param.name
                ));
            }
            Some(ParamSource::Label { label }) if param.ty == ParamType::Query => {
                return Err(format!(
                    "parameter `{}` (Query) is taken from label `{label}`: senders of alerts must not choose queries; \
                     write the query itself, or leave it out",
                    param.name
                ));
            }
            _ => {}
        }
        Ok(slot)
    }

    fn fill(&self, event: Option<&Event>) -> Result<Value, String> {
        if let Some(ParamSource::Value(value)) = &self.given {
            return self.checked(value, || format!("is {}", shown(value)));
        }
        let found = event.and_then(|event| self.said_by(event));
        if let Some((origin, text)) = found {
            let said = || format!("is {} ({origin})", syntax::quote(&text));
            return self.checked(&Value::from(text.as_str()), said);
        }
        match &self.param.default {
            Some(default) => self.checked(default, || format!("is {} by default", shown(default))),
            None => Err(self.missing(event.is_some())),
        }
    }

    /// The text that the event has for it, and where it stands.
    fn said_by(&self, event: &Event) -> Option<(String, String)> {
        let namespaced = |name: &str| match &event.subject.namespace {
            Some(namespace) if !name.contains('/') => format!("{namespace}/{name}"),
            _ => name.to_owned(),
        };
        let in_namespace = matches!(self.param.ty, ParamType::Pod | ParamType::Workload);
        let (origin, text) = match (&self.given, self.part) {
            (Some(ParamSource::Label { label }), _) => (format!("label `{label}`"), event.labels.get(label)),
            (_, Some(part)) => (format!("the event's {part}"), event.subject.part(part).unwrap_or_default()),
            (_, None) if planted("label-fills-parameter") => {
                (format!("label `{}`", self.param.name), event.labels.get(&self.param.name))
            }
            (_, None) => return None,
        };
        match text {
            "" => None,
            text if in_namespace => Some((origin, namespaced(text))),
            text => Some((origin, text.to_owned())),
        }
    }

    fn checked(&self, value: &Value, said: impl Fn() -> String) -> Result<Value, String> {
        syntax::check(self.param.ty, self.pattern.as_ref(), value)
            .map_err(|why| format!("parameter `{}` {}, which {why}", self.param.name, said()))
    }

    fn missing(&self, heard: bool) -> String {
        let (name, ty) = (&self.param.name, self.param.ty.name());
        let place = match (&self.given, self.part) {
            (Some(ParamSource::Label { label }), _) => format!("the event has no label `{label}`"),
            (_, Some(part)) if heard => format!("the event names no {part}"),
            _ => "it is not given and has no default".to_owned(),
        };
        format!("parameter `{name}` ({ty}) is missing: {place}")
    }
}

/// The subject of a run with these parameters: the objects that its parameters name, with their containers; where they
/// name none, the event's subject. So cooldowns and locks go by the object acted on, not by the GPU that raised the
/// alert.
pub fn subject_of(header: &RunbookHeader, params: &Map<String, Value>, heard: Option<&Subject>) -> Subject {
    let none = Subject::default();
    let heard = heard.unwrap_or(&none);
    let mut subject = Subject { cluster: heard.cluster.clone(), ..Subject::default() };
    let before = subject.clone();
    for param in &header.params {
        let Some(text) = params.get(&param.name).and_then(Value::as_str) else { continue };
        let part = match (part_of(param, header), part_for(param.ty)) {
            (Some(part), _) => part,
            // The first of several of a type is the one that the run is about.
            (None, Some(part)) if subject.part(part).is_none() => part,
            _ => continue,
        };
        let (namespace, name) = match param.ty {
            ParamType::Pod | ParamType::Workload => text.split_once('/').map_or((None, text), |(a, b)| (Some(a), b)),
            _ => (None, text),
        };
        if let Some(namespace) = namespace {
            subject.namespace = Some(namespace.to_owned());
        }
        let name = Some(name.to_owned());
        match part {
            "cluster" => subject.cluster = name,
            "node" => subject.node = name,
            "gpu" => subject.gpu = name,
            "slice" => subject.slice = name,
            "namespace" => subject.namespace = name,
            "workload" => subject.workload = name,
            "pod" => subject.pod = name,
            "container" => subject.container = name,
            _ => subject.model = name,
        }
    }
    if subject == before {
        return heard.clone();
    }
    if subject.node.is_none() && (subject.gpu.is_some() || subject.slice.is_some()) {
        subject.node.clone_from(&heard.node);
    }
    subject
}

/// The part of a subject that a parameter stands for: by its type where it is the only one of that type, else by name.
fn part_of(param: &RunbookParam, header: &RunbookHeader) -> Option<&'static str> {
    let alone = header.params.iter().filter(|other| other.ty == param.ty).count() == 1;
    match part_for(param.ty) {
        Some(part) if alone || param.name == part => Some(part),
        None if param.ty == ParamType::String => Subject::PARTS.into_iter().find(|part| *part == param.name),
        _ => None,
    }
}

fn part_for(ty: ParamType) -> Option<&'static str> {
    match ty {
        ParamType::Node => Some("node"),
        ParamType::Gpu => Some("gpu"),
        ParamType::Pod => Some("pod"),
        ParamType::Workload => Some("workload"),
        ParamType::Namespace => Some("namespace"),
        ParamType::Model => Some("model"),
        _ => None,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => syntax::quote(text),
        other => syntax::quote(&other.to_string()).trim_matches('"').to_owned(),
    }
}
