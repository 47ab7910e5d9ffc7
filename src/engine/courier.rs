//! Delivers due notices: reads the store, calls the notifier, records the receipt.
//!
//! Invariant: one message per incident and channel, edited; a failing channel never blocks another; an incident that is
//! without a message of its own is counted in a digest.

mod alerts;
mod digest;
mod letter;
mod needs;
mod pace;
mod patience;
mod standing;

pub use alerts::{alert_links, alert_title};

use super::{EngineParts, WakeSender};
use crate::clock::Clock;
use crate::limits::{BACKOFF_FIRST, CHANNEL_OFF_RETRY, DELIVERIES_AT_ONCE, DELIVERY_TIMEOUT, LANE_TURN, NOTICES_BATCH};
use crate::model::{DeliveryReceipt, DeliveryResult, EntryNo, IncidentId, Span, Time};
use crate::notifiers::{ANYWHERE, Notifier};
use crate::policy::GuardLimits;
use crate::store::{DeliveryOutcome, DueNotice, Outbox, StoreError, Views};
use crate::telemetry::{Delivered, Metrics};
use crate::world::World;
use digest::ChannelStorm;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use pace::ChannelLimiter;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// The loop.
pub struct NotificationDispatcher {
    outbox: Arc<dyn Outbox>,
    views: Arc<dyn Views>,
    notifiers: Arc<BTreeMap<String, Box<dyn Notifier>>>,
    clock: Arc<dyn Clock>,
    nudge: WakeSender,
    install: String,
    public_url: Option<String>,
    /// Channels that leave an incident to automation for so long.
    patience: BTreeMap<String, Span>,
    /// The fleet to count, and the limits that messages show beside the count.
    fleet: Option<(World, GuardLimits)>,
    /// Deliveries under way at once, over all channels.
    slots: Semaphore,
    storms: Mutex<HashMap<String, ChannelStorm>>,
    ways: ChannelLimiter,
    metrics: Arc<Metrics>,
    stopping: AtomicBool,
}

/// The counts of one pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DispatchCounts {
    /// Rows that the store called due.
    pub due: usize,
    /// Messages posted or edited, digests included.
    pub sent: usize,
    /// Incidents sent in a digest instead of a message of their own.
    pub digested: usize,
    /// Rows of waiting channels whose page is suppressed, for now or for good.
    pub spared: usize,
    /// Rows with nothing new to show.
    pub quiet: usize,
    /// Rows whose turn comes later: nothing failed.
    pub waiting: usize,
    pub retried: usize,
    pub refused: usize,
    /// Deliveries that may have arrived twice, after a crash between sending and recording.
    pub repeats: usize,
}

impl DispatchCounts {
    fn add(&mut self, other: &DispatchCounts) {
        self.due += other.due;
        self.sent += other.sent;
        self.digested += other.digested;
        self.spared += other.spared;
        self.quiet += other.quiet;
        self.waiting += other.waiting;
        self.retried += other.retried;
        self.refused += other.refused;
        self.repeats += other.repeats;
    }
}

/// One channel's rows on their way.
type ChannelDelivery<'c> = BoxFuture<'c, (String, DispatchCounts)>;

/// Waits for an answer while the lanes go on. A lane that is not polled may have been given the very turn at the store
/// that the answer waits for, and then everything waits for ever.
async fn meanwhile<T>(
    lanes: &mut FuturesUnordered<ChannelDelivery<'_>>,
    busy: &mut HashSet<String>,
    answer: impl Future<Output = T>,
) -> T {
    let mut answer = std::pin::pin!(answer);
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            Some((channel, _)) = lanes.next() => drop(busy.remove(&channel)),
        }
    }
}

/// How long the loop waits when nothing is announced and nothing nudges it.
const IDLE: Duration = Duration::from_secs(30);

impl NotificationDispatcher {
    /// The dispatcher of this engine's channels.
    pub fn new(parts: &EngineParts) -> NotificationDispatcher {
        NotificationDispatcher::with(
            parts.store.clone(),
            parts.store.clone(),
            parts.notifiers.clone(),
            parts.clock.clone(),
            parts.nudge.clone(),
            &parts.config.install,
            parts.config.server.public_url.as_deref(),
        )
        .patient(parts.config.channels.iter().filter_map(|(name, channel)| Some((name.clone(), channel.patience()?))))
        .counting(parts.world.clone(), parts.config.guards.clone())
        .metered(parts.metrics.clone())
    }

