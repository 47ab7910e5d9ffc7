//! The holders of a GPU: open files under `/dev/nvidia*`, whatever the process is, and the driver's advice.
//!
//! Invariant: where the holders cannot be read, the answer is never "none".

use super::Machine;
use crate::limits;
use crate::model::{AgentCommand, CommandStatus, Outcome, RunId, Time};
use serde_json::{Map, Value, json};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Succeeds when only this agent holds that GPU; the error lists the other holders, or why they cannot be read.
pub(super) async fn none_hold(machine: &Machine, gpu: &str) -> Result<(), String> {
    // NVML lists the processes that compute on this very GPU …
    if let Some(Outcome::Ok(Value::Array(list))) = ask(machine, "gpu::processes", gpu).await {
        let of = |process: &Value| format!("{} ({})", process["name"].as_str().unwrap_or("?"), process["pid"]);
        if !list.is_empty() {
            let names: Vec<String> = list.iter().take(limits::NAMES_SHOWN).map(of).collect();
            return Err(format!("{} processes hold GPU {gpu}: {}", list.len(), names.join(", ")));
        }
    }
    // … and the file system lists those that have its device open, computing or not.
    let Ok(index) = gpu.parse::<u32>() else { return Ok(()) };
    let device = format!("/dev/nvidia{index}");
    if !std::fs::metadata(&device).is_ok_and(|meta| meta.file_type().is_char_device()) {
        return Ok(());
    }
    match tokio::task::spawn_blocking(move || openers(Path::new(&device))).await {
        Ok(Ok(pids)) if pids.is_empty() => Ok(()),
        Ok(Ok(pids)) => Err(format!("processes {pids:?} have GPU {gpu} open")),
        Ok(Err(error)) => Err(format!("the processes on GPU {gpu} cannot be listed: {error}")),
        Err(bug) => Err(format!("the processes on GPU {gpu} cannot be listed: {bug}")),
    }
}

/// The recovery action that the driver requires for the GPU; none where NVML cannot be read.
pub(super) async fn recovery_action(machine: &Machine, gpu: &str) -> Option<String> {
    match ask(machine, "gpu::recovery_action", gpu).await? {
        Outcome::Ok(value) => value.as_str().map(str::to_owned),
        Outcome::Failed(_) => None,
    }
}

/// Another verb of this agent that reads.
async fn ask(machine: &Machine, verb: &str, gpu: &str) -> Option<Outcome> {
    let verb = super::find(verb).filter(|verb| verb.reads())?;
    let args = Map::from_iter([("gpu".to_owned(), json!(gpu))]);
    let name = verb.name().to_owned();
    let command = AgentCommand {
        run: RunId(0),
        step: 0,
        epoch: 0,
        verb: name,
        args,
        deadline: Time::MAX,
        incarnation: String::new(),
    };
    match verb.perform(machine, &command, &|_| {}).await {
        CommandStatus::Ended { outcome } => Some(outcome),
        CommandStatus::Working { .. } => None,
    }
}

/// The processes that have a file open, this one not counted.
fn openers(device: &Path) -> std::io::Result<Vec<u32>> {
    let me = std::process::id();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that has ended meanwhile holds nothing.
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|link| link == device));
        if holds && pid != me {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_file_open_is_found_and_we_are_not_among_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device");
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(openers(&path).unwrap(), [0_u32; 0]);
        let mut child = std::process::Command::new("/bin/cat");
        let mut child = child.stdin(std::process::Stdio::piped()).stdout(file).spawn().unwrap();
        assert_eq!(openers(&path).unwrap(), [child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
