//! Wakes the loops early.
//!
//! Invariant: a nudge carries no data, and one that comes while a loop works is seen when it next waits.

use tokio::sync::watch;

/// Shared by those who make something due and those who look for it.
#[derive(Clone)]
pub struct WakeSender(watch::Sender<()>);

impl Default for WakeSender {
    fn default() -> Self {
        WakeSender(watch::Sender::new(()))
    }
}

impl WakeSender {
    /// Wakes every listener; it carries no data.
    pub fn nudge(&self) {
        self.0.send_replace(());
    }

    /// A listener of its own for each loop: nudges from now on are not missed between two looks.
    pub fn listen(&self) -> WakeReceiver {
        WakeReceiver(self.0.subscribe())
    }
}

/// One loop's ear.
pub struct WakeReceiver(watch::Receiver<()>);

impl WakeReceiver {
    /// Returns at once if there was a nudge since the last return.
    pub async fn heard(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
