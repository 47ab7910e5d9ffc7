//! The two small programs that this binary is for itself, because an image with nothing else in it has no shell, no
//! `kill` and no `systemctl`: one waits for a program and notes how it ended, one signals the node's init to reboot.
//!
//! Invariant: neither reads a configuration nor uses the network; all that they need is in their arguments.

#![allow(unsafe_code)]

use nightshift_runtime::file::replace;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Words that no user types; each is the first argument of its program.
pub(super) const WAIT: &str = "wait-for-program";
pub(super) const ASK_INIT: &str = "ask-init-to-reboot";
/// A shell's exit code for a program that could not be started.
const NOT_STARTED: i32 = 127;
/// A shell adds this to the number of the signal that ended a program.
const SIGNALLED: i32 = 128;

/// Runs one of these programs if the first argument names it; else nothing happens and the command line is as it was.
pub fn is_meant(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let word = words.next()?;
    let end = if word == WAIT {
        wait(words)
    } else if word == ASK_INIT {
        ask_init(words.next().as_deref())
    } else {
        return None;
    };
    Some(match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    })
}

/// Arguments: the file for the exit code, the file for our pid, the program and its own. The code appears whole or not at all.
fn wait(mut words: impl Iterator<Item = OsString>) -> Result<(), String> {
    let mut next = |what: &str| words.next().ok_or_else(|| format!("{WAIT}: no {what} was given"));
    let (code, pid, program) = (PathBuf::from(next("file for the code")?), next("file for the pid")?, next("program")?);
    let wrong = |what: &Path, error: std::io::Error| format!("cannot write {}: {error}", what.display());
    std::fs::write(&pid, std::process::id().to_string()).map_err(|error| wrong(Path::new(&pid), error))?;
    let how = match Command::new(&program).args(words).stdin(Stdio::null()).status() {
        Ok(status) => status.code().unwrap_or_else(|| SIGNALLED + status.signal().unwrap_or_default()),
        Err(error) => {
            eprintln!("cannot start {}: {error}", program.display());
            NOT_STARTED
        }
    };
    replace(&code, format!("{how}\n").as_bytes(), 0o666).map_err(|error| wrong(&code, error))
}

/// Argument: the process to signal, which is 1 but in a test. systemd(1): "SIGRTMIN+5: reboots the machine".
fn ask_init(pid: Option<&OsStr>) -> Result<(), String> {
    let pid: libc::pid_t = match pid.and_then(OsStr::to_str).map(str::parse) {
        Some(Ok(pid)) if pid > 0 => pid,
        _ => return Err(format!("{ASK_INIT}: its argument is no process")),
    };
    let file = format!("/proc/{pid}/comm");
    let comm = std::fs::read_to_string(&file).map_err(|error| format!("cannot read {file}: {error}"))?;
    // Another one would ignore the signal, or die of it.
    if comm.trim() != "systemd" {
        return Err(format!(
            "process {pid} is `{}`, not systemd: in a container the agent needs the node's processes (`hostPID: true`), \
             and a node with another init needs `reboot` in agent.yaml to name a program",
            comm.trim()
        ));
    }
    // SAFETY: plain numbers go in and one comes out; no memory of ours is touched. The signal is one of real time, for
    // which there is no safe wrapper.
    let answer = unsafe { libc::kill(pid, libc::SIGRTMIN() + 5) };
    match answer {
        0 => Ok(()),
        _ => Err(format!("process {pid} cannot be inspected: {}", std::io::Error::last_os_error())),
    }
}
