//! Runbooks, rules and integrations from their folders: read, checked, pinned by hash, reloaded on change.
//!
//! Invariant: the files in force are whole and checked; a bad file keeps the last good one and is reported.

mod build;
mod files;
mod kept;
mod rules;
mod watch;
mod xids;

pub use watch::{FolderWatch, WatchError, watch};

use crate::model::CatalogFile;
use crate::policy::RuleSet;
use crate::script::{HostApi, Runbook, ShapeScript};
use build::CatalogBuilder;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};

/// Everything that was read, at one moment.
#[derive(Clone, Default)]
pub struct CatalogSnapshot {
    pub rules: Arc<RuleSet>,
    /// By name: the file's stem.
    pub runbooks: HashMap<String, Arc<Runbook>>,
    /// By vendor: the folder's name.
    pub decoders: HashMap<String, Arc<ShapeScript>>,
    pub encoders: HashMap<String, Arc<ShapeScript>>,
    /// SHA-256 over names and texts, 64 hex digits.
    pub hash: String,
    /// By rule: its file and line, `rules/gpu.yaml:12`.
    pub places: HashMap<String, String>,
    /// The files in force, whole: a start falls back on them when one of them is wrong then.
    pub files: Arc<Vec<CatalogFile>>,
}

/// An error of a file, rendered for users (with source line and caret where there is one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogProblem {
    pub file: String,
    pub text: String,
    /// A warning does not keep a file out.
    pub fatal: bool,
}

/// The folders that the catalog reads.
#[derive(Debug, Clone)]
pub struct CatalogFolders {
    pub runbooks: PathBuf,
    pub rules: PathBuf,
    pub integrations: PathBuf,
}

/// The host of runbooks: the actions of this program.
pub fn host_api() -> &'static HostApi {
    static API: LazyLock<HostApi> = LazyLock::new(|| HostApi {
        specs: crate::actions::catalog().into_iter().map(|action| action.spec()).collect(),
    });
    &API
}

/// The current files, swapped whole when they change.
pub struct Catalog {
    /// The last readings of each file; one reload at a time.
    state: Mutex<CatalogBuilder>,
    current: RwLock<Arc<CatalogSnapshot>>,
    /// Fatal problems that were there at the last reload: (file, text).
    standing: Mutex<BTreeSet<(String, String)>>,
}

impl Catalog {
    /// Reads everything; warnings come back with it.
    ///
    /// # Errors
    ///
    /// Fails with every problem when one of them is fatal.
    pub fn load(folders: CatalogFolders) -> Result<(Catalog, Vec<CatalogProblem>), Vec<CatalogProblem>> {
        Catalog::load_with(folders, host_api().clone())
    }

    /// The same, with the actions that runbooks may call given.
    ///
    /// # Errors
    ///
    /// Fails with every problem when one of them is fatal.
    pub fn load_with(
        folders: CatalogFolders,
        api: HostApi,
    ) -> Result<(Catalog, Vec<CatalogProblem>), Vec<CatalogProblem>> {
        let mut state = CatalogBuilder::new(folders, api);
        let (loaded, problems) = state.reload(&CatalogSnapshot::default());
        if problems.iter().any(|problem| problem.fatal) {
            return Err(problems);
        }
        let current = RwLock::new(Arc::new(loaded.unwrap_or_default()));
        Ok((Catalog { state: Mutex::new(state), current, standing: Mutex::default() }, problems))
    }

    /// From files that were in force once, with the good files of the folders. `None`: none of them compiles any more.
    /// Every file that is refused is among the problems.
    pub fn load_kept(folders: CatalogFolders, kept: Vec<CatalogFile>) -> Option<(Catalog, Vec<CatalogProblem>)> {
        let mut state = CatalogBuilder::new(folders, host_api().clone());
        let loaded = state.take_kept(kept)?;
        let (newer, problems) = state.reload(&loaded);
        let current = RwLock::new(Arc::new(newer.unwrap_or(loaded)));
        Some((Catalog { state: Mutex::new(state), current, standing: Mutex::default() }, problems))
    }

    /// How many files are refused at this moment.
    pub fn refused(&self) -> usize {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The runbooks, rules and integrations in force.
    pub fn current(&self) -> Arc<CatalogSnapshot> {
        // No code panics while it holds the lock, and the guarded value is swapped whole.
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The fatal problems among these that were not there the last time: a file that stays bad is news once.
    pub fn news(&self, problems: &[CatalogProblem]) -> Vec<CatalogProblem> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let fatal = || problems.iter().filter(|problem| problem.fatal);
        let key = |problem: &CatalogProblem| (problem.file.clone(), problem.text.clone());
        let news = fatal().filter(|problem| !standing.contains(&key(problem))).cloned().collect();
        *standing = fatal().map(key).collect();
        news
    }

    /// Reads again. A file with a fatal problem keeps its last good text. `true` if anything changed.
    pub fn reload(&self) -> (bool, Vec<CatalogProblem>) {
        let (loaded, problems) = self.read();
        let changed = loaded.is_some();
        loaded.into_iter().for_each(|loaded| self.put(loaded));
        (changed, problems)
    }

    /// The same without putting it in force, so that it can be kept elsewhere before; `None`: nothing changed.
    pub fn read(&self) -> (Option<Arc<CatalogSnapshot>>, Vec<CatalogProblem>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (loaded, problems) = state.reload(&self.current());
        (loaded.map(Arc::new), problems)
    }

    /// Puts a reading in force.
    pub fn put(&self, loaded: Arc<CatalogSnapshot>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }
}

#[cfg(test)]
mod tests;
