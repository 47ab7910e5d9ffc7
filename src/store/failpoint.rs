//! A planned death, so that tests can pull the plug around every commit of the real process.
//!
//! Invariant: without an explicit option nothing here does anything; with one, the process ends as by `kill -9`.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// On which side of the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitSide {
    Before,
    After,
}

/// Die just before or just after the commit with this number, counted from 1 since the store was opened.
#[derive(Debug, Clone)]
pub struct Failpoint {
    side: CommitSide,
    at: u64,
    seen: Arc<AtomicU64>,
}

impl FromStr for Failpoint {
    type Err = String;

    /// `before-commit:3` or `after-commit:3`.
    fn from_str(text: &str) -> Result<Failpoint, String> {
        let wrong = || format!("`{text}` is no failpoint: write `before-commit:3` or `after-commit:3`");
        let (side, at) = text.split_once("-commit:").ok_or_else(wrong)?;
        let side = match side {
            "before" => CommitSide::Before,
            "after" => CommitSide::After,
            _ => return Err(wrong()),
        };
        let at = at.parse().map_err(|_| wrong())?;
        Ok(Failpoint { side, at, seen: Arc::default() })
    }
}

impl Failpoint {
    /// The writer is at this side of a commit.
    pub(super) fn reached(&self, side: CommitSide) {
        let number = match side {
            CommitSide::Before => self.seen.fetch_add(1, Ordering::AcqRel) + 1,
            CommitSide::After => self.seen.load(Ordering::Acquire),
        };
        if side == self.side && number == self.at {
            // SIGKILL, not exit: no destructor runs and nothing is flushed, as when the plug is pulled.
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_reads_as_it_is_written_and_counts_quietly_until_its_number() {
        assert!("during-commit:1".parse::<Failpoint>().is_err());
        let point: Failpoint = "after-commit:3".parse().unwrap();
        for _ in 0..2 {
            point.reached(CommitSide::Before);
            point.reached(CommitSide::After);
        }
        assert_eq!(point.seen.load(Ordering::Acquire), 2);
    }
}
