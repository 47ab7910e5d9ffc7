//! A small share of one core for a process: by a cgroup where one can be made, else by stopping it and letting it go on in turns.
//!
//! Invariant: when this is dropped the process has its CPU again, and no group is left behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the share is counted in; the kernel gives no less than a millisecond of it.
const PERIOD: Duration = Duration::from_millis(100);

pub enum Throttle {
    /// Our own group, and the one that it is in.
    Group {
        group: PathBuf,
        parent: PathBuf,
    },
    Turns {
        over: Arc<AtomicBool>,
        turning: Option<std::thread::JoinHandle<()>>,
    },
}

impl Throttle {
    /// So many hundredths of one core for all threads of this process together.
    pub fn to(pid: u32, percent: u32) -> Throttle {
        let quota = PERIOD * percent / 100;
        let made = parents().into_iter().find_map(|(parent, is_unified)| group(parent, is_unified, pid, quota));
        made.unwrap_or_else(|| turns(pid, quota))
    }

    /// The same without a cgroup.
    pub fn by_turns(pid: u32, percent: u32) -> Throttle {
        turns(pid, PERIOD * percent / 100)
    }

    pub fn by(&self) -> &'static str {
        match self {
            Throttle::Group { .. } => "a cgroup",
            Throttle::Turns { .. } => "stops and continues",
        }
    }
}

/// Folders of this process in the CPU controller of either version of cgroups; true: of version 2.
fn parents() -> Vec<(PathBuf, bool)> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (base, is_unified) = match controllers {
            "" => ("/sys/fs/cgroup".to_owned(), true),
            one if one.split(',').any(|name| name == "cpu") => (format!("/sys/fs/cgroup/{one}"), false),
            _ => return None,
        };
        Some((Path::new(&base).join(path.trim_start_matches('/')), is_unified))
    };
    let mut found: Vec<(PathBuf, bool)> = own.lines().filter_map(of).collect();
    // The file may name places of another mount than ours.
    found.push((PathBuf::from("/sys/fs/cgroup/cpu"), false));
    found
}

fn group(parent: PathBuf, is_unified: bool, pid: u32, quota: Duration) -> Option<Throttle> {
    let group = parent.join(format!("nightshift-test-{pid}"));
    std::fs::create_dir(&group).ok()?;
    let bound = || -> std::io::Result<()> {
        let (quota, period) = (quota.as_micros(), PERIOD.as_micros());
        if is_unified {
            std::fs::write(group.join("cpu.max"), format!("{quota} {period}"))?;
        } else {
            std::fs::write(group.join("cpu.cfs_period_us"), period.to_string())?;
            std::fs::write(group.join("cpu.cfs_quota_us"), quota.to_string())?;
        }
        std::fs::write(group.join("cgroup.procs"), pid.to_string())
    };
    match bound() {
        Ok(()) => Some(Throttle::Group { group, parent }),
        Err(_) => {
            let _ = std::fs::remove_dir(&group);
            None
        }
    }
}

fn turns(pid: u32, share: Duration) -> Throttle {
    let over = Arc::new(AtomicBool::new(false));
    let is_over = over.clone();
    let turning = std::thread::spawn(move || {
        let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        let send = |signal| rustix::process::kill_process(raw, signal).is_ok();
        while !is_over.load(Ordering::Relaxed) && send(rustix::process::Signal::CONT) {
            std::thread::sleep(share); // polls nothing: what it gets is time itself
            send(rustix::process::Signal::STOP);
            std::thread::sleep(PERIOD - share); // polls nothing: and this it does not get
        }
        send(rustix::process::Signal::CONT);
    });
    Throttle::Turns { over, turning: Some(turning) }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        match self {
            Throttle::Group { group, parent } => {
                for pid in std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
                    let _ = std::fs::write(parent.join("cgroup.procs"), pid);
                }
                let _ = std::fs::remove_dir(group);
            }
            Throttle::Turns { over, turning } => {
                over.store(true, Ordering::Relaxed);
                if let Some(turning) = turning.take() {
                    let _ = turning.join();
                }
            }
        }
    }
}
