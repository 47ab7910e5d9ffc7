//! Looks at each channel once at a start, so that one that takes no messages is in the log before the first alert.
//!
//! Invariant: a probe sends no message and holds nothing up; deliveries are tried whatever it found.

use super::EngineParts;
use crate::limits::KUBE_TIMEOUT;
use tokio::sync::watch;
use tokio::time::timeout;

pub(super) async fn run(parts: EngineParts, mut shutdown: watch::Receiver<bool>) {
    tokio::select! {
        () = look(&parts) => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
}

async fn look(parts: &EngineParts) {
    // A channel that cannot be read has its line in the log already.
    let missing = parts.config.missing();
    let is_missing = |name: &str| missing.iter().any(|one| one.path.starts_with(&format!("channels.{name}.")));
    let to_look_at = parts.notifiers.iter().filter(|(name, _)| !is_missing(name));
    let looks = to_look_at.map(|(name, notifier)| async move {
        let why = match timeout(KUBE_TIMEOUT, notifier.probe()).await {
            Ok(Ok(_)) => return,
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {} s", KUBE_TIMEOUT.as_secs()),
        };
        tracing::error!(
            channel = %name, kind = notifier.kind().word(), %why,
            "the channel is down; its messages wait in the queue and are delivered when it recovers; see `nightshift doctor`"
        );
    });
    futures::future::join_all(looks).await;
}
