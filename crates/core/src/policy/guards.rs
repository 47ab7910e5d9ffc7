//! The guards, one a file, in the order in which they are checked.
//!
//! Invariant: a guard passes or refuses with a reason that carries the numbers; it never overrules another one's
//! refusal.

mod approval;
mod blast_radius;
mod breaker;
mod confirmed;
mod cooldown;
mod correlated;
mod domain;
mod episode;
mod flap;
mod foreign_cordon;
mod given_back;
mod kill_switch;
mod mode;
mod node_lock;
mod only_node;
mod protected;
mod reach;
mod serving_floor;
mod silenced;

pub use blast_radius::{nodes_at_once, share_of};

use super::admit::GuardCheck;
use crate::limits;
use crate::model::GuardDecision;

/// A guard: `None` where it passes.
pub(super) type Guard = fn(&GuardCheck<'_>) -> Option<GuardDecision>;

/// Cheap and absolute ones first, budgets last: a step that is denied for ever must not wait.
pub(super) const ALL: [Guard; 19] = [
    mode::check,
    kill_switch::check,
    protected::check,
    episode::check,
    reach::check,
    only_node::check,
    foreign_cordon::check,
    given_back::check,
    approval::check,
    breaker::check,
    correlated::check,
    flap::check,
    confirmed::check,
    silenced::check,
    cooldown::check,
    node_lock::check,
    domain::check,
    serving_floor::check,
    blast_radius::check,
];

/// For a step that has begun and is performed again: only decisions that users may have changed since.
pub(super) const AGAIN: [Guard; 1] = [kill_switch::check];

/// A few names for a sentence: `gpu-1, gpu-7 and 3 more`.
fn some_of<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    let more = names.len().saturating_sub(limits::NAMES_SHOWN);
    let shown: Vec<&str> = names.take(limits::NAMES_SHOWN).collect();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
