//! Programs that an agent starts, so that their end is known even if the agent dies meanwhile: a process of this same binary
//! waits for each and leaves its exit code in a file.
//!
//! Invariant: one key never has two programs at work; the program's output and exit code stay until the key is
//! forgotten.

use super::Machine;
use crate::limits;
use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Where a tool is looked for that is named without a folder: never by PATH, which the process that starts this may set.
const FOLDERS: [&str; 6] =
    ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/opt/bin", "/run/nvidia/driver/usr/bin"];

/// The tool by its whole path.
///
/// # Errors
///
/// It is in none of the folders, or names one that begins nowhere.
pub(super) fn tool(named: &Path) -> Result<PathBuf, String> {
    if named.is_absolute() {
        return Ok(named.to_owned());
    }
    if named.components().count() != 1 {
        return Err(format!("`{}` is no whole path and no plain name: write its path in agent.yaml", named.display()));
    }
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(named)).find(|path| path.is_file());
    found.ok_or_else(|| {
        format!("{} is in none of {}: write its path in agent.yaml", named.display(), FOLDERS.join(", "))
    })
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProgramEnd {
    pub code: i32,
    /// The end of its output.
    pub said: String,
}

/// The state of an earlier start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EarlierStart {
    Never,
    Running,
    Ended(ProgramEnd),
    /// It was started, and its end is not known: the machine went down, or it was killed.
    Unknown,
}

/// The place of one command's program.
pub(super) struct ProgramFiles {
    own: PathBuf,
    code: PathBuf,
    output: PathBuf,
    pid: PathBuf,
}

/// A process that waits for a program: arguments as in `waiter`.
#[cfg(not(test))]
fn waiter(own: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(own);
    command.arg(super::waiter::WAIT);
    command
}

