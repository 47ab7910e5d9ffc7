//! `nightshift check`: everything that can be said about runbooks, rules and integrations without running them.
//!
//! Invariant: offline and read-only; 0 means no errors (with --strict, no warnings either).

use super::invocation::{Invocation, TextStyle};
use super::page;
use super::serve::folders;
use super::stop::{CliError, CliExitCode};
use crate::catalog::{Catalog, CatalogFolders, CatalogProblem, CatalogSnapshot};
use crate::config::{Config, ConfigOrigin, MissingReference, deprecated};
use crate::engine::{ConfigConflict, misfits};
use crate::limits;
use crate::script::{self, DiagnosticLevel, HostApi};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(clap::Args)]
pub(super) struct CheckArgs {
    /// Runbooks (.rhai) and rule files (.yaml) [default: everything in the configured folders]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Treat warnings as failures: exit code 3 if there are only warnings
    #[arg(long)]
    strict: bool,
}

/// One thing that was found.
#[derive(Serialize)]
struct CheckFinding {
    file: String,
    level: DiagnosticLevel,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    /// As a person reads it, with the source line.
    #[serde(skip)]
    rendered: String,
}

pub(super) fn run(args: &CheckArgs, invocation: &Invocation) -> Result<(), CliError> {
    let (config, found) = invocation.config()?;
    let colour = invocation.colour() && !invocation.json();
    let files = args.files.clone();
    // Hostile nesting in a runbook needs the stack that the engine gives it.
    let checked = std::thread::Builder::new()
        .stack_size(limits::SCRIPT_STACK_BYTES)
        .spawn(move || check_all(&config, &found, &files, colour))
        .map_err(|error| CliError::failure(format!("cannot start a thread: {error}"), ""))?
        .join()
        .map_err(|_| CliError::failure("the check itself failed", "report this with the file that was checked"))?;
    let (looked_at, findings) = checked?;
    let count = |level: DiagnosticLevel| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(DiagnosticLevel::Error), count(DiagnosticLevel::Warning));
    if invocation.json() {
        invocation.print_json(
            &json!({ "checked": looked_at, "errors": errors, "warnings": warnings, "findings": findings }),
        )?;
    } else {
        for finding in &findings {
            invocation.line(&format!("{}\n", finding.rendered.trim_end()))?;
        }
        let paint = if errors > 0 { TextStyle::Bad } else { TextStyle::Good };
        let (errors, warnings) = (page::count(errors, "error"), page::count(warnings, "warning"));
        let verdict = format!("{looked_at} checked: {errors}, {warnings}");
        invocation.say(&invocation.on_stderr(paint, &verdict));
    }
    match (errors, warnings) {
        (0, 0) => Ok(()),
        (0, _) if !args.strict => Ok(()),
        (0, _) => Err(CliError::said(CliExitCode::Partial)),
        _ => Err(CliError::said(CliExitCode::Failure)),
    }
}

/// What was looked at, in words, and what was found.
fn check_all(
    config: &Config,
    found: &ConfigOrigin,
    files: &[PathBuf],
    colour: bool,
) -> Result<(String, Vec<CheckFinding>), CliError> {
    let mut findings = Vec::new();
    if !files.is_empty() {
        let files = within_folders(files)?;
        for file in &files {
            check_file(config, file, colour, &mut findings)?;
        }
        return Ok((page::count(files.len(), "file"), findings));
    }
    let runbooks = listed(&config.runbooks_dir, &["rhai"])?;
    for file in &runbooks {
        check_runbook(file, colour, &mut findings)?;
    }
    let (problems, fit, loaded) = load(config, folders(config));
    let ours = |problem: &CatalogProblem| {
        Path::new(&problem.file).extension().is_none_or(|ext| ext != "rhai") || !within(&problem.file, &runbooks)
    };
    findings.extend(problems.into_iter().filter(ours).map(finding));
    findings.extend(fit);
    findings.extend(missing(config));
    for file in listed(&config.rules_dir, &["yaml", "yml"])?.iter().filter(|file| !is_test(file)) {
        findings.extend(deprecated_in(file, deprecated::in_rules));
    }
    if let ConfigOrigin::Named(file, _) | ConfigOrigin::Usual(file) = found {
        findings.extend(deprecated_in(file, deprecated::in_configuration));
    }
    let rules = loaded.as_ref().map_or(0, |loaded| loaded.rules.rules().count());
    let shapes = loaded.as_ref().map_or(0, |loaded| loaded.decoders.len() + loaded.encoders.len());
    let looked_at = format!(
        "{}{}{}",
        page::count(runbooks.len(), "runbook"),
        if rules > 0 { format!(", {}", page::count(rules, "rule")) } else { String::new() },
        if shapes > 0 { format!(", {}", page::count(shapes, "vendor shape")) } else { String::new() },
    );
    Ok((looked_at, findings))
}

