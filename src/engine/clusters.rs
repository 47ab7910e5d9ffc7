//! Follows each cluster: its nodes always, for the guards.
//!
//! Invariant: a watch that breaks is taken up again by the world's client; until then guards list, so nothing is guessed.

use super::Parts;
use crate::world::Told;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(super) async fn run(parts: Parts, mut shutdown: watch::Receiver<bool>) {
    let mut watches = JoinSet::new();
    for name in parts.world.clusters.keys() {
        watches.spawn(nodes(parts.clone(), name.clone()));
    }
    let _ = shutdown.wait_for(|stop| *stop).await;
    // A watch holds nothing that must be put down.
    watches.shutdown().await;
}

async fn nodes(parts: Parts, cluster: String) {
    let Some(kube) = parts.world.clusters.get(&cluster).cloned() else { return };
    let mut well = true;
    let mut tell = |told| match told {
        Told::Broken(error) if well => {
            well = false;
            tracing::warn!(%cluster, %error, "nodes are not watched; until they are, each step lists them");
        }
        Told::Alive if !well => {
            well = true;
            tracing::info!(%cluster, "nodes are watched again");
        }
        _ => {}
    };
    match kube.watch_nodes(&*parts.clock, &mut tell).await {}
}
