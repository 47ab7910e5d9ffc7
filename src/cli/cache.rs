//! `nightshift cache`: the state of a model's files in this machine's memory, reading them in, and checking them. No
//! engine is contacted.
//!
//! Invariant: only `warm` brings anything into memory, and Ctrl-C ends it with its pages kept.

use super::invocation::{Invocation, OutputFormat, TextStyle, clean};
use super::stop::{CliError, CliExitCode};
use crate::config::ModelCacheConfig;
use crate::limits;
use crate::model::{FailureKind, Span, StepFailure};
use crate::node::cache::{self, CacheSettings, ReadProgress, size};
use clap::Subcommand;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(super) struct CacheArgs {
    #[command(subcommand)]
    verb: CacheCommand,
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Show how much of a model is in memory and whether its files are complete
    Status(CacheFolderArgs),
    /// Read models' files into memory (page cache)
    Warm(WarmArgs),
    /// Verify a model's files; with --hash every byte
    Verify(VerifyArgs),
}

#[derive(clap::Args)]
struct CacheFolderArgs {
    /// The model's folder: with a safetensors index, of a Hugging Face cache, or plain files
    dir: PathBuf,
    #[command(flatten)]
    place: CacheRootArgs,
}

#[derive(clap::Args)]
struct CacheRootArgs {
    /// Open nothing outside this folder [default: `agent.cache.roots`, else the model's own]
    #[arg(long, value_name = "DIR")]
    root: Vec<PathBuf>,
    /// Also write the result as JSON to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(clap::Args)]
struct WarmArgs {
    /// The models' folders, one after another: with a safetensors index, of a Hugging Face cache, or plain files
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    #[command(flatten)]
    place: CacheRootArgs,
    /// Maximum reading rate, in MiB/s
    #[arg(long, value_name = "NUMBER")]
    mib_per_second: Option<u64>,
    /// Time limit
    #[arg(long, value_name = "TIME", default_value_t = limits::CACHE_WITHIN)]
    within: Span,
    /// Write metrics to this file for the node exporter's textfile collector; the name must end in `.prom`
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
}

#[derive(clap::Args)]
struct VerifyArgs {
    #[command(flatten)]
    folder: CacheFolderArgs,
    /// Read everything and compare SHA-256, where a hash is available
    #[arg(long)]
    hash: bool,
}

pub(super) fn run(args: &CacheArgs, invocation: &Invocation) -> Result<(), CliError> {
    match &args.verb {
        CacheCommand::Status(folder) => status(folder, invocation),
        CacheCommand::Warm(args) => warm(args, invocation),
        CacheCommand::Verify(args) => verify(args, invocation),
    }
}

/// The settings of this machine, and the folders by their full names.
fn settings(
    dirs: &[PathBuf],
    place: &CacheRootArgs,
    invocation: &Invocation,
) -> Result<(CacheSettings, Vec<PathBuf>), CliError> {
    let (config, _) = invocation.config()?;
    let full = |dir: &PathBuf| {
        std::path::absolute(dir)
            .map_err(|error| CliError::usage(format!("{}: {error}", dir.display()), "name a folder"))
    };
    let dirs = dirs.iter().map(full).collect::<Result<Vec<_>, _>>()?;
    let roots = match (place.root.is_empty(), config.agent.cache.roots.is_empty()) {
        (false, _) => place.root.clone(),
        (true, false) => config.agent.cache.roots.clone(),
        (true, true) => dirs.iter().map(|dir| own_root(dir)).collect(),
    };
    Ok((CacheSettings::of(&ModelCacheConfig { roots, ..config.agent.cache }), dirs))
}

fn one(folder: &CacheFolderArgs, invocation: &Invocation) -> Result<(CacheSettings, PathBuf), CliError> {
    let (settings, mut dirs) = settings(std::slice::from_ref(&folder.dir), &folder.place, invocation)?;
    Ok((settings, dirs.remove(0)))
}

/// Who names a folder at the prompt means it; a snapshot's links lead to the blobs beside it.
fn own_root(dir: &Path) -> PathBuf {
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    match (real.parent(), real.parent().and_then(Path::parent)) {
        (Some(snapshots), Some(top)) if snapshots.ends_with("snapshots") && top.join("blobs").is_dir() => {
            top.to_owned()
        }
        _ => real,
    }
}

fn refused(failure: StepFailure) -> CliError {
    let code = match failure.kind {
        FailureKind::NotFound => CliExitCode::NotFound,
        FailureKind::Timeout | FailureKind::Unverified => CliExitCode::Partial,
        _ => CliExitCode::Failure,
    };
    CliError::new(code, clean(&failure.message, 1_000), "")
}

fn status(folder: &CacheFolderArgs, invocation: &Invocation) -> Result<(), CliError> {
    let (settings, dir) = one(folder, invocation)?;
    let status = cache::status(&settings, &dir).map_err(refused)?;
    report(&folder.place, &status)?;
    if invocation.json() {
        return invocation.print_json(&status);
    }
    let health = if status.sound { String::new() } else { ", and not whole".to_owned() };
    invocation.line(&format!(
        "{}: {} files, {}, {} in memory{health}",
        clean(&status.path, 400),
        status.files,
        size(status.bytes),
        percent(status.resident),
    ))?;
    for part in &status.missing {
        let line = format!("  {:>7} of {:>10}  {}", percent(part.resident), size(part.bytes), clean(&part.file, 200));
        invocation.line(&line)?;
    }
    faults(invocation, &status.flaws, &status.remarks)?;
    if status.sound { Ok(()) } else { Err(CliError::said(CliExitCode::Partial)) }
}

fn verify(args: &VerifyArgs, invocation: &Invocation) -> Result<(), CliError> {
    let (settings, dir) = one(&args.folder, invocation)?;
    let (cancel, bar) = (interruptible()?, ProgressBar::new(invocation));
    let said = |now: ReadProgress| bar.draw(&now);
    let verified = cache::verify(&settings, &dir, args.hash, &cancel, &said);
    bar.clear();
    let verified = verified.map_err(|failure| ended(failure, &cancel))?;
    report(&args.folder.place, &verified)?;
    if invocation.json() {
        invocation.print_json(&verified)?;
    } else {
        invocation.line(&format!(
            "{}: {} files, {}, {} of them hashed: {}",
            clean(&verified.path, 400),
            verified.files,
            size(verified.bytes),
            verified.hashed,
            if verified.sound { "whole" } else { "not whole" }
        ))?;
        faults(invocation, &verified.flaws, &verified.remarks)?;
    }
    if verified.sound { Ok(()) } else { Err(CliError::said(CliExitCode::Failure)) }
}

fn warm(args: &WarmArgs, invocation: &Invocation) -> Result<(), CliError> {
    let (settings, dirs) = settings(&args.dirs, &args.place, invocation)?;
    let (cancel, bar) = (interruptible()?, ProgressBar::new(invocation));
    let said = |now: ReadProgress| bar.draw(&now);
    let rate = args.mib_per_second.map(|rate| rate.saturating_mul(1 << 20));
    let warmed = cache::warm_all(&settings, &dirs, rate, args.within.0, &cancel, &said);
    bar.clear();
    let warmed = match warmed {
        Ok(warmed) => warmed,
        Err(failure) => {
            report(&args.place, &serde_json::json!({ "failed": failure }))?;
            return Err(ended(failure, &cancel));
        }
    };
    report(&args.place, &brief(&warmed))?;
    if let Some(file) = &args.metrics {
        replace(file, &metrics(&warmed.models))?;
    }
    if invocation.json() {
        return match warmed.models.as_slice() {
            [only] => invocation.print_json(only),
            _ => invocation.print_json(&warmed),
        };
    }
    for model in &warmed.models {
        let what = match model.changed {
            false => "was in memory already".to_owned(),
            true => format!(
                "{} in memory (before: {}); read {} in {:.1} s, {}/s",
                percent(model.resident),
                percent(model.resident_before),
                size(model.read_bytes),
                model.seconds,
                size(model.bytes_per_second)
            ),
        };
        let line = format!("{}: {} files, {}: {what}", clean(&model.path, 400), model.files, size(model.bytes));
        invocation.line(&line)?;
        faults(invocation, &[], &model.remarks)?;
    }
    Ok(())
}

/// The part that fits into Kubernetes' termination message: the sums always, and as many models as there is room for.
fn brief(warmed: &cache::WarmSummary) -> serde_json::Value {
    let mut value = serde_json::to_value(warmed).unwrap_or_default();
    let all = warmed.models.len();
    for kept in (0..=all).rev() {
        if let Some(models) = value["models"].as_array_mut() {
            models.truncate(kept);
        }
        if kept < all {
            value["left_out"] = serde_json::json!(all - kept);
        }
        if value.to_string().len() <= limits::TERMINATION_BYTES {
            break;
        }
    }
    value
}

fn ended(failure: StepFailure, cancel: &AtomicBool) -> CliError {
    let stop = refused(failure);
    if cancel.load(Ordering::Relaxed) { CliError { code: CliExitCode::Interrupted, ..stop } } else { stop }
}

fn percent(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

fn faults(invocation: &Invocation, flaws: &[cache::ModelFlaw], remarks: &[String]) -> Result<(), CliError> {
    for flaw in flaws {
        let line = format!("{} {}", clean(&flaw.file, 200), clean(&flaw.what, 400));
        invocation.line(&format!("  {} {line}", invocation.paint(TextStyle::Bad, "flaw:")))?;
    }
    for remark in remarks {
        invocation.line(&format!("  {} {}", invocation.paint(TextStyle::Dim, "note:"), clean(remark, 400)))?;
    }
    Ok(())
}

fn report(place: &CacheRootArgs, what: &impl Serialize) -> Result<(), CliError> {
    let Some(file) = &place.report else { return Ok(()) };
    let text = serde_json::to_string(what).map_err(|error| CliError::failure(format!("report: {error}"), ""))?;
    // Kubernetes' /dev/termination-log is a file that is mounted: it can be written, and not replaced.
    std::fs::write(file, text).map_err(|error| CliError::failure(format!("{}: {error}", file.display()), ""))
}

/// A collector must never read half a file.
fn replace(file: &Path, text: &str) -> Result<(), CliError> {
    nightshift_runtime::file::replace(file, text.as_bytes(), 0o666)
        .map_err(|error| CliError::failure(format!("{}: {error}", file.display()), "name a file that can be written"))
}

type ReportValue = fn(&cache::WarmReport) -> f64;

fn metrics(reports: &[cache::WarmReport]) -> String {
    const TABLE: [(&str, &str, ReportValue); 3] = [
        ("resident_ratio", "Share of a model's pages in memory when it was last warmed", |report| report.resident),
        ("warm_seconds", "How long the last warm took", |report| report.seconds),
        ("warm_read_bytes", "Bytes that the last warm read", |report| report.read_bytes as f64),
    ];
    let mut text = String::new();
    for (name, help, read) in TABLE {
        let name = format!("nightshift_weight_cache_{name}");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for report in reports {
            let path = report.path.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = writeln!(text, "{name}{{path=\"{path}\"}} {}", read(report));
        }
    }
    text
}

/// Set by Ctrl-C and by the signal that ends a pod.
fn interruptible() -> Result<Arc<AtomicBool>, CliError> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failure(format!("runtime: {error}"), ""))?;
    let wait = move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let Ok(mut end) = signal(SignalKind::terminate()) else { return };
            tokio::select! {
                Ok(()) = tokio::signal::ctrl_c() => {}
                _ = end.recv() => {}
            }
            flag.store(true, Ordering::Relaxed);
        });
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .map_err(|error| CliError::failure(format!("cannot start a thread: {error}"), ""))?;
    Ok(cancel)
}

