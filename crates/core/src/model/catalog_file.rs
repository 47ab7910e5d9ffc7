//! A file of rules, runbooks or integrations in its last good version.
//!
//! Invariant: the text is the whole file, so that a start from it compiles the content that the folder held.

use serde::{Deserialize, Serialize};

/// Which folder a file is of, and how it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    Runbook,
    Rules,
    /// A table of GPU faults.
    Faults,
    Decoder,
    Encoder,
}

/// A file's kind, place and text in its last good version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CatalogFile {
    pub kind: FileKind,
    /// The folder as configured, and the name in it.
    pub path: String,
    /// Its name in the catalog.
    pub name: String,
    pub text: String,
}
