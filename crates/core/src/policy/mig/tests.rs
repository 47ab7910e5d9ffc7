//! The planner against a brute-force search that knows nothing of how it works, and its promises replayed step by step.

use super::*;
use crate::model::MigAct;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn geometry(product: &str) -> Arc<MigGeometry> {
    let mut profiles = profiles_of_product(product).unwrap();
    profiles.retain(|profile| !profile.name.contains('+'));
    Arc::new(MigGeometry::new(profiles).unwrap())
}

fn place(profile: &str, start: u32) -> MigPlace {
    MigPlace { profile: profile.to_owned(), start }
}

fn board(name: &str, geometry: &Arc<MigGeometry>, seats: &[(&str, u32, Option<u64>)]) -> MigBoard {
    let seat = |(profile, start, cost): &(&str, u32, Option<u64>)| {
        let held = match cost {
            None => MigOccupancy::Idle,
            Some(0) => MigOccupancy::Pinned { by: "prod/fixed".to_owned(), why: "its budget lets none go".to_owned() },
            Some(cost) => MigOccupancy::Movable { pod: format!("prod/{name}-{start}"), cost: *cost },
        };
        MigSeat { place: place(profile, *start), held }
    };
    MigBoard { name: name.to_owned(), geometry: geometry.clone(), seats: seats.iter().map(seat).collect(), shut: None }
}

fn wanted(list: &[(&str, u32)]) -> Vec<MigDemand> {
    list.iter().map(|(profile, count)| MigDemand { profile: (*profile).to_owned(), count: *count }).collect()
}

fn moves(most_moves: u32) -> MigBounds {
    MigBounds { most_moves }
}

/// Does every step of the plan on the boards; fails where one is not possible. Returns what lies there at the end.
fn replay(boards: &[MigBoard], plan: &MigPlan) -> BTreeMap<String, Vec<MigPlace>> {
    struct Live {
        gi: Vec<MigPlace>,
        ci: Vec<MigPlace>,
        pods: BTreeMap<String, MigPlace>,
        pinned: Vec<MigPlace>,
    }
    let mut live: BTreeMap<&str, Live> = BTreeMap::new();
    for board in boards {
        let all: Vec<MigPlace> = board.seats.iter().map(|seat| seat.place.clone()).collect();
        let pods = board.seats.iter().filter_map(|seat| match &seat.held {
            MigOccupancy::Movable { pod, .. } => Some((pod.clone(), seat.place.clone())),
            _ => None,
        });
        let pinned = board.seats.iter().filter(|seat| matches!(seat.held, MigOccupancy::Pinned { .. }));
        let pinned = pinned.map(|seat| seat.place.clone()).collect();
        live.insert(&board.name, Live { gi: all.clone(), ci: all, pods: pods.collect(), pinned });
    }
    for step in &plan.steps {
        let board = boards.iter().find(|board| board.name == step.gpu).unwrap();
        assert!(board.shut.is_none(), "a shut GPU is touched: {step:?}");
        let on = live.get_mut(step.gpu.as_str()).unwrap();
        match &step.act {
            MigAct::EvictPod { pod } => drop(on.pods.remove(pod).expect("the pod is there")),
            MigAct::DestroyCompute { profile, start } => {
                let gone = place(profile, *start);
                assert!(!on.pods.values().any(|held| *held == gone), "in use: {step:?}");
                assert!(!on.pinned.contains(&gone), "pinned: {step:?}");
                on.ci.remove(on.ci.iter().position(|known| *known == gone).expect("a compute instance"));
            }
            MigAct::DestroyInstance { profile, start } => {
                let gone = place(profile, *start);
                assert!(!on.ci.contains(&gone), "still has a compute instance: {step:?}");
                on.gi.remove(on.gi.iter().position(|known| *known == gone).expect("an instance"));
            }
            MigAct::CreateInstance { profile, start } => {
                let new = place(profile, *start);
                assert!(board.geometry.fits(&on.gi, &new), "does not fit: {step:?} beside {:?}", on.gi);
                on.gi.push(new);
            }
            MigAct::CreateCompute { profile, start } => {
                assert!(on.gi.contains(&place(profile, *start)) && !on.ci.contains(&place(profile, *start)));
                on.ci.push(place(profile, *start));
            }
            MigAct::WaitAdvertised { .. } | MigAct::Release { .. } => {}
        }
    }
    for (name, on) in &mut live {
        on.gi.sort_by_key(|place| place.start);
        on.ci.sort_by_key(|place| place.start);
        assert_eq!(on.gi, on.ci, "each instance on {name} ends with its compute instance");
    }
    live.into_iter().map(|(name, on)| (name.to_owned(), on.gi)).collect()
}

