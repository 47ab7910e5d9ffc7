//! From what a cluster shows to the store: the ordinary intake, as any other source has it.
//!
//! Invariant: a complaint leaves the board only once the store has it, and silence is never taken for a recovery.

use super::Watched;
use crate::config::{KUBERNETES, Source};
use crate::engine::Parts;
use crate::limits;
use crate::sources::kubernetes::Board;
use crate::store::{Batch, Control};
use crate::world::{Kube, Told};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One source that listens to one cluster.
pub(super) struct Ear {
    source: String,
    cluster: String,
    kube: Kube,
    board: Mutex<Board>,
}

impl Ear {
    /// The sources that listen to this cluster.
    pub fn of(parts: &Parts, cluster: &str) -> Vec<Ear> {
        let Some(kube) = parts.world.clusters.get(cluster) else { return Vec::new() };
        let listens = |source: &Source| {
            source.kind == KUBERNETES && source.cluster.as_deref().unwrap_or(&parts.world.default_cluster) == cluster
        };
        // Where there is one cluster, subjects name none, as those of other sources do not.
        let label = if parts.world.clusters.len() > 1 { cluster } else { "" };
        let sources = parts.config.sources.iter().filter(|(_, source)| listens(source));
        let ear = |(name, source): (&String, &Source)| Ear {
            source: name.clone(),
            cluster: cluster.to_owned(),
            kube: kube.clone(),
            board: Mutex::new(Board::new(name, source, label)),
        };
        sources.map(ear).collect()
    }

    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn pods(parts: Parts, ear: Arc<Ear>) {
    let mut watched = Watched::new(&ear.cluster, "pods");
    let mut tell = |told| {
        watched.look(&told);
        let now = parts.clock.now();
        ear.board().hear_pod(&told, now, ear.kube.now().unwrap_or(now));
    };
    match ear.kube.watch_pods(&*parts.clock, &mut tell).await {}
}

pub(super) async fn warnings(parts: Parts, ear: Arc<Ear>) {
    let mut watched = Watched::new(&ear.cluster, "events");
    let mut tell = |told| {
        watched.look(&told);
        let now = parts.clock.now();
        ear.board().hear_warning(&told, now, ear.kube.now().unwrap_or(now));
    };
    match ear.kube.watch_warnings(&*parts.clock, &mut tell).await {}
}

pub(super) async fn leases(parts: Parts, ear: Arc<Ear>) {
    let mut watched = Watched::new(&ear.cluster, "leases");
    loop {
        match ear.kube.leases().await {
            Ok(leases) => {
                watched.look(&Told::<()>::Alive);
                ear.board().hear_leases(leases, parts.clock.now());
            }
            Err(error) => watched.look(&Told::<()>::Broken(error)),
        }
        parts.clock.sleep_until(parts.clock.now() + limits::LEASES_EVERY).await;
    }
}

/// Tells the store what the board has for it.
pub(super) async fn tell(parts: Parts, ear: Arc<Ear>) {
    let mut settled = None;
    loop {
        let now = parts.clock.now();
        while pass(&parts, &ear).await {}
        if ear.board().is_whole() && settled.is_none_or(|last| now >= last + limits::RECONCILE_EVERY) {
            end_what_is_over(&parts, &ear).await;
            settled = Some(now);
        }
        parts.clock.sleep_until(now + limits::COMPLAINTS_EVERY).await;
    }
}

/// True: there is more.
async fn pass(parts: &Parts, ear: &Ear) -> bool {
    let now = parts.clock.now();
    let (events, gaps) = ear.board().take(limits::COMPLAINTS_BATCH, now);
    if events.is_empty() && gaps.is_empty() {
        return false;
    }
    let (said, left_out) = (events.len(), gaps.len());
    let rules = parts.catalog.current().rules.clone();
    let batch = Batch { source: ear.source.clone(), events: events.clone(), gaps, rules, now };
    match parts.store.intake(batch).await {
        Ok(heard) => {
            ear.board().told(&events, now);
            parts.metrics.heard(said, heard.refreshed, heard.late);
            parts.metrics.gap(left_out);
            if heard.nudge {
                parts.nudge.nudge();
            }
            said == limits::COMPLAINTS_BATCH
        }
        Err(error) => {
            tracing::error!(source = %ear.source, %error, "what a cluster complains of could not be stored; trying again");
            false
        }
    }
}

/// Complaints that the store holds open from before this start, and that the cluster no longer shows.
async fn end_what_is_over(parts: &Parts, ear: &Ear) {
    let now = parts.clock.now();
    let open = match parts.store.unseen(&ear.source, now, limits::READ_LIMIT).await {
        Ok(open) => open,
        Err(error) => {
            tracing::error!(source = %ear.source, %error, "cannot ask which complaints are open");
            return;
        }
    };
    let over: Vec<_> = {
        let board = ear.board();
        let over = open.iter().filter(|episode| !board.is_firing(&episode.event.fingerprint));
        over.map(|episode| episode.id).collect()
    };
    if over.is_empty() {
        return;
    }
    let why = format!("cluster {} no longer shows it", ear.cluster);
    if let Err(error) = parts.store.control(Control::EndEpisodes { episodes: over, stale: false, why }, now).await {
        tracing::error!(source = %ear.source, %error, "cannot end complaints that are over");
    }
    parts.nudge.nudge();
}
