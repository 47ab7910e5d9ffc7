//! Why demand has no place, in words that name the obstacle and a way out.
//!
//! Invariant: every unserved profile has a reason, and the reason names the GPUs that were left out.

use super::options::{CombinedDemand, GpuChoice, ProfileDelta};
use super::{MigBoard, MigOccupancy, MigRefusal, MigSeat};
use crate::limits;
use crate::model::MigProfile;

pub(super) fn refusals(
    boards: &[MigBoard],
    chosen: &[&GpuChoice],
    question: &CombinedDemand,
    left: &ProfileDelta,
) -> Vec<MigRefusal> {
    let unserved = question.profiles.iter().zip(left).filter(|(_, left)| **left > 0);
    let refusal = |(profile, left): (&String, &i16)| MigRefusal {
        profile: profile.clone(),
        count: u32::from(left.unsigned_abs()),
        why: why(boards, chosen, profile, question.most_moves),
    };
    unserved.map(refusal).collect()
}

fn why(boards: &[MigBoard], chosen: &[&GpuChoice], profile: &str, allowed: u32) -> String {
    let offers = |board: &MigBoard| board.geometry.profiles().iter().find(|known| known.name == profile).cloned();
    let mut parts = Vec::new();
    let open = boards.iter().zip(chosen).filter(|(board, _)| board.shut.is_none());
    let fitting: Vec<(&MigBoard, &&GpuChoice, MigProfile)> =
        open.filter_map(|(board, choice)| Some((board, choice, offers(board)?))).collect();
    if fitting.is_empty() {
        parts.push(format!("no GPU that may be touched offers {profile}"));
    }
    let mut words: Vec<(u32, String)> =
        fitting.iter().map(|(board, choice, profile)| obstacle(board, choice, profile, allowed)).collect();
    // The GPU that lacks least first.
    words.sort();
    listed(&mut parts, words.into_iter().map(|(_, text)| text).collect());
    let shut =
        boards.iter().filter_map(|board| Some(format!("GPU {} is left out: {}", board.name, board.shut.as_ref()?)));
    listed(&mut parts, shut.collect());
    parts.join("; ")
}

/// The best place of one GPU, with the obstacles in its way: their number, and the words.
fn obstacle(board: &MigBoard, choice: &GpuChoice, profile: &MigProfile, allowed: u32) -> (u32, String) {
    let name = &board.name;
    let overlaps = |seat: &MigSeat, start: u32| {
        let width = board.geometry.profiles().iter().find(|p| p.name == seat.place.profile).map_or(0, |p| p.width);
        seat.place.start < start + profile.width && start < seat.place.start + width
    };
    // An instance that the plan itself puts on the GPU is an obstacle like a pod that may move.
    let planned = |start: u32| {
        choice
            .serving
            .iter()
            .filter(|place| place.start < start + profile.width && start < place.start + place.mask.count_ones())
            .count()
    };
    let mut best: Option<(u32, Vec<&str>)> = None;
    let mut pinned: Option<(&str, &str)> = None;
    for start in &profile.starts {
        let in_way: Vec<&MigSeat> = board.seats.iter().filter(|seat| overlaps(seat, *start)).collect();
        let fixed = in_way.iter().find_map(|seat| match &seat.held {
            MigOccupancy::Pinned { by, why } => Some((by.as_str(), why.as_str())),
            _ => None,
        });
        if fixed.is_some() {
            pinned = pinned.or(fixed);
            continue;
        }
        let pods: Vec<&str> = in_way
            .iter()
            .filter_map(|seat| match &seat.held {
                MigOccupancy::Movable { pod, .. } => Some(pod.as_str()),
                _ => None,
            })
            .collect();
        let count = u32::try_from(pods.len() + planned(*start)).unwrap_or(u32::MAX);
        if best.as_ref().is_none_or(|(least, _)| count < *least) {
            best = Some((count, pods));
        }
    }
    match (best, pinned) {
        (Some((0, _)), _) => (
            0,
            format!("GPU {name} has the place, but not the compute slices or the count that {} needs", profile.name),
        ),
        (Some((count, pods)), _) if pods.is_empty() => {
            (count, format!("GPU {name} is used up by other demand of this plan"))
        }
        (Some((count, pods)), _) => {
            let moved = pods.into_iter().take(limits::NAMES_SHOWN).collect::<Vec<_>>().join(", ");
            (
                count,
                format!(
                    "GPU {name} would need {count} to move ({moved}) and room for them elsewhere; {allowed} may move in one run"
                ),
            )
        }
        (None, Some((by, why))) => {
            (u32::MAX, format!("every slot on GPU {name} is held by a pod that may not move: {by} ({why})"))
        }
        (None, None) => (u32::MAX, format!("GPU {name} has no place for {}", profile.name)),
    }
}

fn listed(parts: &mut Vec<String>, all: Vec<String>) {
    let more = all.len().saturating_sub(limits::NAMES_SHOWN);
    parts.extend(all.into_iter().take(limits::NAMES_SHOWN));
    if more > 0 {
        parts.push(format!("and {more} more GPUs alike"));
    }
}
