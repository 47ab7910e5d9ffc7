//! A Rhai text with a header, known by its hash.
//!
//! Invariant: a pin names the exact text, so a run sees the runbook it started with whatever happens to the file.

use super::{ParamType, Reach};
use serde::{Deserialize, Serialize};

/// The exact runbook that a run executes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Pin {
    pub name: String,
    /// SHA-256 of text and host API version, 64 hex digits.
    pub hash: String,
}

/// When to undo the effects of earlier steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UndoPolicy {
    #[default]
    Never,
    OnFailure,
}

/// One declared parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Param {
    pub name: String,
    pub ty: ParamType,
    /// A parameter with a default may be left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default: Option<serde_json::Value>,
    /// A pattern that a `String` must match as a whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pattern: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub doc: String,
}

/// What the `//!` block at the top of a runbook declares.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Header {
    pub title: String,
    pub params: Vec<Param>,
    pub reach: Reach,
    pub undo: UndoPolicy,
    /// Names of those who may approve; empty: everyone with the role.
    pub approvers: Vec<String>,
}