    /// From exactly the parts that it needs. `public_url`: the address of the pages, for links.
    pub fn with(
        outbox: Arc<dyn Outbox>,
        views: Arc<dyn Views>,
        notifiers: Arc<BTreeMap<String, Box<dyn Notifier>>>,
        clock: Arc<dyn Clock>,
        nudge: WakeSender,
        install: &str,
        public_url: Option<&str>,
    ) -> NotificationDispatcher {
        NotificationDispatcher {
            outbox,
            views,
            notifiers,
            clock,
            nudge,
            install: install.to_owned(),
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
            patience: BTreeMap::new(),
            fleet: None,
            slots: Semaphore::new(DELIVERIES_AT_ONCE),
            storms: Mutex::default(),
            ways: ChannelLimiter::default(),
            metrics: Arc::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Channels that are notified of an incident only once automation needs a user, or after so long.
    pub fn patient(mut self, channels: impl IntoIterator<Item = (String, Span)>) -> NotificationDispatcher {
        self.patience.extend(channels);
        self
    }

    /// Messages about open runs show how many nodes are out and how many more may be.
    pub fn counting(mut self, world: World, limits: GuardLimits) -> NotificationDispatcher {
        self.fleet = Some((world, limits));
        self
    }

    /// Deliveries are counted there.
    pub fn metered(mut self, metrics: Arc<Metrics>) -> NotificationDispatcher {
        self.metrics = metrics;
        self
    }

    /// One pass over the rows that are due, until every channel has had its turn.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn pass(&self) -> Result<DispatchCounts, StoreError> {
        let due = self.outbox.due(self.clock.now(), NOTICES_BATCH).await?;
        let mut lanes: FuturesUnordered<_> =
            by_channel(due.notices).into_iter().map(|(channel, rows)| self.lane(channel, rows)).collect();
        let mut passed = DispatchCounts::default();
        while let Some((_, lane)) = lanes.next().await {
            passed.add(&lane);
        }
        drop(lanes);
        for channel in self.storms_over() {
            let (_, lane) = self.end_storm(channel).await;
            passed.add(&lane);
        }
        Ok(passed)
    }

    /// Runs until `shutdown` turns true; deliveries under way are finished first. A channel that is slow keeps only its
    /// own lane busy: the others are served meanwhile.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut lanes: FuturesUnordered<ChannelDelivery<'_>> = FuturesUnordered::new();
        let mut busy: HashSet<String> = HashSet::new();
        // Subscribe before reading, so that work that becomes due meanwhile is not missed.
        let mut nudged = self.nudge.listen();
        while !*shutdown.borrow() {
            let mut wake = self.clock.now() + IDLE;
            // The due rows may have been read before a lane that ends meanwhile had recorded its work.
            let before = busy.clone();
            match meanwhile(&mut lanes, &mut busy, self.outbox.due(self.clock.now(), NOTICES_BATCH)).await {
                Ok(due) => {
                    for (channel, rows) in by_channel(due.notices) {
                        if !before.contains(&channel) && busy.insert(channel.clone()) {
                            lanes.push(Box::pin(self.lane(channel, rows)));
                        }
                    }
                    if before.iter().any(|channel| !busy.contains(channel)) {
                        continue;
                    }
                    wake = due.next.map_or(wake, |next| next.min(wake)).max(self.clock.now() + BACKOFF_FIRST);
                }
                Err(error) => {
                    tracing::error!(%error, "notification dispatcher: cannot read due notifications");
                    wake = self.clock.now() + Duration::from_secs(1);
                }
            }
            for channel in self.storms_over() {
                if busy.insert(channel.clone()) {
                    lanes.push(Box::pin(self.end_storm(channel)));
                }
            }
            if let Some(end) = self.next_storm_end() {
                wake = wake.min(end.max(self.clock.now() + BACKOFF_FIRST));
            }
            tokio::select! {
                Some((channel, _)) = lanes.next() => drop(busy.remove(&channel)),
                () = nudged.heard() => {}
                () = self.clock.sleep_until(wake) => {}
                gone = shutdown.changed() => if gone.is_err() { break },
            }
        }
        self.stopping.store(true, Ordering::Relaxed);
        while lanes.next().await.is_some() {}
    }

