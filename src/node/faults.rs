//! What the agent remembers between two runs of it: the place in the kernel log, and which complaints are open.
//!
//! Invariant: the file is replaced whole, and only after what came before the place is safe; a crash repeats, and never skips.

use super::join::{Join, Open};
use crate::limits;
use crate::model::{Finding, Time};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error(
    "what the agent remembers cannot be written to {path}: {source}; after a restart it will read the kernel log again"
)]
pub struct MemoryError {
    path: String,
    source: std::io::Error,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    /// The boot that the number belongs to.
    boot: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    last: Option<u64>,
    #[serde(default)]
    open: Vec<Open>,
}

/// The join, and the file behind it.
#[derive(Debug)]
pub struct Faults {
    path: PathBuf,
    boot: String,
    last: Option<u64>,
    pub join: Join,
}

impl Faults {
    /// Goes on where the last run of the agent was; what a reboot has ended comes back to be said.
    pub fn open(path: &Path, boot: &str, now: Time) -> (Faults, Vec<Finding>) {
        let memory = remember(path);
        let rebooted = memory.boot != boot;
        let (join, said) = Join::restore(memory.open, rebooted, now);
        let last = memory.last.filter(|_| !rebooted);
        (Faults { path: path.to_owned(), boot: boot.to_owned(), last, join }, said)
    }

    /// The record behind which the kernel log is to be read.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// Call when everything that was said is safe: in the spool, on the disk.
    pub fn commit(&mut self, last: Option<u64>) -> Result<(), MemoryError> {
        self.last = last.max(self.last);
        let memory = Memory { boot: self.boot.clone(), last: self.last, open: self.join.open().cloned().collect() };
        self.write(&memory).map_err(|source| MemoryError { path: self.path.display().to_string(), source })
    }

    fn write(&self, memory: &Memory) -> std::io::Result<()> {
        let text = serde_json::to_vec(memory)?;
        let beside = self.path.with_extension("new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&beside, &self.path)
    }
}

/// A file that is missing or damaged is no memory: the log is read from its beginning, and the engine knows a repeat.
fn remember(path: &Path) -> Memory {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(limits::MEMORY_BYTES).read_to_string(&mut text));
    match read.map_err(|error| error.to_string()).and_then(|_| serde_json::from_str(&text).map_err(|e| e.to_string())) {
        Ok(memory) => memory,
        Err(why) => {
            if path.exists() {
                tracing::warn!(path = %path.display(), why, "what the agent remembered is damaged: it begins anew");
            }
            Memory::default()
        }
    }
}
