//! Storms: beyond so many new incidents a minute, a channel gets one digest that is edited, not a message each.
//!
//! Invariant: each incident has a message or is counted in a digest, never neither.

use super::{DispatchCounts, NotificationDispatcher, SortedNotices};
use crate::limits::{CRITICAL_IN_STORM, DIGEST_ITEMS, DIGEST_PACE, NOTICES_PER_MINUTE, READ_LIMIT};
use crate::model::{
    ApprovalId, DeliveryReceipt, DeliveryResult, DigestItem, Incident, IncidentDigest, IncidentId, IncidentState,
    RunState, Severity, Time,
};
use crate::notifiers::{Notifier, one_line};
use crate::store::{DeliveryOutcome, DueNotice, Filter};
use futures::StreamExt;
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Incidents read together for a digest.
const READS_AT_ONCE: usize = 64;

const MINUTE: Duration = Duration::from_secs(60);

/// The recent messages on a channel, and the digest that is open on it.
#[derive(Default)]
pub(super) struct ChannelStorm {
    /// When new incidents were last sent, in messages or digests; only as many as matter.
    told: VecDeque<Time>,
    /// When critical incidents had a message of their own in spite of a storm, by source.
    critical: HashMap<String, VecDeque<Time>>,
    open: Option<OpenDigest>,
}

/// Kept in memory alone: after a restart a storm that goes on has a new digest.
#[derive(Clone)]
struct OpenDigest {
    /// When the first of its incidents opened.
    since: Time,
    edited: Time,
    /// All of the storm, `own` included.
    total: usize,
    /// Those that were posted in messages of their own before it was one.
    own: usize,
    resolved: usize,
    worst: Severity,
    shown: Vec<DigestItem>,
    receipt: Option<DeliveryReceipt>,
}

impl ChannelStorm {
    /// Records a message that was sent now.
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

    /// Whether a critical incident of this source has a message of its own although a digest is open: a few of each source do, so
    /// that the flood of one never hides the outage that another one reports.
    fn admits_critical(&mut self, source: &str, now: Time) -> bool {
        self.critical.retain(|_, times| {
            times.retain(|at| *at <= now && now < *at + MINUTE);
            !times.is_empty()
        });
        let times = self.critical.entry(source.to_owned()).or_default();
        let admitted = times.len() < CRITICAL_IN_STORM;
        if admitted {
            times.push_back(now);
        }
        admitted
    }

    /// When the channel has had a quiet enough minute.
    fn ends(&self) -> Option<Time> {
        self.open.as_ref().map(|open| self.told.back().map_or(open.edited, |last| *last + MINUTE))
    }
}

/// Rows in the order in which channels are notified: the gravest first, and of equals one of each source after the other.
fn fairly(rows: Vec<DueNotice>) -> Vec<DueNotice> {
    let mut turns: HashMap<(Severity, String), usize> = HashMap::new();
    let mut placed: Vec<(std::cmp::Reverse<Severity>, usize, DueNotice)> = rows
        .into_iter()
        .map(|row| {
            let turn = turns.entry((row.severity, row.source.clone())).or_default();
            *turn += 1;
            (std::cmp::Reverse(row.severity), *turn, row)
        })
        .collect();
    placed.sort_by_key(|(severity, turn, _)| (*severity, *turn));
    placed.into_iter().map(|(.., row)| row).collect()
}

/// The receipt of an incident that only a digest has named.
pub(super) fn receipt() -> DeliveryReceipt {
    DeliveryReceipt(json!({ "digest": true }))
}

pub(super) fn is_digest(receipt: &DeliveryReceipt) -> bool {
    receipt.0.get("digest") == Some(&json!(true))
}

impl NotificationDispatcher {
    /// How each row of a channel is to be sent.
    pub(super) fn sort(&self, channel: &str, rows: Vec<DueNotice>) -> SortedNotices {
        let now = self.clock.now();
        let mut storms = self.storms();
        let storm = storms.entry(channel.to_owned()).or_default();
        let mut allowance = if storm.open.is_some() { 0 } else { storm.allowance(now) };
        let mut sorted = SortedNotices::default();
        for row in fairly(rows) {
            let known = row.receipt.as_ref().is_some_and(|receipt| !is_digest(receipt));
            let only_digest = row.receipt.as_ref().is_some_and(is_digest);
            if known || row.alone {
                sorted.single.push(row);
            } else if allowance > 0 {
                allowance -= 1;
                sorted.single.push(row);
            } else if !only_digest
                && row.severity == Severity::Critical
                && !row.source.is_empty()
                && storm.admits_critical(&row.source, now)
            {
                sorted.admitted.insert(row.incident);
                sorted.single.push(row);
            } else if only_digest && !row.urgent {
                sorted.waiting.push(row);
            } else {
                sorted.stormy.push(row);
            }
        }
        sorted
    }