/// The secrets and files that cannot be read here and now; a warning, since `check` may run on another machine than the
/// engine.
fn missing(config: &Config) -> Vec<CheckFinding> {
    let text =
        |missing: MissingReference| format!("{}: {}; {}; {}", missing.path, missing.why, missing.off, missing.fix);
    let one = |missing| finding(CatalogProblem { file: "configuration".to_owned(), text: text(missing), fatal: false });
    config.missing().into_iter().map(one).collect()
}

/// The files themselves, and those directly in the folders among them: runbooks and rule files, no tests.
fn within_folders(named: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let wrong = |error: std::io::Error| CliError::failure(format!("{}: {error}", path.display()), "");
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(wrong)? {
            inside.push(entry.map_err(wrong)?.path());
        }
        let checkable = |path: &PathBuf| {
            let ending = path.extension().and_then(|ext| ext.to_str()).unwrap_or_default();
            path.is_file() && matches!(ending, "rhai" | "yaml" | "yml") && !is_test(path)
        };
        inside.retain(checkable);
        inside.sort();
        if inside.is_empty() {
            return Err(CliError::new(
                CliExitCode::NotFound,
                format!("{} holds no runbooks (.rhai) and no rules (.yaml)", path.display()),
                "name a folder that holds some; folders inside it are not read",
            ));
        }
        files.extend(inside);
    }
    Ok(files)
}

fn is_test(file: &Path) -> bool {
    file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(".test.yaml"))
}

fn check_file(config: &Config, file: &Path, colour: bool, findings: &mut Vec<CheckFinding>) -> Result<(), CliError> {
    if !file.is_file() {
        return Err(CliError::new(
            CliExitCode::NotFound,
            format!("{} is not a file", file.display()),
            "name runbooks (.rhai) or rules (.yaml)",
        ));
    }
    if is_test(file) {
        return Err(CliError::usage(
            format!("{} is a test of a runbook, which `check` does not read", file.display()),
            "check the runbook itself; tests run with `make test`",
        ));
    }
    let shape = ["decode.rhai", "encode.rhai"].iter().find(|name| file.file_name().is_some_and(|is| is == **name));
    match (file.extension().and_then(|ext| ext.to_str()), shape) {
        (Some("rhai"), Some(name)) => check_shape(file, name, findings),
        (Some("rhai"), None) => check_runbook(file, colour, findings),
        (Some("yaml" | "yml"), _) => {
            let parent = file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let (problems, fit, _) = load(config, CatalogFolders { rules: parent.to_owned(), ..folders(config) });
            let this = |problem: &CatalogProblem| within(&problem.file, &[file.to_owned()]);
            findings.extend(problems.into_iter().filter(this).map(finding));
            findings.extend(fit.into_iter().filter(|found| within(&found.file, &[file.to_owned()])));
            findings.extend(deprecated_in(file, deprecated::in_rules));
            Ok(())
        }
        _ => Err(CliError::usage(
            format!("{} is neither a runbook nor a rule file", file.display()),
            "name .rhai or .yaml files",
        )),
    }
}

fn check_runbook(file: &Path, colour: bool, findings: &mut Vec<CheckFinding>) -> Result<(), CliError> {
    let shown = file.display().to_string();
    // A rendered diagnostic names a runbook, and adds the ending itself.
    let named = file.with_extension("").display().to_string();
    let text = read(file)?;
    let api = HostApi { specs: crate::actions::catalog().iter().map(|action| action.spec()).collect() };
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    for diagnostic in script::check(stem, &text, &api) {
        let rendered = script::render(&named, &text, std::slice::from_ref(&diagnostic), colour);
        findings.push(CheckFinding {
            file: shown.clone(),
            level: diagnostic.level,
            code: Some(diagnostic.code),
            message: diagnostic.message,
            line: (diagnostic.line > 0).then_some(diagnostic.line),
            column: (diagnostic.line > 0).then_some(diagnostic.column),
            help: diagnostic.help,
            rendered,
        });
    }
    Ok(())
}

