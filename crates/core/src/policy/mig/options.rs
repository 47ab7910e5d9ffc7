//! The choices of one GPU for the demand: every set of pods that may leave it, with every set of new instances that
//! then fits, and the cheapest way to each net gain.
//!
//! Invariant: no choice shares a slot between two instances, and each leaves pinned ones where they are.

use super::geometry::ProfilePlacement;
use super::{MigBoard, MigBounds, MigDemand, MigOccupancy, MigPlanError};
use crate::limits;
use std::collections::BTreeMap;

/// Gains (or, below zero, losses) of instances, by profile of the question.
pub(super) type ProfileDelta = [i16; limits::MIG_PROFILES_AT_ONCE];

/// The demand on all GPUs together.
pub(super) struct CombinedDemand {
    /// Profiles in the demand, and those of pods that may move.
    pub profiles: Vec<String>,
    /// The demand, by profile.
    pub wanted: ProfileDelta,
    /// How many of each may have to be made: the demand's, and those of pods that move.
    pub ceiling: ProfileDelta,
    /// Memory slots of each profile, for judging how much is left to do.
    pub widths: [i64; limits::MIG_PROFILES_AT_ONCE],
    pub most_moves: u32,
}

/// One thing to do with one GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GpuChoice {
    pub net: ProfileDelta,
    pub cost: u64,
    pub changes: u32,
    /// Legal places gained by it, mostly below zero.
    pub freedom: i32,
    /// Seats whose pods leave, as bits of their index.
    pub leaving: u32,
    /// Idle seats that are destroyed, as bits of their index.
    pub cleared: u32,
    /// Where instances serve afterwards: idle ones that are used, and new ones.
    pub serving: Vec<ProfilePlacement>,
}

impl GpuChoice {
    /// The number of pods that leave the GPU.
    pub fn moves(&self) -> u32 {
        self.leaving.count_ones()
    }

    /// Better first.
    fn rank(&self) -> (u64, u32, i32, u32) {
        (self.cost, self.changes, -self.freedom, self.leaving)
    }
}

impl CombinedDemand {
    /// The demand, the pods that may move and the bounds, by profile.
    ///
    /// # Errors
    ///
    /// Fails when the demand has more than `MIG_DEMAND` instances, or demand and movable pods together more than
    /// `MIG_PROFILES_AT_ONCE` profiles.
    pub fn new(boards: &[MigBoard], demand: &[MigDemand], bounds: MigBounds) -> Result<CombinedDemand, MigPlanError> {
        let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for wanted in demand.iter().filter(|wanted| wanted.count > 0) {
            let (asked, _) = counts.entry(&wanted.profile).or_default();
            *asked = asked.saturating_add(wanted.count);
        }
        let total = counts.values().map(|(asked, _)| *asked).fold(0, u32::saturating_add);
        if total > limits::MIG_DEMAND {
            return Err(MigPlanError::TooMuchDemand(total, limits::MIG_DEMAND));
        }
        let most_moves = if total == 0 { 0 } else { bounds.most_moves };
        for seat in boards.iter().filter(|board| board.shut.is_none() && most_moves > 0).flat_map(|board| &board.seats)
        {
            if matches!(seat.held, MigOccupancy::Movable { .. }) {
                counts.entry(&seat.place.profile).or_default().1 += 1;
            }
        }
        if counts.len() > limits::MIG_PROFILES_AT_ONCE {
            return Err(MigPlanError::TooManyProfiles(counts.len(), limits::MIG_PROFILES_AT_ONCE));
        }
        let mut question = CombinedDemand {
            profiles: counts.keys().map(|name| (*name).to_owned()).collect(),
            wanted: ProfileDelta::default(),
            ceiling: ProfileDelta::default(),
            widths: [1; limits::MIG_PROFILES_AT_ONCE],
            most_moves,
        };
        let offered = || boards.iter().flat_map(|board| board.geometry.profiles());
        for (at, (name, (asked, movable))) in counts.into_iter().enumerate() {
            question.wanted[at] = i16::try_from(asked).unwrap_or(i16::MAX);
            question.ceiling[at] = i16::try_from(asked + movable.min(most_moves)).unwrap_or(i16::MAX);
            question.widths[at] =
                offered().find(|profile| profile.name == name).map_or(1, |found| i64::from(found.width));
        }
        Ok(question)
    }
}

