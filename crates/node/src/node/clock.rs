//! The agent's time. It is kept beside a wall clock that was set, as the engine's is (`crate::clock`): a step is followed only
//! once it has lasted, and everything that waits on this node is moved with it.
//!
//! Invariant: nothing of the agent reads the wall clock but through this, so a step of it ends no fault early and none late.

use super::FaultTracker;
use crate::clock::{Clock, ClockStep, RealClock};
use crate::limits;
use crate::model::{Span, Time};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The time as everything on a node reads it. Cheap to clone.
#[derive(Clone)]
pub struct NodeClock {
    clock: Arc<dyn Clock>,
    /// Microseconds by which the time was moved since the start.
    moved: Arc<AtomicI64>,
}

impl Default for NodeClock {
    fn default() -> NodeClock {
        NodeClock::of(Arc::new(RealClock))
    }
}

impl fmt::Debug for NodeClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeClock(…)")
    }
}

impl NodeClock {
    /// The node's view of `clock`, which was not moved yet.
    pub fn of(clock: Arc<dyn Clock>) -> NodeClock {
        NodeClock { clock, moved: Arc::default() }
    }

    /// The agent's time.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    pub(super) fn offset(&self) -> i64 {
        self.clock.offset()
    }

    /// By how much the time was moved in all, in microseconds: a holder of future moments compares it with its earlier
    /// value, and moves them.
    pub(crate) fn moved(&self) -> i64 {
        self.moved.load(Ordering::Acquire)
    }

    /// Moments kept from before the start were moved by that much.
    pub(super) fn was_moved(&self, micros: i64) {
        self.moved.fetch_add(micros, Ordering::AcqRel);
    }

    /// Waits for the next look at the clock.
    pub(crate) async fn rest(&self) {
        self.clock.sleep_for(limits::CLOCK_LOOK_EVERY).await;
    }
}

/// A moment that much later, or earlier.
pub(crate) fn moved_by(time: Time, micros: i64) -> Time {
    Time::from_microsecond(time.as_microsecond().saturating_add(micros)).unwrap_or(time)
}

/// Looks for steps of the wall clock: says each, and follows one that lasts.
#[derive(Debug, Default)]
pub struct NodeClockWatch {
    said: Option<ClockStep>,
}

impl NodeClockWatch {
    /// Looks once. Returns how many microseconds the time was moved by, if it was.
    pub fn pass(&mut self, clock: &NodeClock, faults: &FaultTracker) -> Option<i64> {
        let Some(step) = clock.clock.step() else {
            if self.said.take().is_some() {
                tracing::info!("the clock of this node is right again");
            }
            faults.keep_offset(clock.offset());
            return None;
        };
        if self.said.is_none_or(|said| said.since != step.since) {
            let span = Span(Duration::from_secs(step.by.unsigned_abs() / 1_000_000));
            let way = if step.by < 0 { "back" } else { "forward" };
            let lasts = Span(limits::CLOCK_SETTLE);
            tracing::warn!(
                "the clock of this node was set {span} {way}; the agent keeps its own time, and follows if this lasts for {lasts}; \
                 check the time service of this node"
            );
            self.said = Some(step);
        }
        if clock.clock.monotonic() < step.since + limits::CLOCK_SETTLE {
            return None;
        }
        // Forward, the waits are moved first, backward the time: in between a wait is late for a moment, and never
        // early.
        if step.by > 0 {
            clock.moved.fetch_add(step.by, Ordering::AcqRel);
            faults.shift(step.by);
            clock.clock.adopt(step);
        } else {
            clock.clock.adopt(step);
            faults.shift(step.by);
            clock.moved.fetch_add(step.by, Ordering::AcqRel);
        }
        tracing::warn!(by = step.by, "the agent follows the clock of this node; what waits is moved with it");
        self.said = None;
        Some(step.by)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FaultObservation, xid_finding};
    use super::*;
    use crate::clock::SimClock;
    use crate::model::{EventStatus, Finding, GpuName};
    use std::collections::BTreeMap;

    const HOUR: Duration = Duration::from_secs(3_600);
    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Time {
        Time::from_second(1_700_000_000).unwrap()
    }

