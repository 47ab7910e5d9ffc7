//! One engine acts on a cluster: the one that holds its Lease. A copy of the data folder that runs beside the original
//! watches and notifies, and begins no step.
//!
//! Invariant: time is measured by this machine alone, from one look to the next, so that no wall clock decides who acts, and
//! with the time that the machine was suspended: the other engine may act by then. An engine without the right to Leases logs that once and acts, as before there were any.

use super::EngineParts;
use crate::clock::{Clock, RealClock};
use crate::config::Config;
use crate::limits;
use crate::model::{EntryKind, Event, EventStatus, Labels, Severity, Subject, Time};
use crate::planted::planted;
use crate::store::{BatchOrigin, EventBatch};
use crate::world::{EngineLease, KubeClient, WorldError};
use sha2::{Digest, Sha256};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The source of the engine's reports about itself.
const SOURCE: &str = "nightshift";
const ALERT: &str = "NightshiftSecondEngine";

/// The result of one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseStatus {
    /// This engine holds the Lease.
    Ours,
    /// There is no right to Leases, or none is kept: it acts, and another engine may do so too.
    Unguarded(String),
    /// Another engine holds it.
    Theirs(String),
    /// Not known for now: it does not act until it is.
    Unknown(String),
}

/// The state between two looks. Moments are counted from the first one.
pub struct LeaseKeeper {
    namespace: String,
    name: String,
    /// Who this engine is: the same for one data folder on one machine, and another for each copy of it.
    holder: String,
    /// The version of another engine's Lease, and when it was first seen.
    seen: Option<(String, Duration)>,
    /// When this engine last renewed.
    renewed: Option<Duration>,
    acting: LeaseStatus,
    /// How long a look waits for its answers.
    within: Duration,
    /// How long a look took is read from its running clock.
    clock: Arc<dyn Clock>,
}

impl LeaseKeeper {
    /// A keeper of this installation's Lease for one engine; nothing was read yet.
    pub fn new(namespace: &str, install: &str, holder: &str, clock: &Arc<dyn Clock>) -> LeaseKeeper {
        LeaseKeeper {
            namespace: namespace.to_owned(),
            name: lease_name(install),
            holder: holder.to_owned(),
            seen: None,
            renewed: None,
            acting: LeaseStatus::Unknown("its Lease was not read yet".to_owned()),
            within: limits::LEASE_ANSWER,
            clock: clock.clone(),
        }
    }

    /// Waits for its answers no longer than this.
    pub fn answered_within(self, within: Duration) -> LeaseKeeper {
        LeaseKeeper { within, ..self }
    }

    /// Until when it holds what it has renewed, counted as `look` counts; none: it holds nothing.
    pub fn holds_until(&self) -> Option<Duration> {
        self.renewed.map(|renewed| renewed + limits::LEASE_HELD)
    }

    /// Reads the Lease, and renews or takes it where it may. `at` is the time since the first look.
    pub async fn look(&mut self, kube: &KubeClient, at: Duration, now: Time) -> &LeaseStatus {
        let began = self.clock.monotonic();
        let within = self.within;
        let answer = tokio::time::timeout(within, self.consider(kube, at, now)).await;
        let late = |_| Err(WorldError::Unavailable(format!("none within {within:?}")));
        self.acting = match answer.unwrap_or_else(late) {
            Ok(acting) => acting,
            Err(error) if error.is_transient() => match self.renewed {
                // Before another engine may take it this one must have stopped: the present time counts, not the
                // request's.
                Some(renewed) if at + self.clock.monotonic().saturating_sub(began) < renewed + limits::LEASE_HELD => {
                    LeaseStatus::Ours
                }
                _ => LeaseStatus::Unknown(format!("its Lease cannot be read or renewed: {error}")),
            },
            Err(WorldError::Conflict(_)) => {
                LeaseStatus::Unknown("another engine changed its Lease just now".to_owned())
            }
            Err(error) => LeaseStatus::Unguarded(error.to_string()),
        };
        &self.acting
    }

