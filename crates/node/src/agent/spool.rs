//! Findings on disk until the engine has them: numbered, fsynced before they are sent, deleted after they are durable there.
//! Each start of an agent begins a spool of its own, so that no number is ever given twice; those of earlier starts
//! are emptied first.
//!
//! Invariant: dropped findings leave a hole in the numbers, which the engine sees; on a full disk findings are kept in
//! memory, within a bound, and the agent reports it.

mod part;

use crate::limits;
use crate::model::{AgentStatus, EventStatus, Finding, FindingBatch, Severity, Time};
use crate::node::NodeClock;
use part::SpoolPart;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// All parts: those of earlier starts, and the one that grows.
pub struct Spool {
    /// Bytes on disk that all parts may take.
    bound: u64,
    old: VecDeque<SpoolPart>,
    current: SpoolPart,
    dropped: u64,
    /// Why the disk cannot be written, while that is so.
    disk: Option<String>,
    clock: NodeClock,
    /// Moves when something was added.
    grown: watch::Sender<u64>,
}

impl Spool {
    /// Finds the parts of earlier starts and begins a new one. Works without a disk, and reports it in `standing`.
    pub fn open(folder: &Path, boot: &str, bound: u64, clock: &NodeClock) -> Spool {
        let (old, last) = leftovers(folder);
        let place = folder.join(format!("{:06}", last + 1));
        let current = SpoolPart::begin(place, boot, clock.now());
        let disk = current.broken();
        Spool { bound, old, current, dropped: 0, disk, clock: clock.clone(), grown: watch::Sender::new(0) }
    }

    /// Numbers and keeps findings. They are on disk when this returns, or `trouble` has the reason.
    pub fn append(&mut self, findings: Vec<Finding>) {
        let mut dropped = self.keep(findings);
        if dropped > 0 {
            // Reported once for each overflow; the report may drop one more.
            dropped += self.keep(vec![overflowed(dropped, self.clock.now())]);
        }
        self.dropped += dropped;
        self.grown.send_modify(|moves| *moves += 1);
    }

    /// To be woken when there may be something to send.
    pub fn grown(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }

    fn keep(&mut self, findings: Vec<Finding>) -> u64 {
        let lost = self.current.append(findings);
        self.disk = self.current.broken();
        lost + self.make_room()
    }

    /// The oldest segments go first; the one that is being written stays.
    fn make_room(&mut self) -> u64 {
        let mut lost = 0;
        while self.bytes() > self.bound {
            let Some(part) = self.old.iter_mut().chain([&mut self.current]).find(|part| part.can_drop()) else { break };
            lost += part.drop_oldest();
        }
        self.old.retain(|part| !part.is_empty());
        lost
    }

    /// The next findings to send: reports of one part, in order, within the bounds of a request.
    pub fn batch(&mut self) -> Option<FindingBatch> {
        loop {
            let standing = self.standing();
            let part = self.old.front_mut().unwrap_or(&mut self.current);
            let reports = part.read(limits::REPORTS_PER_BODY, limits::REPORTS_BYTES);
            if !reports.is_empty() {
                let standing = AgentStatus { boot: part.boot.clone(), spool: part.name.clone(), ..standing };
                return Some(FindingBatch { standing, reports });
            }
            // An old part that has nothing to read any more is over, whatever state it is in.
            self.old.pop_front()?.remove();
        }
    }

    /// The engine has made everything of that part durable up to this number.
    pub fn taken(&mut self, spool: &str, upto: u64) {
        if let Some(part) = self.old.iter_mut().chain([&mut self.current]).find(|part| part.name == spool) {
            part.taken(upto);
        }
    }

    /// Tries again to write findings that are only in memory.
    pub fn retry_disk(&mut self) {
        if self.disk.is_some() {
            self.current.flush();
            self.disk = self.current.broken();
        }
    }