/// A seat with its place found.
struct PlacedSeat {
    place: ProfilePlacement,
    /// The price of moving it; none: it is pinned. Idle ones are kept apart.
    price: Option<u64>,
    bit: u32,
    /// Index into the question's profiles.
    asked: Option<usize>,
}

/// Every sensible choice for a GPU; the first is to leave it as it is.
pub(super) fn choices(board: &MigBoard, question: &CombinedDemand) -> Result<Vec<GpuChoice>, MigPlanError> {
    let mut list = vec![GpuChoice::default()];
    if board.shut.is_some() || question.profiles.is_empty() {
        return Ok(list);
    }
    let search = LayoutSearch::new(board, question)?;
    let mut best: BTreeMap<(ProfileDelta, u32), GpuChoice> = BTreeMap::new();
    for leaving in 0..1u32 << search.movable.len() {
        if leaving.count_ones() <= question.most_moves {
            search.with_leaving(leaving, &mut best);
        }
    }
    list.extend(best.into_values().filter(|choice| choice.net != ProfileDelta::default() || choice.moves() > 0));
    Ok(list)
}

struct LayoutSearch<'a> {
    board: &'a MigBoard,
    question: &'a CombinedDemand,
    pinned: Vec<PlacedSeat>,
    movable: Vec<PlacedSeat>,
    idle: Vec<PlacedSeat>,
    /// Places of the demanded profiles, with the index of the profile in the question.
    useful: Vec<(ProfilePlacement, usize)>,
    freedom_now: i32,
}

/// A set of instances under construction.
struct LayoutDraft {
    leaving: u32,
    cost: u64,
    net: ProfileDelta,
    mask: u16,
    slices: u32,
    /// Of each profile of the geometry, how many are there.
    counts: Vec<u32>,
    serving: Vec<ProfilePlacement>,
}

