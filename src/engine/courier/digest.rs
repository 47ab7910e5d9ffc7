//! Storms: beyond so many new incidents a minute, a channel gets one digest that is edited, not a message each.
//!
//! Invariant: each incident is told in a message or counted in a digest, never neither.

use super::{Courier, Passed, Sorted};
use crate::limits::{DIGEST_ITEMS, NOTICES_PER_MINUTE};
use crate::model::{Delivery, Digest, DigestItem, Receipt, Severity, Time};
use crate::notifiers::Notifier;
use crate::store::{DueNotice, Receipted};
use futures::StreamExt;
use serde_json::json;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// What a channel was told lately, and the digest that is open on it.
#[derive(Default)]
pub(super) struct Storm {
    /// When new incidents were last told, in messages or digests; only as many as matter.
    told: VecDeque<Time>,
    open: Option<Open>,
}

/// Kept in memory alone: after a restart a storm that goes on has a new digest.
#[derive(Clone)]
struct Open {
    since: Time,
    total: usize,
    worst: Severity,
    shown: Vec<DigestItem>,
    receipt: Option<Receipt>,
}

impl Storm {
    pub fn told(&mut self, now: Time) {
        self.told.push_back(now);
        while self.told.len() > NOTICES_PER_MINUTE {
            self.told.pop_front();
        }
    }

    /// New incidents that may have a message of their own now.
    fn allowance(&mut self, now: Time) -> usize {
        while self.told.front().is_some_and(|at| *at + MINUTE <= now) {
            self.told.pop_front();
        }
        // A clock that was set back must not silence the channel.
        self.told.retain(|at| *at <= now);
        NOTICES_PER_MINUTE.saturating_sub(self.told.len())
    }

    /// When the channel has had a quiet enough minute.
    fn ends(&self) -> Option<Time> {
        self.open.as_ref().map(|open| self.told.back().map_or(open.since, |last| *last + MINUTE))
    }
}

/// The receipt of an incident that only a digest has told.
pub(super) fn receipt() -> Receipt {
    Receipt(json!({ "digest": true }))
}

pub(super) fn is_digest(receipt: &Receipt) -> bool {
    receipt.0.get("digest") == Some(&json!(true))
}

impl Courier {
    /// How each row of a channel is to be told.
    pub(super) fn sort(&self, channel: &str, rows: Vec<DueNotice>) -> Sorted {
        let now = self.clock.now();
        let mut storms = self.storms();
        let storm = storms.entry(channel.to_owned()).or_default();
        let mut allowance = if storm.open.is_some() { 0 } else { storm.allowance(now) };
        let mut sorted = Sorted::default();
        for row in rows {
            let known = row.receipt.as_ref().is_some_and(|receipt| !is_digest(receipt));
            let only_digest = row.receipt.as_ref().is_some_and(is_digest);
            if known {
                sorted.single.push(row);
            } else if allowance > 0 {
                allowance -= 1;
                sorted.single.push(row);
            } else if only_digest {
                sorted.waiting.push(row);
            } else {
                sorted.stormy.push(row);
            }
        }
        sorted
    }

    /// Tells many new incidents in the channel's one digest.
    pub(super) async fn in_digest(
        &self,
        channel: &str,
        notifier: &dyn Notifier,
        rows: &[DueNotice],
        passed: &mut Passed,
    ) {
        if rows.is_empty() {
            return;
        }
        let refs: Vec<&DueNotice> = rows.iter().collect();
        self.all(&refs, |row| {
            let row = row.clone();
            async move { self.record(&row, Receipted::Sending).await }
        })
        .await;
        passed.repeats += rows.iter().filter(|row| row.maybe_sent).count();
        let now = self.clock.now();
        let before = self.storms().entry(channel.to_owned()).or_default().open.clone();
        let mut open =
            before.unwrap_or(Open { since: now, total: 0, worst: Severity::Info, shown: Vec::new(), receipt: None });
        self.take_in(&mut open, rows).await;
        let delivery = self.in_time(notifier.digest(&edition(&open, false), open.receipt.as_ref())).await;
        match delivery {
            Delivery::Delivered(given) => {
                open.receipt = Some(given);
                tracing::warn!(%channel, total = open.total, "a storm: incidents are told in a digest");
                {
                    let mut storms = self.storms();
                    let storm = storms.entry(channel.to_owned()).or_default();
                    rows.iter().take(NOTICES_PER_MINUTE).for_each(|_| storm.told(now));
                    storm.open = Some(open);
                }
                passed.sent += 1;
                passed.digested += rows.len();
                self.all(&refs, |row| {
                    let row = row.clone();
                    async move { self.record(&row, Receipted::Delivered { upto: row.want, receipt: receipt() }).await }
                })
                .await;
            }
            Delivery::Retry { after, why } => {
                passed.retried += rows.len();
                self.postpone(&refs, &why, self.again(&rows[0], after)).await;
            }
            Delivery::Refused { why } => {
                passed.refused += rows.len();
                self.all(&refs, |row| {
                    let (row, why) = (row.clone(), why.clone());
                    async move { self.record(&row, Receipted::Refused { upto: row.want, why }).await }
                })
                .await;
            }
        }
    }