/// The binary of the unit tests is another one. `$0` is where the code goes; the rest is the program.
#[cfg(test)]
fn waiter(_: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("/bin/sh");
    command.arg("-c").arg(r#"echo $$ >"$1"; shift; "$@"; echo $? >"$0.new" && mv "$0.new" "$0""#);
    command
}

impl ProgramFiles {
    /// `key` is a command's: `r7/3`.
    pub fn of(machine: &Machine, key: &str) -> ProgramFiles {
        let name = key.replace('/', "-");
        let at = |ending: &str| machine.settings.data_dir.join("programs").join(format!("{name}.{ending}"));
        ProgramFiles { own: machine.own.clone(), code: at("code"), output: at("out"), pid: at("pid") }
    }

    /// The state of the start before, if there was one.
    pub fn earlier(&self) -> EarlierStart {
        let ended = || {
            let text = std::fs::read_to_string(&self.code).ok()?;
            Some(EarlierStart::Ended(ProgramEnd { code: text.trim().parse().ok()?, said: tail(&self.output) }))
        };
        if let Some(ended) = ended() {
            return ended;
        }
        if !self.pid.exists() {
            return EarlierStart::Never;
        }
        if self.is_alive() {
            return EarlierStart::Running;
        }
        // It may have ended between the two looks.
        ended().unwrap_or(EarlierStart::Unknown)
    }

    /// Starts it and waits for its end.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be started, does not end within `within` (it goes on then), or ends without an exit code.
    pub async fn run(&self, program: &Path, args: &[OsString], within: Duration) -> Result<ProgramEnd, String> {
        let wrong = |what: &str, error: std::io::Error| format!("{what}: {error}");
        if let Some(folder) = self.code.parent() {
            std::fs::create_dir_all(folder).map_err(|error| wrong("cannot make the folder of programs", error))?;
        }
        self.forget();
        let output = std::fs::File::create(&self.output).map_err(|error| wrong("cannot keep its output", error))?;
        let errors = output.try_clone().map_err(|error| wrong("cannot keep its output", error))?;
        std::fs::write(&self.pid, "").map_err(|error| wrong("cannot note its start", error))?;
        let mut waiter = waiter(&self.own);
        waiter.arg(&self.code).arg(&self.pid).arg(program).args(args);
        // Its own group: a signal to the agent's group must not cut a reset in half.
        waiter.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let mut child = waiter.spawn().map_err(|error| wrong("cannot start the process that waits for it", error))?;
        if tokio::time::timeout(within, child.wait()).await.is_err() {
            return Err(format!("{} is not done after {} s; it is left running", program.display(), within.as_secs()));
        }
        self.ended().ok_or_else(|| format!("{} ended with an unknown outcome", program.display()))
    }

    /// Waits for one that an earlier agent started.
    pub async fn wait(&self, within: Duration) -> EarlierStart {
        let give_up = Instant::now() + within;
        loop {
            let now = self.earlier();
            if now != EarlierStart::Running || Instant::now() >= give_up {
                return now;
            }
            tokio::time::sleep(limits::PROGRAM_LOOK_EVERY).await;
        }
    }

    /// Ends it and all that it started, if it still runs.
    pub fn end(&self) {
        if !self.is_alive() {
            return;
        }
        let group = std::fs::read_to_string(&self.pid).ok().and_then(|text| text.trim().parse::<i32>().ok());
        if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
            // It may have ended between the two; its group is its own, so no other process is signaled.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    /// Removes all traces: the key is free again.
    pub fn forget(&self) {
        for path in [&self.code, &self.output, &self.pid] {
            // A file that does not exist needs no removal.
            let _ = std::fs::remove_file(path);
        }
    }

    fn ended(&self) -> Option<ProgramEnd> {
        match self.earlier() {
            EarlierStart::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// Whether the process that waits for it is still there. A pid that another process took looks alive only if that one
    /// also has our file in its command line.
    fn is_alive(&self) -> bool {
        let Some(pid) = std::fs::read_to_string(&self.pid).ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
            return false;
        };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = self.code.as_os_str().as_encoded_bytes();
        line.split(|byte| *byte == 0).any(|word| word == ours)
    }
}

fn tail(path: &Path) -> String {
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limits::PROGRAM_OUTPUT_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(limits::PROGRAM_OUTPUT_BYTES).read_to_end(&mut bytes)?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn machine(dir: &Path) -> Machine {
        let settings = crate::config::AgentConfig { data_dir: dir.to_owned(), ..Default::default() };
        Machine { name: "gpu-1".to_owned(), boot: "b".to_owned(), settings: Arc::new(settings), ..Machine::default() }
    }

    #[tokio::test]
    async fn the_end_of_a_program_is_known_to_who_comes_later() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(dir.path());
        let program = ProgramFiles::of(&machine, "r7/3");
        assert_eq!(program.earlier(), EarlierStart::Never);
        let args: Vec<OsString> = ["-c".into(), "echo in use; exit 3".into()].into();
        let ended = program.run(Path::new("/bin/sh"), &args, Duration::from_secs(60)).await.unwrap();
        assert_eq!((ended.code, ended.said.as_str()), (3, "in use"));
        // Another process, with the same files.
        assert_eq!(ProgramFiles::of(&machine, "r7/3").earlier(), EarlierStart::Ended(ended));
        program.forget();
        assert_eq!(program.earlier(), EarlierStart::Never);
    }

    #[tokio::test]
    async fn a_program_whose_waiter_was_killed_is_unknown_and_never_taken_for_done() {
        let dir = tempfile::tempdir().unwrap();
        let program = ProgramFiles::of(&machine(dir.path()), "r7/3");
        let args: Vec<OsString> = ["-c".into(), "kill -9 $PPID".into()].into();
        let ended = program.run(Path::new("/bin/sh"), &args, Duration::from_secs(60)).await;
        assert!(ended.unwrap_err().contains("unknown outcome"));
        assert_eq!(program.earlier(), EarlierStart::Unknown);
    }

    #[test]
    fn a_tool_without_a_folder_is_found_in_the_fixed_folders_and_never_by_path() {
        let found = tool(Path::new("env")).unwrap();
        assert!(FOLDERS.iter().any(|folder| found == Path::new(folder).join("env")), "{}", found.display());
        assert_eq!(tool(Path::new("/opt/x/nvidia-smi")), Ok(PathBuf::from("/opt/x/nvidia-smi")));
        let gone = tool(Path::new("no-such-tool")).unwrap_err();
        assert!(gone.contains("is in none of /usr/bin, ") && gone.contains("agent.yaml"), "{gone}");
        for relative in ["./nvidia-smi", "bin/nvidia-smi", "../nvidia-smi"] {
            assert!(tool(Path::new(relative)).unwrap_err().contains("no whole path"), "{relative}");
        }
    }
}