impl<'a> LayoutSearch<'a> {
    fn new(board: &'a MigBoard, question: &'a CombinedDemand) -> Result<LayoutSearch<'a>, MigPlanError> {
        let index = |name: &str| question.profiles.iter().position(|profile| profile == name);
        let geometry = &board.geometry;
        let useful = geometry.places().iter().filter_map(|place| {
            let asked = index(&geometry.profiles()[place.profile].name)?;
            Some((*place, asked))
        });
        let mut search = LayoutSearch {
            board,
            question,
            pinned: Vec::new(),
            movable: Vec::new(),
            idle: Vec::new(),
            useful: useful.collect(),
            freedom_now: 0,
        };
        let mut taken = 0u16;
        for (at, seat) in board.seats.iter().enumerate() {
            let wrong = |why: String| MigPlanError::Board { gpu: board.name.clone(), why };
            let place = geometry.find(&seat.place).ok_or_else(|| {
                wrong(format!(
                    "an instance {} at {} is at no place that this GPU offers",
                    seat.place.profile, seat.place.start
                ))
            })?;
            if taken & place.mask != 0 || at >= 32 {
                return Err(wrong(format!(
                    "the instance {} at {} overlaps another one",
                    seat.place.profile, seat.place.start
                )));
            }
            taken |= place.mask;
            let asked = index(&seat.place.profile);
            let seat_of = |price| PlacedSeat { place, price, bit: 1 << at, asked };
            match &seat.held {
                MigOccupancy::Idle => search.idle.push(seat_of(None)),
                MigOccupancy::Pinned { .. } => search.pinned.push(seat_of(None)),
                // Without demand nothing moves, and then its profile is in no question.
                MigOccupancy::Movable { .. } if asked.is_none() => search.pinned.push(seat_of(None)),
                MigOccupancy::Movable { cost, .. } => search.movable.push(seat_of(Some((*cost).max(1)))),
            }
        }
        let held = search.pinned.iter().chain(&search.movable).map(|seat| seat.place.mask).sum();
        search.freedom_now = i32::from(geometry.freedom_of(held));
        Ok(search)
    }

    /// All sets of instances that fit once these pods have left.
    fn with_leaving(&self, leaving: u32, best: &mut BTreeMap<(ProfileDelta, u32), GpuChoice>) {
        let mut draft = LayoutDraft {
            leaving: 0,
            cost: 0,
            net: ProfileDelta::default(),
            mask: 0,
            slices: 0,
            counts: vec![0; self.board.geometry.profiles().len()],
            serving: Vec::new(),
        };
        for seat in &self.pinned {
            draft.add(seat.place);
        }
        for (at, seat) in self.movable.iter().enumerate() {
            if leaving & (1 << at) == 0 {
                draft.add(seat.place);
                continue;
            }
            draft.leaving |= seat.bit;
            draft.cost += seat.price.unwrap_or_default();
            if let Some(asked) = seat.asked {
                draft.net[asked] -= 1;
            }
        }
        self.extend(&mut draft, 0, best);
    }

    fn extend(&self, draft: &mut LayoutDraft, from: usize, best: &mut BTreeMap<(ProfileDelta, u32), GpuChoice>) {
        self.record(draft, best);
        for at in from..self.useful.len() {
            let (place, asked) = self.useful[at];
            let profile = &self.board.geometry.profiles()[place.profile];
            let fits = draft.mask & place.mask == 0
                && draft.slices + place.slices <= self.board.geometry.slices()
                && draft.counts[place.profile] < profile.most;
            let made = draft.serving.iter().filter(|other| other.profile == place.profile).count();
            if !fits || made >= usize::try_from(self.question.ceiling[asked]).unwrap_or(0) {
                continue;
            }
            draft.add(place);
            draft.net[asked] += 1;
            draft.serving.push(place);
            self.extend(draft, at + 1, best);
            draft.serving.pop();
            draft.net[asked] -= 1;
            draft.remove(place);
        }
    }

    fn record(&self, draft: &LayoutDraft, best: &mut BTreeMap<(ProfileDelta, u32), GpuChoice>) {
        let geometry = &self.board.geometry;
        let (mut slices, mut counts) = (draft.slices, draft.counts.clone());
        let (mut cleared, mut reused) = (0u32, 0u32);
        for seat in &self.idle {
            if draft.serving.contains(&seat.place) {
                reused += 1;
            } else if draft.mask & seat.place.mask != 0 {
                cleared |= seat.bit;
            } else {
                slices += seat.place.slices;
                counts[seat.place.profile] += 1;
            }
        }
        // An idle instance beside the new ones must not exceed the GPU's slices either.
        let too_many = counts.iter().zip(geometry.profiles()).any(|(count, profile)| *count > profile.most);
        if slices > geometry.slices() || too_many {
            return;
        }
        let made = u32::try_from(draft.serving.len()).unwrap_or(u32::MAX) - reused;
        let changes = draft.leaving.count_ones() + cleared.count_ones() + made;
        let freedom = i32::from(geometry.freedom_of(draft.mask)) - self.freedom_now;
        let key = (draft.net, draft.leaving.count_ones());
        let rank = (draft.cost, changes, -freedom, draft.leaving);
        if best.get(&key).is_some_and(|known| known.rank() <= rank) {
            return;
        }
        let (leaving, serving) = (draft.leaving, draft.serving.clone());
        best.insert(key, GpuChoice { net: draft.net, cost: draft.cost, changes, freedom, leaving, cleared, serving });
    }
}

impl LayoutDraft {
    fn add(&mut self, place: ProfilePlacement) {
        self.mask |= place.mask;
        self.slices += place.slices;
        self.counts[place.profile] += 1;
    }

    fn remove(&mut self, place: ProfilePlacement) {
        self.mask &= !place.mask;
        self.slices -= place.slices;
        self.counts[place.profile] -= 1;
    }
}
