//! Now and sleep: the real clock, and one that a test moves by hand.
//!
//! Invariant: nothing in the program reads the time or waits for it but through this.

use crate::model::Time;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::watch;

/// The time, and waiting for it.
#[async_trait::async_trait]
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Time;
    /// Returns once `now() >= until`.
    async fn sleep_until(&self, until: Time);
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealClock;

#[async_trait::async_trait]
impl Clock for RealClock {
    fn now(&self) -> Time {
        Time::now()
    }

    async fn sleep_until(&self, until: Time) {
        loop {
            let left = until.as_microsecond() - self.now().as_microsecond();
            if left <= 0 {
                return;
            }
            // The wall clock may jump either way while we sleep, so never trust one long sleep.
            let nap = Duration::from_micros(left.unsigned_abs()).min(Duration::from_secs(1));
            tokio::time::sleep(nap).await;
        }
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct SimClock {
    now: watch::Sender<Time>,
    floor: Mutex<()>,
}

impl SimClock {
    pub fn new(start: Time) -> SimClock {
        SimClock { now: watch::Sender::new(start), floor: Mutex::new(()) }
    }

    /// Moves the clock; sleepers whose time has come wake.
    pub fn advance(&self, by: Duration) {
        // Read first: `jump` must not wait for a borrow that its own argument holds.
        let to = *self.now.borrow() + by;
        self.jump(to);
    }

    /// Sets the clock to any moment, forwards or back.
    pub fn jump(&self, to: Time) {
        let _one_at_a_time = self.floor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.now.send_replace(to);
    }
}

#[async_trait::async_trait]
impl Clock for SimClock {
    fn now(&self) -> Time {
        *self.now.borrow()
    }

    async fn sleep_until(&self, until: Time) {
        let mut changes = self.now.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail while somebody can still call this.
        let _ = changes.wait_for(|now| *now >= until).await;
    }
}
