//! A store that knows incidents and deliveries alone, and a channel that remembers what it was told.
//!
//! Invariant: it implements the two traits of the store that the courier takes, and no other.

use crate::clock::{Clock, SimClock};
use crate::model::*;
use crate::notifiers::Notifier;
use crate::store::*;
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
pub struct Shelf {
    pub rows: BTreeMap<(IncidentId, String), Row>,
    pub incidents: BTreeMap<IncidentId, Incident>,
    pub entries: Vec<Entry>,
    pub runs: Vec<Run>,
    pub approvals: Vec<Approval>,
    /// What was recorded, in order: (incident, channel, word).
    pub log: Vec<(IncidentId, String, &'static str)>,
    /// The next reading of what is due is handed over only then.
    pub slow_reader: Option<Arc<tokio::sync::Notify>>,
}

/// One row of the outbox.
#[derive(Clone)]
pub struct Row {
    pub due: DueNotice,
    pub done: EntryNo,
    pub at: Time,
}

#[derive(Default)]
pub struct FakeStore(pub Mutex<Shelf>);

impl FakeStore {
    pub fn with<T>(&self, change: impl FnOnce(&mut Shelf) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    /// A new incident that these channels should show.
    pub fn open(&self, id: i64, severity: Severity, channels: &[&str], now: Time) {
        self.with(|shelf| {
            let incident = Incident {
                id: IncidentId(id),
                key: format!("node=gpu-{id}"),
                title: format!("XID 79 on gpu-{id}"),
                subject: Subject::node(format!("gpu-{id}")),
                severity,
                state: IncidentState::Open,
                opened_at: now,
                closed_at: None,
                resolves_at: None,
                acknowledged_by: None,
                owner: None,
                firing: 1,
                episodes: 1,
                incarnation: String::new(),
            };
            for channel in channels {
                let due = DueNotice {
                    channel: (*channel).to_owned(),
                    incident: incident.id,
                    want: EntryNo(-1),
                    shown: None,
                    receipt: None,
                    attempts: 0,
                    maybe_sent: false,
                    alone: false,
                    urgent: false,
                    severity,
                    source: String::new(),
                };
                let row = Row { due, done: EntryNo(-1), at: now };
                shelf.rows.insert((incident.id, (*channel).to_owned()), row);
            }
            shelf.incidents.insert(incident.id, incident.clone());
        });
        let title = format!("XID 79 on gpu-{id}");
        let subject = Subject::node(format!("gpu-{id}"));
        let key = format!("node=gpu-{id}");
        self.happen(id, EntryKind::IncidentOpened { key, title, subject, alert: None }, now);
    }

    /// Something that the incident's channels should hear.
    pub fn happen(&self, id: i64, kind: EntryKind, now: Time) {
        self.happen_to(id, id, kind, now);
    }

    /// The same for a run of another number.
    pub fn happen_to(&self, id: i64, run: i64, kind: EntryKind, now: Time) {
        self.with(|shelf| {
            let no = EntryNo(shelf.entries.len() as i64);
            let urgent = matches!(kind, EntryKind::ApprovalAsked { .. });
            let about = EntryLinks { incident: Some(IncidentId(id)), run: Some(RunId(run)) };
            shelf.entries.push(Entry { no, at: now, actor: Actor::engine(), about, kind });
            for (_, row) in shelf.rows.range_mut((IncidentId(id), String::new())..(IncidentId(id + 1), String::new())) {
                let untold = row.due.shown.is_none() && row.due.attempts == 0 && !row.due.maybe_sent;
                if row.due.want <= row.done || untold {
                    row.at = now;
                    row.due.attempts = 0;
                }
                row.due.want = no;
                row.due.urgent |= urgent;
            }
        });
    }

    pub fn resolve(&self, id: i64, now: Time) {
        self.with(|shelf| shelf.incidents.get_mut(&IncidentId(id)).unwrap().state = IncidentState::Resolved);
        self.happen(id, EntryKind::IncidentResolved { why: "all alerts have ended".into() }, now);
    }

    pub fn row(&self, id: i64, channel: &str) -> Row {
        self.with(|shelf| shelf.rows[&(IncidentId(id), channel.to_owned())].clone())
    }
}

#[async_trait::async_trait]
impl Outbox for FakeStore {
    async fn due(&self, now: Time, limit: usize) -> Result<DueWork, StoreError> {
        let (due, reader) = self.with(|shelf| {
            let waiting = || shelf.rows.values().filter(|row| row.due.want > row.done);
            let due = DueWork {
                runs: Vec::new(),
                clusters: Vec::new(),
                notices: waiting().filter(|row| row.at <= now).take(limit).map(|row| row.due.clone()).collect(),
                next: waiting().map(|row| row.at).min(),
            };
            (due, shelf.slow_reader.take())
        });
        if let Some(reader) = reader {
            reader.notified().await;
        }
        Ok(due)
    }

