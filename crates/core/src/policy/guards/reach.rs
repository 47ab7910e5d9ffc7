//! Reach: a runbook does not hurt more than its header says.
//!
//! Invariant: the header is what a reviewer read, so a call beyond it is denied, not held.

use crate::model::{ReasonCode, Verdict};
use crate::policy::admit::Asked;

pub(super) fn check(asked: &Asked<'_>) -> Option<Verdict> {
    let (wants, declared) = (asked.proposal.reach, asked.levels.declared_reach);
    // Undo reaches no further than what it takes back, and that passed here.
    if !asked.acts() || asked.undoes() || wants <= declared {
        return None;
    }
    let text = format!(
        "{} affects {wants}, and the runbook's header declares `scope: {declared}`: change the header if that is intended",
        asked.proposal.call.action
    );
    asked.deny(ReasonCode::ReachExceeded, text)
}