    async fn consider(&mut self, kube: &KubeClient, at: Duration, now: Time) -> Result<LeaseStatus, WorldError> {
        let found = match kube.engine_lease(&self.namespace, &self.name).await {
            Ok(found) => found,
            Err(WorldError::NotFound(_)) => EngineLease::default(),
            Err(error) => return Err(error),
        };
        if found.holder != self.holder && !found.holder.is_empty() && !planted("second-engine-acts") {
            self.renewed = None;
            let lasts = Duration::from_secs(found.seconds).max(limits::LEASE_LASTS);
            let since = match &self.seen {
                Some((version, since)) if *version == found.version => *since,
                _ => {
                    self.seen = Some((found.version.clone(), at));
                    at
                }
            };
            if at < since + lasts {
                return Ok(LeaseStatus::Theirs(found.holder));
            }
        }
        let moved = u64::from(found.holder != self.holder);
        let lease = EngineLease {
            holder: self.holder.clone(),
            seconds: limits::LEASE_LASTS.as_secs(),
            transitions: found.transitions + moved,
            version: found.version,
        };
        kube.keep_engine_lease(&self.namespace, &self.name, &lease, now).await?;
        (self.renewed, self.seen) = (Some(at), None);
        Ok(LeaseStatus::Ours)
    }

    /// Gives the Lease back, so that the next engine need not wait for its end.
    async fn release(&mut self, kube: &KubeClient, now: Time) {
        if self.acting != LeaseStatus::Ours {
            return;
        }
        let Ok(found) = kube.engine_lease(&self.namespace, &self.name).await else { return };
        if found.holder == self.holder {
            let free = EngineLease { holder: String::new(), ..found };
            // A Lease that is not given back ends by itself.
            let _ = kube.keep_engine_lease(&self.namespace, &self.name, &free, now).await;
        }
    }
}

fn lease_name(install: &str) -> String {
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let install: String = install.to_lowercase().chars().map(plain).collect();
    format!("nightshift-engine-{}", install.trim_matches('-'))
}

/// The machine, and the folder by its number in the file system: a copy of it has another one.
fn holder(config: &Config) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let place = std::fs::metadata(&config.data_dir).map(|folder| (folder.dev(), folder.ino())).unwrap_or_default();
    let digest = Sha256::digest(format!("{host} {place:?}").as_bytes());
    let short = hex::encode(&digest[..6]);
    format!("{host}_{short}")
}

/// The Leases of all clusters that keep one.
pub(super) struct ClusterLeases {
    parts: EngineParts,
    kept: Vec<(String, KubeClient, LeaseKeeper)>,
    /// The machine's own, also where a test moves the engine's: a Lease is held against other processes.
    clock: Arc<dyn Clock>,
    began: Duration,
}

impl ClusterLeases {
    /// No step begins in a cluster before its Lease was looked at; one that does not answer is not waited for.
    pub async fn begin(parts: &EngineParts) -> ClusterLeases {
        let holder = holder(&parts.config);
        let clock: Arc<dyn Clock> = Arc::new(RealClock);
        let clusters = parts.world.clusters.iter().filter_map(|(name, kube)| {
            let keeper = LeaseKeeper::new(kube.lease_namespace()?, &parts.config.install, &holder, &clock);
            kube.only_watch(Some(format!("which engine acts on cluster {name} was not read yet")));
            Some((name.clone(), kube.clone(), keeper))
        });
        let kept = clusters.collect();
        let mut leases = ClusterLeases { parts: parts.clone(), kept, began: clock.monotonic(), clock };
        let _ = tokio::time::timeout(limits::LEASE_FIRST_LOOK, leases.look()).await;
        leases
    }

    /// All together: a cluster that hangs keeps no other one's Lease waiting for longer than `LEASE_ANSWER`.
    async fn look(&mut self) {
        let (parts, clock, began) = (&self.parts, &self.clock, self.began);
        let looks =
            self.kept.iter_mut().map(|(cluster, kube, keeper)| look(parts, cluster, kube, keeper, (clock, began)));
        futures::future::join_all(looks).await;
    }

    /// Keeps them until `shutdown`, and gives them back once `ended` turns true: no run is active any more.
    pub async fn keep(mut self, mut shutdown: watch::Receiver<bool>, mut ended: watch::Receiver<bool>) {
        let clock = self.clock.clone();
        while !*shutdown.borrow() {
            tokio::select! {
                () = clock.sleep_for(limits::LEASE_LOOK_EVERY) => self.look().await,
                _ = shutdown.changed() => {}
            }
        }
        // An error means that the other side is gone, which is the same.
        let _ = ended.wait_for(|ended| *ended).await;
        let now = self.parts.clock.now();
        let gives = self.kept.iter_mut().map(|(_, kube, keeper)| keeper.release(kube, now));
        let _ = tokio::time::timeout(limits::LEASE_FIRST_LOOK, futures::future::join_all(gives)).await;
    }
}