/// Every pod that left and everything that was served has an instance nobody else has.
fn everybody_is_housed(boards: &[MigBoard], demand: &[MigDemand], plan: &MigPlan) {
    let end = replay(boards, plan);
    let mut free: BTreeMap<String, i64> = BTreeMap::new();
    for board in boards.iter().filter(|board| board.shut.is_none()) {
        for place in &end[&board.name] {
            *free.entry(place.profile.clone()).or_default() += 1;
        }
        for seat in board.seats.iter().filter(|seat| seat.held != MigOccupancy::Idle) {
            // Who stays, or left and must be housed again.
            *free.entry(seat.place.profile.clone()).or_default() -= 1;
        }
    }
    for wanted in demand {
        let refused =
            plan.refused.iter().filter(|refusal| refusal.profile == wanted.profile).map(|r| r.count).sum::<u32>();
        *free.entry(wanted.profile.clone()).or_default() -= i64::from(wanted.count - refused);
    }
    assert!(free.values().all(|left| *left >= 0), "{free:?} in {plan:#?}");
    for diff in &plan.diffs {
        assert_eq!(end[&diff.gpu], diff.after, "the difference that people see is what the steps do");
    }
}

/// The least cost, found by looking at every set of pods that may move and every layout of every GPU.
fn brute_force(boards: &[MigBoard], demand: &[MigDemand], bounds: MigBounds) -> MigCost {
    let mut names: Vec<&str> = demand.iter().map(|wanted| wanted.profile.as_str()).collect();
    names.extend(boards.iter().flat_map(|board| &board.seats).map(|seat| seat.place.profile.as_str()));
    names.sort_unstable();
    names.dedup();
    let count = |places: &mut dyn Iterator<Item = &MigPlace>| -> Vec<i64> {
        let mut counts = vec![0; names.len()];
        for place in places {
            if let Ok(at) = names.binary_search(&place.profile.as_str()) {
                counts[at] += 1;
            }
        }
        counts
    };
    let mut asked = vec![0i64; names.len()];
    for wanted in demand {
        asked[names.binary_search(&wanted.profile.as_str()).unwrap()] += i64::from(wanted.count);
    }
    let movable: Vec<(usize, usize, u64)> = boards
        .iter()
        .enumerate()
        .filter(|(_, board)| board.shut.is_none())
        .flat_map(|(at, board)| {
            board.seats.iter().enumerate().filter_map(move |(seat, s)| match s.held {
                MigOccupancy::Movable { cost, .. } => Some((at, seat, cost)),
                _ => None,
            })
        })
        .collect();
    let layouts: Vec<Vec<Vec<MigPlace>>> = boards.iter().map(|board| board.geometry.layouts()).collect();
    let mut best: Option<MigCost> = None;
    for set in 0..1u32 << movable.len() {
        if set.count_ones() > bounds.most_moves {
            continue;
        }
        let leaves = |at: usize, seat: usize| {
            movable.iter().enumerate().any(|(bit, (b, s, _))| (*b, *s) == (at, seat) && set & (1 << bit) != 0)
        };
        let moving = movable.iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0).map(|(_, m)| m.2).sum();
        // The gains of each GPU with the fewest changes, then every combination of them.
        let mut totals: BTreeMap<Vec<i64>, u32> = BTreeMap::from([(vec![0; names.len()], 0)]);
        for (at, board) in boards.iter().enumerate() {
            if board.shut.is_some() {
                continue;
            }
            let old: Vec<&MigPlace> = board.seats.iter().map(|seat| &seat.place).collect();
            let stays: Vec<&MigPlace> = board
                .seats
                .iter()
                .enumerate()
                .filter(|(seat, s)| s.held != MigOccupancy::Idle && !leaves(at, *seat))
                .map(|(_, s)| &s.place)
                .collect();
            let mut gains: BTreeMap<Vec<i64>, u32> = BTreeMap::new();
            for layout in &layouts[at] {
                if !stays.iter().all(|place| layout.contains(place)) {
                    continue;
                }
                let destroyed = board
                    .seats
                    .iter()
                    .enumerate()
                    .filter(|(seat, s)| leaves(at, *seat) || !layout.contains(&s.place))
                    .count();
                let left: Vec<&&MigPlace> = old
                    .iter()
                    .enumerate()
                    .filter(|(seat, place)| !leaves(at, *seat) && layout.contains(place))
                    .map(|(_, place)| place)
                    .collect();
                let made = layout.iter().filter(|place| !left.contains(&&&**place)).count();
                let gain = count(&mut layout.iter().filter(|place| !stays.contains(place)));
                let changes = u32::try_from(destroyed + made).unwrap();
                let known = gains.entry(gain).or_insert(changes);
                *known = (*known).min(changes);
            }
            let mut next: BTreeMap<Vec<i64>, u32> = BTreeMap::new();
            for (total, changes) in &totals {
                for (gain, more) in &gains {
                    let sum: Vec<i64> = total.iter().zip(gain).map(|(a, b)| a + b).collect();
                    let known = next.entry(sum).or_insert(changes + more);
                    *known = (*known).min(changes + more);
                }
            }
            totals = next;
        }
        let left_pods = count(
            &mut movable
                .iter()
                .enumerate()
                .filter(|(bit, _)| set & (1 << bit) != 0)
                .map(|(_, (b, s, _))| &boards[*b].seats[*s].place),
        );
        for (total, changes) in totals {
            let rest: Vec<i64> = total.iter().zip(&left_pods).map(|(gain, pods)| gain - pods).collect();
            if rest.iter().any(|rest| *rest < 0) {
                continue;
            }
            let unserved: i64 = asked.iter().zip(&rest).map(|(asked, rest)| (asked - rest).max(0)).sum();
            let cost = MigCost { unserved: u32::try_from(unserved).unwrap(), moving, changes };
            best = Some(best.map_or(cost, |best| best.min(cost)));
        }
    }
    best.unwrap()
}

