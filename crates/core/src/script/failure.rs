//! Failures as a script sees them, and errors of a script as users read them.
//!
//! Invariant: a thrown value is a map with `kind`, `message` and `action`; a text for users has a place.

use crate::model::StepFailure;
use rhai::{Dynamic, EvalAltResult, Map, Position};

/// The kind of an error in the script's own arguments; it has no counterpart in the world.
pub(super) const INVALID: &str = "invalid";

/// A journaled failure as the script catches it.
pub(super) fn thrown(action: &str, failure: &StepFailure, at: Position) -> Box<EvalAltResult> {
    throw(action, failure.kind.name(), &failure.message, at)
}

/// Throws `#{kind, message, action}`.
pub(super) fn throw(action: &str, kind: &str, message: &str, at: Position) -> Box<EvalAltResult> {
    let mut map = Map::new();
    map.insert("kind".into(), kind.into());
    map.insert("message".into(), message.into());
    map.insert("action".into(), action.into());
    EvalAltResult::ErrorRuntime(Dynamic::from_map(map), at).into()
}

/// Whether this is the world's answer to a call, not a mistake of the script.
pub(super) fn is_answer(error: &EvalAltResult) -> bool {
    matches!(error.unwrap_inner(), EvalAltResult::ErrorRuntime(value, _)
        if field(value, "action").is_some() && field(value, "kind").is_some_and(|kind| kind != INVALID))
}

/// Whether the script went over a limit of the sandbox.
pub(super) fn is_limit(error: &EvalAltResult) -> bool {
    matches!(
        error.unwrap_inner(),
        EvalAltResult::ErrorTooManyOperations(..)
            | EvalAltResult::ErrorTooManyVariables(..)
            | EvalAltResult::ErrorTooManyModules(..)
            | EvalAltResult::ErrorStackOverflow(..)
            | EvalAltResult::ErrorDataTooLarge(..)
    )
}

/// `name.rhai:3:7`
pub(super) fn place(name: &str, at: Position) -> String {
    match (at.line(), at.position()) {
        (Some(line), Some(column)) => format!("{name}.rhai:{line}:{column}"),
        (Some(line), None) => format!("{name}.rhai:{line}"),
        _ => format!("{name}.rhai"),
    }
}

/// One line: the place, the error, and the calls on its way.
pub(super) fn words(name: &str, error: Box<EvalAltResult>) -> String {
    words_at(error, |at| place(name, at))
}

/// The same, with places written by the caller.
pub(super) fn words_at(error: Box<EvalAltResult>, place: impl Fn(Position) -> String) -> String {
    let mut through = Vec::new();
    let mut error = error;
    while let EvalAltResult::ErrorInFunctionCall(function, _, inner, at) = *error {
        let closure = is_closure(&function);
        let function = if closure { "a closure".to_owned() } else { format!("`{function}`") };
        through.push(format!(", in {function} called at {}", place(at)));
        error = inner;
    }
    let at = error.take_position();
    through.reverse();
    format!("{}: {}{}", place(at), message(&error), through.concat())
}

pub(super) fn message(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorRuntime(value, _) => {
            match (field(value, "action"), field(value, "kind"), field(value, "message")) {
                (Some(action), Some(kind), Some(message)) => format!("{action}: {message} [{kind}]"),
                (_, _, Some(message)) => message,
                _ => format!("thrown: {value}"),
            }
        }
        EvalAltResult::ErrorFunctionNotFound(signature, _) => {
            format!("there is no function {signature}; check its name and the types of its arguments")
        }
        EvalAltResult::ErrorPropertyNotFound(property, _) => {
            format!(
                "the map has no property `{property}`; where it may be missing, write `map.get(\"{property}\") ?? default`"
            )
        }
        EvalAltResult::ErrorDataRace(..) => {
            "a closure uses the variable that the call around it works on; copy it into another one first".to_owned()
        }
        other => other.to_string(),
    }
}

fn field(value: &Dynamic, name: &str) -> Option<String> {
    let map = value.as_map_ref().ok()?;
    map.get(name)?.as_immutable_string_ref().ok().map(|text| text.to_string())
}

/// Rhai names closures `anon$` and a hash.
pub(super) fn is_closure(function: &str) -> bool {
    function.starts_with("anon$")
}
