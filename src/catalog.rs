//! Runbooks, rules and integrations from their folders: read, checked, pinned by hash, reloaded on change.
//!
//! Invariant: what is current is whole and checked; a bad file keeps the last good one and says so.

use crate::policy::RuleSet;
use crate::script::{Runbook, Shape};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that was read, at one moment.
#[derive(Clone, Default)]
pub struct Loaded {
    pub rules: Arc<RuleSet>,
    /// By name: the file's stem.
    pub runbooks: HashMap<String, Arc<Runbook>>,
    /// By vendor: the folder's name.
    pub decoders: HashMap<String, Arc<Shape>>,
    pub encoders: HashMap<String, Arc<Shape>>,
    /// SHA-256 over names and texts, 64 hex digits.
    pub hash: String,
}

/// What is wrong with a file, rendered for people (with source line and caret where there is one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    pub text: String,
    /// A warning does not keep a file out.
    pub fatal: bool,
}

#[derive(Debug, Clone)]
pub struct Folders {
    pub runbooks: PathBuf,
    pub rules: PathBuf,
    pub integrations: PathBuf,
}

/// The current files, swapped whole when they change.
pub struct Catalog {
    // folders, RwLock<Arc<Loaded>>
}

impl Catalog {
    /// Reads everything. Fatal problems of a first load are an error; warnings come back with it.
    pub fn load(_folders: Folders) -> Result<(Catalog, Vec<Problem>), Vec<Problem>> {
        todo!("catalog")
    }

    pub fn current(&self) -> Arc<Loaded> {
        todo!("catalog")
    }

    /// Reads again. A file with a fatal problem keeps its last good text. `true` if anything changed.
    pub fn reload(&self) -> (bool, Vec<Problem>) {
        todo!("catalog")
    }
}