    /// The spool's state, as it is reported to the engine.
    pub fn standing(&self) -> AgentStatus {
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: self.current.boot.clone(),
            spool: self.current.name.clone(),
            waiting: self.parts().map(SpoolPart::waiting).sum(),
            bytes: self.bytes(),
            dropped: self.dropped,
            trouble: self
                .disk
                .as_ref()
                .map_or_else(String::new, |why| format!("findings are kept in memory only: {why}")),
        }
    }

    fn bytes(&self) -> u64 {
        self.parts().map(SpoolPart::bytes).sum()
    }

    fn parts(&self) -> impl Iterator<Item = &SpoolPart> {
        self.old.iter().chain([&self.current])
    }
}

/// Parts of earlier starts in order, and the highest number among their names.
fn leftovers(folder: &Path) -> (VecDeque<SpoolPart>, u32) {
    let mut places: BTreeMap<u32, PathBuf> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten().take(limits::CATALOG_ENTRIES) {
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            places.insert(number, entry.path());
        }
    }
    let last = places.keys().next_back().copied().unwrap_or(0);
    let mut parts = VecDeque::new();
    for place in places.into_values() {
        match SpoolPart::reopen(place) {
            Some(part) if !part.is_empty() => parts.push_back(part),
            Some(part) => part.remove(),
            None => {}
        }
    }
    (parts, last)
}

