//! The engine's time, a running clock that cannot be set, and waiting for both: the machine's, and one that a test moves.
//!
//! The machine's wall clock can be set by an hour or a year, and back a minute later. So the engine's time is the running
//! clock plus an offset, which follows the wall clock in small corrections only. A larger one is a step: the engine keeps its
//! own time beside it until `adopt`, and waits fire neither early nor late.
//!
//! Invariant: nothing in the program reads the time or waits for it but through this, and no wait for an interval depends
//! on the wall clock.

use crate::limits;
use crate::model::Time;
use sha2::{Digest, Sha256};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The time, and waiting for it.
#[async_trait::async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The engine's time: the wall clock's, or the wall clock's without the step that stands beside it.
    fn now(&self) -> Time;
    /// The machine's wall clock, steps included: for display, never for a decision.
    fn wall(&self) -> Time;
    /// Time since some moment, by a clock that only runs: for intervals and ages.
    fn monotonic(&self) -> Duration;
    /// Returns once `monotonic() >= at`.
    async fn sleep_until_monotonic(&self, at: Duration);
    /// Returns once `now() >= until`, or once a step is adopted: moments lie elsewhere then, and the caller looks again.
    async fn sleep_until(&self, until: Time);
    /// The step of the wall clock that the engine does not follow, if there is one.
    fn step(&self) -> Option<ClockStep>;
    /// When, by `monotonic`, the wall clock was last seen away from the engine's time, or adopted.
    fn unsettled_at(&self) -> Option<Duration>;
    /// From now on the engine's time is moved by that step.
    fn adopt(&self, step: ClockStep);
    /// Microseconds of `now` less `monotonic`: it changes with small corrections, and with a step that is adopted.
    fn offset(&self) -> i64;
    /// The boot that `monotonic` counts from, as a number; none where two processes cannot compare their readings of it.
    fn boot(&self) -> Option<i64>;

    /// Returns after that time, whatever is done to the wall clock.
    async fn sleep_for(&self, span: Duration) {
        self.sleep_until_monotonic(self.monotonic() + span).await;
    }
}

/// A step of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// Microseconds that the wall clock is ahead of the engine's time, or behind it if negative.
    pub by: i64,
    /// Since when, by the running clock.
    pub since: Duration,
}

/// The engine's time over two clocks.
#[derive(Debug, Clone, Copy)]
struct SteadyClock {
    /// The engine's time less the running clock, in microseconds.
    offset: i64,
    step: Option<ClockStep>,
    unsettled_at: Option<Duration>,
    adopted: u64,
}

impl SteadyClock {
    fn new(wall: Time, monotonic: Duration) -> SteadyClock {
        SteadyClock { offset: wall.as_microsecond() - micros(monotonic), step: None, unsettled_at: None, adopted: 0 }
    }

    /// Takes a reading of both and returns the engine's time.
    fn read(&mut self, wall: Time, monotonic: Duration) -> Time {
        let offset = wall.as_microsecond() - micros(monotonic);
        let by = offset - self.offset;
        let bound = micros(limits::CLOCK_STEP);
        if by.abs() <= bound {
            self.offset = offset;
            self.step = None;
            return wall;
        }
        self.unsettled_at = Some(monotonic);
        if self.step.is_none_or(|step| (step.by - by).abs() > bound) {
            self.step = Some(ClockStep { by, since: monotonic });
        }
        Time::from_microsecond(self.offset + micros(monotonic)).unwrap_or(wall)
    }