    /// Counts the incidents of the rows, and names the worst ones.
    async fn take_in(&self, open: &mut Open, rows: &[DueNotice]) {
        let mut incidents = futures::stream::iter(rows.iter().map(|row| self.incident(row))).buffered(64);
        while let Some(found) = incidents.next().await {
            open.total += 1;
            // One that cannot be read is counted all the same.
            let Ok(Some(incident)) = found else { continue };
            open.worst = open.worst.max(incident.severity);
            open.shown.push(DigestItem {
                title: crate::notifiers::one_line(&incident.title, 200),
                severity: incident.severity,
                line: crate::notifiers::one_line(&format!("{} {}", incident.id, incident.subject), 200),
            });
            if open.shown.len() > 4 * DIGEST_ITEMS {
                keep_worst(&mut open.shown);
            }
        }
        keep_worst(&mut open.shown);
    }

    /// News of incidents that only the digest has told wait until it is over.
    pub(super) async fn wait_for_the_storm(&self, channel: &str, rows: &[DueNotice], passed: &mut Passed) {
        if rows.is_empty() {
            return;
        }
        let now = self.clock.now();
        let end = self.storms().get(channel).and_then(Storm::ends).unwrap_or(now + MINUTE).max(now + MINUTE / 12);
        passed.retried += rows.len();
        let refs: Vec<&DueNotice> = rows.iter().collect();
        self.postpone(&refs, "told in the digest; more when the storm is over", end).await;
    }

    /// Says on each channel that its storm is over, where a minute has passed without new incidents.
    pub(super) async fn end_storms(&self, busy: &HashSet<String>) {
        let now = self.clock.now();
        let over: Vec<(String, Open)> = {
            let mut storms = self.storms();
            let ready = storms
                .iter_mut()
                .filter(|(channel, storm)| !busy.contains(*channel) && storm.ends().is_some_and(|end| end <= now));
            ready.filter_map(|(channel, storm)| storm.open.take().map(|open| (channel.clone(), open))).collect()
        };
        for (channel, open) in over {
            let Some(notifier) = self.notifiers.get(&channel) else { continue };
            let said = self.in_time(notifier.digest(&edition(&open, true), open.receipt.as_ref())).await;
            match said {
                Delivery::Delivered(_) => tracing::info!(%channel, total = open.total, "the storm is over"),
                // Only the last words are missing; every incident is counted in the edition before.
                Delivery::Retry { why, .. } | Delivery::Refused { why } => {
                    tracing::warn!(%channel, %why, "the digest's last edition was not taken");
                }
            }
        }
    }

    pub(super) fn next_storm_end(&self) -> Option<Time> {
        self.storms().values().filter_map(Storm::ends).min()
    }
}

fn edition(open: &Open, over: bool) -> Digest {
    Digest { total: open.total, worst: open.worst, shown: open.shown.clone(), since: open.since, over }
}

/// Worst first; among equals the earlier one stays, so that an edited digest does not reshuffle.
fn keep_worst(shown: &mut Vec<DigestItem>) {
    shown.sort_by_key(|item| std::cmp::Reverse(item.severity));
    shown.truncate(DIGEST_ITEMS);
}