/// Progress on stderr: a bar on a terminal, a line now and then in a log; with JSON, nothing there and objects here.
struct ProgressBar<'a> {
    invocation: &'a Invocation,
    terminal: bool,
    silent: bool,
    began: Instant,
    said: Mutex<Option<Instant>>,
}

const LINE_EVERY: Duration = Duration::from_secs(5);
const BAR_WIDTH: u64 = 30;

impl ProgressBar<'_> {
    fn new(invocation: &Invocation) -> ProgressBar<'_> {
        let terminal = std::io::stderr().is_terminal();
        let silent = invocation.global.output == OutputFormat::Json && terminal;
        ProgressBar { invocation, terminal, silent, began: Instant::now(), said: Mutex::new(None) }
    }

    fn draw(&self, now: &ReadProgress) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let every = if self.terminal { limits::CACHE_LOOK_EVERY } else { LINE_EVERY };
        if self.silent || now.total == 0 || said.unwrap_or(self.began).elapsed() < every {
            return;
        }
        *said = Some(Instant::now());
        let rate = now.read as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let left = match now.waits.as_deref() {
            Some(waits) => waits.to_owned(),
            None if rate < 1.0 => String::new(),
            None => format!("{:.0} s left", now.total.saturating_sub(now.done) as f64 / rate),
        };
        let share = now.done.saturating_mul(BAR_WIDTH) / now.total;
        let words = format!("{} of {}  {}/s  {left}", size(now.done), size(now.total), size(rate as u64));
        if self.invocation.json() {
            // For the owner that started it, such as a Job: one object a line.
            self.invocation.say(&now.shown().to_string());
        } else if self.terminal {
            let bar: String = (0..BAR_WIDTH).map(|at| if at < share { '█' } else { '·' }).collect();
            let _ = write!(std::io::stderr(), "\r\x1b[K{bar} {words}");
        } else {
            self.invocation.say(&words);
        }
    }

    fn clear(&self) {
        if self.terminal && !self.silent {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
