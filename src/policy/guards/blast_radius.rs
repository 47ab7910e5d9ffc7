//! Blast radius as a level: how many nodes are out of service now, in this hour, in this day, whoever took them out.
//!
//! Invariant: with this step the level stays within the limit; an unknown level is never within it.

use super::some_of;
use crate::limits;
use crate::model::{Reach, ReasonCode, Verdict};
use crate::policy::admit::Asked;
use std::collections::BTreeSet;

pub(super) fn check(asked: &Asked<'_>) -> Option<Verdict> {
    if asked.reads() || asked.undoes() || !asked.proposal.disruptive {
        return None;
    }
    let proposal = asked.proposal;
    let Some(total) = proposal.facts.nodes_total.filter(|total| *total > 0) else {
        let text = format!(
            "{} takes capacity away, and how many GPU nodes there are could not be read: it waits until that is known",
            proposal.call.action
        );
        return asked.hold(ReasonCode::FleetUnknown, limits::HOLD_RECHECK, text);
    };
    let Some(node) = proposal.target.node.as_deref() else {
        if proposal.reach < Reach::Node {
            return None;
        }
        let text = format!(
            "{} reaches {} and names no node, so what it takes out of service cannot be counted",
            proposal.call.action, proposal.reach
        );
        return asked.deny(ReasonCode::BlastRadius, text);
    };
    let held = asked.levels.nodes_held.iter();
    let out: BTreeSet<&str> =
        proposal.facts.nodes_out.iter().chain(held).map(String::as_str).filter(|name| *name != node).collect();
    at_once(asked, total, &out)
        .or_else(|| last_one(asked, total, node, &out))
        .or_else(|| rate(asked, total, asked.levels.nodes_hour, asked.limits.share_per_hour, "hour"))
        .or_else(|| rate(asked, total, asked.levels.nodes_day, asked.limits.share_per_day, "day"))
}

fn at_once(asked: &Asked<'_>, total: u32, out: &BTreeSet<&str>) -> Option<Verdict> {
    let limit = asked.limits.nodes_at_once.min(share_of(asked.limits.share_at_once, total));
    if out.len() < limit as usize {
        return None;
    }
    let text = match out.len() {
        0 => format!("no node of {total} may be out of service: the limit is {limit} at once"),
        1 => format!("1 of {total} nodes is out ({}); the limit is {limit} at once", some_of(out.iter().copied())),
        n => format!("{n} of {total} nodes are out ({}); the limit is {limit} at once", some_of(out.iter().copied())),
    };
    asked.hold(ReasonCode::BlastRadius, limits::HOLD_RECHECK, text)
}

/// The last node in service stays, however generous the limits are.
fn last_one(asked: &Asked<'_>, total: u32, node: &str, out: &BTreeSet<&str>) -> Option<Verdict> {
    let others = (total - 1) as usize;
    if out.len() < others {
        return None;
    }
    // One alone is another guard's.
    if others == 0 {
        return None;
    }
    let text = format!("node {node} is the last of {total} in service: {} are out", some_of(out.iter().copied()));
    asked.hold(ReasonCode::BlastRadius, limits::HOLD_RECHECK, text)
}

fn rate(asked: &Asked<'_>, total: u32, taken: u32, share: f64, window: &str) -> Option<Verdict> {
    let limit = share_of(share, total);
    if taken < limit {
        return None;
    }
    let percent = share * 100.0;
    let text = format!(
        "{taken} of {total} nodes were taken out by our runs within a {window}; the limit is {limit} ({percent:.0} %)"
    );
    asked.hold(ReasonCode::BlastRadius, limits::HOLD_RECHECK_BUDGET, text)
}

/// A share of the fleet in whole nodes, at least one; none at all where the share is zero or no number.
fn share_of(share: f64, total: u32) -> u32 {
    if !share.is_finite() || share <= 0.0 {
        return 0;
    }
    // 0.29 · 100 is 28.999…: a hair is added so that a share that means 29 nodes is 29. The cast saturates.
    let nodes = (share.min(1.0) * f64::from(total) + 1e-9).floor() as u32;
    nodes.max(1)
}

#[cfg(test)]
mod tests {
    use super::share_of;

    #[test]
    fn a_share_is_whole_nodes_and_at_least_one() {
        assert_eq!(share_of(0.05, 40), 2);
        assert_eq!(share_of(0.29, 100), 29);
        assert_eq!(share_of(0.05, 4), 1);
        assert_eq!(share_of(7.0, 4), 4);
        for none in [0.0, -0.1, f64::NAN, f64::INFINITY] {
            assert_eq!(share_of(none, 100), 0, "{none}");
        }
    }
}
