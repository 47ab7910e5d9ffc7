//! From chosen layouts to ordered steps, and to the difference that users look at.
//!
//! Invariant: an instance is created only where nothing lies any more, and a pod is evicted only after its new place is
//! there, wherever that can be had.

use super::geometry::ProfilePlacement;
use super::options::{CombinedDemand, GpuChoice};
use super::{MigBoard, MigDiff, MigMove, MigOccupancy};
use crate::model::{MigAct, MigPlace, MigStep, mig_resource};
use std::collections::BTreeMap;

/// Which seats go: their pods leave, or they are idle and in the way.
fn goes(choice: &GpuChoice, seat: usize) -> bool {
    (choice.leaving | choice.cleared) & (1 << seat) != 0
}

/// The places that are new, not idle ones that are used.
fn created(board: &MigBoard, choice: &GpuChoice) -> Vec<ProfilePlacement> {
    let stays = |place: &ProfilePlacement| {
        let named = board.geometry.named(*place);
        board.seats.iter().enumerate().any(|(at, seat)| seat.place == named && !goes(choice, at))
    };
    choice.serving.iter().filter(|place| !stays(place)).copied().collect()
}

pub(super) fn moves(boards: &[MigBoard], chosen: &[&GpuChoice]) -> Vec<MigMove> {
    let mut list = Vec::new();
    for (board, choice) in boards.iter().zip(chosen) {
        for (at, seat) in board.seats.iter().enumerate() {
            if let (MigOccupancy::Movable { pod, .. }, true) = (&seat.held, choice.leaving & (1 << at) != 0) {
                list.push(MigMove { pod: pod.clone(), gpu: board.name.clone(), place: seat.place.clone() });
            }
        }
    }
    list
}

pub(super) fn diffs(boards: &[MigBoard], chosen: &[&GpuChoice]) -> Vec<MigDiff> {
    let mut list = Vec::new();
    for (board, choice) in boards.iter().zip(chosen).filter(|(_, choice)| **choice != &GpuChoice::default()) {
        let mut before: Vec<MigPlace> = board.seats.iter().map(|seat| seat.place.clone()).collect();
        let kept =
            board.seats.iter().enumerate().filter(|(at, _)| !goes(choice, *at)).map(|(_, seat)| seat.place.clone());
        let new = created(board, choice).into_iter().map(|place| board.geometry.named(place));
        let mut after: Vec<MigPlace> = kept.chain(new).collect();
        let mut serves: Vec<MigPlace> = choice.serving.iter().map(|place| board.geometry.named(*place)).collect();
        for places in [&mut before, &mut after, &mut serves] {
            places.sort_by_key(|place| place.start);
        }
        list.push(MigDiff { gpu: board.name.clone(), before, after, serves });
    }
    list
}

/// Something of the old layouts that must go.
struct ObsoleteInstance {
    board: usize,
    place: ProfilePlacement,
    /// The pod that has it.
    pod: Option<String>,
}

struct MigStepBuilder<'a> {
    boards: &'a [MigBoard],
    /// Slots taken on each board, as the steps so far leave them.
    taken: Vec<u16>,
    /// Compute slices that are used, likewise.
    slices: Vec<u32>,
    steps: Vec<MigStep>,
}

pub(super) fn steps(boards: &[MigBoard], chosen: &[&GpuChoice], question: &CombinedDemand) -> Vec<MigStep> {
    let mut builder =
        MigStepBuilder { boards, taken: vec![0; boards.len()], slices: vec![0; boards.len()], steps: Vec::new() };
    let (mut doomed, mut to_create) = (Vec::new(), Vec::new());
    for (board, choice) in chosen.iter().enumerate() {
        for (at, seat) in boards[board].seats.iter().enumerate() {
            let Some(place) = boards[board].geometry.find(&seat.place) else { continue };
            builder.taken[board] |= place.mask;
            builder.slices[board] += place.slices;
            if goes(choice, at) {
                let pod = match &seat.held {
                    MigOccupancy::Movable { pod, .. } => Some(pod.clone()),
                    _ => None,
                };
                doomed.push(ObsoleteInstance { board, place, pod });
            }
        }
        to_create.extend(created(&boards[board], choice).into_iter().map(|place| (board, place)));
    }
    // Idle instances first: no workload uses them, and their room may receive a pod that moves.
    doomed.sort_by_key(|doomed| doomed.pod.is_some());
    let mut doomed = doomed.into_iter().peekable();
    while !to_create.is_empty() || doomed.peek().is_some() {
        builder.create_what_fits(&mut to_create);
        match doomed.next() {
            Some(next) => builder.destroy(next),
            None => debug_assert!(to_create.is_empty(), "once the old is gone, the new fits"),
        }
    }
    builder.release(chosen, question);
    builder.steps
}

