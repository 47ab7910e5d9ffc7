//! Shapes: `decode.rhai` and `encode.rhai`, small pure scripts that map a vendor's JSON to ours and back.
//!
//! Invariant: a shape sees one JSON value and returns one; it can call nothing.

use serde_json::Value;

/// A compiled shape script.
#[derive(Clone)]
pub struct Shape {
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("{name}:{line}:{column}: {message}")]
    Compile { name: String, line: usize, column: usize, message: String },
    #[error("{name}: {message}")]
    Run { name: String, message: String },
}

impl Shape {
    /// `function` must exist with one parameter: `decode` or `encode`.
    pub fn compile(_name: &str, _text: &str, _function: &'static str) -> Result<Shape, ShapeError> {
        todo!("script")
    }

    pub fn call(&self, _input: &Value) -> Result<Value, ShapeError> {
        todo!("script")
    }
}
