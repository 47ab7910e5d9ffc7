//! SQLite behind `Store`: one writer thread, group commit, readers beside it.
//!
//! Invariant: one process, one writer; `synchronous=FULL` is read back before anything is written.

/// Where and how.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    pub path: std::path::PathBuf,
}

pub struct SqliteStore {}
