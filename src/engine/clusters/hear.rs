//! From a cluster's symptoms to the store: the ordinary intake, as any other source has it.
//!
//! Invariant: a condition leaves the board only once the store has it, and silence is never taken for a recovery.

use super::WatchReporter;
use crate::config::{KUBERNETES, SourceConfig};
use crate::engine::{EngineParts, tell};
use crate::limits;
use crate::sources::kubernetes::ConditionTracker;
use crate::world::{KubeClient, WatchEvent};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One source that listens to one cluster.
pub(super) struct SymptomIntake {
    source: String,
    cluster: String,
    kube: KubeClient,
    board: Mutex<ConditionTracker>,
}

impl SymptomIntake {
    /// The sources that listen to this cluster.
    pub fn of(parts: &EngineParts, cluster: &str) -> Vec<SymptomIntake> {
        let Some(kube) = parts.world.clusters.get(cluster) else { return Vec::new() };
        let listens = |source: &SourceConfig| {
            source.kind == KUBERNETES && source.cluster.as_deref().unwrap_or(&parts.world.default_cluster) == cluster
        };
        // Where there is one cluster, subjects name none, as those of other sources do not.
        let label = if parts.world.clusters.len() > 1 { cluster } else { "" };
        let sources = parts.config.sources.iter().filter(|(_, source)| listens(source));
        let ear = |(name, source): (&String, &SourceConfig)| SymptomIntake {
            source: name.clone(),
            cluster: cluster.to_owned(),
            kube: kube.clone(),
            board: Mutex::new(ConditionTracker::new(name, source, label)),
        };
        sources.map(ear).collect()
    }

    /// The board of conditions, locked.
    pub fn board(&self) -> MutexGuard<'_, ConditionTracker> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn pods(parts: EngineParts, ear: Arc<SymptomIntake>) {
    let mut watched = WatchReporter::new(&ear.cluster, "pods");
    let mut tell = |told| {
        watched.look(&told);
        let now = parts.clock.now();
        ear.board().hear_pod(&told, now, ear.kube.now().unwrap_or(now));
    };
    match ear.kube.watch_pods(&*parts.clock, &mut tell).await {}
}

pub(super) async fn warnings(parts: EngineParts, ear: Arc<SymptomIntake>) {
    let mut watched = WatchReporter::new(&ear.cluster, "events");
    let mut tell = |told| {
        watched.look(&told);
        let now = parts.clock.now();
        ear.board().hear_warning(&told, now, ear.kube.now().unwrap_or(now));
    };
    match ear.kube.watch_warnings(&*parts.clock, &mut tell).await {}
}

pub(super) async fn leases(parts: EngineParts, ear: Arc<SymptomIntake>) {
    let mut watched = WatchReporter::new(&ear.cluster, "leases");
    loop {
        match ear.kube.leases().await {
            Ok(leases) => {
                watched.look(&WatchEvent::<()>::Alive);
                ear.board().hear_leases(leases, parts.clock.now());
            }
            Err(error) => watched.look(&WatchEvent::<()>::Broken(error)),
        }
        parts.clock.sleep_for(limits::LEASES_EVERY).await;
    }
}

/// Sends the board's pending conditions to the store.
pub(super) async fn tell(parts: EngineParts, ear: Arc<SymptomIntake>) {
    let mut settled = None;
    loop {
        let began = parts.clock.monotonic();
        while tell::pass(&parts, &ear.source, &ear.board).await {}
        if ear.board().is_whole() && settled.is_none_or(|last| began >= last + limits::RECONCILE_EVERY) {
            let why = format!("cluster {} no longer shows it", ear.cluster);
            tell::end_what_is_over(&parts, &ear.source, &ear.board, &why).await;
            settled = Some(began);
        }
        parts.clock.sleep_until_monotonic(began + limits::COMPLAINTS_EVERY).await;
    }
}