/// A random layout with random holders, from numbers that a case is made of.
fn scattered(name: &str, geometry: &Arc<MigGeometry>, seeds: &[(u16, u8)], shut: bool) -> MigBoard {
    let layouts = geometry.layouts();
    let mut seats: Vec<MigSeat> = Vec::new();
    if let Some((first, _)) = seeds.first() {
        let layout = &layouts[usize::from(*first) % layouts.len()];
        for (at, place) in layout.iter().enumerate() {
            let (_, dice) = seeds[at % seeds.len()];
            let held = match (usize::from(dice) + at) % 5 {
                0 => MigOccupancy::Idle,
                1 => MigOccupancy::Pinned { by: format!("prod/{name}-{at}"), why: "it may not move".to_owned() },
                other => MigOccupancy::Movable {
                    pod: format!("prod/{name}-{at}"),
                    cost: 10 * other as u64 + u64::from(dice) % 7,
                },
            };
            seats.push(MigSeat { place: place.clone(), held });
        }
    }
    let shut = shut.then(|| "recovery action: GPU reset".to_owned());
    MigBoard { name: name.to_owned(), geometry: geometry.clone(), seats, shut }
}

fn demand_of(geometry: &MigGeometry, picks: &[u8]) -> Vec<MigDemand> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for pick in picks {
        let name = &geometry.profiles()[usize::from(*pick) % geometry.profiles().len()].name;
        *counts.entry(name.clone()).or_default() += 1;
    }
    counts.into_iter().map(|(profile, count)| MigDemand { profile, count }).collect()
}

