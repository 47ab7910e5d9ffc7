//! The MIG planner: from the instances on each GPU, the movable pods and their prices, and the demand that waits for
//! room, it computes the cheapest ordered steps that make room.
//!
//! Each GPU is searched exhaustively (an A100 has 723 layouts); the GPUs are then put together exactly while that is
//! few states, and by the best states beyond it, which the plan marks (`exact`).
//!
//! Invariant: a GPU that is shut is never touched, a pinned instance never moves, and an evicted pod always has a new
//! place in the same plan.

mod combine;
mod cost;
mod geometry;
mod options;
mod refuse;
mod steps;
mod tables;
#[cfg(test)]
mod tests;
mod waiting;

pub use cost::move_cost;
pub use geometry::MigGeometry;
pub use tables::profiles_of_product;
pub use waiting::{MigNode, NodeConstraints};

use crate::limits;
use crate::model::{MigPlace, MigStep};
use serde::Serialize;
use std::sync::Arc;

/// Who has an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MigOccupancy {
    /// No one: free to be used or destroyed.
    Idle,
    /// A pod that may be moved, at this price (see `move_cost`).
    Movable { pod: String, cost: u64 },
    /// A pod or process that may not be moved.
    Pinned { by: String, why: String },
}

/// An instance as it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigSeat {
    pub place: MigPlace,
    pub held: MigOccupancy,
}

/// A GPU as the planner sees it.
#[derive(Debug, Clone)]
pub struct MigBoard {
    pub name: String,
    pub geometry: Arc<MigGeometry>,
    pub seats: Vec<MigSeat>,
    /// Why it must not be touched: it is unhealthy, its mode is pending, or it is another user's.
    pub shut: Option<String>,
}

/// Instances that wait for room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigDemand {
    pub profile: String,
    pub count: u32,
}

/// The bounds of one plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigBounds {
    /// Pods that one run may move.
    pub most_moves: u32,
}

impl Default for MigBounds {
    fn default() -> Self {
        MigBounds { most_moves: limits::MIG_MOVES }
    }
}

/// The cost of a plan. Plans are compared field by field, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct MigCost {
    /// Instances of the demand without a place.
    pub unserved: u32,
    /// Of the pods that move.
    pub moving: u64,
    /// Instances destroyed and created.
    pub changes: u32,
}

/// A pod that gives up its instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigMove {
    pub pod: String,
    pub gpu: String,
    pub place: MigPlace,
}

/// Demand that has no place, and why, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigRefusal {
    pub profile: String,
    pub count: u32,
    pub why: String,
}

/// The layout of one GPU that the plan changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigDiff {
    pub gpu: String,
    pub before: Vec<MigPlace>,
    pub after: Vec<MigPlace>,
    /// The part of `after` that serves the demand: idle before, or new.
    pub serves: Vec<MigPlace>,
}

/// Ordered steps that make room, with their moves, diffs and cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigPlan {
    pub steps: Vec<MigStep>,
    pub moves: Vec<MigMove>,
    pub diffs: Vec<MigDiff>,
    pub cost: MigCost,
    pub refused: Vec<MigRefusal>,
    /// No plan is cheaper. False only when there were too many GPUs and demands to look at every combination.
    pub exact: bool,
}

/// Why no plan was computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MigPlanError {
    #[error("{0} different profiles at once are too many (at most {1}): plan for fewer at a time")]
    TooManyProfiles(usize, usize),
    #[error("{0} instances are requested at once, the limit is {1}: plan in parts")]
    TooMuchDemand(u32, u32),
    #[error("GPU {gpu}: {why}")]
    Board { gpu: String, why: String },
}

/// The cheapest steps that make room for the demand: first as little of it unserved as can be, then the least price of
/// moved pods, then the fewest changes, then the layouts that leave the most legal placements.
///
/// # Errors
///
/// Fails when the demand names too many profiles or instances, or when a GPU's description is contradictory.
pub fn plan_mig(boards: &[MigBoard], demand: &[MigDemand], bounds: MigBounds) -> Result<MigPlan, MigPlanError> {
    let question = options::CombinedDemand::new(boards, demand, bounds)?;
    let options: Vec<Vec<options::GpuChoice>> =
        boards.iter().map(|board| options::choices(board, &question)).collect::<Result<_, _>>()?;
    let (picked, exact) = combine::combine(&options, &question);
    let chosen: Vec<&options::GpuChoice> = options.iter().zip(&picked.choices).map(|(list, at)| &list[*at]).collect();
    let diffs = steps::diffs(boards, &chosen);
    Ok(MigPlan {
        steps: steps::steps(boards, &chosen, &question),
        moves: steps::moves(boards, &chosen),
        refused: refuse::refusals(boards, &chosen, &question, &picked.left),
        diffs,
        cost: picked.cost,
        exact,
    })
}
