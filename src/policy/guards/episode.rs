//! Still true: an alert that ended before anything was done needs no remedy.
//!
//! Invariant: asked in the transaction that begins the first act; a run that has acted goes on to its end.

use crate::model::{ReasonCode, Verdict};
use crate::policy::admit::Asked;

pub(super) fn check(asked: &Asked<'_>) -> Option<Verdict> {
    if !asked.acts() || asked.undoes() || asked.levels.acted || !asked.levels.over {
        return None;
    }
    let text = format!("the alert ended before {} could begin; nothing was done", asked.proposal.call);
    asked.deny(ReasonCode::EpisodeOver, text)
}