    async fn receipted(
        &self,
        channel: &str,
        incident: IncidentId,
        what: DeliveryOutcome,
        now: Time,
    ) -> Result<(), StoreError> {
        self.with(|shelf| {
            let row = shelf.rows.get_mut(&(incident, channel.to_owned())).unwrap();
            let word = match what {
                DeliveryOutcome::Sending => {
                    row.due.maybe_sent = true;
                    "sending"
                }
                DeliveryOutcome::Delivered { upto, receipt } => {
                    (row.done, row.due.shown, row.due.receipt) = (upto, Some(upto), Some(receipt));
                    row.due.urgent = false;
                    (row.due.maybe_sent, row.due.attempts) = (false, 0);
                    "delivered"
                }
                DeliveryOutcome::Retry { at, .. } => {
                    (row.at, row.due.maybe_sent) = (at, false);
                    row.due.attempts += 1;
                    "retry"
                }
                DeliveryOutcome::Nothing { upto, receipt } => {
                    (row.done, row.due.shown) = (upto, Some(upto));
                    row.due.receipt = receipt.or(row.due.receipt.take());
                    (row.due.maybe_sent, row.due.attempts) = (false, 0);
                    "nothing"
                }
                DeliveryOutcome::Later { upto, at } => {
                    row.at = if row.due.shown.is_none() && row.due.want > upto { now } else { at };
                    "later"
                }
                DeliveryOutcome::Judged { upto, paged, why, until, news } => {
                    match until {
                        _ if paged => {}
                        Some(until) => row.at = until,
                        None => row.done = row.done.max(upto),
                    }
                    if news {
                        let no = EntryNo(shelf.entries.len() as i64);
                        let about = EntryLinks { incident: Some(incident), run: None };
                        let kind = EntryKind::PageJudged { channel: channel.to_owned(), paged, why, until };
                        shelf.entries.push(Entry { no, at: now, actor: Actor::engine(), about, kind });
                    }
                    if paged { "paged" } else { "spared" }
                }
                DeliveryOutcome::Refused { upto, .. } => {
                    (row.done, row.due.maybe_sent) = (upto, false);
                    "refused"
                }
            };
            shelf.log.push((incident, channel.to_owned(), word));
        });
        Ok(())
    }
}

/// The shelf holds incidents, entries, runs and approvals: there are no alerts, steps, freezes or nodes taken.
#[async_trait::async_trait]
impl Views for FakeStore {
    async fn incidents(&self, filter: Filter) -> Result<Vec<Incident>, StoreError> {
        let wanted = filter.incident.expect("the courier asks for one");
        Ok(self.with(|shelf| shelf.incidents.get(&wanted).cloned().into_iter().collect()))
    }

    async fn episodes(&self, _: Filter) -> Result<Vec<Episode>, StoreError> {
        Ok(Vec::new())
    }

    async fn runs(&self, filter: Filter) -> Result<Vec<Run>, StoreError> {
        let ours = |run: &&Run| filter.incident.is_none() || run.incident == filter.incident;
        Ok(self.with(|shelf| shelf.runs.iter().filter(ours).cloned().collect()))
    }