    /// The rows from this one on were to have a message of their own, and have none yet: what was used for them of that which their
    /// source may have in a storm is free again.
    pub(super) fn not_said(&self, channel: &str, sorted: &SortedNotices, from: &DueNotice) {
        let mut storms = self.storms();
        let Some(storm) = storms.get_mut(channel) else { return };
        let rest = sorted.single.iter().skip_while(|other| *other != from);
        for row in rest.filter(|row| sorted.admitted.contains(&row.incident)) {
            storm.critical.get_mut(&row.source).and_then(VecDeque::pop_back);
        }
    }

    /// Tells many new incidents in the channel's one digest.
    pub(super) async fn in_digest(
        &self,
        channel: &str,
        notifier: &dyn Notifier,
        rows: &[DueNotice],
        passed: &mut DispatchCounts,
    ) {
        if rows.is_empty() {
            return;
        }
        let refs: Vec<&DueNotice> = rows.iter().collect();
        let now = self.clock.now();
        let before = self.storms().entry(channel.to_owned()).or_default().open.clone();
        let next = before.as_ref().map_or(now, |open| (open.edited + DIGEST_PACE).min(now + DIGEST_PACE));
        if next > now {
            passed.waiting += rows.len();
            self.record_all(&refs, |row| DeliveryOutcome::Later { upto: row.want, at: next }).await;
            return;
        }
        self.record_all(&refs, |_| DeliveryOutcome::Sending).await;
        passed.repeats += rows.iter().filter(|row| row.maybe_sent).count();
        let own = self.storms().get(channel).map_or(0, |storm| storm.told.len());
        let empty = OpenDigest {
            since: now,
            edited: now,
            total: own,
            own,
            resolved: 0,
            worst: Severity::Info,
            shown: Vec::new(),
            receipt: None,
        };
        let mut open = before.unwrap_or(empty);
        self.take_in(&mut open, rows).await;
        let delivery = self.in_time(notifier.digest(&self.edition(&open, false), open.receipt.as_ref())).await;
        self.count(notifier, &delivery);
        match delivery {
            DeliveryResult::Delivered(_) | DeliveryResult::Nothing(_) => {
                let answered = matches!(delivery, DeliveryResult::Delivered(_));
                if let DeliveryResult::Delivered(given) | DeliveryResult::Nothing(Some(given)) = delivery {
                    open.receipt = Some(given);
                }
                open.edited = now;
                if answered {
                    self.answered(channel);
                    passed.sent += 1;
                }
                tracing::warn!(%channel, total = open.total, "alert storm; new incidents go into one digest message");
                {
                    let mut storms = self.storms();
                    let storm = storms.entry(channel.to_owned()).or_default();
                    rows.iter().take(NOTICES_PER_MINUTE).for_each(|_| storm.told(now));
                    storm.open = Some(open);
                }
                passed.digested += rows.len();
                let taken = |row: &DueNotice| match answered {
                    true => DeliveryOutcome::Delivered { upto: row.want, receipt: receipt() },
                    false => DeliveryOutcome::Nothing { upto: row.want, receipt: Some(receipt()) },
                };
                self.record_all(&refs, taken).await;
            }
            DeliveryResult::Retry { after, why } => {
                passed.retried += rows.len();
                let at = self.failed(channel, &why, after);
                self.postpone(&refs, &why, at).await;
            }
            DeliveryResult::Refused { why } => {
                self.answered(channel);
                passed.refused += rows.len();
                self.record_all(&refs, |row| DeliveryOutcome::Refused { upto: row.want, why: why.clone() }).await;
            }
        }
    }

    /// Counts the incidents of the rows, and names the worst ones.
    async fn take_in(&self, open: &mut OpenDigest, rows: &[DueNotice]) {
        let asking = self.asking().await;
        let mut reads = Vec::with_capacity(rows.len());
        for row in rows {
            reads.push(self.incident(row));
        }
        let mut incidents = futures::stream::iter(reads).buffered(READS_AT_ONCE).zip(futures::stream::iter(rows));
        while let Some((found, row)) = incidents.next().await {
            // One that the digest has counted comes again when it has a question.
            let again = open.receipt.is_some() && row.receipt.as_ref().is_some_and(is_digest);
            if !again {
                open.total += 1;
            }
            // One that cannot be read is counted all the same.
            let Ok(Some(incident)) = found else { continue };
            if again {
                let its = [format!("({}, ", incident.id), format!("({})", incident.id)];
                open.shown.retain(|item| !its.iter().any(|its| item.line.contains(its)));
            }
            open.worst = open.worst.max(incident.severity);
            open.since = open.since.min(incident.opened_at);
            if incident.state == IncidentState::Resolved {
                // Counted, but not listed for attention.
                open.resolved += 1;
                continue;
            }
            let asks = asking.get(&incident.id).map_or(String::new(), |id| format!("{ASKS} {id} "));
            open.shown.push(DigestItem {
                title: one_line(&incident.title, 200),
                severity: incident.severity,
                line: one_line(&format!("{asks}{}", place_of(&incident)), 200),
            });
            if open.shown.len() > 4 * DIGEST_ITEMS {
                keep_worst(&mut open.shown);
            }
        }
        keep_worst(&mut open.shown);
    }

