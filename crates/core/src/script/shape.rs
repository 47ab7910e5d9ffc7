//! Shapes: `decode.rhai` and `encode.rhai`, small pure scripts that map a vendor's JSON to ours and back.
//!
//! Invariant: a shape sees one JSON value and returns one; it can call nothing.

use super::sandbox::{self, SandboxResult};
use super::value::{to_dynamic, to_json};
use super::{failure, on_stack};
use crate::limits;
use rhai::{AST, Array, CallFnOptions, Dynamic, Engine, EvalAltResult, Position, Scope};
use serde_json::Value;
use std::sync::{Arc, LazyLock};

/// A compiled shape script.
#[derive(Clone)]
pub struct ShapeScript {
    pub name: String,
    function: &'static str,
    ast: Arc<AST>,
}

/// Why a shape could not be compiled or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("{name}:{line}:{column}: {message}")]
    Compile { name: String, line: usize, column: usize, message: String },
    #[error("{name}: {message}")]
    Run { name: String, message: String },
}

/// All shapes share one engine; it has no host function.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let mut engine = sandbox::engine();
    // A vendor leaves fields out as it likes: a missing one is `()`, so that `body.labels?.severity ?? "none"` reads well.
    engine.set_fail_on_invalid_map_property(false);
    engine.set_max_array_size(limits::SHAPE_ITEMS).set_max_map_size(limits::SHAPE_ITEMS);
    engine.set_max_string_size(limits::SHAPE_STRING_BYTES);
    engine.register_fn("rfc3339_from_millis", rfc3339_from_millis);
    engine.register_fn("rfc3339_from_seconds", |seconds: i64| rfc3339_from_millis(seconds.saturating_mul(1000)));
    engine.register_fn("rfc3339_from_seconds", |seconds: f64| rfc3339_from_millis((seconds * 1000.0) as i64));
    engine.register_fn("millis_from_rfc3339", millis_from_rfc3339);
    engine.register_fn("parse_json", parse_json);
    engine.register_fn("to_json", |value: Dynamic| Ok::<_, Box<EvalAltResult>>(json_of(&value)?.to_string()));
    engine.register_fn("text", text);
    engine.register_fn("join", |items: Array, between: &str| {
        items.into_iter().map(text).collect::<Vec<_>>().join(between)
    });
    engine
});

impl ShapeScript {
    /// `function` must exist with one parameter: `decode` or `encode`.
    ///
    /// # Errors
    ///
    /// Fails when the text is too long, does not compile, lacks `function` with one parameter, or has statements
    /// outside functions.
    pub fn compile(name: &str, text: &str, function: &'static str) -> Result<ShapeScript, ShapeError> {
        let wrong = |at: Position, message: String| ShapeError::Compile {
            name: name.to_owned(),
            line: at.line().unwrap_or(1),
            column: at.position().unwrap_or(1),
            message,
        };
        if text.len() > limits::SCRIPT_BYTES {
            return Err(wrong(Position::NONE, format!("the script is longer than {} bytes", limits::SCRIPT_BYTES)));
        }
        let compiled = on_stack(|| ENGINE.compile(text)).map_err(|why| wrong(Position::NONE, why))?;
        let mut ast = compiled.map_err(|error| wrong(error.position(), error.err_type().to_string()))?;
        if !ast.iter_functions().any(|found| found.name == function && found.params.len() == 1) {
            return Err(wrong(
                Position::NONE,
                format!("the function `{function}` is missing; write `fn {function}(body) {{ … }}`"),
            ));
        }
        // Constants and statements outside functions would run at each call, and functions cannot see them.
        if let Some(statement) = ast.statements().first() {
            return Err(wrong(statement.position(), "only functions may stand here; put this into one".to_owned()));
        }
        ast.set_source(name);
        Ok(ShapeScript { name: name.to_owned(), function, ast: Arc::new(ast) })
    }

    /// Runs on the caller's thread and stack; a script that goes too far is stopped and is an error.
    ///
    /// # Errors
    ///
    /// Fails when the script throws, runs out of operations or CPU time, or returns a value that is no JSON.
    pub fn call(&self, input: &Value) -> Result<Value, ShapeError> {
        let wrong = |message: String| ShapeError::Run { name: self.name.clone(), message };
        let options = CallFnOptions::new().eval_ast(false);
        let input = to_dynamic(input);
        let ran = sandbox::run(|| {
            ENGINE.call_fn_with_options::<Dynamic>(options, &mut Scope::new(), &self.ast, self.function, (input,))
        });
        match ran {
            SandboxResult::Ended(Ok(value)) => to_json(&value)
                .map_err(|why| wrong(format!("`{}` returned a value that is no JSON: {why}", self.function))),
            SandboxResult::Ended(Err(error)) => {
                Err(wrong(failure::words_at(error, |at| match (at.line(), at.position()) {
                    (Some(line), Some(column)) => format!("line {line}:{column}"),
                    _ => format!("in `{}`", self.function),
                })))
            }
            SandboxResult::OutOfFuel => {
                Err(wrong(format!("it ran for more than {} operations without end", limits::SCRIPT_OPERATIONS)))
            }
            SandboxResult::Braked => Err(wrong("it took too long".to_owned())),
            SandboxResult::Panicked(text) => Err(wrong(format!("the interpreter panicked: {text}"))),
        }
    }
}

type ShapeEvalError = Box<EvalAltResult>;

fn rfc3339_from_millis(millis: i64) -> Result<String, ShapeEvalError> {
    let moment = jiff::Timestamp::from_millisecond(millis);
    moment.map(|moment| moment.to_string()).map_err(|_| format!("{millis} milliseconds since 1970 is no moment").into())
}

fn millis_from_rfc3339(text: &str) -> Result<i64, ShapeEvalError> {
    let moment: Result<jiff::Timestamp, _> = text.parse();
    moment.map(|moment| moment.as_millisecond()).map_err(|_| format!("{text:?} is no moment in RFC 3339").into())
}

fn parse_json(text: &str) -> Result<Dynamic, ShapeEvalError> {
    let value: Value = serde_json::from_str(text).map_err(|why| format!("the text is no JSON: {why}"))?;
    Ok(to_dynamic(&value))
}

fn json_of(value: &Dynamic) -> Result<Value, ShapeEvalError> {
    to_json(value).map_err(Into::into)
}

/// A value as a label holds it: a text as it is, nothing as the empty text, all else as JSON.
fn text(value: Dynamic) -> String {
    match to_json(&value) {
        Ok(Value::String(text)) => text,
        Ok(Value::Null) => String::new(),
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}
