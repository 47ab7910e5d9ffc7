//! The folders that models may lie in, and opening files under them.
//!
//! Invariant: a file is known to lie under a root by the kernel's own name of the open file, not by the path that led to it.

use crate::model::{FailureKind, StepFailure};
use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Folders, by their real names.
#[derive(Debug, Clone, Default)]
pub struct ModelRoots {
    real: Vec<PathBuf>,
    named: Vec<PathBuf>,
}

pub(super) fn failed(kind: FailureKind, message: impl Into<String>) -> StepFailure {
    StepFailure::new(kind, message)
}

/// As a user reads it, with the path.
pub(super) fn trouble(path: &Path, error: &io::Error) -> StepFailure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => FailureKind::NotFound,
        io::ErrorKind::PermissionDenied => FailureKind::Forbidden,
        _ => FailureKind::Invalid,
    };
    failed(kind, format!("{}: {error}", path.display()))
}

impl ModelRoots {
    /// A root that is not there holds nothing; it is named when something else is refused.
    pub fn new(named: &[PathBuf]) -> ModelRoots {
        let real = named.iter().filter_map(|root| root.canonicalize().ok()).collect();
        ModelRoots { real, named: named.to_vec() }
    }

    /// Whether no root is configured.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    fn holds(&self, real: &Path) -> bool {
        self.real.iter().any(|root| real.starts_with(root))
    }

    fn refuse(&self, path: &Path, real: &Path) -> StepFailure {
        if self.named.is_empty() {
            let what = "no folder for models is configured on this node: add it under `cache: { roots: [/models] }`";
            return failed(FailureKind::Refused, what);
        }
        let roots: Vec<String> = self.named.iter().map(|root| root.display().to_string()).collect();
        let leads = if path == real { String::new() } else { format!(", which is {},", real.display()) };
        failed(
            FailureKind::Refused,
            format!(
                "{}{leads} is outside the folders for models ({}): add its folder under `cache.roots` if that is meant",
                path.display(),
                roots.join(", ")
            ),
        )
    }

    /// The real name of a folder under a root.
    pub(super) fn folder(&self, path: &Path) -> Result<PathBuf, StepFailure> {
        if !path.is_absolute() {
            return Err(failed(
                FailureKind::Invalid,
                format!("`{}` is no absolute path", path.display().to_string().escape_debug()),
            ));
        }
        let real = match path.canonicalize() {
            Ok(real) => real,
            // Whether a file exists outside the roots is not revealed.
            Err(_) if !self.holds(&normal(path)) && !self.named.iter().any(|root| path.starts_with(root)) => {
                return Err(self.refuse(path, path));
            }
            Err(error) => return Err(trouble(path, &error)),
        };
        if !self.holds(&real) {
            return Err(self.refuse(path, &real));
        }
        if !real.is_dir() {
            return Err(failed(
                FailureKind::Invalid,
                format!("{} is no folder: name a model's folder", path.display()),
            ));
        }
        Ok(real)
    }

    /// Opens a plain file under a root for reading. Links are followed; their target counts.
    pub(super) fn open(&self, path: &Path) -> Result<(File, Metadata, PathBuf), StepFailure> {
        let wrong = |error: rustix::io::Errno| trouble(path, &io::Error::from(error));
        // A handle only: opening a device or a pipe has effects, and could wait for ever.
        let handle = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(wrong)?;
        let shown = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
        let real = std::fs::read_link(&shown).map_err(|error| trouble(path, &error))?;
        if !self.holds(&real) {
            return Err(self.refuse(path, &real));
        }
        let meta = std::fs::metadata(&shown).map_err(|error| trouble(path, &error))?;
        if !meta.is_file() {
            return Err(failed(FailureKind::Invalid, format!("{} is no plain file", path.display())));
        }
        let file = File::open(&shown).map_err(|error| trouble(path, &error))?;
        Ok((file, meta, real))
    }
}

/// Without `.` and `..`, as text.
fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}