    /// The rows of one channel, in order. Never fails: an error is recorded with the row.
    async fn lane(&self, channel: String, rows: Vec<DueNotice>) -> (String, DispatchCounts) {
        let mut passed = DispatchCounts { due: rows.len(), ..DispatchCounts::default() };
        let Some(notifier) = self.notifier(&channel) else {
            for row in &rows {
                let why = format!("channel `{channel}` is not configured, and a rule names it under `tell`");
                self.record(row, DeliveryOutcome::Refused { upto: row.want, why }).await;
            }
            passed.refused += rows.len();
            return (channel, passed);
        };
        let (rows, because) = self.needed(&channel, rows, &mut passed).await;
        if let Some((why, at)) = self.shut(&channel) {
            passed.retried += rows.len();
            self.postpone(&rows.iter().collect::<Vec<_>>(), &behind(&why), at).await;
            return (channel, passed);
        }
        if let Some(why) = notifier.off() {
            passed.retried += rows.len();
            let why = format!("the channel is off: {why}");
            self.postpone(&rows.iter().collect::<Vec<_>>(), &why, self.clock.now() + CHANNEL_OFF_RETRY).await;
            return (channel, passed);
        }
        let sorted = self.sort(&channel, rows);
        let begun = self.clock.monotonic();
        for row in &sorted.single {
            if self.clock.monotonic() - begun >= LANE_TURN {
                // The rest stays due: graver news may have come meanwhile, which goes first. A digest is one message, and has no
                // other turn where edits are always due.
                self.not_said(&channel, &sorted, row);
                break;
            }
            if self.stopping.load(Ordering::Relaxed) {
                // A message that was not sent stays due, for the next start.
                return (channel, passed);
            }
            match self.single(notifier, row, because.get(&row.incident), &mut passed).await {
                DeliveryFlow::GoOn => {}
                DeliveryFlow::Postpone { why, at } => {
                    // Slow or limited is the channel, not the row: the rest would only wait for the same answer.
                    let rest: Vec<&DueNotice> = sorted.after(row);
                    passed.retried += rest.len();
                    self.postpone(&rest, &behind(&why), at).await;
                    return (channel, passed);
                }
            }
        }
        self.in_digest(&channel, notifier, &sorted.stormy, &mut passed).await;
        self.wait_for_the_storm(&channel, &sorted.waiting, &mut passed).await;
        (channel, passed)
    }

    /// One row: load, mark, deliver, record.
    async fn single(
        &self,
        notifier: &dyn Notifier,
        row: &DueNotice,
        because: Option<&String>,
        passed: &mut DispatchCounts,
    ) -> DeliveryFlow {
        let mut letter = match self.letter(row).await {
            Ok(Some(mut letter)) => {
                letter.notice.because = because.cloned();
                letter
            }
            Ok(None) => {
                let why = format!("{} is no longer stored", row.incident);
                self.record(row, DeliveryOutcome::Refused { upto: row.want, why }).await;
                passed.refused += 1;
                return DeliveryFlow::GoOn;
            }
            Err(error) => {
                tracing::error!(%error, incident = %row.incident, channel = %row.channel, "cannot write a notification");
                passed.retried += 1;
                let at = self.again(row, self.clock.now());
                self.record(row, DeliveryOutcome::Retry { why: error.to_string(), at }).await;
                return DeliveryFlow::GoOn;
            }
        };
        let prior = row.receipt.as_ref().filter(|receipt| !digest::is_digest(receipt));
        if let Some(wait) = self.unsent(notifier, row, &letter, prior) {
            match wait {
                DeliveryOutcome::Later { .. } => passed.waiting += 1,
                _ => passed.quiet += 1,
            }
            self.record(row, wait).await;
            return DeliveryFlow::GoOn;
        }
        let speaks = notifier.speaks(&letter.notice, prior);
        if speaks && letter.acts {
            letter.notice.budget = self.budget(&letter.notice.incident.subject).await;
        }
        if !self.record(row, DeliveryOutcome::Sending).await {
            // Nothing is sent before it is recorded that it may have been.
            passed.retried += 1;
            return DeliveryFlow::GoOn;
        }
        if row.maybe_sent {
            passed.repeats += 1;
            tracing::warn!(incident = %row.incident, channel = %row.channel, "this notification may have been sent before");
        }
        let delivery = self.in_time(notifier.deliver(&letter.notice, prior)).await;
        let first = prior.is_none();
        if !matches!(delivery, DeliveryResult::Retry { .. } | DeliveryResult::Nothing(_)) {
            self.answered(&row.channel);
        }
        self.count(notifier, &delivery);
        match &delivery {
            DeliveryResult::Nothing(_) => passed.quiet += 1,
            DeliveryResult::Delivered(_) => {
                passed.sent += 1;
                if first {
                    self.storms().entry(row.channel.clone()).or_default().told(self.clock.now());
                }
            }
            DeliveryResult::Retry { .. } => passed.retried += 1,
            DeliveryResult::Refused { .. } => passed.refused += 1,
        }
        self.settle(row, letter.upto, delivery).await
    }

