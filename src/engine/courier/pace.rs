//! When a channel may be sent to: after a failure not before its time, and messages that can wait in turn, within the
//! vendor's rate limit.
//!
//! Invariant: a failure of one row shuts the channel for all of them, new ones too; a first message and a question
//! never wait for a turn.

use super::NotificationDispatcher;
use crate::limits::{
    BACKOFF_FIRST, DELIVERY_BACKOFF_MAX, GROUP_COMMIT_OPS, RETRY_AFTER_MAX, TURNS_AHEAD_MAX, TURNS_DEBT_MAX,
};
use crate::model::Time;
use crate::notifiers::ChannelRateLimit;
use crate::policy::backoff;
use crate::store::{DeliveryOutcome, DueNotice};
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The state of the channels, in memory alone: a start tries once.
#[derive(Default)]
pub(super) struct ChannelLimiter(Mutex<ChannelStates>);

#[derive(Default)]
struct ChannelStates {
    /// By channel.
    shut: HashMap<String, ChannelBackoff>,
    /// By the key that shares one rate limit.
    turns: HashMap<String, VendorTurns>,
}

/// A channel that did not take the last one.
struct ChannelBackoff {
    why: String,
    until: Time,
    failures: u32,
}

/// Turns at one vendor.
#[derive(Debug, Clone, Copy)]
struct VendorTurns {
    /// When everything that was sent would have been sent at an even rate.
    even: Time,
    /// The first free turn.
    next: Time,
}

impl VendorTurns {
    /// None: now. Otherwise when. Urgent messages go now, and the others wait the longer.
    fn take(&mut self, pace: &ChannelRateLimit, urgent: bool, now: Time) -> Option<Time> {
        // Neither a debt nor a clock that was set back keeps a channel silent for long.
        self.even = self.even.min(now + TURNS_DEBT_MAX);
        let ahead = pace.every * pace.burst.saturating_sub(1);
        if urgent || self.even <= now + ahead {
            self.even = self.even.max(now) + pace.every;
            return None;
        }
        let first = self.even - ahead;
        let at = if self.next > now + TURNS_AHEAD_MAX { first } else { self.next.max(first) };
        self.next = at + pace.every;
        Some(at)
    }
}

impl ChannelLimiter {
    fn with<T>(&self, look: impl FnOnce(&mut ChannelStates) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl NotificationDispatcher {
    /// Why this channel is not tried now, and when it will be.
    pub(super) fn shut(&self, channel: &str) -> Option<(String, Time)> {
        let now = self.clock.now();
        self.ways.with(|known| {
            let shut = known.shut.get(channel)?;
            // A time beyond the longest allowed wait comes from a clock that was set back.
            let holds = shut.until > now && shut.until <= now + RETRY_AFTER_MAX + DELIVERY_BACKOFF_MAX;
            holds.then(|| (shut.why.clone(), shut.until))
        })
    }

    /// The channel did not take one: returns when it is tried again, after the vendor's own wait, or longer and longer.
    pub(super) fn failed(&self, channel: &str, why: &str, after: Option<Duration>) -> Time {
        let now = self.clock.now();
        let seed = channel.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        self.ways.with(|known| {
            let failures = known.shut.get(channel).map_or(0, |shut| shut.failures).saturating_add(1);
            let wait = backoff(failures, BACKOFF_FIRST, DELIVERY_BACKOFF_MAX, seed);
            let until = now + after.unwrap_or_default().min(RETRY_AFTER_MAX).max(wait);
            known.shut.insert(channel.to_owned(), ChannelBackoff { why: why.to_owned(), until, failures });
            until
        })
    }

    /// It answers again.
    pub(super) fn answered(&self, channel: &str) {
        self.ways.with(|known| known.shut.remove(channel));
    }

    /// None: it may be sent now. Otherwise when its turn comes.
    pub(super) fn turn(&self, pace: &ChannelRateLimit, urgent: bool) -> Option<Time> {
        let now = self.clock.now();
        self.ways.with(|known| {
            let turns = known.turns.entry(pace.key.clone()).or_insert(VendorTurns { even: now, next: now });
            turns.take(pace, urgent, now)
        })
    }

    /// When the row that failed is tried again: behind the others, so that one that fails alone delays no other.
    pub(super) fn again(&self, row: &DueNotice, channel_at: Time) -> Time {
        let seed = row.incident.0.unsigned_abs();
        let wait = backoff(row.attempts.saturating_add(1), BACKOFF_FIRST, DELIVERY_BACKOFF_MAX, seed);
        (channel_at + Duration::from_millis(1)).max(self.clock.now() + wait)
    }

    pub(super) async fn postpone(&self, rows: &[&DueNotice], why: &str, at: Time) {
        self.record_all(rows, |_| DeliveryOutcome::Retry { why: why.to_owned(), at }).await;
    }

    /// Writes of many rows together, so that they share commits.
    pub(super) async fn record_all(&self, rows: &[&DueNotice], what: impl Fn(&DueNotice) -> DeliveryOutcome) {
        let mut writes = Vec::with_capacity(rows.len());
        for row in rows {
            writes.push(self.record(row, what(row)));
        }
        futures::stream::iter(writes).buffer_unordered(GROUP_COMMIT_OPS).for_each(|_| std::future::ready(())).await;
    }

    /// Whether it is written. If not, the row stays due and is looked at again.
    pub(super) async fn record(&self, row: &DueNotice, what: DeliveryOutcome) -> bool {
        let written = self.outbox.receipted(&row.channel, row.incident, what, self.clock.now()).await;
        if let Err(error) = &written {
            tracing::error!(%error, incident = %row.incident, channel = %row.channel, "cannot record a delivery");
        }
        written.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> ChannelRateLimit {
        ChannelRateLimit { key: "x".to_owned(), every: Duration::from_secs(2), burst: 5 }
    }

    #[test]
    fn a_burst_goes_at_once_the_rest_in_turn_and_no_minute_has_more_than_burst_and_pace() {
        let start: Time = "2026-11-23T03:00:00Z".parse().unwrap();
        let mut turns = VendorTurns { even: start, next: start };
        let mut waiting: Vec<Time> = vec![start; 200];
        let mut said = Vec::new();
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            for at in waiting.iter_mut().filter(|at| **at <= now) {
                match turns.take(&pace(), false, now) {
                    None => {
                        said.push(now);
                        *at = start + Duration::from_secs(1_000_000);
                    }
                    Some(later) => *at = later,
                }
            }
        }
        assert_eq!(said.len(), 200, "everybody had a turn");
        assert_eq!(said.iter().filter(|at| **at == start).count(), 5);
        for (no, at) in said.iter().enumerate() {
            let within = said[no..].iter().take_while(|other| **other < *at + Duration::from_secs(60)).count();
            assert!(within <= 5 + 30, "{within} in a minute");
        }
    }

    #[test]
    fn what_is_urgent_goes_now_and_a_clock_that_was_set_back_silences_nobody() {
        let start: Time = "2026-11-23T03:00:00Z".parse().unwrap();
        let mut turns = VendorTurns { even: start, next: start };
        assert!((0..1_000).all(|_| turns.take(&pace(), true, start).is_none()));
        assert!(turns.take(&pace(), false, start).is_some());
        assert_eq!(turns.take(&pace(), false, start + TURNS_DEBT_MAX + Duration::from_secs(2)), None);
        let hour_before = start - Duration::from_secs(3_600);
        let at = turns.take(&pace(), false, hour_before).unwrap();
        assert!(at <= hour_before + TURNS_DEBT_MAX, "{at}");
    }
}
