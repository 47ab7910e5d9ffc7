//! Still true: an alert that ended before anything was done needs no remedy; while it may be a flap, the step waits.
//!
//! Invariant: checked in the transaction that begins the first act; a run that has acted goes on to its end.

use crate::model::{GuardDecision, Reason, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    if !asked.acts() || asked.undoes() || asked.levels.acted || !asked.levels.over {
        return None;
    }
    if let Some(until) = asked.levels.kept {
        let text = format!(
            "its alert has ended; {} starts only if the alert fires again before {}",
            asked.proposal.call,
            until.strftime("%H:%M UTC")
        );
        return Some(GuardDecision::Hold { reason: Reason::new(ReasonCode::EpisodeOver, text), until });
    }
    let text = format!("the alert ended before {} could start; no action was taken", asked.proposal.call);
    asked.deny(ReasonCode::EpisodeOver, text)
}
