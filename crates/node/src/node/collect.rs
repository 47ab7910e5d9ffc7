//! `node::collect`: a folder of diagnostics: NVIDIA's bug report, the last kernel lines, the state of the GPUs.
//!
//! Invariant: a missing part is noted and the others stand; a bundle is bounded, and so is their number.

use super::program::ProgramFiles;
use super::{AgentVerb, Machine, ended, failed};
use crate::limits;
use crate::model::{AgentCommand, CommandStatus, FailureKind, Outcome, RunId, Time};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(super) struct NodeCollectVerb;

#[async_trait::async_trait]
impl AgentVerb for NodeCollectVerb {
    fn name(&self) -> &'static str {
        "node::collect"
    }

    async fn perform(
        &self,
        machine: &Machine,
        command: &AgentCommand,
        progress: &(dyn Fn(Value) + Sync),
    ) -> CommandStatus {
        let all = machine.settings.data_dir.join("bundles");
        let folder = all.join(command.key().replace('/', "-"));
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        if let Err(error) = made {
            return failed(FailureKind::Unavailable, format!("{}: {error}", folder.display()));
        }
        let mut missing = Vec::new();
        progress(json!({ "doing": "reading the kernel's log" }));
        let kernel = folder.join("kernel.log");
        let log = machine.settings.kernel_log.clone();
        let read =
            tokio::task::spawn_blocking(move || kernel_lines(&log)).await.unwrap_or_else(|bug| Err(bug.to_string()));
        keep(&kernel, read, &mut missing);
        progress(json!({ "doing": "reading GPU health" }));
        keep(&folder.join("gpus.json"), gpus(machine).await, &mut missing);
        progress(json!({ "doing": "waiting for NVIDIA's bug report, which takes minutes" }));
        if let Err(why) = bug_report(machine, command, &folder).await {
            missing.push(why);
        }
        let listed = tokio::task::spawn_blocking(move || {
            let files = list(&folder);
            forget_oldest(&all, &folder);
            files.map(|files| (folder, files))
        });
        match listed.await {
            Ok(Ok((folder, files))) => ended(json!({ "folder": folder, "files": files, "missing": missing })),
            Ok(Err(error)) => failed(FailureKind::Unavailable, format!("the bundle cannot be read back: {error}")),
            Err(bug) => failed(FailureKind::Unavailable, format!("the bundle was not finished: {bug}")),
        }
    }
}

fn keep(path: &Path, text: Result<String, String>, missing: &mut Vec<String>) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let written = text.and_then(|text| {
        let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = file.as_mut().map_err(|error| error.to_string())?;
        std::io::Write::write_all(file, text.as_bytes()).map_err(|error| error.to_string())
    });
    if let Err(why) = written {
        // Half a file would be taken for a whole one.
        let _ = std::fs::remove_file(path);
        missing.push(format!("{name}: {why}"));
    }
}

/// The lines that the kernel still has, without waiting for more.
fn kernel_lines(log: &Path) -> Result<String, String> {
    use std::os::fd::AsFd;
    let wrong = |error: std::io::Error| format!("{}: {error}", log.display());
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(log, flags, rustix::fs::Mode::empty()).map_err(|error| wrong(error.into()))?;
    let mut text = String::new();
    let mut line = [0_u8; 8192];
    loop {
        match rustix::io::read(file.as_fd(), &mut line) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
            Ok(count) => text.push_str(&String::from_utf8_lossy(&line[..count])),
            // The ring has moved on under us: the next read goes on with the oldest that is there.
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(wrong(error.into())),
        }
        if text.len() > 2 * limits::BUNDLE_KERNEL_BYTES {
            newest(&mut text);
        }
    }
    newest(&mut text);
    Ok(text)
}

/// The newest lines are the most useful.
fn newest(text: &mut String) {
    let cut = text.len().saturating_sub(limits::BUNDLE_KERNEL_BYTES);
    if let Some(at) = (cut..text.len()).find(|at| text.is_char_boundary(*at)).filter(|at| *at > 0) {
        text.drain(..at);
    }
}

async fn gpus(machine: &Machine) -> Result<String, String> {
    let verb = super::find("gpu::health").ok_or("this agent has no access to NVML")?;
    let name = verb.name().to_owned();
    let command = AgentCommand {
        run: RunId(0),
        step: 0,
        epoch: 0,
        verb: name,
        args: Map::new(),
        deadline: Time::MAX,
        incarnation: String::new(),
    };
    match verb.perform(machine, &command, &|_| {}).await {
        CommandStatus::Ended { outcome: Outcome::Ok(value) } => Ok(format!("{value:#}\n")),
        CommandStatus::Ended { outcome: Outcome::Failed(failure) } => Err(failure.message),
        CommandStatus::Working { why, .. } => Err(why),
    }
}

async fn bug_report(machine: &Machine, command: &AgentCommand, folder: &Path) -> Result<(), String> {
    let tool = &super::program::tool(&machine.settings.bug_report)?;
    let output: OsString = folder.join("nvidia-bug-report").into();
    let program = ProgramFiles::of(machine, &command.key());
    let how = program.run(tool, &["--output-file".into(), output], machine.settings.bug_report_within.0).await;
    // It changes nothing, so one that hangs is not left to fill the disk.
    program.end();
    program.forget();
    let how = how.map_err(|why| why.replace("it is left running", "it was ended"))?;
    if how.code == 0 { Ok(()) } else { Err(format!("{}: code {}: {}", tool.display(), how.code, how.said)) }
}

fn list(folder: &Path) -> std::io::Result<Vec<Value>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)?.flatten() {
        let bytes = entry.metadata()?.len();
        let name = entry.file_name().to_string_lossy().into_owned();
        if bytes > limits::BUNDLE_FILE_BYTES {
            std::fs::remove_file(entry.path())?;
            files.push(json!({ "name": name, "bytes": bytes, "removed": "it is larger than a bundle may be" }));
            continue;
        }
        files.push(json!({ "name": name, "bytes": bytes, "sha256": hash(&entry.path())? }));
    }
    files.sort_by_key(|file| file["name"].to_string());
    Ok(files)
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut sum = Sha256::new();
    let mut piece = vec![0_u8; 64 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex::encode(sum.finalize())),
            count => sum.update(&piece[..count]),
        }
    }
}

/// Only the newest bundles stay.
fn forget_oldest(all: &Path, but: &Path) {
    let age = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let entries = std::fs::read_dir(all).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut bundles: Vec<PathBuf> = entries.filter(|path| path != but).collect();
    bundles.sort_by_key(age);
    let spare = bundles.len().saturating_sub(limits::BUNDLES - 1);
    for old in &bundles[..spare] {
        if let Err(error) = std::fs::remove_dir_all(old) {
            tracing::warn!(%error, path = %old.display(), "cannot remove an old bundle");
        }
    }
}
