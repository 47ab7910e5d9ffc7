//! A file of rules, runbooks or integrations, as it was when it was good.
//!
//! Invariant: the text is the whole file, so that a start from it compiles what the folder held.

use serde::{Deserialize, Serialize};

/// Which folder a file is of, and how it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    Runbook,
    Rules,
    /// A table of GPU faults.
    Faults,
    Decoder,
    Encoder,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CatalogFile {
    pub kind: FileKind,
    /// The folder as configured, and the name in it.
    pub path: String,
    /// What it is called in the catalog.
    pub name: String,
    pub text: String,
}