    fn adopt(&mut self, step: ClockStep, monotonic: Duration) {
        self.offset = self.offset.saturating_add(step.by);
        self.step = None;
        self.unsettled_at = Some(monotonic);
        self.adopted += 1;
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// The machine's clock. There is one machine, so all of them are one.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealClock;

static MACHINE: Mutex<Option<SteadyClock>> = Mutex::new(None);

impl RealClock {
    fn read<T>(&self, take: impl FnOnce(&mut SteadyClock, Time, Duration) -> T) -> T {
        let mut machine: MutexGuard<'_, Option<SteadyClock>> = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, monotonic) = readings();
        let steady = machine.get_or_insert_with(|| SteadyClock::new(wall, monotonic));
        let now = steady.read(wall, monotonic);
        take(steady, now, monotonic)
    }
}

/// Both clocks at one moment: a process that is stopped between the two readings must not take that for a step.
fn readings() -> (Time, Duration) {
    let mut before = running();
    loop {
        let wall = Time::now();
        let after = running();
        if after.saturating_sub(before) < limits::CLOCK_STEP / 2 {
            return (wall, after);
        }
        before = after;
    }
}

/// Time since the machine started; where the system counts it, with the time that it was suspended.
fn running() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[async_trait::async_trait]
impl Clock for RealClock {
    fn now(&self) -> Time {
        self.read(|_, now, _| now)
    }

    fn wall(&self) -> Time {
        Time::now()
    }

    fn monotonic(&self) -> Duration {
        running()
    }

    async fn sleep_until_monotonic(&self, at: Duration) {
        while let Some(left) = at.checked_sub(running()).filter(|left| !left.is_zero()) {
            // The timer of the runtime stands still while the machine is suspended.
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }

    async fn sleep_until(&self, until: Time) {
        let adopted = self.read(|steady, _, _| steady.adopted);
        loop {
            let (left, is_adopted) =
                self.read(|steady, now, _| (until.as_microsecond() - now.as_microsecond(), steady.adopted != adopted));
            if left <= 0 || is_adopted {
                return;
            }
            let nap = Duration::from_micros(left.unsigned_abs()).min(Duration::from_secs(1));
            tokio::time::sleep(nap).await;
        }
    }

    fn step(&self) -> Option<ClockStep> {
        self.read(|steady, _, _| steady.step)
    }

    fn unsettled_at(&self) -> Option<Duration> {
        self.read(|steady, _, _| steady.unsettled_at)
    }

    fn adopt(&self, step: ClockStep) {
        self.read(|steady, _, monotonic| steady.adopt(step, monotonic));
    }

    fn offset(&self) -> i64 {
        self.read(|steady, _, _| steady.offset)
    }

    fn boot(&self) -> Option<i64> {
        static BOOT: std::sync::OnceLock<Option<i64>> = std::sync::OnceLock::new();
        *BOOT.get_or_init(boot)
    }
}

/// Of the kernel's boot id, and of the time namespace, in which the running clock may count from another moment.
fn boot() -> Option<i64> {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let offsets = std::fs::read("/proc/self/timens_offsets").unwrap_or_default();
    let hash = Sha256::new().chain_update(id).chain_update(offsets).finalize();
    Some(i64::from_be_bytes(*hash.first_chunk()?))
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct SimClock(watch::Sender<SimClockState>);

#[derive(Debug, Clone, Copy)]
struct SimClockState {
    wall: Time,
    running: Duration,
    now: Time,
    steady: SteadyClock,
    boot: i64,
}

impl SimClockState {
    fn read(&mut self) {
        self.now = self.steady.read(self.wall, self.running);
    }
}

impl SimClock {
    /// A clock whose wall time and engine time are `start`; it stands still until a test moves it.
    pub fn new(start: Time) -> SimClock {
        // Not at zero, so that ages of an hour can be made.
        let running = Duration::from_secs(1_000_000);
        let steady = SteadyClock::new(start, running);
        SimClock(watch::Sender::new(SimClockState { wall: start, running, now: start, steady, boot: 1 }))
    }

    /// Time passes on both clocks; sleepers whose time has come wake.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|sim| {
            sim.wall += by;
            sim.running += by;
            sim.read();
        });
    }

    /// Sets the wall clock to any moment, forwards or back, as a user or a time server does; no time passes.
    pub fn jump(&self, to: Time) {
        self.0.send_modify(|sim| {
            sim.wall = to;
            sim.read();
        });
    }

    /// Sets wall clock and engine time to any moment, as if the engine were started again then.
    pub fn set(&self, to: Time) {
        self.0.send_modify(|sim| {
            let adopted = sim.steady.adopted + 1;
            sim.wall = to;
            sim.steady = SteadyClock { adopted, ..SteadyClock::new(to, sim.running) };
            sim.read();
        });
    }

    /// The machine was booted: the running clock counts from another moment.
    pub fn reboot(&self) {
        self.0.send_modify(|sim| sim.boot += 1);
    }
}

#[async_trait::async_trait]
impl Clock for SimClock {
    fn now(&self) -> Time {
        self.0.borrow().now
    }

