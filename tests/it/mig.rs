//! MIG: the planner's arrival simulation (good placement first, rebalancing for the rest), and the node's side.

mod arrivals;
mod node;

use arrivals::{Policy, Tally, geometry, simulate};

fn ratio(policy: Policy) -> f64 {
    let geometry = geometry();
    let add = |a: Tally, b: Tally| Tally {
        requests: a.requests + b.requests,
        refused: a.refused + b.refused,
        refused_with_capacity: a.refused_with_capacity + b.refused_with_capacity,
    };
    let sum = (1..=3).map(|seed| simulate(&geometry, policy, seed, 3_000)).fold(Tally::default(), add);
    let ratio = f64::from(sum.refused_with_capacity) / f64::from(sum.requests);
    println!("{policy:?}: {sum:?}: {:.2} %", ratio * 100.0);
    ratio
}

#[test]
fn refused_although_there_is_capacity_is_rare_with_good_placement_and_never_after_rebalancing() {
    let naive = ratio(Policy::Naive);
    assert!((0.03..0.07).contains(&naive), "the simulation is not the one that the bar is for: {naive}");
    assert!(ratio(Policy::FirstFit) < naive);
    assert!(ratio(Policy::Planner) <= 0.015, "the bar is 1.5 %");
    assert_eq!(ratio(Policy::Rebalancing), 0.0, "moving instances always makes room where there is capacity");
}
