//! Mode: a rule that only looks must not act.
//!
//! Invariant: in observe and suggest nothing but reads begins; the engine never asks, so a refusal here shows a bug.

use crate::model::{Mode, ReasonCode, Verdict};
use crate::policy::admit::Asked;

pub(super) fn check(asked: &Asked<'_>) -> Option<Verdict> {
    if asked.reads() || asked.levels.mode >= Mode::Approve {
        return None;
    }
    let text = format!(
        "{} would change something, and the mode is {}: only reads may begin; this is a fault of the engine",
        asked.proposal.call.action, asked.levels.mode
    );
    asked.deny(ReasonCode::Mode, text)
}
