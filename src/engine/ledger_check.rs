//! The ledger read again, a stretch a minute from its beginning to its end and over: bodies against their commitments, and a path
//! to the signed root.
//!
//! Invariant: it changes nothing; damage is counted and logged each time it is met, for as long as it is there.

use super::EngineParts;
use crate::limits::{LEDGER_CHECK_BYTES, LEDGER_CHECK_ENTRIES, LEDGER_CHECK_PAGE};
use crate::model::EntryNo;
use crate::store::ledger::{Checkpoint, EntryLeaf, NoteError, commitment, verify_inclusion, verify_note};
use crate::store::{RawEntry, StoreError};

/// How far the round has come.
#[derive(Debug, Default)]
pub struct LedgerCheck {
    after: Option<EntryNo>,
}

impl LedgerCheck {
    /// One stretch of the ledger, bounded in entries and bytes, against the newest checkpoint; there is none on a young store.
    pub async fn pass(&mut self, parts: &EngineParts, newest: Option<&Checkpoint>) {
        match self.stretch(parts, newest).await {
            Ok(()) => {}
            Err(LedgerFault::Damage(what)) => {
                parts.metrics.audit_verify_failed();
                tracing::error!(%what, "the ledger is damaged; do not change the store, and run `nightshift audit verify`");
            }
            Err(LedgerFault::Store(StoreError::Damaged(what))) => {
                parts.metrics.audit_verify_failed();
                self.after = None;
                tracing::error!(%what, "the ledger cannot be read back; do not change the store, and run `nightshift audit verify`");
            }
            Err(LedgerFault::Store(error)) => {
                tracing::warn!(%error, "ledger check failed; retrying in 1 min")
            }
        }
    }

    async fn stretch(&mut self, parts: &EngineParts, newest: Option<&Checkpoint>) -> Result<(), LedgerFault> {
        let wrong = |error: NoteError| LedgerFault::Damage(format!("the newest checkpoint: {error}"));
        let signed = newest.map(|newest| verify_note(&newest.note, parts.key.public())).transpose().map_err(wrong)?;
        let (mut entries, mut bytes, mut covered) = (0, 0, None);
        while entries < LEDGER_CHECK_ENTRIES && bytes < LEDGER_CHECK_BYTES {
            let page = parts.store.raw_entries(self.after, LEDGER_CHECK_PAGE).await?;
            let from = self.after.map_or(0, |after| after.0 + 1);
            self.after = page.last().map(|last| last.no).filter(|_| page.len() == LEDGER_CHECK_PAGE);
            for (no, entry) in (from..).zip(&page) {
                check(no, entry)?;
                bytes += entry.body.as_ref().map_or(0, Vec::len);
                if signed.as_ref().is_some_and(|said| entry.no.0.unsigned_abs() < said.size) {
                    covered = Some(EntryLeaf { no: entry.no, at: entry.at, commit: entry.commit });
                }
            }
            entries += page.len();
            if self.after.is_none() {
                break;
            }
        }
        // The tiles between the leaves and the root are on every path, so one entry of each stretch will do.
        let (Some(said), Some(shown)) = (signed, covered) else { return Ok(()) };
        let (leaf, path) = parts.store.inclusion(shown.no, said.size).await?;
        if leaf != shown.hash() || !verify_inclusion(leaf, shown.no.0.unsigned_abs(), said.size, &path, said.root) {
            return Err(LedgerFault::Damage(format!("entry {} does not lead to the signed root", shown.no)));
        }
        Ok(())
    }
}

fn check(no: i64, entry: &RawEntry) -> Result<(), LedgerFault> {
    if entry.no.0 != no {
        return Err(LedgerFault::Damage(format!("entry #{no} is missing")));
    }
    match (&entry.salt, &entry.body) {
        (Some(salt), Some(body)) if commitment(salt, body) != entry.commit => {
            Err(LedgerFault::Damage(format!("entry #{no} differs from the entry that was written")))
        }
        _ => Ok(()),
    }
}

enum LedgerFault {
    Damage(String),
    Store(StoreError),
}

impl From<StoreError> for LedgerFault {
    fn from(error: StoreError) -> LedgerFault {
        LedgerFault::Store(error)
    }
}
