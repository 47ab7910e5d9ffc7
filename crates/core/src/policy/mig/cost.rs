//! The cost of moving one pod, in seconds of lost service.
//!
//! Invariant: a pod that its disruption budget protects right now has no price: it may not be moved.

use crate::limits;
use crate::model::Span;

/// The price of moving a pod: the time until it serves again, weighed by its priority, and doubled if it is the last
/// one that its disruption budget lets go. `None`: the budget lets none go. `headroom` is the budget's
/// `disruptionsAllowed`; none given: no budget.
pub fn move_cost(priority: i32, headroom: Option<u32>, warm_up: Span) -> Option<u64> {
    let scarce = match headroom {
        Some(0) => return None,
        Some(1) => 2,
        _ => 1,
    };
    // Kubernetes gives users priorities up to a milliard; each ten thousand counts as much again, at most tenfold.
    let weight = u64::try_from(priority.max(0)).unwrap_or(0).min(90_000);
    let seconds = limits::MIG_RESTART.0.as_secs().saturating_add(warm_up.0.as_secs()).min(86_400);
    Some((seconds * (10_000 + weight) / 10_000 * scarce).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protected_pod_has_no_price_and_an_important_one_a_high_one() {
        assert_eq!(move_cost(0, Some(0), Span::seconds(0)), None);
        let plain = move_cost(0, None, Span::seconds(60)).unwrap();
        assert!(move_cost(10_000, None, Span::seconds(60)).unwrap() >= 2 * plain - 1);
        assert_eq!(move_cost(0, Some(1), Span::seconds(60)), Some(2 * plain));
        assert_eq!(move_cost(-5, Some(3), Span::seconds(60)), Some(plain));
        assert!(move_cost(i32::MAX, Some(1), Span::seconds(u64::MAX)).is_some());
    }
}