    /// Incidents with an open question: named first, as no other message has it before the storm is over.
    async fn asking(&self) -> HashMap<IncidentId, ApprovalId> {
        let filter = Filter { open: true, limit: READ_LIMIT, ..Filter::default() };
        let runs = self.views.runs(filter).await.unwrap_or_default();
        let asking = runs.into_iter().filter_map(|run| match (run.incident, run.state) {
            (Some(incident), RunState::Asking { approval }) => Some((incident, approval)),
            _ => None,
        });
        asking.collect()
    }

    /// News of incidents that only the digest has named wait until it is over.
    pub(super) async fn wait_for_the_storm(&self, channel: &str, rows: &[DueNotice], passed: &mut DispatchCounts) {
        if rows.is_empty() {
            return;
        }
        let now = self.clock.now();
        let end = self
            .storms()
            .get(channel)
            .and_then(ChannelStorm::ends)
            .unwrap_or(now + MINUTE)
            .clamp(now + MINUTE / 12, now + 2 * MINUTE);
        passed.waiting += rows.len();
        let refs: Vec<&DueNotice> = rows.iter().collect();
        self.record_all(&refs, |row| DeliveryOutcome::Later { upto: row.want, at: end }).await;
    }

    /// The channels whose storm is over: a minute has passed without new incidents, or the clock was set back over it.
    pub(super) fn storms_over(&self) -> Vec<String> {
        let now = self.clock.now();
        self.ends()
            .into_iter()
            .filter(|(_, end)| *end <= now || *end > now + 2 * MINUTE)
            .map(|(channel, _)| channel)
            .collect()
    }

    /// Ends the storm on one of them, in the last edition of its digest.
    pub(super) async fn end_storm(&self, channel: String) -> (String, DispatchCounts) {
        let mut passed = DispatchCounts::default();
        let open = self.storms().get_mut(&channel).and_then(|storm| storm.open.take());
        let (Some(open), Some(notifier)) = (open, self.notifier(&channel)) else { return (channel, passed) };
        let delivery = self.in_time(notifier.digest(&self.edition(&open, true), open.receipt.as_ref())).await;
        self.count(notifier, &delivery);
        match delivery {
            DeliveryResult::Delivered(_) | DeliveryResult::Nothing(_) => {
                if let DeliveryResult::Delivered(_) = delivery {
                    passed.sent += 1;
                    self.answered(&channel);
                }
                tracing::info!(%channel, total = open.total, "alert storm over");
            }
            DeliveryResult::Retry { after, why } => {
                passed.retried += 1;
                let again = self.failed(&channel, &why, after);
                tracing::warn!(%channel, %why, %again, "the last update of the digest is not delivered yet");
                self.storms().entry(channel.clone()).or_default().open = Some(open);
            }
            // Only the last words are missing; every incident is counted in the edition before.
            DeliveryResult::Refused { why } => {
                tracing::warn!(%channel, %why, "the last update of the digest was not delivered");
            }
        }
        (channel, passed)
    }

    pub(super) fn next_storm_end(&self) -> Option<Time> {
        self.ends().into_iter().map(|(_, end)| end).min()
    }

    /// When each open storm ends, so that its channel can be notified.
    fn ends(&self) -> Vec<(String, Time)> {
        let ends: Vec<(String, Time)> = {
            let storms = self.storms();
            storms.iter().filter_map(|(channel, storm)| Some((channel.clone(), storm.ends()?))).collect()
        };
        let open = |(channel, end): (String, Time)| {
            let end = self.shut(&channel).map_or(end, |(_, until)| end.max(until));
            (channel, end)
        };
        ends.into_iter().map(open).collect()
    }
}

impl NotificationDispatcher {
    fn edition(&self, open: &OpenDigest, over: bool) -> IncidentDigest {
        let (total, own, resolved) = (open.total, open.own, open.resolved);
        let asking = open.shown.iter().filter(|item| item.line.starts_with(ASKS)).count();
        let link = self.public_url.as_ref().map(|url| format!("{url}/"));
        IncidentDigest {
            total,
            own,
            asking,
            resolved,
            worst: open.worst,
            shown: open.shown.clone(),
            since: open.since,
            over,
            link,
        }
    }
}

fn place_of(incident: &Incident) -> String {
    match incident.subject.words().as_str() {
        "" => format!("({})", incident.id),
        words => format!("({}, {words})", incident.id),
    }
}

/// How the line of an incident begins that waits for an answer.
const ASKS: &str = "needs an answer: nightshift approve";

/// Questions first, then the worst; among equals the earlier one stays, so that an edited digest does not reshuffle.
fn keep_worst(shown: &mut Vec<DigestItem>) {
    shown.sort_by_key(|item| std::cmp::Reverse((item.line.starts_with(ASKS), item.severity)));
    shown.truncate(DIGEST_ITEMS);
}
