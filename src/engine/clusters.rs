//! Follows each cluster: its nodes for the guards, every fault in it for sources of kind `kubernetes`; and shows our
//! runs there.
//!
//! Invariant: a watch that breaks is taken up again by the world's client; until then guards list, so nothing is guessed.

mod beside;
mod hear;

use super::EngineParts;
use crate::world::{NIGHTSHIFT_CONDITION, NodeSeen, WatchEvent};
use beside::NodeConditions;
use hear::SymptomIntake;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(super) async fn run(parts: EngineParts, mut shutdown: watch::Receiver<bool>) {
    let mut loops = JoinSet::new();
    let mut shown = std::collections::BTreeMap::new();
    for name in parts.world.clusters.keys() {
        let ears: Vec<Arc<SymptomIntake>> = SymptomIntake::of(&parts, name).into_iter().map(Arc::new).collect();
        let conditions = Arc::new(Mutex::new(NodeConditions::default()));
        shown.insert(name.clone(), conditions.clone());
        loops.spawn(nodes(parts.clone(), name.clone(), ears.clone(), conditions));
        for ear in ears {
            loops.spawn(hear::pods(parts.clone(), ear.clone()));
            loops.spawn(hear::warnings(parts.clone(), ear.clone()));
            loops.spawn(hear::leases(parts.clone(), ear.clone()));
            loops.spawn(hear::tell(parts.clone(), ear));
        }
    }
    loops.spawn(beside::conditions(parts.clone(), shown));
    loops.spawn(beside::events(parts.clone()));
    tokio::select! {
        _ = shutdown.wait_for(|stop| *stop) => {}
        // None of them ends by itself, so one that did has met a bug: the caller stops the process.
        Some(Err(panic)) = loops.join_next() => std::panic::resume_unwind(panic.into_panic()),
    }
    // They hold nothing that must be put down.
    loops.shutdown().await;
}

async fn nodes(parts: EngineParts, cluster: String, ears: Vec<Arc<SymptomIntake>>, shown: Arc<Mutex<NodeConditions>>) {
    let Some(kube) = parts.world.clusters.get(&cluster).cloned() else { return std::future::pending().await };
    let mut watched = WatchReporter::new(&cluster, "nodes");
    let mut tell = |told: WatchEvent<NodeSeen>| {
        watched.look(&told);
        if let WatchEvent::Is(seen) | WatchEvent::Gone(seen) = &told {
            let ours = seen.conditions.iter().find(|condition| condition.kind == NIGHTSHIFT_CONDITION);
            let is_there = matches!(told, WatchEvent::Is(_));
            let held = ours.filter(|_| is_there).map(|ours| (ours.status == "True", ours.message.clone()));
            shown.lock().unwrap_or_else(PoisonError::into_inner).saw(&seen.node.name, held);
        }
        for ear in &ears {
            ear.board().hear_node(&told, parts.clock.now());
        }
    };
    match kube.watch_nodes(&*parts.clock, &mut tell).await {}
}

/// Reports once that a watch broke, and once that it is open again.
struct WatchReporter<'a> {
    cluster: &'a str,
    what: &'static str,
    is_well: bool,
}

impl<'a> WatchReporter<'a> {
    fn new(cluster: &'a str, what: &'static str) -> WatchReporter<'a> {
        WatchReporter { cluster, what, is_well: true }
    }

    fn look<T>(&mut self, told: &WatchEvent<T>) {
        let (cluster, what) = (self.cluster, self.what);
        match told {
            WatchEvent::Broken(error) if self.is_well => {
                self.is_well = false;
                tracing::warn!(%cluster, what, %error, "cluster watch failed; retrying with growing delays");
            }
            WatchEvent::Alive if !self.is_well => {
                self.is_well = true;
                tracing::info!(%cluster, what, "cluster watch restored");
            }
            _ => {}
        }
    }
}
