//! One program of the control plane as a child process.
//!
//! Invariant: it is killed by its own pid when it is dropped, and also when the test process dies in whatever way: a
//! small shell holds the other end of a pipe and kills it when the pipe closes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Waits for the end of its input, then kills what it started. `$1` is removed last, if it is not empty.
const KEEPER: &str = r#"
remove=$1; log=$2; shift 2
"$@" </dev/null >>"$log" 2>&1 &
child=$!
echo $child >"$log.pid"
cat >/dev/null
kill -9 $child 2>/dev/null
wait $child 2>/dev/null
[ -z "$remove" ] || rm -rf "$remove"
"#;

pub struct Process {
    keeper: Child,
    log: PathBuf,
}

impl Process {
    /// `remove`: a folder that goes when the process does.
    pub fn start(program: &Path, args: &[String], log: PathBuf, remove: Option<&Path>) -> Process {
        // One that ran before, with this log, is not meant any more.
        let _ = std::fs::remove_file(format!("{}.pid", log.display()));
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(remove.unwrap_or(Path::new(""))).arg(&log).arg(program).args(args);
        // Go keeps half as much garbage, and nobody here speaks through a proxy.
        command.env("GOGC", "50").env("NO_PROXY", "*").env_remove("KUBECONFIG");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Process { keeper: command.spawn().unwrap(), log }
    }

    /// Whether it ended by itself.
    pub fn has_died(&self) -> bool {
        let pid = std::fs::read_to_string(format!("{}.pid", self.log.display())).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !pid.is_empty() && (stat.is_empty() || stat.contains(") Z "))
    }

    /// The last lines that it wrote.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
