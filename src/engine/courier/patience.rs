//! Channels that leave an incident to automation: whether they are notified yet.
//!
//! Invariant: a channel with a message gets its edits; one without is silent only for a recorded reason.

use super::{DispatchCounts, NotificationDispatcher};
use crate::limits::READ_LIMIT;
use crate::model::{EntryKind, EpisodeState, IncidentId, IncidentState, Span};
use crate::policy::{PageDecision, page};
use crate::store::{DeliveryOutcome, DueNotice, Filter, StoreError};
use std::collections::HashMap;

impl NotificationDispatcher {
    /// Those of the rows that users need to see, and why for those that waited for it.
    pub(super) async fn needed(
        &self,
        channel: &str,
        rows: Vec<DueNotice>,
        passed: &mut DispatchCounts,
    ) -> (Vec<DueNotice>, HashMap<IncidentId, String>) {
        let mut because = HashMap::new();
        let Some(patience) = self.patience.get(channel) else { return (rows, because) };
        let mut needed = Vec::with_capacity(rows.len());
        for row in rows {
            if row.receipt.is_some() || row.maybe_sent {
                needed.push(row);
                continue;
            }
            match self.judged(&row, *patience).await {
                Ok(Some(why)) => {
                    because.insert(row.incident, why);
                    needed.push(row);
                }
                Ok(None) => passed.spared += 1,
                Err(error) => {
                    // In doubt people are told.
                    tracing::error!(%error, incident = %row.incident, %channel, "cannot read whether a notification is due");
                    needed.push(row);
                }
            }
        }
        (needed, because)
    }

    /// Why it must be sent now; none: not yet.
    async fn judged(&self, row: &DueNotice, patience: Span) -> Result<Option<String>, StoreError> {
        let about = || Filter { incident: Some(row.incident), limit: READ_LIMIT, ..Filter::default() };
        let Some(incident) = self.incident(row).await? else {
            return Ok(Some("it is no longer stored".to_owned()));
        };
        let runs = self.views.runs(about()).await?;
        let unknown = incident.state == IncidentState::Resolved
            && self.views.episodes(about()).await?.iter().any(|episode| episode.state == EpisodeState::Stale);
        let (paged, why, until) = match page(&incident, &runs, unknown, patience, self.clock.now()) {
            PageDecision::Now { why } => (true, why, None),
            PageDecision::NotYet { why, until } => (false, why, Some(until)),
            PageDecision::Spared { why } => (false, why, None),
        };
        let told = self.views.entries(Filter { kinds: vec!["page_judged"], ..about() }).await?;
        let last = told.iter().filter_map(|entry| match &entry.kind {
            EntryKind::PageJudged { channel, paged, until, .. } if *channel == row.channel => {
                Some((entry.no, *paged, *until))
            }
            _ => None,
        });
        // Its reason to wait changes by the second, and is in the timeline as it is; only the decision is written down.
        let news = last.max_by_key(|(no, ..)| *no).is_none_or(|(_, before, then)| (before, then) != (paged, until));
        let what = DeliveryOutcome::Judged { upto: row.want, paged, why: why.clone(), until, news };
        self.outbox.receipted(&row.channel, row.incident, what, self.clock.now()).await?;
        Ok(paged.then_some(why))
    }
}
