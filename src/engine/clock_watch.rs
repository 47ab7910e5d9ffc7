//! Steps of the wall clock: each is an entry, and one that lasts moves the timers and then the engine's time. Pauses of the
//! whole process are entries, too.
//!
//! A step while the engine is down is found at the next start: the offset between wall clock and running clock is kept in
//! the store, and within one boot of the machine only a step changes it. Across a boot the running clock starts anew; then a
//! clock that was set back is found by the ledger, which lies ahead of it, and one that was set forward cannot be told from a
//! time that the engine was down for.
//!
//! Invariant: between a step and its end nothing of the engine follows it; when the engine's time does, all that waits in
//! the store is moved by the same time, and before it where it would fire early.

use super::EngineParts;
use crate::clock::ClockStep;
use crate::limits;
use crate::model::{Actor, EntryKind, EntryLinks, Span, Time};
use crate::planted::planted;
use crate::store::{ClockMark, Filter, StoreError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub(super) async fn run(mut clock: ClockWatch, parts: EngineParts, mut shutdown: watch::Receiver<bool>) {
    let mut pauses = PauseDetector::default();
    while !*shutdown.borrow() {
        if let Some(late) = pauses.look(Instant::now()) {
            pauses.tell(&parts, late).await;
        }
        if let Err(error) = clock.pass(&parts).await {
            tracing::error!(%error, "cannot record a step of the system clock; retrying in 1 s");
        }
        tokio::select! {
            () = parts.clock.sleep_for(limits::CLOCK_LOOK_EVERY) => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// Times in which the whole process did not run: it was stopped, its machine was, or it got no CPU time. By the clock of the
/// machine itself, so that a simulated one is no pause.
#[derive(Debug, Default)]
struct PauseDetector {
    looked: Option<Instant>,
    told: Option<Instant>,
}

impl PauseDetector {
    /// How long the process did not run, if it was long enough to matter.
    fn look(&mut self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.looked.replace(now)?);
        since.checked_sub(limits::CLOCK_LOOK_EVERY).filter(|late| *late >= limits::PAUSE_TOLD)
    }

    /// A line in the log; an entry too where it was long, once in `CLOCK_TOLD_EVERY`.
    async fn tell(&mut self, parts: &EngineParts, late: Duration) {
        let text = format!(
            "this process did not run for {} s: it was stopped, or had no CPU time; what it had read before does not count any \
             more; see that its machine and its CPU limit leave it time",
            late.as_secs()
        );
        let told = self.told.is_some_and(|told| told.elapsed() < limits::CLOCK_TOLD_EVERY);
        if late < limits::PAUSE_NOTED || told {
            return tracing::warn!(text, "pause");
        }
        match note(parts, text).await {
            Ok(()) => self.told = Some(Instant::now()),
            Err(error) => tracing::error!(%error, "that the process did not run could not be recorded"),
        }
    }
}

/// The ledger's last entry about the wall clock.
#[derive(Debug, Default)]
pub struct ClockWatch {
    /// That the ledger is not ahead of the clock was looked at.
    is_started: bool,
    told: Option<ClockStep>,
    /// Adopted, and the timers are still to be moved.
    owed: Option<i64>,
    /// The mark in the store.
    kept: Option<ClockMark>,
}

impl ClockWatch {
    /// Looks for a step while the engine was down, and moves the waits before anything looks at them. A store that does
    /// not answer is tried again by `pass`.
    pub async fn begin(parts: &EngineParts) -> ClockWatch {
        let mut clock = ClockWatch::default();
        if let Err(error) = clock.pass(parts).await {
            tracing::error!(%error, "whether the machine's clock was set while the engine was down is not known; trying again in a second");
        }
        clock
    }

    /// Looks once.
    ///
    /// # Errors
    ///
    /// The store did not take an entry or the moved timers; the next pass tries again.
    pub async fn pass(&mut self, parts: &EngineParts) -> Result<(), StoreError> {
        if !self.is_started {
            self.start(parts).await?;
        }
        if let Some(by) = self.owed {
            self.shift(parts, by, "", parts.clock.now()).await?;
        }
        let step = parts.clock.step();
        match (self.told, step) {
            (told, Some(step)) if told.is_none_or(|told| is_another(told, step)) => {
                let wall = parts.clock.wall();
                let text = format!(
                    "the machine's clock was set {}: it shows {wall}; the engine keeps its own time, and follows if this lasts \
                     for {}; check the time service of this machine",
                    spoken(step.by),
                    Span(limits::CLOCK_SETTLE)
                );
                note(parts, text).await?;
                self.told = Some(step);
            }
            (Some(told), None) => {
                let text = format!("the machine's clock is right again; it was set {}", spoken(told.by));
                note(parts, text).await?;
                self.told = None;
            }
            (Some(_), Some(step)) if parts.clock.monotonic() >= step.since + limits::CLOCK_SETTLE => {
                self.adopt(parts, step).await?;
            }
            _ => {}
        }
        self.keep(parts).await
    }

    /// Keeps the offset of the engine's time where it has changed by more than a start accepts as no step.
    async fn keep(&mut self, parts: &EngineParts) -> Result<(), StoreError> {
        let Some(boot) = parts.clock.boot() else { return Ok(()) };
        let mark = ClockMark { boot, offset: parts.clock.offset(), running: micros(parts.clock.monotonic()) };
        let tolerated = micros(limits::CLOCK_STEP) / 4;
        let is_kept = |kept: ClockMark| kept.boot == boot && (kept.offset - mark.offset).abs() <= tolerated;
        if !self.kept.is_some_and(is_kept) {
            parts.store.keep_clock_mark(mark).await?;
            self.kept = Some(mark);
        }
        Ok(())
    }

    /// Forward the timers go first, backward the clock: in between they are late for a moment, and never early.
    async fn adopt(&mut self, parts: &EngineParts, step: ClockStep) -> Result<(), StoreError> {
        if step.by > 0 {
            // It comes before the clock: the entry has the time that holds from now on.
            let now = parts.clock.now();
            let after = Time::from_microsecond(now.as_microsecond().saturating_add(step.by)).unwrap_or(now);
            self.shift(parts, step.by, "", after).await?;
            parts.clock.adopt(step);
        } else {
            parts.clock.adopt(step);
            self.told = None;
            self.owed = Some(step.by);
            self.shift(parts, step.by, "", parts.clock.now()).await?;
        }
        self.told = None;
        parts.nudge.nudge();
        Ok(())
    }

    /// `when` is empty, or tells when the clock was set.
    async fn shift(&mut self, parts: &EngineParts, by: i64, when: &str, at: Time) -> Result<(), StoreError> {
        let text = format!(
            "the engine follows the machine's clock, which was set {}{when}: all timers are moved with it",
            spoken(by)
        );
        tracing::warn!(text, "clock step");
        let rows = parts.store.shift_timers(by, text, at).await?;
        tracing::info!(rows, "timers were moved");
        (self.owed, self.kept) = (None, None);
        parts.nudge.nudge();
        Ok(())
    }

    /// The change of the clock while the engine was down. Without a mark of this boot: the last life wrote entries that
    /// lie ahead of the clock, so it was set back, by that at least.
    async fn start(&mut self, parts: &EngineParts) -> Result<(), StoreError> {
        let (mark, running) = (parts.store.clock_mark().await?, micros(parts.clock.monotonic()));
        // A sandbox may have a running clock of its own under one boot id: then it has run for less than before.
        let mark = mark.filter(|mark| parts.clock.boot() == Some(mark.boot) && mark.running <= running);
        let by = match mark {
            Some(mark) if !planted("step-while-down-is-downtime") => parts.clock.offset().saturating_sub(mark.offset),
            _ => {
                let last = last_before(parts).await?.map_or(i64::MIN, Time::as_microsecond);
                parts.clock.now().as_microsecond().saturating_sub(last).min(0)
            }
        };
        if by.saturating_abs() > micros(limits::CLOCK_STEP) {
            self.shift(parts, by, " while the engine was down", parts.clock.now()).await?;
        }
        self.is_started = true;
        Ok(())
    }
}

/// The time of the newest entry before this start.
async fn last_before(parts: &EngineParts) -> Result<Option<Time>, StoreError> {
    let filter = Filter { kinds: vec!["started"], limit: 1, ..Filter::default() };
    let started = parts.store.entries(filter).await?;
    let Some(started) = started.first() else { return Ok(None) };
    let filter = Filter { after: Some(started.no.0 - 2), limit: 1, ..Filter::default() };
    let before = parts.store.entries(filter).await?;
    Ok(before.first().filter(|entry| entry.no < started.no).map(|entry| entry.at))
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// A step after the one that was reported; a clock that runs wild is reported once a minute.
fn is_another(told: ClockStep, step: ClockStep) -> bool {
    step.since >= told.since + limits::CLOCK_TOLD_EVERY
}

async fn note(parts: &EngineParts, text: String) -> Result<(), StoreError> {
    tracing::warn!(text, "the time on this machine");
    let entry = EntryKind::Trouble { text };
    parts.store.note(Actor::engine(), EntryLinks::default(), entry, parts.clock.now()).await.map(drop)
}

/// `3600 s back`, for users.
fn spoken(by: i64) -> String {
    let span = Span(Duration::from_secs(by.unsigned_abs() / 1_000_000));
    format!("{span} {}", if by < 0 { "back" } else { "forward" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_wakes_seconds_late_was_a_process_that_did_not_run() {
        let mut pauses = PauseDetector::default();
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert_eq!(pauses.look(at(0)), None);
        assert_eq!(pauses.look(at(1_000)), None);
        assert_eq!(pauses.look(at(3_900)), None, "a busy machine is late by a second or two");
        assert_eq!(pauses.look(at(34_900)), Some(Duration::from_secs(30)));
        assert_eq!(pauses.look(at(35_900)), None);
    }
}