fn overflowed(count: u64, at: Time) -> Finding {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Finding {
        complaint: "agent-spool-overflow".to_owned(),
        status: EventStatus::Firing,
        at,
        severity: Severity::Warning,
        gpu: None,
        labels: BTreeMap::from([label("alertname", "NightshiftAgentSpoolOverflow"), label("severity", "warning")]),
        summary: format!("the agent's spool was full: the {count} oldest findings were dropped unsent"),
        detail: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NumberedFinding;

    fn finding(name: &str) -> Finding {
        let complaint = name.to_owned();
        Finding { complaint, summary: "x".repeat(200), detail: String::new(), ..overflowed(1, Time::UNIX_EPOCH) }
    }

    fn numbers(reports: &FindingBatch) -> Vec<u64> {
        reports.reports.iter().map(|report| report.no).collect()
    }

    fn findings(count: usize) -> Vec<Finding> {
        (0..count).map(|at| finding(&format!("f{at}"))).collect()
    }

    #[test]
    fn findings_come_back_in_order_until_they_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), "boot-a", 1 << 20, &NodeClock::default());
        assert_eq!(spool.batch(), None);
        spool.append(findings(3));
        let batch = spool.batch().unwrap();
        assert_eq!(numbers(&batch), [1, 2, 3]);
        assert_eq!(spool.batch().as_ref(), Some(&batch), "nothing was acknowledged");
        spool.taken(&batch.standing.spool, 2);
        assert_eq!(numbers(&spool.batch().unwrap()), [3]);
        spool.taken(&batch.standing.spool, 3);
        assert_eq!(spool.batch(), None);
    }

    #[test]
    fn an_hour_without_the_engine_in_which_every_gpu_complains_each_second_is_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = crate::config::AgentConfig::default().spool_mib << 20;
        let mut spool = Spool::open(dir.path(), "boot-a", bytes, &NodeClock::default());
        let (gpus, seconds) = (8, 3_600);
        // A minute at a time, for the test's sake.
        for _ in 0..seconds / 60 {
            spool.append(findings(60 * gpus));
        }
        let standing = spool.standing();
        assert_eq!((standing.waiting, standing.dropped), ((gpus * seconds) as u64, 0), "{standing:?}");
        let mut seen = 0;
        while let Some(batch) = spool.batch() {
            for number in numbers(&batch) {
                assert_eq!(number, seen + 1, "in order, none missing");
                seen = number;
            }
            spool.taken(&batch.standing.spool, seen);
        }
        assert_eq!(seen, (gpus * seconds) as u64);
    }

    #[test]
    fn another_start_sends_the_old_part_under_its_own_boot_and_then_counts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Spool::open(dir.path(), "boot-a", 1 << 20, &NodeClock::default());
        first.append(findings(2));
        drop(first);
        let mut second = Spool::open(dir.path(), "boot-b", 1 << 20, &NodeClock::default());
        second.append(vec![finding("new")]);
        let old = second.batch().unwrap();
        assert_eq!((old.standing.boot.as_str(), numbers(&old)), ("boot-a", vec![1, 2]));
        second.taken(&old.standing.spool, 2);
        let new = second.batch().unwrap();
        assert_eq!((new.standing.boot.as_str(), numbers(&new)), ("boot-b", vec![1]));
        assert_ne!(old.standing.spool, new.standing.spool);
        drop(second);
        let third = Spool::open(dir.path(), "boot-b", 1 << 20, &NodeClock::default());
        assert_eq!(third.standing().waiting, 1, "what was sent and taken is gone, what was not is there");
    }

    #[test]
    fn an_overflow_drops_the_oldest_and_says_how_many() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), "boot-a", 3 * limits::SPOOL_SEGMENT_BYTES, &NodeClock::default());
        for _ in 0..6 * limits::SPOOL_SEGMENT_BYTES / (400 * 100) {
            spool.append(findings(100));
        }
        let standing = spool.standing();
        assert!(standing.dropped > 0 && standing.bytes <= 3 * limits::SPOOL_SEGMENT_BYTES, "{standing:?}");
        let (mut seen, mut said) = (Vec::new(), 0);
        while let Some(batch) = spool.batch() {
            seen.extend(numbers(&batch));
            said += batch.reports.iter().filter(|report| report.finding.complaint == "agent-spool-overflow").count();
            spool.taken(&batch.standing.spool, *seen.last().unwrap());
        }
        assert_eq!(seen[0], standing.dropped + 1, "exactly the oldest are missing");
        assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert!(said > 0, "the newest overflow is told of");
    }

    #[test]
    fn a_segment_that_was_cut_short_costs_its_rest_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), "boot-a", 1 << 20, &NodeClock::default());
        spool.append(findings(5));
        drop(spool);
        let segment = std::fs::read_dir(dir.path().join("000001")).unwrap().flatten().map(|file| file.path());
        let segment = segment.into_iter().find(|path| path.extension().is_some_and(|end| end == "seg")).unwrap();
        let bytes = std::fs::read(&segment).unwrap();
        std::fs::write(&segment, &bytes[..bytes.len() - 7]).unwrap();
        let mut spool = Spool::open(dir.path(), "boot-a", 1 << 20, &NodeClock::default());
        spool.append(vec![finding("new")]);
        let old = spool.batch().unwrap();
        assert_eq!(numbers(&old), [1, 2, 3, 4]);
        spool.taken(&old.standing.spool, 4);
        assert_eq!(numbers(&spool.batch().unwrap()), [1], "the new part is sent all the same");
    }

    #[test]
    fn without_a_disk_findings_are_kept_in_memory_within_a_bound_and_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        // A file where the folder should be: nothing can be written there, even by root.
        std::fs::write(dir.path().join("spool"), "").unwrap();
        let mut spool = Spool::open(&dir.path().join("spool"), "boot-a", 1 << 20, &NodeClock::default());
        spool.append(findings(3));
        assert!(spool.standing().trouble.contains("memory"), "{:?}", spool.standing());
        assert_eq!(numbers(&spool.batch().unwrap()), [1, 2, 3]);
        spool.append(findings(limits::SPOOL_MEMORY + 10));
        let standing = spool.standing();
        assert!(standing.waiting <= limits::SPOOL_MEMORY as u64 && standing.dropped >= 13, "{standing:?}");
        std::fs::remove_file(dir.path().join("spool")).unwrap();
        spool.retry_disk();
        assert_eq!(spool.standing().trouble, "");
        assert!(spool.standing().bytes > 0, "once there is room it is written down");
    }

    #[test]
    fn a_report_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), "boot-a", 1 << 20, &NodeClock::default());
        spool.append(vec![finding("line\nwith \u{0} and ü")]);
        drop(spool);
        let mut spool = Spool::open(dir.path(), "boot-a", 1 << 20, &NodeClock::default());
        let read: Vec<NumberedFinding> = spool.batch().unwrap().reports;
        assert_eq!(read[0].finding.complaint, "line\nwith \u{0} and ü");
    }
}
