//! From files to a loaded catalog: compile changed files, fit rules to runbooks, hold back those that do not fit.
//!
//! Invariant: rules in force were compiled against exactly the runbooks in force.

use super::files::{self, FileContent, FolderListing};
use super::kept::{FileCache, FileVersion};
use super::rules::{self, NumberedRules};
use super::{CatalogFolders, CatalogProblem, CatalogSnapshot, xids};
use crate::limits;
use crate::model::{CatalogFile, FileKind, Rule, RunbookHeader, RunbookPin};
use crate::policy::{RuleError, RuleSet};
use crate::script::{self, DiagnosticLevel, HostApi, Runbook, ShapeScript};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// All files, and how to compile them.
pub(super) struct CatalogBuilder {
    folders: CatalogFolders,
    api: HostApi,
    runbooks: FileCache<Runbook>,
    rules: FileCache<NumberedRules>,
    /// The texts of tables of GPU faults: laid over each other, each was read alone.
    xids: FileCache<String>,
    decoders: FileCache<ShapeScript>,
    encoders: FileCache<ShapeScript>,
}

/// Files that stay at their last good version in this round: files of rules by path, runbooks by name.
#[derive(Default, PartialEq, Clone)]
struct HeldBack {
    rules: BTreeSet<String>,
    runbooks: BTreeSet<String>,
    everything: bool,
}

impl CatalogBuilder {
    pub(super) fn new(folders: CatalogFolders, api: HostApi) -> CatalogBuilder {
        let (runbooks, rules) = (FileCache::new(), FileCache::new());
        CatalogBuilder {
            folders,
            api,
            runbooks,
            rules,
            xids: FileCache::new(),
            decoders: FileCache::new(),
            encoders: FileCache::new(),
        }
    }

    /// Reads again; `None` if nothing in force has changed. Problems are those of all files as they stand.
    pub(super) fn reload(&mut self, current: &CatalogSnapshot) -> (Option<CatalogSnapshot>, Vec<CatalogProblem>) {
        let listings = CatalogListings::read(&self.folders);
        self.take(listings, current)
    }

    /// Puts files in force that were good once; the folders are not looked at.
    pub(super) fn take_kept(&mut self, kept: Vec<CatalogFile>) -> Option<CatalogSnapshot> {
        self.take(CatalogListings::kept(kept), &CatalogSnapshot::default()).0
    }

    fn take(
        &mut self,
        listings: CatalogListings,
        current: &CatalogSnapshot,
    ) -> (Option<CatalogSnapshot>, Vec<CatalogProblem>) {
        self.compile_changed(listings);
        let (held, fitted, misfits) = self.fit();
        self.runbooks.settle(|_, name| held.runbook(name));
        self.rules.settle(|path, _| held.rule_file(path));
        self.xids.settle(|_, _| FileVersion::Newest);
        self.decoders.settle(|_, _| FileVersion::Newest);
        self.encoders.settle(|_, _| FileVersion::Newest);
        let mut problems: Vec<CatalogProblem> =
            self.runbooks.problems().chain(self.rules.problems()).cloned().collect();
        // Tables and rules share a folder, and so its problem; decoders and encoders do, too.
        for problem in self.xids.problems().chain(self.decoders.problems()).chain(self.encoders.problems()) {
            if !problems.contains(problem) {
                problems.push(problem.clone());
            }
        }
        problems.extend(misfits);
        let hash = self.hash();
        if hash == current.hash {
            return (None, problems);
        }
        let rules = fitted.unwrap_or_else(|| RuleSet::clone(&current.rules));
        let texts = self.xids.files(|_, _| FileVersion::InForce).map(|(_, name, text)| (name, text.as_str()));
        let rules = Arc::new(rules.with_xids(xids::lay(texts.collect())));
        (Some(self.loaded(rules, hash)), problems)
    }

    fn compile_changed(&mut self, listings: CatalogListings) {
        let api = &self.api;
        self.runbooks.take(listings.runbooks, |file| on_a_big_stack(file, || runbook(file, api)));
        self.xids.take(listings.tables, xids::parse);
        self.rules.take(listings.rules, rules::parse);
        self.decoders.take(listings.decoders, |file| on_a_big_stack(file, || shape(file, "decode")));
        self.encoders.take(listings.encoders, |file| on_a_big_stack(file, || shape(file, "encode")));
    }