fn check_shape(file: &Path, name: &str, findings: &mut Vec<CheckFinding>) -> Result<(), CliError> {
    let function = if name == "decode.rhai" { "decode" } else { "encode" };
    let shown = file.display().to_string();
    if let Err(error) = script::ShapeScript::compile(&shown, &read(file)?, function) {
        findings.push(finding(CatalogProblem { file: shown, text: error.to_string(), fatal: true }));
    }
    Ok(())
}

/// Loads the whole catalog for its problems, and its mismatches with the configuration.
fn load(
    config: &Config,
    folders: CatalogFolders,
) -> (Vec<CatalogProblem>, Vec<CheckFinding>, Option<Arc<CatalogSnapshot>>) {
    match Catalog::load(folders) {
        Ok((catalog, problems)) => {
            let loaded = catalog.current();
            let misfit = |ConfigConflict { text, place, fatal }| {
                finding(CatalogProblem { file: place.unwrap_or_else(|| "configuration".to_owned()), text, fatal })
            };
            let found = misfits(config, &loaded).into_iter().map(misfit).collect();
            (problems, found, Some(loaded))
        }
        Err(problems) => (problems, Vec::new(), None),
    }
}

fn finding(problem: CatalogProblem) -> CheckFinding {
    let level = if problem.fatal { DiagnosticLevel::Error } else { DiagnosticLevel::Warning };
    let word = if problem.fatal { "error" } else { "warning" };
    // A rendered text begins with its own heading; a bare sentence gets one.
    let rendered = if problem.text.contains('\n') {
        problem.text.clone()
    } else {
        format!("{word}: {}\n --> {}", problem.text, problem.file)
    };
    // A rule's problem has its line behind the path.
    let line = problem.file.rsplit_once(':').and_then(|(_, line)| line.parse::<usize>().ok());
    let file = match (line, problem.file.rsplit_once(':')) {
        (Some(_), Some((path, _))) => path.to_owned(),
        _ => problem.file,
    };
    CheckFinding { file, level, code: None, message: problem.text, line, column: None, help: None, rendered }
}

/// Old names of keys in a file, as notes: the file works as it is. A file that cannot be read is reported elsewhere.
fn deprecated_in(file: &Path, old_names: impl Fn(&str) -> Vec<deprecated::DeprecatedKey>) -> Vec<CheckFinding> {
    let note = |deprecated::DeprecatedKey { line, old, new }| {
        let (file, message) = (file.display().to_string(), format!("`{old}` is deprecated: write `{new}`"));
        let rendered = format!("note: {message}\n --> {file}:{line}");
        let help = Some("the old name is removed in the next release".to_owned());
        let line = usize::try_from(line).ok();
        CheckFinding {
            file,
            level: DiagnosticLevel::Note,
            code: Some("deprecated-key"),
            message,
            line,
            column: None,
            help,
            rendered,
        }
    };
    read(file).map(|text| old_names(&text).into_iter().map(note).collect()).unwrap_or_default()
}

/// Whether a problem's file is one of these, however its path is written.
fn within(file: &str, files: &[PathBuf]) -> bool {
    // A rule's problem has its line behind the path.
    let file = match file.rsplit_once(':') {
        Some((path, line)) if line.bytes().all(|c| c.is_ascii_digit()) => path,
        _ => file,
    };
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let named = canonical(Path::new(file));
    files
        .iter()
        .any(|path| canonical(path) == named || path.file_name().is_some_and(|name| Path::new(file) == Path::new(name)))
}

/// The files of a folder with one of these endings, by name. A folder that is not there holds none.
fn listed(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, CliError> {
    let wrong = |error: std::io::Error| {
        CliError::failure(
            format!("{}: {error}", folder.display()),
            "fix `runbooks_dir` or `rules_dir` in the configuration",
        )
    };
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.extension().and_then(|ext| ext.to_str()).is_some_and(|ext| endings.contains(&ext)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String, CliError> {
    let wrong = |why: String| CliError::failure(format!("{}: {why}", file.display()), "");
    let size = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if size > limits::SCRIPT_BYTES as u64 {
        return Err(wrong(format!("{size} bytes is more than a script may have ({})", limits::SCRIPT_BYTES)));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    // As the engine reads it: editors of Windows put a byte order mark first.
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}