    /// A fault of an application: over when it was quiet for a while.
    fn fault(faults: &FaultTracker, clock: &NodeClock) -> Vec<Finding> {
        let gpu = GpuName { index: Some(0), uuid: "GPU-1".to_owned(), pci: "0000:65:00.0".to_owned() };
        let labels = BTreeMap::from([("source".to_owned(), "nvml".to_owned())]);
        let sight = FaultObservation::nvml(xid_finding(13, gpu, labels, "Graphics Exception", clock.now()));
        faults.hear(sight, clock.now())
    }

    fn ends(faults: &FaultTracker, clock: &NodeClock) -> Vec<Finding> {
        faults.tick(clock.now()).into_iter().filter(|finding| finding.status == EventStatus::Resolved).collect()
    }

    /// Whatever is done to the clock, and whether it is for a moment or for good, a fault ends after the quiet that it takes.
    #[test]
    fn a_step_of_the_clock_on_a_node_ends_no_fault_early_and_none_late() {
        let day = 24 * HOUR;
        for (by, is_back) in [(6 * SECOND, true), (HOUR, true), (400 * day, true), (HOUR, false), (400 * day, false)] {
            for lasts in [false, true] {
                let what = format!("{by:?}, back: {is_back}, lasts: {lasts}");
                let sim = Arc::new(SimClock::new(start()));
                let clock = NodeClock::of(sim.clone());
                let (faults, mut watch) = (FaultTracker::default(), NodeClockWatch::default());
                assert_eq!(watch.pass(&clock, &faults), None);
                if lasts {
                    sim.jump(if is_back { start() - by } else { start() + by });
                    watch.pass(&clock, &faults);
                    sim.advance(limits::CLOCK_SETTLE - SECOND);
                }
                let said = fault(&faults, &clock);
                assert_eq!((said.len(), said[0].status), (1, EventStatus::Firing), "{what}");
                let began = clock.now();
                if lasts {
                    // It is followed while the fault waits for its end.
                    sim.advance(2 * SECOND);
                    let moved = i64::try_from(by.as_micros()).unwrap() * if is_back { -1 } else { 1 };
                    assert_eq!(watch.pass(&clock, &faults), Some(moved), "{what}");
                    assert_eq!((clock.now(), clock.moved()), (moved_by(began + 2 * SECOND, moved), moved), "{what}");
                } else {
                    sim.jump(if is_back { began - by } else { began + by });
                    assert_eq!(watch.pass(&clock, &faults), None);
                    sim.advance(2 * SECOND);
                }
                assert_eq!(ends(&faults, &clock), [], "{what}: not early");
                sim.advance(limits::JOIN_QUIET.0 - 3 * SECOND);
                assert_eq!(ends(&faults, &clock), [], "{what}: not early");
                sim.advance(SECOND);
                let over = ends(&faults, &clock);
                assert_eq!(over.len(), 1, "{what}: and not late");
                assert!(
                    over[0].at >= said[0].at,
                    "{what}: an end before its beginning is taken for one that came late"
                );
            }
        }
    }

    #[test]
    fn a_clock_that_was_set_while_the_agent_was_down_ends_no_fault_early_and_none_late() {
        for (by, is_back) in [(HOUR, true), (24 * HOUR, false)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("faults.json");
            let sim = Arc::new(SimClock::new(start()));
            let clock = NodeClock::of(sim.clone());
            let faults = FaultTracker::open(&path, "boot-1", clock.now());
            faults.reckon(clock.offset());
            let said = fault(&faults, &clock);
            faults.commit(None).unwrap();
            // The next life, two seconds later by the clock that only runs.
            sim.advance(2 * SECOND);
            sim.set(if is_back { clock.now() - by } else { clock.now() + by });
            let faults = FaultTracker::open(&path, "boot-1", clock.now());
            assert_ne!(faults.reckon(clock.offset()), 0);
            assert_eq!(ends(&faults, &clock), [], "back: {is_back}");
            sim.advance(limits::JOIN_QUIET.0 - 3 * SECOND);
            assert_eq!(ends(&faults, &clock), [], "back: {is_back}: not early");
            sim.advance(SECOND);
            let over = ends(&faults, &clock);
            assert_eq!(over.len(), 1, "back: {is_back}: not late");
            assert!(over[0].at >= said[0].at);
        }
    }
}