    /// The files in force, whole.
    fn in_force(&self) -> Vec<CatalogFile> {
        let mut files = Vec::new();
        let mut add = |kind, (path, name, text): (&str, &str, &str)| {
            files.push(CatalogFile { kind, path: path.to_owned(), name: name.to_owned(), text: text.to_owned() });
        };
        self.runbooks.texts().for_each(|file| add(FileKind::Runbook, file));
        self.rules.texts().for_each(|file| add(FileKind::Rules, file));
        self.xids.texts().for_each(|file| add(FileKind::Faults, file));
        self.decoders.texts().for_each(|file| add(FileKind::Decoder, file));
        self.encoders.texts().for_each(|file| add(FileKind::Encoder, file));
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files
    }

    /// The newest rules against the newest runbooks; a file that does not fit goes back to its version in force, until
    /// it fits.
    fn fit(&self) -> (HeldBack, Option<RuleSet>, Vec<CatalogProblem>) {
        let mut held = HeldBack::default();
        let mut problems: Vec<CatalogProblem> = Vec::new();
        loop {
            let before = held.clone();
            let errors = match self.compile(&held) {
                Ok(set) => return (held, Some(set), problems),
                Err(errors) => errors,
            };
            for error in &errors {
                let places = self.places(error.rule(), &before);
                held.everything |= places.is_empty();
                for (path, line, rule) in places {
                    held.rules.insert(path.to_owned());
                    held.runbooks.extend(rule.run.clone());
                    let file = if line == 0 { path.to_owned() } else { format!("{path}:{line}") };
                    let problem = CatalogProblem { file, text: error.to_string(), fatal: true };
                    if before == HeldBack::default() && !problems.contains(&problem) && !self.follows(error) {
                        problems.push(problem);
                    }
                }
                if held.everything && problems.is_empty() && !self.follows(error) {
                    let file = self.folders.rules.display().to_string();
                    problems.push(CatalogProblem { file, text: error.to_string(), fatal: true });
                }
            }
            if held == before {
                // Held back as it is, it still does not fit, because other files moved on: all of it waits.
                held.everything = true;
            }
            if held.everything {
                return (held, None, problems);
            }
        }
    }

    /// Whether an error only follows from a runbook's own errors, which are reported with its file.
    fn follows(&self, error: &RuleError) -> bool {
        matches!(error, RuleError::NoRunbook { runbook, .. } if self.runbooks.is_broken(runbook))
    }

    fn compile(&self, held: &HeldBack) -> Result<RuleSet, Vec<RuleError>> {
        let runbooks: HashMap<String, (RunbookPin, RunbookHeader)> = self
            .runbooks
            .files(|_, name| held.runbook(name))
            .map(|(_, name, runbook)| (name.to_owned(), (runbook.pin.clone(), runbook.header.clone())))
            .collect();
        let rules = self.rules.files(|path, _| held.rule_file(path));
        RuleSet::compile(rules.flat_map(|(_, _, rules)| rules.iter().map(|(_, rule)| rule.clone())).collect(), runbooks)
    }

    /// Where rules of this name stand: file, line and the rule.
    fn places<'s>(&'s self, name: &'s str, held: &'s HeldBack) -> Vec<(&'s str, u64, &'s Rule)> {
        self.rules
            .files(|path, _| held.rule_file(path))
            .flat_map(|(path, _, rules)| rules.iter().map(move |(line, rule)| (path, *line, rule)))
            .filter(|(_, _, rule)| rule.name == name)
            .collect()
    }

    fn loaded(&self, rules: Arc<RuleSet>, hash: String) -> CatalogSnapshot {
        CatalogSnapshot {
            rules,
            runbooks: in_force(&self.runbooks),
            decoders: in_force(&self.decoders),
            encoders: in_force(&self.encoders),
            hash,
            places: self.rule_places(),
            files: Arc::new(self.in_force()),
        }
    }

    /// File and line of each rule in force.
    fn rule_places(&self) -> HashMap<String, String> {
        let files = self.rules.files(|_, _| FileVersion::InForce);
        let rules = files.flat_map(|(path, _, rules)| rules.iter().map(move |(line, rule)| (path, line, rule)));
        rules.map(|(path, line, rule)| (rule.name.clone(), format!("{path}:{line}"))).collect()
    }

    fn hash(&self) -> String {
        let mut sha = Sha256::new();
        let all = self.runbooks.hashes().chain(self.rules.hashes()).chain(self.xids.hashes());
        for (path, text) in all.chain(self.decoders.hashes()).chain(self.encoders.hashes()) {
            sha.update((path.len() as u64).to_be_bytes());
            sha.update(path.as_bytes());
            sha.update(text);
        }
        hex::encode(sha.finalize())
    }
}