    /// Why a notice is not sent now: it has nothing new, it waits for a plan, or the channel's pace has no turn for it.
    fn unsent(
        &self,
        notifier: &dyn Notifier,
        row: &DueNotice,
        letter: &letter::DraftNotice,
        prior: Option<&DeliveryReceipt>,
    ) -> Option<DeliveryOutcome> {
        // Or it opened and ended within a storm, and the digest has counted it.
        let counted = row.receipt.is_some() && prior.is_none() && letter.is_over();
        if (prior.is_some() && letter.is_quiet(row)) || counted {
            return Some(DeliveryOutcome::Nothing { upto: letter.upto, receipt: None });
        }
        let first = row.receipt.is_none() && !row.maybe_sent && !letter.is_over();
        let waits = first && notifier.waits_for_plan();
        if let Some(by) = letter.plan_by.filter(|by| waits && *by > self.clock.now()) {
            return Some(DeliveryOutcome::Later { upto: letter.upto, at: by });
        }
        let urgent = prior.is_none() || row.alone || row.urgent || letter.asks_anew;
        let pace = notifier.pace().filter(|_| notifier.speaks(&letter.notice, prior))?;
        self.turn(pace, urgent).map(|at| DeliveryOutcome::Later { upto: letter.upto, at })
    }

    /// Records the result.
    async fn settle(&self, row: &DueNotice, upto: EntryNo, delivery: DeliveryResult) -> DeliveryFlow {
        match delivery {
            DeliveryResult::Delivered(receipt) => {
                self.record(row, DeliveryOutcome::Delivered { upto, receipt }).await;
                DeliveryFlow::GoOn
            }
            DeliveryResult::Nothing(receipt) => {
                self.record(row, DeliveryOutcome::Nothing { upto, receipt }).await;
                DeliveryFlow::GoOn
            }
            DeliveryResult::Retry { after, why } => {
                let at = self.failed(&row.channel, &why, after);
                tracing::debug!(incident = %row.incident, channel = %row.channel, %why, again = %at, "not delivered yet");
                self.record(row, DeliveryOutcome::Retry { why: why.clone(), at: self.again(row, at) }).await;
                DeliveryFlow::Postpone { why, at }
            }
            DeliveryResult::Refused { why } => {
                self.record(row, DeliveryOutcome::Refused { upto, why }).await;
                DeliveryFlow::GoOn
            }
        }
    }

    /// A notifier has its own timeouts; this one is for the day when they fail.
    async fn in_time(&self, delivery: impl Future<Output = DeliveryResult>) -> DeliveryResult {
        let Ok(_slot) = self.slots.acquire().await else {
            return DeliveryResult::Retry { after: None, why: "the notification dispatcher is stopping".to_owned() };
        };
        tokio::select! {
            delivery = delivery => delivery,
            () = self.clock.sleep_for(DELIVERY_TIMEOUT) => {
                let why = format!("the channel did not answer within {} s", DELIVERY_TIMEOUT.as_secs());
                DeliveryResult::Retry { after: None, why }
            }
        }
    }

    /// Attempts that reached the other side or failed to; a row with nothing to send is none.
    fn count(&self, notifier: &dyn Notifier, delivery: &DeliveryResult) {
        let outcome = match delivery {
            DeliveryResult::Delivered(_) => Delivered::Delivered,
            DeliveryResult::Retry { .. } => Delivered::Retry,
            DeliveryResult::Refused { .. } => Delivered::Refused,
            DeliveryResult::Nothing(_) => return,
        };
        self.metrics.delivery(notifier.kind(), outcome);
    }

    fn notifier(&self, channel: &str) -> Option<&dyn Notifier> {
        self.notifiers.get(channel).or_else(|| self.notifiers.get(ANYWHERE)).map(Box::as_ref)
    }

    fn storms(&self) -> MutexGuard<'_, HashMap<String, ChannelStorm>> {
        self.storms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a row is not tried that stands behind one that the channel did not take.
fn behind(why: &str) -> String {
    format!("the channel did not take the one before: {why}")
}

/// Whether the channel goes on with the row behind.
enum DeliveryFlow {
    GoOn,
    Postpone { why: String, at: Time },
}

/// Rows of one channel, by how they are sent.
#[derive(Default)]
struct SortedNotices {
    single: Vec<DueNotice>,
    /// Of these, critical ones that have a message of their own although a digest is open.
    admitted: HashSet<IncidentId>,
    /// New incidents beyond the number that a channel takes in a minute.
    stormy: Vec<DueNotice>,
    /// News of incidents that only a digest has named, while the storm goes on.
    waiting: Vec<DueNotice>,
}

impl SortedNotices {
    /// The rows after one that could not be sent.
    fn after(&self, row: &DueNotice) -> Vec<&DueNotice> {
        let rest = self.single.iter().skip_while(|other| *other != row).skip(1);
        rest.chain(&self.stormy).chain(&self.waiting).collect()
    }
}

fn by_channel(rows: Vec<DueNotice>) -> BTreeMap<String, Vec<DueNotice>> {
    let mut lanes: BTreeMap<String, Vec<DueNotice>> = BTreeMap::new();
    for row in rows {
        lanes.entry(row.channel.clone()).or_default().push(row);
    }
    lanes
}

#[cfg(test)]
mod tests;