impl MigStepBuilder<'_> {
    fn create_what_fits(&mut self, to_create: &mut Vec<(usize, ProfilePlacement)>) {
        let mut counts: BTreeMap<(usize, usize), u32> = BTreeMap::new();
        to_create.retain(|(board, place)| {
            let slices = self.slices[*board] + place.slices;
            if self.taken[*board] & place.mask != 0 || slices > self.boards[*board].geometry.slices() {
                return true;
            }
            self.create(*board, *place);
            *counts.entry((*board, place.profile)).or_default() += 1;
            false
        });
        for ((board, profile), count) in counts {
            let profile = self.boards[board].geometry.profiles()[profile].name.clone();
            let resource = mig_resource(&profile);
            let gives = format!("the node offers {count} more {resource}");
            let needs = "the device plugin has read the GPU again".to_owned();
            self.push(board, MigAct::WaitAdvertised { profile, count }, needs, gives, None);
        }
    }

    fn create(&mut self, board: usize, place: ProfilePlacement) {
        let MigPlace { profile, start } = self.boards[board].geometry.named(place);
        let end = start + place.mask.count_ones();
        let act = MigAct::CreateInstance { profile: profile.clone(), start };
        let undo = Some(MigAct::DestroyInstance { profile: profile.clone(), start });
        let needs = format!("slots {start} to {} are free", end - 1);
        self.push(board, act, needs, format!("a {profile} lies at {start}"), undo);
        let act = MigAct::CreateCompute { profile: profile.clone(), start };
        let undo = Some(MigAct::DestroyCompute { profile: profile.clone(), start });
        let needs = format!("a {profile} lies at {start} without a compute instance");
        self.push(board, act, needs, format!("the {profile} at {start} can be given to a container"), undo);
        self.taken[board] |= place.mask;
        self.slices[board] += place.slices;
    }

    fn destroy(&mut self, doomed: ObsoleteInstance) {
        let board = doomed.board;
        let MigPlace { profile, start } = self.boards[board].geometry.named(doomed.place);
        if let Some(pod) = doomed.pod {
            let needs = format!("pod {pod} holds the {profile} at {start}, and its disruption budget lets it go");
            let gives = format!("no process holds the {profile} at {start}");
            // Its owner starts it again; there is nothing to take back.
            self.push(board, MigAct::EvictPod { pod }, needs, gives, None);
        }
        let act = MigAct::DestroyCompute { profile: profile.clone(), start };
        let undo = Some(MigAct::CreateCompute { profile: profile.clone(), start });
        let needs = format!("no process holds the {profile} at {start}, monitoring included");
        self.push(board, act, needs, format!("the {profile} at {start} has no compute instance"), undo);
        let act = MigAct::DestroyInstance { profile: profile.clone(), start };
        let undo = Some(MigAct::CreateInstance { profile: profile.clone(), start });
        let needs = format!("the {profile} at {start} has no compute instance");
        let end = start + doomed.place.mask.count_ones();
        self.push(board, act, needs, format!("slots {start} to {} are free", end - 1), undo);
        self.taken[board] &= !doomed.place.mask;
        self.slices[board] -= doomed.place.slices;
    }

    /// The deployments that waited may start, board by board.
    fn release(&mut self, chosen: &[&GpuChoice], question: &CombinedDemand) {
        let mut left = question.wanted;
        for (board, choice) in chosen.iter().enumerate() {
            for (at, name) in question.profiles.iter().enumerate() {
                let geometry = &self.boards[board].geometry;
                let serving =
                    choice.serving.iter().filter(|place| geometry.profiles()[place.profile].name == *name).count();
                let count = i16::try_from(serving).unwrap_or(0).min(left[at]).max(0);
                left[at] -= count;
                if count > 0 {
                    let count = u32::from(count.unsigned_abs());
                    let needs = format!("the node offers a free {} for each", mig_resource(name));
                    let act = MigAct::Release { profile: name.clone(), count };
                    self.push(board, act, needs, "the waiting pods run".to_owned(), None);
                }
            }
        }
    }

    fn push(&mut self, board: usize, act: MigAct, needs: String, gives: String, undo: Option<MigAct>) {
        self.steps.push(MigStep { gpu: self.boards[board].name.clone(), act, needs, gives, undo });
    }
}
