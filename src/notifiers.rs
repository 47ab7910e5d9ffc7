//! The catalog of notifiers: how people hear. One file each, one line in the catalog.
//!
//! Invariant: a notifier says what an incident is now, edits what it said before, and never decides whether to speak.

use crate::model::{Delivery, Digest, Notice, Receipt};

/// One configured channel.
#[async_trait::async_trait]
pub trait Notifier: Send + Sync {
    /// `slack`, `pagerduty`, …
    fn kind(&self) -> &'static str;

    /// Says it; `prior` is what the last delivery for this incident gave back.
    async fn deliver(&self, notice: &Notice, prior: Option<&Receipt>) -> Delivery;

    /// Says that there is too much to say one by one.
    async fn digest(&self, digest: &Digest, prior: Option<&Receipt>) -> Delivery;

    /// For `doctor`: sends nothing that pages anybody; says what works or what to mend.
    async fn probe(&self) -> Result<String, String>;
}