    async fn steps(&self, _: RunId) -> Result<Vec<Step>, StoreError> {
        Ok(Vec::new())
    }

    /// Gives all, as a store may that does not look up approvals by incident.
    async fn approvals(&self, _: Filter) -> Result<Vec<Approval>, StoreError> {
        Ok(self.with(|shelf| shelf.approvals.clone()))
    }

    async fn entries(&self, filter: Filter) -> Result<Vec<Entry>, StoreError> {
        Ok(self.with(|shelf| {
            let ours = shelf.entries.iter().rev().filter(|entry| entry.about.incident == filter.incident);
            let kinds = &filter.kinds;
            let ours = ours.filter(|entry| kinds.is_empty() || kinds.contains(&entry.kind.name()));
            ours.take(filter.limit).cloned().collect()
        }))
    }

    async fn freezes(&self) -> Result<Vec<Freeze>, StoreError> {
        Ok(Vec::new())
    }

    async fn holds(&self) -> Result<Vec<HeldNode>, StoreError> {
        Ok(Vec::new())
    }

    async fn counts(&self) -> Result<StoreCounts, StoreError> {
        Ok(self.with(|shelf| StoreCounts { entries: shelf.entries.len() as u64, ..StoreCounts::default() }))
    }

    async fn unseen(
        &self,
        _: &str,
        _: Time,
        _: Option<(Time, EpisodeId)>,
        _: usize,
    ) -> Result<Vec<Episode>, StoreError> {
        Ok(Vec::new())
    }
}

/// What a channel was told.
#[derive(Default)]
pub struct Told {
    pub posts: Vec<(IncidentNotice, Option<DeliveryReceipt>)>,
    pub digests: Vec<(IncidentDigest, Option<DeliveryReceipt>)>,
    /// Answers to give before all is well again.
    pub answers: VecDeque<DeliveryResult>,
    /// Each delivery takes a second of this clock.
    pub takes_a_second: Option<Arc<SimClock>>,
    /// The next delivery ends only then.
    pub slow: Option<Arc<tokio::sync::Notify>>,
}

#[derive(Clone, Default)]
pub struct Ear(pub Arc<Mutex<Told>>);

impl Ear {
    pub fn with<T>(&self, look: impl FnOnce(&mut Told) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
}

pub struct FakeChannel {
    pub ear: Ear,
    /// Never answers.
    pub dead: bool,
    /// Its first message waits for a plan.
    pub waits: bool,
}

#[async_trait::async_trait]
impl Notifier for FakeChannel {
    fn kind(&self) -> crate::telemetry::ChannelKind {
        crate::telemetry::ChannelKind::Webhook
    }

    async fn deliver(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        if self.dead {
            return std::future::pending().await;
        }
        let slow = self.ear.with(|heard| heard.slow.take());
        if let Some(slow) = slow {
            slow.notified().await;
        }
        self.ear.with(|heard| {
            if let Some(clock) = &heard.takes_a_second {
                later(clock, 1);
            }
            heard.posts.push((notice.clone(), prior.cloned()));
            let given = DeliveryReceipt(json!({ "ts": notice.incident.id }));
            heard.answers.pop_front().unwrap_or(DeliveryResult::Delivered(given))
        })
    }

    async fn digest(&self, digest: &IncidentDigest, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        self.ear.with(|heard| {
            heard.digests.push((digest.clone(), prior.cloned()));
            heard.answers.pop_front().unwrap_or(DeliveryResult::Delivered(DeliveryReceipt(json!({ "ts": "digest" }))))
        })
    }

    fn waits_for_plan(&self) -> bool {
        self.waits
    }

    async fn probe(&self) -> Result<String, String> {
        Ok(String::new())
    }
}

/// A clock at the start of a night.
pub fn night() -> Arc<SimClock> {
    Arc::new(SimClock::new("2026-11-23T03:00:00Z".parse().unwrap()))
}

pub fn later(clock: &SimClock, seconds: u64) -> Time {
    clock.advance(Duration::from_secs(seconds));
    clock.now()
}
