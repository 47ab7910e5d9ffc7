//! Steps of the wall clock: each is an entry, and one that lasts moves the timers and then the engine's time.
//!
//! Invariant: between a step and its end nothing of the engine follows it; when the engine's time does, all that waits in
//! the store is moved by the same time, and before it where it would fire early.

use super::Parts;
use crate::clock::ClockStep;
use crate::limits;
use crate::model::{About, Actor, EntryKind, Span, Time};
use crate::store::{Filter, StoreError};
use std::time::Duration;
use tokio::sync::watch;

pub(super) async fn run(parts: Parts, mut shutdown: watch::Receiver<bool>) {
    let mut clock = ClockWatch::default();
    while !*shutdown.borrow() {
        if let Err(error) = clock.pass(&parts).await {
            tracing::error!(%error, "cannot record a step of the system clock; retrying in 1 s");
        }
        tokio::select! {
            () = parts.clock.sleep_for(limits::CLOCK_LOOK_EVERY) => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// What the ledger was told of the wall clock.
#[derive(Debug, Default)]
pub struct ClockWatch {
    /// That the ledger is not ahead of the clock was looked at.
    is_started: bool,
    told: Option<ClockStep>,
    /// Adopted, and the timers are still to be moved.
    owed: Option<i64>,
}

impl ClockWatch {
    /// Looks once.
    ///
    /// # Errors
    ///
    /// The store did not take an entry or the moved timers; the next pass tries again.
    pub async fn pass(&mut self, parts: &Parts) -> Result<(), StoreError> {
        if !self.is_started {
            self.start(parts).await?;
        }
        if let Some(by) = self.owed {
            self.shift(parts, by).await?;
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
        Ok(())
    }

    /// Forward the timers go first, backward the clock: in between they are late for a moment, and never early.
    async fn adopt(&mut self, parts: &Parts, step: ClockStep) -> Result<(), StoreError> {
        if step.by > 0 {
            self.shift(parts, step.by).await?;
            parts.clock.adopt(step);
        } else {
            parts.clock.adopt(step);
            self.told = None;
            self.owed = Some(step.by);
            self.shift(parts, step.by).await?;
        }
        self.told = None;
        parts.nudge.nudge();
        Ok(())
    }

    async fn shift(&mut self, parts: &Parts, by: i64) -> Result<(), StoreError> {
        let text = format!(
            "the engine follows the machine's clock, which was set {}: all timers are moved with it",
            spoken(by)
        );
        tracing::warn!(text, "clock step");
        // Forward it comes before the clock: the entry has the time that holds from now on.
        let now = parts.clock.now();
        let after = Time::from_microsecond(now.as_microsecond().saturating_add(by.max(0))).unwrap_or(now);
        let rows = parts.store.shift_timers(by, text, after).await?;
        tracing::info!(rows, "timers were moved");
        self.owed = None;
        parts.nudge.nudge();
        Ok(())
    }

    /// The last life of the engine wrote entries that lie ahead of the clock: it was set back meanwhile, by that at least.
    async fn start(&mut self, parts: &Parts) -> Result<(), StoreError> {
        let ahead = last_before(parts).await?.map_or(0, |at| at.as_microsecond() - parts.clock.now().as_microsecond());
        if ahead > i64::try_from(limits::CLOCK_STEP.as_micros()).unwrap_or(i64::MAX) {
            self.shift(parts, -ahead).await?;
        }
        self.is_started = true;
        Ok(())
    }
}

/// The time of the newest entry before this start.
async fn last_before(parts: &Parts) -> Result<Option<Time>, StoreError> {
    let filter = Filter { kinds: vec!["started"], limit: 1, ..Filter::default() };
    let started = parts.store.entries(filter).await?;
    let Some(started) = started.first() else { return Ok(None) };
    let filter = Filter { after: Some(started.no.0 - 2), limit: 1, ..Filter::default() };
    let before = parts.store.entries(filter).await?;
    Ok(before.first().filter(|entry| entry.no < started.no).map(|entry| entry.at))
}

/// A step after the one that was told; a clock that runs wild is told of once a minute.
fn is_another(told: ClockStep, step: ClockStep) -> bool {
    step.since >= told.since + limits::CLOCK_TOLD_EVERY
}

async fn note(parts: &Parts, text: String) -> Result<(), StoreError> {
    tracing::warn!(text, "clock step");
    let entry = EntryKind::Trouble { text };
    parts.store.note(Actor::engine(), About::default(), entry, parts.clock.now()).await.map(drop)
}

/// `3600 s back`, for people.
fn spoken(by: i64) -> String {
    let span = Span(Duration::from_secs(by.unsigned_abs() / 1_000_000));
    format!("{span} {}", if by < 0 { "back" } else { "forward" })
}
