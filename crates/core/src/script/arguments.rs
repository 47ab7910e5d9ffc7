//! Arguments as a script writes them (positions, then a map of options) to arguments by name.
//!
//! Invariant: equal calls have equal arguments: spans and indices in one spelling, omitted ones stay omitted.

use super::near::nearest;
use super::value::{kind_of, to_json};
use crate::model::{ActionSpec, ParamSpec, ParamType, Span};
use rhai::Dynamic;
use serde_json::{Map, Value};

/// The call's arguments by name, checked; the error names a correction.
pub(super) fn named(spec: &ActionSpec, args: &[&mut Dynamic]) -> Result<Map<String, Value>, String> {
    let mut named = Map::new();
    let (positional, options) = split(spec, args);
    if positional.len() > spec.params.len() {
        let (most, given) = (spec.params.len(), positional.len());
        return Err(format!("it takes at most {most} {}, not {given}; write `{}`", plural(most), usage(spec)));
    }
    for (at, param) in spec.params.iter().enumerate() {
        match positional.get(at) {
            Some(value) if !(value.is_unit() && optional(param)) => {
                named.insert(param.name.to_owned(), typed(param, value)?);
            }
            None if param.required => return Err(format!("`{}` is missing; write `{}`", param.name, usage(spec))),
            _ => {}
        }
    }
    let Some(options) = options else { return Ok(named) };
    let options = options.as_map_ref().map_err(str::to_owned)?;
    for (key, value) in options.iter() {
        let option = spec.options.iter().find(|option| option.name == key.as_str());
        let option = option.ok_or_else(|| unknown_option(spec, key))?;
        if !(value.is_unit() && optional(option)) {
            named.insert(option.name.to_owned(), typed(option, value)?);
        }
    }
    match spec.options.iter().find(|option| option.required && !named.contains_key(option.name)) {
        Some(option) => Err(format!("the option `{}` is missing; write `{}`", option.name, usage(spec))),
        None => Ok(named),
    }
}

/// A trailing map is the options, unless it stands where a parameter takes any value.
fn split<'a, 'b>(spec: &ActionSpec, args: &'a [&'b mut Dynamic]) -> (&'a [&'b mut Dynamic], Option<&'a Dynamic>) {
    if let [before @ .., last] = args
        && last.is_map()
        && takes_options(spec, args.len())
    {
        return (before, Some(last));
    }
    (args, None)
}

/// Whether a map in the last of `count` places is the map of options.
pub(super) fn takes_options(spec: &ActionSpec, count: usize) -> bool {
    let place = spec.params.get(count - 1);
    !spec.options.is_empty() && place.is_none_or(|param| param.ty != ParamType::Any)
}

fn optional(param: &ParamSpec) -> bool {
    !param.required
}

/// A value in the one spelling of its type.
pub(super) fn typed(param: &ParamSpec, value: &Dynamic) -> Result<Value, String> {
    let json = to_json(value).map_err(|why| format!("`{}`: {why}", param.name))?;
    normal(param.ty, json).map_err(|why| match why {
        ArgumentMismatch::Type => {
            format!("`{}` must be {}, not {}", param.name, wants(param.ty), kind_of(value))
        }
        ArgumentMismatch::Value(why) => format!("`{}`: {why}", param.name),
    })
}

/// Why a value does not fit a type.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ArgumentMismatch {
    Type,
    Value(String),
}

/// The value in the type's one spelling.
pub(super) fn normal(ty: ParamType, value: Value) -> Result<Value, ArgumentMismatch> {
    match (ty, value) {
        (ParamType::Any, value) => Ok(value),
        (ParamType::String | ParamType::Query, Value::String(text)) => Ok(Value::String(text)),
        (ParamType::Duration, Value::String(text)) => {
            let span: Span =
                text.parse().map_err(|wrong: crate::model::SpanError| ArgumentMismatch::Value(wrong.to_string()))?;
            Ok(Value::String(span.to_string()))
        }
        // A bare number is seconds, as in Rhai's own `sleep`.
        (ParamType::Duration, Value::Number(number)) => match number.as_u64() {
            Some(seconds) => Ok(Value::String(Span::seconds(seconds).to_string())),
            None => Err(ArgumentMismatch::Type),
        },
        (ParamType::Gpu, Value::Number(number)) => match number.as_u64() {
            Some(index) => Ok(Value::String(index.to_string())),
            None => Err(ArgumentMismatch::Type),
        },
        (ParamType::Int, value @ Value::Number(_)) if value.is_i64() => Ok(value),
        (ParamType::Float, Value::Number(number)) => number.as_f64().map(Value::from).ok_or(ArgumentMismatch::Type),
        (ParamType::Bool, value @ Value::Bool(_)) => Ok(value),
        (ty, Value::String(text)) if names_a_thing(ty) => match text.trim().is_empty() {
            true => Err(ArgumentMismatch::Value(format!("an empty text names no {}", ty.name()))),
            false => Ok(Value::String(text)),
        },
        _ => Err(ArgumentMismatch::Type),
    }
}

/// Types whose values are names of things in the world.
pub(super) fn names_a_thing(ty: ParamType) -> bool {
    use ParamType::*;
    matches!(ty, Node | Gpu | Pod | Workload | Namespace | Model)
}

/// The values that a type accepts, in words.
pub(super) fn wants(ty: ParamType) -> &'static str {
    match ty {
        ParamType::Node => "the name of a node",
        ParamType::Gpu => "a GPU: an index, a UUID or a PCI address",
        ParamType::Pod => "a pod as `namespace/name`",
        ParamType::Workload => "a workload as `namespace/name`",
        ParamType::Namespace => "the name of a namespace",
        ParamType::Model => "the name of a model",
        ParamType::Duration => "a length of time such as \"30m\"",
        ParamType::String => "a text",
        ParamType::Query => "a query of Prometheus, as a text",
        ParamType::Int => "a whole number",
        ParamType::Float => "a number",
        ParamType::Bool => "true or false",
        ParamType::Any => "any value",
    }
}

/// `k8s::drain(node, #{within, only})`; optional arguments are in brackets.
pub(super) fn usage(spec: &ActionSpec) -> String {
    let mut parts: Vec<String> = Vec::new();
    for param in spec.params {
        parts.push(if param.required { param.name.to_owned() } else { format!("[{}]", param.name) });
    }
    if !spec.options.is_empty() {
        let keys: Vec<&str> = spec.options.iter().map(|option| option.name).collect();
        parts.push(format!("#{{{}}}", keys.join(", ")));
    }
    format!("{}({})", spec.name, parts.join(", "))
}

pub(super) fn unknown_option(spec: &ActionSpec, key: &str) -> String {
    let keys: Vec<&str> = spec.options.iter().map(|option| option.name).collect();
    match nearest(key, keys.iter().copied()) {
        Some(near) => format!("there is no option `{key}`; did you mean `{near}`?"),
        None => format!("there is no option `{key}`; it takes {}", keys.join(", ")),
    }
}

pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "argument" } else { "arguments" }
}