    fn wall(&self) -> Time {
        self.0.borrow().wall
    }

    fn monotonic(&self) -> Duration {
        self.0.borrow().running
    }

    async fn sleep_until_monotonic(&self, at: Duration) {
        // The sender lives as long as `self`, so waiting cannot fail while a caller can still be here.
        let _ = self.0.subscribe().wait_for(|sim| sim.running >= at).await;
    }

    async fn sleep_until(&self, until: Time) {
        let mut changes = self.0.subscribe();
        let adopted = changes.borrow().steady.adopted;
        let _ = changes.wait_for(|sim| sim.now >= until || sim.steady.adopted != adopted).await;
    }

    fn step(&self) -> Option<ClockStep> {
        self.0.borrow().steady.step
    }

    fn unsettled_at(&self) -> Option<Duration> {
        self.0.borrow().steady.unsettled_at
    }

    fn adopt(&self, step: ClockStep) {
        self.0.send_modify(|sim| {
            sim.steady.adopt(step, sim.running);
            sim.read();
        });
    }

    fn offset(&self) -> i64 {
        self.0.borrow().steady.offset
    }

    fn boot(&self) -> Option<i64> {
        Some(self.0.borrow().boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn start() -> Time {
        Time::from_second(1_700_000_000).unwrap()
    }

    #[test]
    fn small_corrections_are_followed_and_a_step_is_not() {
        let clock = SimClock::new(start());
        clock.jump(start() + Duration::from_secs(4));
        assert_eq!((clock.now(), clock.step()), (start() + Duration::from_secs(4), None));
        let before = clock.now();
        for to in [before + 24 * HOUR, before - HOUR, before + 9_624 * HOUR] {
            clock.jump(to);
            assert_eq!(clock.now(), before, "set to {to}");
            assert_eq!(clock.step().unwrap().by, to.as_microsecond() - before.as_microsecond());
            assert_eq!(clock.wall(), to);
        }
        clock.advance(HOUR);
        assert_eq!(clock.now(), before + HOUR, "the engine's time runs on beside the step");
        clock.jump(before + HOUR);
        assert_eq!(
            (clock.now(), clock.step()),
            (before + HOUR, None),
            "and meets the wall clock when that is right again"
        );
        assert_eq!(clock.unsettled_at(), Some(clock.monotonic()), "but it is remembered that it was away");
    }

    #[test]
    fn a_step_that_is_adopted_moves_the_time_and_no_interval() {
        let clock = SimClock::new(start());
        let running = clock.monotonic();
        clock.jump(start() - HOUR);
        let step = clock.step().unwrap();
        clock.advance(Duration::from_secs(60));
        assert_eq!(clock.step(), Some(step), "one step, however long it lasts");
        clock.adopt(step);
        assert_eq!(clock.now(), start() - HOUR + Duration::from_secs(60));
        assert_eq!((clock.step(), clock.monotonic()), (None, running + Duration::from_secs(60)));
    }

    #[tokio::test]
    async fn an_interval_ends_after_its_time_whatever_the_wall_clock_does_and_a_moment_is_looked_at_again() {
        let clock = std::sync::Arc::new(SimClock::new(start()));
        let waits = |clock: &std::sync::Arc<SimClock>| {
            let clock = clock.clone();
            tokio::spawn(async move { clock.sleep_for(Duration::from_secs(2)).await })
        };
        let interval = waits(&clock);
        tokio::task::yield_now().await;
        clock.jump(start() + 24 * HOUR);
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
        assert!(!interval.is_finished(), "not before its time");
        clock.jump(start() - HOUR);
        clock.advance(Duration::from_secs(1));
        interval.await.unwrap();

        let moment = {
            let clock = clock.clone();
            tokio::spawn(async move { clock.sleep_until(start() + HOUR).await })
        };
        tokio::task::yield_now().await;
        clock.adopt(clock.step().unwrap());
        moment.await.unwrap();
    }

    #[test]
    fn the_clock_of_the_machine_runs_with_the_wall_clock() {
        let (before, running) = (RealClock.now(), RealClock.monotonic());
        assert!(RealClock.now() >= before && RealClock.monotonic() >= running);
        assert!((RealClock.now().as_second() - Time::now().as_second()).abs() <= 5);
    }
}