/// The content of the folders, by kind.
struct CatalogListings {
    runbooks: FolderListing,
    rules: FolderListing,
    tables: FolderListing,
    decoders: FolderListing,
    encoders: FolderListing,
}

impl CatalogListings {
    fn read(folders: &CatalogFolders) -> CatalogListings {
        let rules = files::flat(&folders.rules, &["yaml", "yml"], limits::RULE_FILE_BYTES);
        let (tables, rules) = rules.split(&xids::NAMES);
        let shapes = |name| files::nested(&folders.integrations, name, limits::SCRIPT_BYTES);
        CatalogListings {
            runbooks: files::flat(&folders.runbooks, &["rhai"], limits::SCRIPT_BYTES),
            rules,
            tables,
            decoders: shapes("decode.rhai"),
            encoders: shapes("encode.rhai"),
        }
    }

    fn kept(kept: Vec<CatalogFile>) -> CatalogListings {
        let of = |kind| {
            let mut listing = FolderListing::default();
            for file in kept.iter().filter(|file| file.kind == kind) {
                let hash = Sha256::digest(file.text.as_bytes()).into();
                let (path, name, text) = (file.path.clone(), file.name.clone(), file.text.clone());
                listing.files.push(FileContent { path, name, text, hash });
            }
            listing
        };
        CatalogListings {
            runbooks: of(FileKind::Runbook),
            rules: of(FileKind::Rules),
            tables: of(FileKind::Faults),
            decoders: of(FileKind::Decoder),
            encoders: of(FileKind::Encoder),
        }
    }
}

impl HeldBack {
    fn rule_file(&self, path: &str) -> FileVersion {
        if self.everything || self.rules.contains(path) { FileVersion::InForce } else { FileVersion::Newest }
    }

    fn runbook(&self, name: &str) -> FileVersion {
        if self.everything || self.runbooks.contains(name) { FileVersion::InForce } else { FileVersion::Newest }
    }
}

fn in_force<T>(kept: &FileCache<T>) -> HashMap<String, Arc<T>> {
    kept.files(|_, _| FileVersion::InForce).map(|(_, name, file)| (name.to_owned(), file.clone())).collect()
}

fn runbook(file: &FileContent, api: &HostApi) -> (Option<Runbook>, Vec<CatalogProblem>) {
    let problem = |diagnostics: &[script::Diagnostic], fatal| CatalogProblem {
        file: file.path.clone(),
        text: script::render(&file.path, &file.text, diagnostics, false),
        fatal,
    };
    match script::compile(&file.name, &file.text, api) {
        Err(diagnostics) => (None, vec![problem(&diagnostics, true)]),
        Ok(runbook) => {
            let mut warnings = script::check(&file.name, &file.text, api);
            warnings.retain(|diagnostic| diagnostic.level == DiagnosticLevel::Warning);
            let problems = if warnings.is_empty() { Vec::new() } else { vec![problem(&warnings, false)] };
            (Some(runbook), problems)
        }
    }
}

fn shape(file: &FileContent, function: &'static str) -> (Option<ShapeScript>, Vec<CatalogProblem>) {
    match ShapeScript::compile(&file.path, &file.text, function) {
        Ok(shape) => (Some(shape), Vec::new()),
        Err(error) => (None, vec![CatalogProblem { file: file.path.clone(), text: error.to_string(), fatal: true }]),
    }
}

/// Hostile nesting needs a deep stack to be refused; a compiler that panics loses one file, not the process.
fn on_a_big_stack<T: Send>(
    file: &FileContent,
    work: impl FnOnce() -> (Option<T>, Vec<CatalogProblem>) + Send,
) -> (Option<T>, Vec<CatalogProblem>) {
    let failed = |text: String| (None, vec![CatalogProblem { file: file.path.clone(), text, fatal: true }]);
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("compile".to_owned()).stack_size(limits::SCRIPT_STACK_BYTES);
        match builder.spawn_scoped(scope, work) {
            Ok(thread) => thread.join().unwrap_or_else(|_| failed("the compiler broke on this file".to_owned())),
            Err(error) => failed(format!("could not be compiled: no thread ({error})")),
        }
    })
}
