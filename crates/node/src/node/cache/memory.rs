//! Whether so many bytes may be read into memory: by the machine's memory, the control group's limit, and the memory
//! pressure.
//!
//! Invariant: a refusal names the limit of the three that applied, with both numbers.

use super::roots::failed;
use crate::limits;
use crate::model::{FailureKind, StepFailure};
use std::path::{Path, PathBuf};

/// The kernel's folders; other folders in tests.
#[derive(Debug, Clone)]
pub struct MemoryProbe {
    top: PathBuf,
}

impl Default for MemoryProbe {
    fn default() -> Self {
        MemoryProbe { top: PathBuf::from("/") }
    }
}

/// The memory that a control group may still take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemoryHeadroom {
    pub group: String,
    pub limit: u64,
    pub left: u64,
}

impl MemoryProbe {
    /// Reads `/proc` and `/sys` below this folder.
    pub fn under(top: impl Into<PathBuf>) -> MemoryProbe {
        MemoryProbe { top: top.into() }
    }

    /// Whether a model of `total` bytes, of which `missing` are to be read, fits now.
    pub(super) fn admit(&self, total: u64, missing: u64, reserve: u64) -> Result<(), StepFailure> {
        let available = self.available()?;
        if total > available.saturating_sub(reserve) {
            let text = format!(
                "the model needs {} of memory, and the machine has {} available, of which {} are kept for others \
                 (`cache.reserve_mib`): reading it would evict memory in use",
                size(total),
                size(available),
                size(reserve)
            );
            return Err(failed(FailureKind::Refused, text));
        }
        if let Some(room) = self.room().into_iter().min_by_key(|room| room.left)
            && missing > room.left
        {
            let text = format!(
                "{} are to be read, and the control group {} that this process runs in may hold {} more (its limit is \
                 {}): the page cache counts there, so run the warm in a group without a memory limit",
                size(missing),
                room.group,
                size(room.left),
                size(room.limit)
            );
            return Err(failed(FailureKind::Refused, text));
        }
        if let Some(full) = self.pressure("full").filter(|full| *full > limits::CACHE_PRESSURE_FULL) {
            let text = format!(
                "the machine was short of memory for {full:.0} % of the last ten seconds (pressure-stall \
                 information): the warm waits until that is over"
            );
            return Err(failed(FailureKind::Unavailable, text));
        }
        Ok(())
    }

    /// Whether readers should stand back for a moment, in words.
    pub(super) fn pressed(&self) -> Option<String> {
        let some = self.pressure("some").filter(|some| *some > limits::CACHE_PRESSURE_SOME)?;
        Some(format!("memory is short for {some:.0} % of the time: waiting"))
    }

    fn read(&self, path: &str) -> Option<String> {
        read(&self.top.join(path.trim_start_matches('/')))
    }

    fn available(&self) -> Result<u64, StepFailure> {
        let text = self.read("/proc/meminfo").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| {
            failed(FailureKind::Invalid, "how much memory is available cannot be read from /proc/meminfo")
        })
    }

    /// `avg10` of a line of /proc/pressure/memory; none on a kernel without it.
    fn pressure(&self, line: &str) -> Option<f64> {
        let text = self.read("/proc/pressure/memory")?;
        let rest = text.lines().find_map(|found| found.strip_prefix(line))?;
        rest.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
    }

    /// The name of our own control group, for the report: pages that are read are charged to it.
    pub fn group(&self) -> Option<String> {
        let text = self.read("/proc/self/cgroup")?;
        let of = |wanted: fn(&str) -> bool| {
            text.lines().find_map(|line| {
                let (kinds, path) = line.split_once(':')?.1.split_once(':')?;
                wanted(kinds).then(|| path.to_owned())
            })
        };
        // A machine with both has its memory in the old hierarchy.
        of(|kinds| kinds.split(',').any(|kind| kind == "memory")).or_else(|| of(str::is_empty))
    }

    /// Every limit from our group up to the root, old hierarchy or new.
    fn room(&self) -> Vec<MemoryHeadroom> {
        let Some(group) = self.group() else { return Vec::new() };
        let old = self.top.join("sys/fs/cgroup/memory");
        let new = self.top.join("sys/fs/cgroup");
        let is_old = old.is_dir();
        let mount = if is_old { old } else { new };
        let mut found = Vec::new();
        let mut at = PathBuf::from(group.trim_start_matches('/'));
        for _ in 0..limits::CGROUP_DEPTH {
            let shown = format!("/{}", at.display());
            found.extend(if is_old { room_v1(&mount.join(&at), shown) } else { room_v2(&mount.join(&at), shown) });
            if !at.pop() {
                break;
            }
        }
        found
    }
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(limits::PROC_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

fn number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// File pages of the group make room for new ones; the rest stays.
fn room_of(group: String, limit: u64, used: u64, file: u64) -> MemoryHeadroom {
    MemoryHeadroom { group, limit, left: limit.saturating_sub(used.saturating_sub(file)) }
}

fn field(folder: &Path, name: &str) -> u64 {
    let text = read(&folder.join("memory.stat")).unwrap_or_default();
    let found = text.lines().find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name));
    found.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