async fn look(
    parts: &EngineParts,
    cluster: &str,
    kube: &KubeClient,
    keeper: &mut LeaseKeeper,
    (clock, began): (&Arc<dyn Clock>, Duration),
) {
    let before = keeper.acting.clone();
    let acting = keeper.look(kube, clock.monotonic().saturating_sub(began), parts.clock.now()).await.clone();
    match (&acting, keeper.holds_until()) {
        (LeaseStatus::Ours, Some(until)) => kube.act_until(began + until, clock),
        _ => kube.only_watch(only_watched(cluster, &acting)),
    }
    if std::mem::discriminant(&before) == std::mem::discriminant(&acting) {
        return;
    }
    report(parts, cluster, &acting, &keeper.holder).await;
}

/// Why no step about the cluster begins, if none does.
fn only_watched(cluster: &str, acting: &LeaseStatus) -> Option<String> {
    match acting {
        LeaseStatus::Ours | LeaseStatus::Unguarded(_) => None,
        LeaseStatus::Theirs(holder) => {
            Some(format!("another engine ({holder}) acts on cluster {cluster}; this one only watches"))
        }
        LeaseStatus::Unknown(why) => Some(format!("the engine that acts on cluster {cluster} is unknown: {why}")),
    }
}

/// Who acts has changed.
async fn report(parts: &EngineParts, cluster: &str, acting: &LeaseStatus, own: &str) {
    match acting {
        LeaseStatus::Ours => {
            tracing::info!(cluster, "Lease of the cluster acquired; this engine acts on it");
            tell(parts, cluster, EventStatus::Resolved, "one engine acts on the cluster again: this one").await;
            parts.nudge.nudge();
        }
        LeaseStatus::Unguarded(why) => tracing::warn!(
            cluster, why = %why,
            "no Lease is kept for the cluster; a copy of this engine beside it would not be noticed; `nightshift rbac` \
             shows the right, and `clusters.{cluster}.lease_namespace` names the namespace"
        ),
        LeaseStatus::Theirs(holder) => {
            let words = format!(
                "two engines of this installation run on cluster {cluster}: {holder} acts, and this one ({own}) only watches. \
                 Stop the one that is a copy"
            );
            tracing::error!(cluster, "{words}");
            tell(parts, cluster, EventStatus::Firing, &words).await;
        }
        LeaseStatus::Unknown(why) => {
            tracing::warn!(cluster, why = %why, "cannot confirm the Lease of the cluster; this engine takes no action there")
        }
    }
}

/// An incident for as long as two engines are there, and an entry when it begins.
async fn tell(parts: &EngineParts, cluster: &str, status: EventStatus, words: &str) {
    let now = parts.clock.now();
    let labels: Labels = [("alertname", ALERT), ("cluster", cluster), ("severity", "critical")].into_iter().collect();
    let annotations: Labels = [("summary", words)].into_iter().collect();
    let event = Event {
        source: SOURCE.to_owned(),
        fingerprint: format!("second-engine {cluster}"),
        status,
        starts_at: now,
        ends_at: (status == EventStatus::Resolved).then_some(now),
        labels,
        annotations,
        subject: Subject { cluster: Some(cluster.to_owned()), ..Subject::default() },
        severity: Severity::Critical,
        summary: words.to_owned(),
        url: String::new(),
    };
    let batch = EventBatch {
        source: SOURCE.to_owned(),
        events: vec![event],
        gaps: Vec::new(),
        rules: parts.catalog.current().rules.clone(),
        now,
        origin: BatchOrigin::of_kind(SOURCE),
    };
    if let Err(error) = parts.store.intake(batch).await {
        tracing::error!(%error, "cannot store the alert about another acting engine");
    }
    if status == EventStatus::Firing {
        let entry = EntryKind::Trouble { text: words.to_owned() };
        let noted =
            parts.store.note(crate::model::Actor::engine(), crate::model::EntryLinks::default(), entry, now).await;
        if let Err(error) = noted {
            tracing::error!(%error, "cannot record in the ledger that another engine acts");
        }
    }
    parts.nudge.nudge();
}
