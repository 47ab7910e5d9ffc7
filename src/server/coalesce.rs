//! Word-for-word repeats of a Prometheus that posts to us directly: it sends everything again each minute.
//!
//! Invariant: only committed events are remembered, and only for `REPEAT_WINDOW`; forgetting is always safe.

use crate::limits;
use crate::model::{Event, Time};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Recent events: (source, fingerprint) → (everything in the event, when).
#[derive(Default)]
pub(super) struct RepeatFilter {
    seen: Mutex<RecentEvents>,
    hasher: RandomState,
}

#[derive(Default)]
struct RecentEvents {
    said: HashMap<u64, (u64, Time)>,
    /// When expired events were last removed: when it is full of fresh ones, not at each request.
    cleared: Option<Time>,
}

/// Looking through everything costs as much as storing some hundred events.
const CLEAR_EVERY: Duration = Duration::from_secs(10);

impl RepeatFilter {
    /// The events that are new, or were stored too long ago.
    pub fn fresh(&self, events: Vec<Event>, now: Time) -> Vec<Event> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut here = HashSet::new();
        let is_new = |event: &Event| {
            let (key, words) = (self.key(event), self.words(event));
            here.insert((key, words))
                && seen.said.get(&key).is_none_or(|(said, at)| *said != words || expired(*at, now))
        };
        events.into_iter().filter(is_new).collect()
    }

    /// Call after the commit.
    pub fn remember(&self, said: &[(u64, u64)], now: Time) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back must not put it off.
        let due = seen.cleared.is_none_or(|cleared| now >= cleared + CLEAR_EVERY || now < cleared);
        if due && seen.said.len() + said.len() > limits::REPEATS {
            seen.said.retain(|_, (_, at)| !expired(*at, now));
            seen.cleared = Some(now);
        }
        for (key, words) in said {
            if seen.said.len() < limits::REPEATS || seen.said.contains_key(key) {
                seen.said.insert(*key, (*words, now));
            }
        }
    }

    /// Another endpoint has stored one of these events, so Prometheus' repeat may be news again.
    pub fn forget(&self, events: &[Event]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.said.is_empty() {
            for event in events {
                seen.said.remove(&self.key(event));
            }
        }
    }

    /// The keys for `remember` of events that are about to be stored.
    pub fn mark(&self, events: &[Event]) -> Vec<(u64, u64)> {
        events.iter().map(|event| (self.key(event), self.words(event))).collect()
    }

    fn key(&self, event: &Event) -> u64 {
        self.hasher.hash_one((&event.source, &event.fingerprint))
    }

    fn words(&self, event: &Event) -> u64 {
        self.hasher.hash_one((event.status, event.starts_at, event.ends_at, &event.labels, &event.annotations))
    }
}

fn expired(at: Time, now: Time) -> bool {
    let age = now.as_microsecond() - at.as_microsecond();
    age < 0 || age.unsigned_abs() >= limits::REPEAT_WINDOW.0.as_micros() as u64
}
