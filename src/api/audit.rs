//! The ledger: entries for people, and raw entries, checkpoints and proofs for auditors.
//!
//! Invariant: hashes are lower-case hexadecimal, bytes are standard base64.

use crate::model::{Entry, EntryNo, TimelineEntry};
use crate::store::ledger::Checkpoint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EntryList {
    pub entries: Vec<Entry>,
    /// A line for each entry that has one.
    pub story: Vec<TimelineEntry>,
    /// The `cursor` of the next page; absent where this one is not full.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointList {
    pub checkpoints: Vec<Checkpoint>,
}

/// The path from one entry to a signed root.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct InclusionProof {
    pub entry: EntryNo,
    pub leaf: String,
    pub path: Vec<String>,
    pub checkpoint: Checkpoint,
    pub raw: Option<RawEntryAnswer>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RawEntryList {
    pub raw: Vec<RawEntryAnswer>,
}

/// An entry as its hash covers it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RawEntryAnswer {
    pub no: EntryNo,
    /// Microseconds since 1970.
    pub at: i64,
    pub commit: String,
    /// Null once the entry is redacted.
    pub salt: Option<String>,
    /// The exact bytes of the body; null once the entry is redacted.
    pub body: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedactionRequest {
    /// `#12` or `12`.
    pub entry: String,
    #[serde(default)]
    pub why: String,
}

/// One of the two members: redacted, or requested while a second person must agree.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct RedactionAnswer {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub redacted: Option<EntryNo>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<EntryNo>,
}
