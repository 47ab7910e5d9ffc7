//! A channel whose secret cannot be read yet: off, with the reason, until it can.
//!
//! Invariant: nothing is lost while it is off: each delivery is a retry, and the secret is read again before each.

use super::{ChannelError, ChannelRateLimit, Notifier};
use crate::model::{DeliveryReceipt, DeliveryResult, IncidentDigest, IncidentNotice};
use crate::telemetry::ChannelKind;
use std::sync::OnceLock;

type NotifierFactory = dyn Fn() -> Result<Box<dyn Notifier>, ChannelError> + Send + Sync;

pub(super) struct DeferredNotifier {
    kind: ChannelKind,
    build: Box<NotifierFactory>,
    built: OnceLock<Box<dyn Notifier>>,
}

impl DeferredNotifier {
    /// A notifier that `build` makes as soon as the channel's secret can be read.
    pub fn new(
        kind: ChannelKind,
        build: impl Fn() -> Result<Box<dyn Notifier>, ChannelError> + Send + Sync + 'static,
    ) -> DeferredNotifier {
        DeferredNotifier { kind, build: Box::new(build), built: OnceLock::new() }
    }

    /// The channel itself, or why there is none yet.
    fn ready(&self) -> Result<&dyn Notifier, String> {
        if let Some(notifier) = self.built.get() {
            return Ok(notifier.as_ref());
        }
        match (self.build)() {
            Ok(notifier) => {
                tracing::info!(kind = self.kind.word(), "channel enabled: its secret can be read now");
                Ok(self.built.get_or_init(|| notifier).as_ref())
            }
            Err(ChannelError::Secret(why) | ChannelError::Setting(why)) => Err(why),
        }
    }
}

fn retry(why: String) -> DeliveryResult {
    DeliveryResult::Retry { after: None, why }
}

#[async_trait::async_trait]
impl Notifier for DeferredNotifier {
    fn kind(&self) -> ChannelKind {
        self.kind
    }

    async fn deliver(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        match self.ready() {
            Ok(notifier) => notifier.deliver(notice, prior).await,
            Err(why) => retry(why),
        }
    }

    async fn digest(&self, digest: &IncidentDigest, prior: Option<&DeliveryReceipt>) -> DeliveryResult {
        match self.ready() {
            Ok(notifier) => notifier.digest(digest, prior).await,
            Err(why) => retry(why),
        }
    }

    fn pace(&self) -> Option<&ChannelRateLimit> {
        self.built.get().and_then(|notifier| notifier.pace())
    }

    fn speaks(&self, notice: &IncidentNotice, prior: Option<&DeliveryReceipt>) -> bool {
        self.built.get().is_none_or(|notifier| notifier.speaks(notice, prior))
    }

    fn waits_for_plan(&self) -> bool {
        self.built.get().is_some_and(|notifier| notifier.waits_for_plan())
    }

    fn off(&self) -> Option<String> {
        self.ready().err()
    }

    async fn probe(&self) -> Result<String, String> {
        self.ready()?.probe().await
    }
}
