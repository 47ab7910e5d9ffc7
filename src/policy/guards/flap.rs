//! Flap hold: a complaint that comes and goes is no ground to act on.
//!
//! Invariant: asked before a run acts for the first time; held until the complaint was steady for the whole window.

use crate::limits;
use crate::model::{Reason, ReasonCode, Verdict};
use crate::policy::admit::Asked;

pub(super) fn check(asked: &Asked<'_>) -> Option<Verdict> {
    let levels = asked.levels;
    if !asked.acts() || asked.undoes() || levels.acted || levels.came_back < limits::FLAPS {
        return None;
    }
    let window = limits::FLAP_WINDOW;
    let last = levels.came_back_at?.min(asked.now);
    let until = last.checked_add(window.0).unwrap_or(asked.now);
    let text = format!(
        "the complaint came back {} times within {window}: it flaps, and actions wait until it was steady for as long",
        levels.came_back
    );
    Some(Verdict::Hold { reason: Reason::new(ReasonCode::Flapping, text), until })
}