fn check(boards: &[MigBoard], demand: &[MigDemand], bounds: MigBounds) {
    let plan = plan_mig(boards, demand, bounds).unwrap();
    assert!(plan.exact);
    assert_eq!(plan.cost, brute_force(boards, demand, bounds), "{boards:#?} {demand:?} {bounds:?}");
    assert!(plan.moves.len() <= bounds.most_moves as usize);
    assert_eq!(plan.refused.iter().map(|refusal| refusal.count).sum::<u32>(), plan.cost.unserved);
    assert!(plan.refused.iter().all(|refusal| !refusal.why.is_empty()));
    everybody_is_housed(boards, demand, &plan);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn on_one_gpu_no_plan_is_cheaper(
        seeds in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4),
        picks in prop::collection::vec(any::<u8>(), 0..4),
        most in 0u32..4,
    ) {
        let geometry = geometry("H100");
        let board = scattered("gpu-0", &geometry, &seeds, false);
        check(&[board], &demand_of(&geometry, &picks), moves(most));
    }

    #[test]
    fn on_three_small_gpus_no_plan_is_cheaper(
        seeds in prop::collection::vec(prop::collection::vec((any::<u16>(), any::<u8>()), 0..3), 3),
        picks in prop::collection::vec(any::<u8>(), 0..6),
        most in 0u32..4,
        ill in 0usize..6,
    ) {
        let geometry = geometry("A30");
        let boards: Vec<MigBoard> = seeds
            .iter()
            .enumerate()
            .map(|(at, seeds)| scattered(&format!("gpu-{at}"), &geometry, seeds, at == ill))
            .collect();
        check(&boards, &demand_of(&geometry, &picks), moves(most));
    }

    #[test]
    fn on_two_gpus_of_seven_slices_no_plan_is_cheaper(
        seeds in prop::collection::vec(prop::collection::vec((any::<u16>(), any::<u8>()), 0..3), 2),
        picks in prop::collection::vec(any::<u8>(), 1..4),
        most in 0u32..3,
    ) {
        let geometry = geometry("A100-SXM4-40GB");
        let boards: Vec<MigBoard> = seeds
            .iter()
            .enumerate()
            .map(|(at, seeds)| scattered(&format!("gpu-{at}"), &geometry, seeds, false))
            .collect();
        check(&boards, &demand_of(&geometry, &picks), moves(most));
    }
}

