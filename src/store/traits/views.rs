//! Reading: the rows that pages, messages and loops show or look through.
//!
//! Invariant: a view sees only committed rows, at most `limits::READ_LIMIT` of them, and changes nothing. A row that cannot be
//! read is left out and parked at the next `tick`, but where it is the one that the filter names.

use crate::model::{Approval, Entry, Episode, EpisodeId, Freeze, Incident, Run, RunId, Step, Time};
use crate::store::{Filter, HeldNode, StoreCounts, StoreError};

#[async_trait::async_trait]
pub trait Views: Send + Sync + 'static {
    /// Incidents that match, the newest first, or in order after `filter.after`.
    async fn incidents(&self, filter: Filter) -> Result<Vec<Incident>, StoreError>;

    /// Episodes that match, in the same order.
    async fn episodes(&self, filter: Filter) -> Result<Vec<Episode>, StoreError>;

    /// Runs that match, in the same order.
    async fn runs(&self, filter: Filter) -> Result<Vec<Run>, StoreError>;

    /// Every step of a run, by number; none where the run is not there.
    async fn steps(&self, run: RunId) -> Result<Vec<Step>, StoreError>;

    /// Approvals that match, in the order of incidents.
    async fn approvals(&self, filter: Filter) -> Result<Vec<Approval>, StoreError>;

    /// Ledger entries with a body that match, in the same order. `Heard` entries are about many incidents: for one of them they
    /// are found only where the filter names that kind.
    async fn entries(&self, filter: Filter) -> Result<Vec<Entry>, StoreError>;

    /// The freezes in force, by scope.
    async fn freezes(&self) -> Result<Vec<Freeze>, StoreError>;

    /// The nodes that unfinished runs hold, by cluster and name.
    async fn holds(&self) -> Result<Vec<HeldNode>, StoreError>;

    /// How many rows of each kind are open, due or signed.
    async fn counts(&self) -> Result<StoreCounts, StoreError>;

    /// Open episodes of a source not seen since `before`, by the time they were last seen, in pages: those after this time and
    /// number. For the reconciler.
    async fn unseen(
        &self,
        source: &str,
        before: Time,
        after: Option<(Time, EpisodeId)>,
        limit: usize,
    ) -> Result<Vec<Episode>, StoreError>;
}