fn room_v2(folder: &Path, group: String) -> Option<MemoryHeadroom> {
    // Reading more than `memory.high` is slowed down to a crawl, so it is a limit too.
    let limits = [number(&folder.join("memory.max")), number(&folder.join("memory.high"))];
    let limit = limits.into_iter().flatten().min()?;
    let used = number(&folder.join("memory.current"))?;
    Some(room_of(group, limit, used, field(folder, "file").saturating_sub(field(folder, "shmem"))))
}

fn room_v1(folder: &Path, group: String) -> Option<MemoryHeadroom> {
    let limit = number(&folder.join("memory.limit_in_bytes"))?;
    // "No limit" is a number near the largest there is.
    if limit >= 1 << 60 {
        return None;
    }
    let used = number(&folder.join("memory.usage_in_bytes"))?;
    Some(room_of(group, limit, used, field(folder, "cache").saturating_sub(field(folder, "shmem"))))
}

/// `13.5 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.iter().find(|(shift, _)| bytes >= 1 << shift) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, MemoryProbe) {
        let top = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let memory = MemoryProbe::under(top.path());
        (top, memory)
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_machine_must_have_room_beside_the_reserve() {
        let (_top, memory) = machine(&[("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   10485760 kB\n")]);
        assert_eq!(memory.admit(6 * GIB, 6 * GIB, 4 * GIB), Ok(()));
        let refused = memory.admit(6 * GIB + 1, GIB, 4 * GIB).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Refused);
        assert!(refused.message.contains("has 10.0 GiB available"), "{}", refused.message);
    }

    #[test]
    fn the_narrowest_control_group_counts_and_is_named() {
        let (_top, memory) = machine(&[
            ("proc/meminfo", "MemAvailable: 104857600 kB\n"),
            ("proc/self/cgroup", "0::/pods/agent\n"),
            ("sys/fs/cgroup/pods/agent/memory.max", "max\n"),
            ("sys/fs/cgroup/pods/agent/memory.current", "4096\n"),
            ("sys/fs/cgroup/pods/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/pods/memory.current", "1073741824\n"),
            ("sys/fs/cgroup/pods/memory.stat", "anon 1\nfile 536870912\nshmem 0\n"),
        ]);
        assert_eq!(memory.admit(GIB, GIB / 2, 0), Ok(()));
        let refused = memory.admit(GIB, GIB / 2 + 1, 0).unwrap_err();
        assert!(refused.message.contains("control group /pods that"), "{}", refused.message);
        assert_eq!(memory.group().as_deref(), Some("/pods/agent"));
    }

    #[test]
    fn the_old_hierarchy_is_read_where_it_holds_the_memory() {
        let (_top, memory) = machine(&[
            ("proc/meminfo", "MemAvailable: 104857600 kB\n"),
            ("proc/self/cgroup", "4:memory:/a\n0::/\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000000\n"),
            ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "900000\n"),
            ("sys/fs/cgroup/memory/a/memory.stat", "cache 300000\nshmem 100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(memory.room(), [MemoryHeadroom { group: "/a".to_owned(), limit: 1_000_000, left: 300_000 }]);
    }

    #[test]
    fn pressure_holds_back() {
        let (_top, memory) = machine(&[
            ("proc/meminfo", "MemAvailable: 104857600 kB\n"),
            (
                "proc/pressure/memory",
                "some avg10=33.00 avg60=1.00 avg300=0.10 total=9\nfull avg10=12.50 avg60=0 avg300=0 total=1\n",
            ),
        ]);
        assert_eq!(memory.admit(1, 1, 0).unwrap_err().kind, FailureKind::Unavailable);
        assert!(memory.pressed().unwrap().contains("33 %"));
    }

    #[test]
    fn this_machine_can_be_read() {
        assert!(MemoryProbe::default().available().unwrap() > 0);
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(3 * GIB / 2), "1.5 GiB");
    }
}
