//! Random arrivals and departures on eight GPUs: how often a request is refused although some GPU has the capacity.

use nightshift::model::MigPlace;
use nightshift::policy::{
    MigBoard, MigBounds, MigDemand, MigGeometry, MigOccupancy, MigSeat, plan_mig, profiles_of_product,
};
use std::sync::Arc;

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x1234_5678_9abc_def1))
    }

    pub fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The GPU with the most free slots, its first start.
    Naive,
    /// The first GPU with a place, its first start.
    FirstFit,
    /// The first GPU with a place, there the start that keeps the most legal placements.
    FirstGpuBestStart,
    /// What the planner does when nothing may move.
    Planner,
    /// The planner when up to four pods may move.
    Rebalancing,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub requests: u32,
    pub refused: u32,
    pub refused_with_capacity: u32,
}

pub fn geometry() -> Arc<MigGeometry> {
    let mut profiles = profiles_of_product("NVIDIA-H100-80GB-HBM3").expect("the table has it");
    profiles.retain(|profile| !profile.name.contains('+'));
    Arc::new(MigGeometry::new(profiles).expect("the table makes sense"))
}

/// The reference's mix: 1g 6 : 1g with double memory 2 : 2g 4 : 3g 3 : 4g 1 : 7g 0.3.
pub fn draw(dice: &mut Dice) -> &'static str {
    const MIX: [(&str, f64); 6] =
        [("1g.10gb", 6.0), ("1g.20gb", 2.0), ("2g.20gb", 4.0), ("3g.40gb", 3.0), ("4g.40gb", 1.0), ("7g.80gb", 0.3)];
    let mut left = dice.share() * 16.3;
    for (name, weight) in MIX {
        if left < weight {
            return name;
        }
        left -= weight;
    }
    MIX[0].0
}

/// So many requests, each leaving after a time of its own. The load keeps eight GPUs about as full as people run them.
pub fn simulate(geometry: &Arc<MigGeometry>, policy: Policy, seed: u64, requests: u32) -> Tally {
    let mut dice = Dice::new(seed);
    let mut boards: Vec<Vec<(MigPlace, f64)>> = vec![Vec::new(); 8];
    let mut tally = Tally { requests, ..Tally::default() };
    let mut now = 0.0;
    for _ in 0..requests {
        now += -(1.0 - dice.share()).ln();
        let profile = draw(&mut dice);
        let stays = -(1.0 - dice.share()).ln() * MEAN_STAY;
        for board in &mut boards {
            board.retain(|(_, until)| *until > now);
        }
        let had_capacity = boards.iter().any(|board| has_capacity(geometry, board, profile));
        if !place(geometry, policy, &mut boards, profile, now + stays) {
            tally.refused += 1;
            tally.refused_with_capacity += u32::from(had_capacity);
        }
    }
    tally
}

/// Requests come one a unit of time. At this length of stay the naive placement refuses as often as the reference says.
const MEAN_STAY: f64 = 20.0;

fn size(geometry: &MigGeometry, profile: &str) -> (u32, u32) {
    let found = geometry.profiles().iter().find(|known| known.name == profile);
    found.map_or((0, 0), |found| (found.width, found.slices))
}

fn has_capacity(geometry: &MigGeometry, board: &[(MigPlace, f64)], profile: &str) -> bool {
    let sum = |(w, s): (u32, u32), (place, _): &(MigPlace, f64)| {
        let (width, slices) = size(geometry, &place.profile);
        (w + width, s + slices)
    };
    let (used_slots, used_slices) = board.iter().fold((0, 0), sum);
    let (width, slices) = size(geometry, profile);
    used_slots + width <= 8 && used_slices + slices <= 7
}

/// Puts one where the policy says; `false`: it is refused.
pub fn place(
    geometry: &Arc<MigGeometry>,
    policy: Policy,
    boards: &mut [Vec<(MigPlace, f64)>],
    profile: &str,
    until: f64,
) -> bool {
    if matches!(policy, Policy::Planner | Policy::Rebalancing) {
        return plan(geometry, policy, boards, profile, until);
    }
    let mut order: Vec<usize> = (0..boards.len()).collect();
    if policy == Policy::Naive {
        let used =
            |board: &Vec<(MigPlace, f64)>| board.iter().map(|(place, _)| size(geometry, &place.profile).0).sum::<u32>();
        order.sort_by_key(|at| used(&boards[*at]));
    }
    for at in order {
        let taken: Vec<MigPlace> = boards[at].iter().map(|(place, _)| place.clone()).collect();
        let starts = geometry.profiles().iter().find(|known| known.name == profile).map(|known| known.starts.clone());
        let places = starts.into_iter().flatten().map(|start| MigPlace { profile: profile.to_owned(), start });
        let mut fitting: Vec<MigPlace> = places.filter(|place| geometry.fits(&taken, place)).collect();
        if policy == Policy::FirstGpuBestStart {
            let left = |place: &MigPlace| {
                let mut all = taken.clone();
                all.push(place.clone());
                std::cmp::Reverse(geometry.freedom(&all))
            };
            fitting.sort_by_key(left);
        }
        if let Some(place) = fitting.into_iter().next() {
            boards[at].push((place, until));
            return true;
        }
    }
    false
}

fn plan(
    geometry: &Arc<MigGeometry>,
    policy: Policy,
    boards: &mut [Vec<(MigPlace, f64)>],
    profile: &str,
    until: f64,
) -> bool {
    let input: Vec<MigBoard> = boards
        .iter()
        .enumerate()
        .map(|(at, board)| {
            let seat = |(index, (place, _)): (usize, &(MigPlace, f64))| MigSeat {
                place: place.clone(),
                held: MigOccupancy::Movable { pod: format!("{at}/{index}"), cost: 60 },
            };
            let seats = board.iter().enumerate().map(seat).collect();
            MigBoard { name: at.to_string(), geometry: geometry.clone(), seats, shut: None }
        })
        .collect();
    let demand = [MigDemand { profile: profile.to_owned(), count: 1 }];
    // Moving is for when there is no place; so the ordinary case asks the ordinary question first.
    let mut plan = plan_mig(&input, &demand, MigBounds { most_moves: 0 }).expect("the boards make sense");
    if plan.cost.unserved > 0 && policy == Policy::Rebalancing {
        plan = plan_mig(&input, &demand, MigBounds { most_moves: 4 }).expect("the boards make sense");
    }
    if plan.cost.unserved > 0 {
        return false;
    }
    // Those that move keep their time; which of the new places is whose makes no difference to the layout.
    let mut leaving: Vec<(String, f64)> = vec![(profile.to_owned(), until)];
    for moved in &plan.moves {
        let at: usize = moved.gpu.parse().expect("its name is its number");
        let index = boards[at].iter().position(|(place, _)| *place == moved.place).expect("it was there");
        let (place, until) = boards[at].remove(index);
        leaving.push((place.profile, until));
    }
    for diff in &plan.diffs {
        let at: usize = diff.gpu.parse().expect("its name is its number");
        for new in &diff.serves {
            let index = leaving.iter().position(|(profile, _)| *profile == new.profile).expect("it was made for one");
            boards[at].push((new.clone(), leaving.remove(index).1));
        }
    }
    leaving.is_empty()
}
