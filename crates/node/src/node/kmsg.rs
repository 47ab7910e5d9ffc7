//! The kernel log: the driver's own lines, among them faults that NVML never reports (SXids, a GPU that is gone).
//!
//! Invariant: every line of the driver about a fault leaves an observation or a count; lines that were lost, and lines
//! that cannot be read, are observations themselves.

mod line;
mod record;
mod story;
mod tail;
mod watcher;

pub(super) use line::pci;
pub use tail::KmsgError;
pub(super) use watcher::KernelWatch;

use super::NodeClock;
use super::sight::FaultObservation;
use crate::limits;
use crate::model::{GpuName, Time};
use record::KernelRecord;
use std::path::{Path, PathBuf};
use std::time::Duration;
use story::LineAggregator;
use tail::{KernelLogTail, TailItem};

/// Where the kernel keeps its log.
pub const KMSG: &str = "/dev/kmsg";

/// The result of one read of the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KernelLogRead {
    pub sights: Vec<FaultObservation>,
    /// The address of each GPU, from the driver's lines before its faults.
    pub names: Vec<GpuName>,
    /// The last record that was looked at; once the sights are safe, reading may go on behind it.
    pub last: Option<u64>,
    /// Records looked at.
    pub records: u64,
    /// Whether the log can be read at all.
    pub readable: bool,
}

/// The log, followed from a place on.
pub struct KernelLog {
    tail: KernelLogTail,
    story: LineAggregator,
    clock: NodeClock,
    more: bool,
}

impl KernelLog {
    /// Opens the log behind record `after` (of this boot), or at the oldest record there is.
    ///
    /// # Errors
    ///
    /// Fails when the log cannot be opened.
    pub fn open(path: &Path, after: Option<u64>, clock: &NodeClock) -> Result<KernelLog, KmsgError> {
        Ok(KernelLog {
            tail: KernelLogTail::open(path, after)?,
            story: LineAggregator::default(),
            clock: clock.clone(),
            more: true,
        })
    }

    /// Waits for new records, at most so long, and returns their findings. A burst takes several passes.
    ///
    /// # Errors
    ///
    /// Fails when the log cannot be read.
    pub fn pass(&mut self, most: Duration) -> Result<KernelLogRead, KmsgError> {
        if !self.more {
            self.tail.wait(most)?;
        }
        let times = KernelTimes::now(&self.clock, self.tail.is_device());
        let mut records = 0;
        let story = &mut self.story;
        self.more = self.tail.read(limits::KERNEL_RECORDS_PER_PASS, |piece| match piece {
            TailItem::Record(record) => {
                records += 1;
                story.hear(&record, &times);
            }
            TailItem::Lost(count) => story.lost(count, &times),
        })?;
        let (sights, names) = self.story.take();
        Ok(KernelLogRead { sights, names, last: self.tail.last(), records, readable: true })
    }
}

/// From the kernel's clock, which counts since boot, to ours.
pub(super) struct KernelTimes {
    now: Time,
    boot: Option<Time>,
}

impl KernelTimes {
    fn now(clock: &NodeClock, device: bool) -> KernelTimes {
        let now = clock.now();
        // The clock of the records: it does not count the time that the machine was suspended.
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let up = Duration::new(up.tv_sec.cast_unsigned(), u32::try_from(up.tv_nsec).unwrap_or(0));
        KernelTimes { now, boot: device.then(|| now.checked_sub(up).ok()).flatten() }
    }

    fn of(&self, record: &KernelRecord<'_>) -> Time {
        let boot = self.boot.zip(record.micros);
        let at = boot.and_then(|(boot, micros)| boot.checked_add(Duration::from_micros(micros)).ok());
        at.map_or(self.now, |at| at.min(self.now))
    }
}

/// For the fuzzer: everything that is done with bytes from the log, and how many sights came of it.
pub fn read_bytes(bytes: &[u8]) -> Vec<FaultObservation> {
    let mut story = LineAggregator::default();
    let times = KernelTimes { now: Time::UNIX_EPOCH, boot: None };
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(record) = KernelRecord::parse(line) {
            story.hear(&record, &times);
        }
    }
    story.take().0
}

/// Follows a log for ever, in the calling thread: each pass with content is given to `take`, until that returns
/// `false`. A log that cannot be opened or read is a sight as well, and is tried again.
pub fn follow(path: &Path, after: Option<u64>, clock: &NodeClock, mut take: impl FnMut(KernelLogRead) -> bool) {
    let path = PathBuf::from(path);
    // An earlier run of the agent may have complained of the log.
    let (mut after, mut broken) = (after, true);
    loop {
        let failed = match KernelLog::open(&path, after, clock) {
            Ok(mut log) => loop {
                match log.pass(limits::KERNEL_WAIT) {
                    Ok(mut pass) => {
                        after = pass.last;
                        if std::mem::take(&mut broken) {
                            pass.sights.insert(0, story::readable(&path, clock.now()));
                        }
                        // An empty pass is given as well, so that `take` can end the loop.
                        if !take(pass) {
                            return;
                        }
                    }
                    Err(error) => break error,
                }
            },
            Err(error) => error,
        };
        broken = true;
        let sights = vec![story::unreadable(&path, &failed, clock.now())];
        if !take(KernelLogRead { sights, last: after, ..KernelLogRead::default() }) {
            return;
        }
        std::thread::sleep(limits::KERNEL_REOPEN);
    }
}
