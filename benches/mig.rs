//! The MIG planner: time for 64 GPUs and 200 demands, and the arrival simulation's ratios.

#[path = "../tests/it/mig/arrivals.rs"]
mod arrivals;

use arrivals::{Dice, Policy, draw, geometry, place, simulate};
use nightshift::model::MigPlace;
use nightshift::policy::{MigBoard, MigBounds, MigDemand, MigGeometry, MigOccupancy, MigSeat, plan_mig};
use std::sync::Arc;
use std::time::Instant;

const POLICIES: [Policy; 5] =
    [Policy::Naive, Policy::FirstFit, Policy::FirstGpuBestStart, Policy::Planner, Policy::Rebalancing];

fn main() {
    let geometry = geometry();
    for (what, load) in [("empty", 0), ("half full", 4), ("nearly full", 20)] {
        for most_moves in [1, 4] {
            let mut times = Vec::new();
            let (mut unserved, mut moved, mut exact) = (0, 0, 0);
            for seed in 0..20 {
                let mut dice = Dice::new(seed + 1);
                let boards = fleet(&geometry, 64, load, &mut dice);
                let demand = demand(200, &mut dice);
                let begun = Instant::now();
                let plan = plan_mig(&boards, &demand, MigBounds { most_moves }).expect("the fleet makes sense");
                times.push(begun.elapsed().as_secs_f64() * 1e3);
                unserved += plan.cost.unserved;
                moved += plan.moves.len();
                exact += u32::from(plan.exact);
            }
            times.sort_by(f64::total_cmp);
            println!(
                "64 GPUs ({what}) x 200 demands, {most_moves} moves: p50 {:.1} ms, max {:.1} ms; of 4000: {unserved} unserved, {moved} moved, {exact}/20 exact",
                times[10], times[19]
            );
        }
    }
    for policy in POLICIES {
        let sums = (1..=3)
            .map(|seed| simulate(&geometry, policy, seed, 20_000))
            .fold((0, 0, 0), |a, b| (a.0 + b.requests, a.1 + b.refused_with_capacity, a.2 + b.refused));
        println!(
            "{policy:?}: {} requests, refused although some GPU had the capacity {:.2} %, refused at all {:.2} %",
            sums.0,
            f64::from(sums.1) * 100.0 / f64::from(sums.0),
            f64::from(sums.2) * 100.0 / f64::from(sums.0)
        );
    }
}

fn demand(count: u32, dice: &mut Dice) -> Vec<MigDemand> {
    let mut list: Vec<MigDemand> = Vec::new();
    for _ in 0..count {
        let profile = draw(dice);
        match list.iter_mut().find(|wanted| wanted.profile == profile) {
            Some(wanted) => wanted.count += 1,
            None => list.push(MigDemand { profile: profile.to_owned(), count: 1 }),
        }
    }
    list
}

fn below(dice: &mut Dice, end: usize) -> usize {
    (dice.share() * end as f64) as usize
}

/// GPUs as `arrivals` of so many pods each have left them, every pod movable.
fn fleet(geometry: &Arc<MigGeometry>, gpus: usize, arrivals: usize, dice: &mut Dice) -> Vec<MigBoard> {
    let mut boards: Vec<Vec<(MigPlace, f64)>> = vec![Vec::new(); gpus];
    for _ in 0..gpus * arrivals {
        let profile = draw(dice);
        let at = below(dice, gpus);
        place(geometry, Policy::FirstFit, &mut boards[at..=at], profile, f64::MAX);
        // Some leave again, so that there are holes.
        let other = below(dice, gpus);
        if boards[other].len() > 1 && dice.share() < 0.5 {
            let index = below(dice, boards[other].len());
            boards[other].remove(index);
        }
    }
    let seats = |(at, board): (usize, Vec<(MigPlace, f64)>)| {
        let seat = |(index, (place, _)): (usize, (MigPlace, f64))| MigSeat {
            place,
            held: MigOccupancy::Movable {
                pod: format!("prod/{at}-{index}"),
                cost: 30 + (at * 7 + index * 13) as u64 % 90,
            },
        };
        let seats = board.into_iter().enumerate().map(seat).collect();
        MigBoard { name: format!("gpu-{at}"), geometry: geometry.clone(), seats, shut: None }
    };
    boards.into_iter().enumerate().map(seats).collect()
}
