//! The record of each file: its last reading, compiled or not, and the one that is in force.
//!
//! Invariant: a text is compiled once; the version in force changes only by `settle`.

use super::CatalogProblem;
use super::files::{FileContent, FolderListing};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All files of one kind, by path.
pub(super) struct FileCache<T> {
    slots: BTreeMap<String, FileSlot<T>>,
    /// Why the folder could not be listed the last time.
    unlisted: Option<CatalogProblem>,
}

struct FileSlot<T> {
    name: String,
    /// The text that was compiled last.
    seen: Option<([u8; 32], Arc<str>)>,
    fresh: Option<Arc<T>>,
    problems: Vec<CatalogProblem>,
    good: Option<ActiveFile<T>>,
    gone: bool,
}

/// The version of a file that is in force.
struct ActiveFile<T> {
    hash: [u8; 32],
    text: Arc<str>,
    file: Arc<T>,
}

/// Which version of a file is meant.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum FileVersion {
    /// The newest that compiles.
    Newest,
    /// The one in force, also if the file is gone.
    InForce,
}

impl<T> FileCache<T> {
    pub(super) fn new() -> FileCache<T> {
        FileCache { slots: BTreeMap::new(), unlisted: None }
    }

    /// Takes in the folder's present content. `compile` is called for changed texts only; beside the problems it
    /// returns the compiled file, if it compiles.
    pub(super) fn take(
        &mut self,
        listing: FolderListing,
        mut compile: impl FnMut(&FileContent) -> (Option<T>, Vec<CatalogProblem>),
    ) {
        self.unlisted = listing.unlisted;
        if self.unlisted.is_some() {
            // Nothing is known, so everything stays as it is: a mount that is away for a moment removes no rule.
            return;
        }
        for slot in self.slots.values_mut() {
            slot.gone = true;
        }
        for problem in listing.broken {
            let slot = self.slots.entry(problem.file.clone()).or_insert_with(|| FileSlot::new(""));
            (slot.seen, slot.fresh, slot.gone) = (None, None, false);
            slot.problems = vec![problem];
        }
        for file in listing.files {
            let slot = self.slots.entry(file.path.clone()).or_insert_with(|| FileSlot::new(&file.name));
            slot.gone = false;
            slot.name.clone_from(&file.name);
            if slot.seen.as_ref().is_none_or(|(hash, _)| *hash != file.hash) {
                let (fresh, problems) = compile(&file);
                let seen = (file.hash, Arc::from(file.text.as_str()));
                (slot.seen, slot.fresh, slot.problems) = (Some(seen), fresh.map(Arc::new), problems);
            }
        }
    }

    /// Path, name and compiled file of each; `which` chooses the version by path and name.
    pub(super) fn files<'k>(
        &'k self,
        which: impl Fn(&str, &str) -> FileVersion + 'k,
    ) -> impl Iterator<Item = (&'k str, &'k str, &'k Arc<T>)> + 'k {
        self.slots.iter().filter_map(move |(path, slot)| {
            let file = slot.at(which(path, &slot.name))?;
            Some((path.as_str(), slot.name.as_str(), file))
        })
    }

    /// Puts the chosen versions in force; files that are gone and not held are forgotten.
    pub(super) fn settle(&mut self, which: impl Fn(&str, &str) -> FileVersion) {
        for (path, slot) in &mut self.slots {
            if which(path, &slot.name) == FileVersion::InForce {
                continue;
            }
            match (&slot.fresh, &slot.seen) {
                _ if slot.gone => slot.good = None,
                (Some(fresh), Some((hash, text))) => {
                    slot.good = Some(ActiveFile { hash: *hash, text: text.clone(), file: fresh.clone() });
                }
                _ => {}
            }
        }
        self.slots.retain(|_, slot| !slot.gone || slot.good.is_some());
    }

    /// Whether a file of this name is there and has never compiled.
    pub(super) fn is_broken(&self, name: &str) -> bool {
        self.slots.values().any(|slot| slot.name == name && !slot.gone && slot.fresh.is_none() && slot.good.is_none())
    }

    /// Path and hash of each file in force.
    pub(super) fn hashes(&self) -> impl Iterator<Item = (&str, &[u8; 32])> {
        self.slots.iter().filter_map(|(path, slot)| Some((path.as_str(), &slot.good.as_ref()?.hash)))
    }

    /// Path, name and text of each file in force.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.slots.iter().filter_map(|(path, slot)| {
            let good = slot.good.as_ref()?;
            Some((path.as_str(), slot.name.as_str(), &*good.text))
        })
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &CatalogProblem> {
        let of_files = self.slots.values().filter(|slot| !slot.gone).flat_map(|slot| &slot.problems);
        self.unlisted.iter().chain(of_files)
    }
}

impl<T> FileSlot<T> {
    fn new(name: &str) -> FileSlot<T> {
        FileSlot { name: name.to_owned(), seen: None, fresh: None, problems: Vec::new(), good: None, gone: false }
    }

    fn at(&self, version: FileVersion) -> Option<&Arc<T>> {
        let good = self.good.as_ref().map(|good| &good.file);
        match version {
            FileVersion::InForce => good,
            FileVersion::Newest if self.gone => None,
            FileVersion::Newest => self.fresh.as_ref().or(good),
        }
    }
}
