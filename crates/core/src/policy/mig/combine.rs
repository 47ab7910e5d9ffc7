//! One choice for each GPU, so that together they serve the demand at the least price.
//!
//! Invariant: a pod that leaves one GPU has a place on some GPU; with few states no combination is left out, and an
//! omission beyond that is reported (`exact`).

use super::MigCost;
use super::options::{CombinedDemand, GpuChoice, ProfileDelta};
use crate::limits;
use std::collections::HashMap;

/// The best combination.
pub(super) struct MigSelection {
    /// Index of a choice, for each GPU.
    pub choices: Vec<usize>,
    /// The demand without a place, by profile.
    pub left: ProfileDelta,
    pub cost: MigCost,
}

/// Where the first GPUs of the row have led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MigSearchState {
    /// The rest to be placed: demand and pods that left, less new instances; below zero, made for pods to come.
    left: ProfileDelta,
    moves: u32,
    cost: u64,
    changes: u32,
    freedom: i32,
    /// The state before, and the choice that led here.
    from: (u32, u32),
}

impl MigSearchState {
    fn rank(&self) -> (u64, u32, i32) {
        (self.cost, self.changes, -self.freedom)
    }
}

pub(super) fn combine(options: &[Vec<GpuChoice>], question: &CombinedDemand) -> (MigSelection, bool) {
    let width = width(options);
    let first = MigSearchState { left: question.wanted, moves: 0, cost: 0, changes: 0, freedom: 0, from: (0, 0) };
    let mut layers = vec![vec![first]];
    let mut exact = true;
    for list in options {
        let before = layers.last().map_or(&[][..], Vec::as_slice);
        let mut next = advance(before, list, question);
        if next.len() > width {
            exact = false;
            next = best_of(next, width, question);
        }
        layers.push(next);
    }
    let (at, end) = end(layers.last().map_or(&[][..], Vec::as_slice), question);
    let mut choices = Vec::with_capacity(options.len());
    let (mut at, mut state) = (at, end);
    for layer in layers.iter().rev().skip(1) {
        choices.push(state.from.1 as usize);
        at = state.from.0 as usize;
        state = layer[at];
    }
    debug_assert_eq!(at, 0, "every row of choices begins at the one first state");
    choices.reverse();
    let left = end.left.map(|left| left.max(0));
    let cost = MigCost { unserved: unserved(&left), moving: end.cost, changes: end.changes };
    (MigSelection { choices, left, cost }, exact)
}

/// How many states are kept, so that the work is bounded whatever the number of GPUs.
fn width(options: &[Vec<GpuChoice>]) -> usize {
    let steps: usize = options.iter().map(Vec::len).sum();
    (limits::MIG_SEARCH_STEPS / steps.max(1)).max(limits::MIG_SEARCH_WIDTH_MIN)
}

fn advance(before: &[MigSearchState], list: &[GpuChoice], question: &CombinedDemand) -> Vec<MigSearchState> {
    let mut next: Vec<MigSearchState> = Vec::new();
    let mut known: HashMap<(ProfileDelta, u32), usize> = HashMap::new();
    for (from, state) in before.iter().enumerate() {
        for (index, choice) in list.iter().enumerate() {
            let moves = state.moves + choice.moves();
            let Some(left) = after(state, choice, moves, question) else { continue };
            let candidate = MigSearchState {
                left,
                moves,
                cost: state.cost + choice.cost,
                changes: state.changes + choice.changes,
                freedom: state.freedom + choice.freedom,
                from: (u32::try_from(from).unwrap_or(0), u32::try_from(index).unwrap_or(0)),
            };
            let slot = *known.entry((left, moves)).or_insert_with(|| {
                next.push(candidate);
                next.len() - 1
            });
            if candidate.rank() < next[slot].rank() {
                next[slot] = candidate;
            }
        }
    }
    next
}

/// The rest after this choice, unless more is made than pods that may yet move could use.
fn after(state: &MigSearchState, choice: &GpuChoice, moves: u32, question: &CombinedDemand) -> Option<ProfileDelta> {
    if moves > question.most_moves {
        return None;
    }
    let spare = i32::try_from(question.most_moves - moves).unwrap_or(i32::MAX);
    let mut left = state.left;
    let mut ahead = 0;
    for (left, net) in left.iter_mut().zip(choice.net) {
        *left -= net;
        ahead += i32::from((-*left).max(0));
    }
    (ahead <= spare).then_some(left)
}

/// Of too many states the most promising, as many with each number of moves, so that a costly shortcut taken early
/// cannot crowd out the plan that needs none.
fn best_of(states: Vec<MigSearchState>, width: usize, question: &CombinedDemand) -> Vec<MigSearchState> {
    let buckets = question.most_moves as usize + 1;
    let each = (width / buckets).max(1);
    let to_do = |state: &MigSearchState| -> i64 {
        state.left.iter().zip(question.widths).map(|(left, width)| i64::from((*left).max(0)) * width).sum()
    };
    let mut sorted: Vec<Vec<(i64, MigSearchState)>> = vec![Vec::new(); buckets];
    for state in states {
        sorted[state.moves as usize].push((to_do(&state), state));
    }
    let mut kept = Vec::with_capacity(width);
    for mut bucket in sorted {
        bucket.sort_by_key(|(to_do, state)| (*to_do, state.rank(), state.left));
        kept.extend(bucket.into_iter().take(each).map(|(_, state)| state));
    }
    kept
}

/// The best of the last states in which every pod that left has a place. Leaving all as it is always is one.
fn end(states: &[MigSearchState], question: &CombinedDemand) -> (usize, MigSearchState) {
    let is_whole =
        |state: &MigSearchState| state.left.iter().zip(question.wanted).all(|(left, wanted)| *left <= wanted);
    let rank = |state: &MigSearchState| (unserved(&state.left), state.rank());
    let whole = states.iter().enumerate().filter(|(_, state)| is_whole(state));
    let best = whole.min_by_key(|(_, state)| rank(state)).expect("leaving everything as it is, is always possible");
    (best.0, *best.1)
}

fn unserved(left: &ProfileDelta) -> u32 {
    left.iter().map(|left| u32::try_from(*left).unwrap_or(0)).sum()
}
