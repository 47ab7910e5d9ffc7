//! From files to a loaded catalog: compile changed files, fit rules to runbooks, hold back those that do not fit.
//!
//! Invariant: rules in force were compiled against exactly the runbooks in force.

use super::files::{self, File, Listing};
use super::kept::{Kept, Version};
use super::rules::{self, Rules};
use super::{Folders, Loaded, Problem, xids};
use crate::limits;
use crate::model::{CatalogFile, FileKind, Header, Pin, Rule};
use crate::policy::{RuleError, RuleSet};
use crate::script::{self, HostApi, Level, Runbook, Shape};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// All files, and how to compile them.
pub(super) struct State {
    folders: Folders,
    api: HostApi,
    runbooks: Kept<Runbook>,
    rules: Kept<Rules>,
    /// The texts of tables of GPU faults: laid over each other, each was read alone.
    xids: Kept<String>,
    decoders: Kept<Shape>,
    encoders: Kept<Shape>,
}

/// Files that stay at their last good version in this round: files of rules by path, runbooks by name.
#[derive(Default, PartialEq, Clone)]
struct HeldBack {
    rules: BTreeSet<String>,
    runbooks: BTreeSet<String>,
    everything: bool,
}

impl State {
    pub(super) fn new(folders: Folders, api: HostApi) -> State {
        let (runbooks, rules) = (Kept::new(), Kept::new());
        State { folders, api, runbooks, rules, xids: Kept::new(), decoders: Kept::new(), encoders: Kept::new() }
    }

    /// Reads again; `None` if nothing in force has changed. Problems are those of all files as they stand.
    pub(super) fn reload(&mut self, current: &Loaded) -> (Option<Loaded>, Vec<Problem>) {
        let listings = Listings::read(&self.folders);
        self.take(listings, current)
    }

    /// Puts files in force that were good once; the folders are not looked at.
    pub(super) fn take_kept(&mut self, kept: Vec<CatalogFile>) -> Option<Loaded> {
        self.take(Listings::kept(kept), &Loaded::default()).0
    }

    fn take(&mut self, listings: Listings, current: &Loaded) -> (Option<Loaded>, Vec<Problem>) {
        self.compile_changed(listings);
        let (held, fitted, misfits) = self.fit();
        self.runbooks.settle(|_, name| held.runbook(name));
        self.rules.settle(|path, _| held.rule_file(path));
        self.xids.settle(|_, _| Version::Newest);
        self.decoders.settle(|_, _| Version::Newest);
        self.encoders.settle(|_, _| Version::Newest);
        let mut problems: Vec<Problem> = self.runbooks.problems().chain(self.rules.problems()).cloned().collect();
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
        let texts = self.xids.files(|_, _| Version::InForce).map(|(_, name, text)| (name, text.as_str()));
        let rules = Arc::new(rules.with_xids(xids::lay(texts.collect())));
        (Some(self.loaded(rules, hash)), problems)
    }

    fn compile_changed(&mut self, listings: Listings) {
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
    fn fit(&self) -> (HeldBack, Option<RuleSet>, Vec<Problem>) {
        let mut held = HeldBack::default();
        let mut problems: Vec<Problem> = Vec::new();
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
                    let problem = Problem { file, text: error.to_string(), fatal: true };
                    if before == HeldBack::default() && !problems.contains(&problem) && !self.follows(error) {
                        problems.push(problem);
                    }
                }
                if held.everything && problems.is_empty() && !self.follows(error) {
                    let file = self.folders.rules.display().to_string();
                    problems.push(Problem { file, text: error.to_string(), fatal: true });
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
        let runbooks: HashMap<String, (Pin, Header)> = self
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

    fn loaded(&self, rules: Arc<RuleSet>, hash: String) -> Loaded {
        Loaded {
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
        let files = self.rules.files(|_, _| Version::InForce);
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
struct Listings {
    runbooks: Listing,
    rules: Listing,
    tables: Listing,
    decoders: Listing,
    encoders: Listing,
}

impl Listings {
    fn read(folders: &Folders) -> Listings {
        let rules = files::flat(&folders.rules, &["yaml", "yml"], limits::RULE_FILE_BYTES);
        let (tables, rules) = rules.split(&xids::NAMES);
        let shapes = |name| files::nested(&folders.integrations, name, limits::SCRIPT_BYTES);
        Listings {
            runbooks: files::flat(&folders.runbooks, &["rhai"], limits::SCRIPT_BYTES),
            rules,
            tables,
            decoders: shapes("decode.rhai"),
            encoders: shapes("encode.rhai"),
        }
    }

    fn kept(kept: Vec<CatalogFile>) -> Listings {
        let of = |kind| {
            let mut listing = Listing::default();
            for file in kept.iter().filter(|file| file.kind == kind) {
                let hash = Sha256::digest(file.text.as_bytes()).into();
                let (path, name, text) = (file.path.clone(), file.name.clone(), file.text.clone());
                listing.files.push(File { path, name, text, hash });
            }
            listing
        };
        Listings {
            runbooks: of(FileKind::Runbook),
            rules: of(FileKind::Rules),
            tables: of(FileKind::Faults),
            decoders: of(FileKind::Decoder),
            encoders: of(FileKind::Encoder),
        }
    }
}

impl HeldBack {
    fn rule_file(&self, path: &str) -> Version {
        if self.everything || self.rules.contains(path) { Version::InForce } else { Version::Newest }
    }

    fn runbook(&self, name: &str) -> Version {
        if self.everything || self.runbooks.contains(name) { Version::InForce } else { Version::Newest }
    }
}

fn in_force<T>(kept: &Kept<T>) -> HashMap<String, Arc<T>> {
    kept.files(|_, _| Version::InForce).map(|(_, name, file)| (name.to_owned(), file.clone())).collect()
}

fn runbook(file: &File, api: &HostApi) -> (Option<Runbook>, Vec<Problem>) {
    let problem = |diagnostics: &[script::Diagnostic], fatal| Problem {
        file: file.path.clone(),
        text: script::render(&file.path, &file.text, diagnostics, false),
        fatal,
    };
    match script::compile(&file.name, &file.text, api) {
        Err(diagnostics) => (None, vec![problem(&diagnostics, true)]),
        Ok(runbook) => {
            let mut warnings = script::check(&file.name, &file.text, api);
            warnings.retain(|diagnostic| diagnostic.level == Level::Warning);
            let problems = if warnings.is_empty() { Vec::new() } else { vec![problem(&warnings, false)] };
            (Some(runbook), problems)
        }
    }
}

fn shape(file: &File, function: &'static str) -> (Option<Shape>, Vec<Problem>) {
    match Shape::compile(&file.path, &file.text, function) {
        Ok(shape) => (Some(shape), Vec::new()),
        Err(error) => (None, vec![Problem { file: file.path.clone(), text: error.to_string(), fatal: true }]),
    }
}

/// Hostile nesting needs a deep stack to be refused; a compiler that panics loses one file, not the process.
fn on_a_big_stack<T: Send>(
    file: &File,
    work: impl FnOnce() -> (Option<T>, Vec<Problem>) + Send,
) -> (Option<T>, Vec<Problem>) {
    let failed = |text: String| (None, vec![Problem { file: file.path.clone(), text, fatal: true }]);
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("compile".to_owned()).stack_size(limits::SCRIPT_STACK_BYTES);
        match builder.spawn_scoped(scope, work) {
            Ok(thread) => thread.join().unwrap_or_else(|_| failed("the compiler broke on this file".to_owned())),
            Err(error) => failed(format!("could not be compiled: no thread ({error})")),
        }
    })
}