#[test]
fn where_there_is_capacity_moving_a_few_instances_on_that_gpu_always_makes_room() {
    let geometry = geometry("H100");
    let size = |name: &str| geometry.profiles().iter().find(|p| p.name == name).map(|p| (p.width, p.slices)).unwrap();
    let mut needed = BTreeMap::new();
    for layout in geometry.layouts() {
        let used = layout.iter().map(|place| size(&place.profile)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let seats: Vec<(&str, u32, Option<u64>)> =
            layout.iter().map(|place| (place.profile.as_str(), place.start, Some(10))).collect();
        for profile in geometry.profiles() {
            if used.0 + profile.width > 8 || used.1 + profile.slices > 7 {
                continue;
            }
            let plan =
                plan_mig(&[board("gpu-0", &geometry, &seats)], &wanted(&[(&profile.name, 1)]), moves(4)).unwrap();
            assert_eq!(plan.cost.unserved, 0, "{layout:?} and {}", profile.name);
            *needed.entry(plan.moves.len()).or_insert(0) += 1;
        }
    }
    assert!(needed[&0] > 0 && needed[&1] > needed[&2] && needed.keys().all(|moves| *moves <= 4), "{needed:?}");
}

#[test]
fn an_idle_instance_is_used_as_it_lies_and_nothing_else_is_touched() {
    let geometry = geometry("H100");
    let boards = [board("a", &geometry, &[("3g.40gb", 0, Some(50))]), board("b", &geometry, &[("2g.20gb", 2, None)])];
    let plan = plan_mig(&boards, &wanted(&[("2g.20gb", 1)]), moves(1)).unwrap();
    assert_eq!(plan.cost, MigCost::default());
    assert_eq!(plan.steps.len(), 1);
    assert_eq!(plan.steps[0].act, MigAct::Release { profile: "2g.20gb".to_owned(), count: 1 });
}

#[test]
fn a_pod_moves_only_after_its_new_place_is_there() {
    let geometry = geometry("H100");
    // A 1g in the middle of the upper half keeps a 3g out; the other GPU is full.
    let boards = [
        board("a", &geometry, &[("3g.40gb", 0, Some(90)), ("1g.10gb", 5, Some(30))]),
        board("b", &geometry, &[("4g.40gb", 0, Some(0)), ("1g.10gb", 4, Some(0)), ("1g.10gb", 6, None)]),
    ];
    let demand = wanted(&[("3g.40gb", 1)]);
    let plan = plan_mig(&boards, &demand, moves(1)).unwrap();
    assert_eq!((plan.cost.unserved, plan.cost.moving, plan.moves.len()), (0, 30, 1));
    everybody_is_housed(&boards, &demand, &plan);
    let at = |wanted: &dyn Fn(&MigAct) -> bool| plan.steps.iter().position(|step| wanted(&step.act));
    let evicted = at(&|act| matches!(act, MigAct::EvictPod { .. })).unwrap();
    // The idle 1g on the other GPU is its new place, so that nothing has to be made for it.
    let made = plan.steps.iter().filter(|step| matches!(step.act, MigAct::CreateInstance { .. })).count();
    assert_eq!(made, 1);
    assert!(at(&|act| matches!(act, MigAct::CreateInstance { .. })).unwrap() > evicted);
    assert!(plan.steps.iter().all(|step| !step.needs.is_empty() && !step.gives.is_empty()));

    // Without it, one is made beside first.
    let boards =
        [board("a", &geometry, &[("3g.40gb", 0, Some(90)), ("1g.10gb", 5, Some(30))]), board("b", &geometry, &[])];
    let demand = wanted(&[("3g.40gb", 1), ("4g.40gb", 1), ("2g.20gb", 1)]);
    let plan = plan_mig(&boards, &demand, moves(1)).unwrap();
    assert_eq!(plan.cost.unserved, 0);
    everybody_is_housed(&boards, &demand, &plan);
    if let Some(evicted) = plan.steps.iter().position(|step| matches!(step.act, MigAct::EvictPod { .. })) {
        assert!(plan.steps[..evicted].iter().any(|step| matches!(step.act, MigAct::WaitAdvertised { .. })));
    }
}

#[test]
fn an_ill_gpu_is_never_touched_and_a_refusal_says_what_is_missing() {
    let geometry = geometry("H100");
    let mut boards = vec![
        board("gpu-0", &geometry, &[]),
        board("gpu-1", &geometry, &[("1g.10gb", 1, Some(30)), ("1g.10gb", 5, Some(30))]),
        board("gpu-2", &geometry, &[("7g.80gb", 0, Some(0))]),
    ];
    boards[0].shut = Some("recovery action: GPU reset".to_owned());
    let plan = plan_mig(&boards, &wanted(&[("4g.40gb", 2), ("9g.90gb", 1)]), moves(0)).unwrap();
    assert!(plan.steps.is_empty() && plan.diffs.is_empty());
    let why = |profile: &str| plan.refused.iter().find(|refusal| refusal.profile == profile).unwrap().why.clone();
    let four = why("4g.40gb");
    for words in
        ["gpu-0 is left out: recovery action: GPU reset", "prod/gpu-1-1", "0 may move", "prod/fixed (its budget"]
    {
        assert!(four.contains(words), "`{words}` is not in: {four}");
    }
    assert!(why("9g.90gb").contains("no GPU that may be touched offers 9g.90gb"));
}

#[test]
fn good_placement_keeps_the_most_legal_places_open() {
    let geometry = geometry("H100");
    let plan = plan_mig(&[board("a", &geometry, &[])], &wanted(&[("1g.10gb", 1)]), moves(0)).unwrap();
    // At 6 a 1g spoils only what would be spoilt anyway; at 0 it would cost the 4g and the 7g too.
    assert_eq!(plan.diffs[0].serves, [place("1g.10gb", 6)]);
}

#[test]
fn sixty_four_full_gpus_take_the_demand_that_was_cut_for_them() {
    let geometry = geometry("H100");
    let boards: Vec<MigBoard> = (0..64).map(|at| board(&format!("gpu-{at}"), &geometry, &[])).collect();
    // 8 × 7g, 12 × 4g + 3g, 14 × 3g + 3g, 12 × four double 1g, 10 × three 2g + 1g, 8 × seven 1g: not a slot to spare.
    let demand =
        wanted(&[("1g.10gb", 66), ("1g.20gb", 48), ("2g.20gb", 30), ("3g.40gb", 40), ("4g.40gb", 12), ("7g.80gb", 8)]);
    let plan = plan_mig(&boards, &demand, moves(1)).unwrap();
    assert_eq!(plan.cost.unserved, 0, "{:?}", plan.refused);
    everybody_is_housed(&boards, &demand, &plan);
}

#[test]
fn what_makes_no_sense_is_an_error_in_words() {
    let geometry = geometry("H100");
    let overlapping = [board("gpu-0", &geometry, &[("4g.40gb", 0, None), ("1g.10gb", 2, None)])];
    let error = plan_mig(&overlapping, &wanted(&[("1g.10gb", 1)]), moves(1)).unwrap_err();
    assert!(error.to_string().contains("overlaps"), "{error}");
    let nowhere = [board("gpu-0", &geometry, &[("3g.40gb", 1, None)])];
    assert!(plan_mig(&nowhere, &wanted(&[("1g.10gb", 1)]), moves(1)).is_err());
    assert!(plan_mig(&[], &wanted(&[("1g.10gb", 5_000)]), moves(1)).is_err());
    assert_eq!(plan_mig(&[], &[], moves(1)).unwrap().cost, MigCost::default());
}
