//! Blast radius as a level: how many nodes are out of service now, in this hour, in this day, for any reason; of the
//! fleet, and of the target's pool.
//!
//! Invariant: with this step each level stays within its limit; an unknown level is never within it.

use super::some_of;
use crate::limits;
use crate::model::{GuardDecision, ImpactScope, ReasonCode};
use crate::policy::GuardLimits;
use crate::policy::admit::{GuardCheck, NodeGroup};
use std::collections::BTreeSet;

/// One group of nodes that is counted together.
struct OutageCount<'a> {
    /// Empty for the fleet, ` of pool a100` for a pool.
    of: String,
    total: u32,
    /// Out of service, the target not counted.
    out: BTreeSet<&'a str>,
    taken_hour: u32,
    taken_day: u32,
}

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    if asked.reads() || asked.undoes() || !asked.proposal.disruptive {
        return None;
    }
    let proposal = asked.proposal;
    let Some(total) = proposal.facts.nodes_total.filter(|total| *total > 0) else {
        let text = format!(
            "{} takes a node out of service, and the number of GPU nodes could not be read: the run waits until it can be",
            proposal.call.action
        );
        return asked.hold(ReasonCode::FleetUnknown, limits::HOLD_RECHECK, text);
    };
    let Some(node) = proposal.target.node.as_deref() else {
        if proposal.reach < ImpactScope::Node {
            return None;
        }
        let text = format!(
            "{} affects a {} and names no node, so the nodes it takes out of service cannot be counted",
            proposal.call.action, proposal.reach
        );
        return asked.deny(ReasonCode::BlastRadius, text);
    };
    let held = asked.levels.nodes_held.iter();
    let out: BTreeSet<&str> =
        proposal.facts.nodes_out.iter().chain(held).map(String::as_str).filter(|name| *name != node).collect();
    // Of a fleet of one the pool adds nothing.
    let pool = pool(asked).filter(|_| total > 1).map(|group| of_pool(asked, group, node, &out));
    let (taken_hour, taken_day) = (asked.levels.nodes_hour, asked.levels.nodes_day);
    let fleet = OutageCount { of: String::new(), total, out, taken_hour, taken_day };
    within(asked, node, &fleet).or_else(|| within(asked, node, &pool?))
}

/// The first label that names a pool and that the node has.
fn pool<'a>(asked: &GuardCheck<'a>) -> Option<&'a NodeGroup> {
    let groups = &asked.proposal.facts.groups;
    asked.limits.pools.iter().find_map(|label| groups.iter().find(|group| group.label == *label))
}

fn of_pool<'a>(asked: &GuardCheck<'a>, group: &'a NodeGroup, node: &str, out: &BTreeSet<&'a str>) -> OutageCount<'a> {
    let members: BTreeSet<&str> = group.members.iter().map(String::as_str).collect();
    let mut out: BTreeSet<&str> = out.iter().copied().filter(|name| members.contains(name)).collect();
    out.extend(group.out.iter().map(String::as_str).filter(|name| *name != node));
    let hour_ago = asked.now.checked_sub(limits::HOUR.0).unwrap_or(asked.now);
    let lately = asked.levels.taken_lately.iter().filter(|(name, _)| members.contains(name.as_str()));
    let mut day = BTreeSet::new();
    let mut hour = BTreeSet::new();
    for (name, at) in lately {
        day.insert(name);
        if *at > hour_ago {
            hour.insert(name);
        }
    }
    OutageCount {
        of: format!(" of pool {}", group.value),
        total: members.len() as u32,
        out,
        taken_hour: hour.len() as u32,
        taken_day: day.len() as u32,
    }
}

fn within(asked: &GuardCheck<'_>, node: &str, level: &OutageCount<'_>) -> Option<GuardDecision> {
    at_once(asked, node, level)
        .or_else(|| last_one(asked, node, level))
        .or_else(|| rate(asked, level, level.taken_hour, asked.limits.share_per_hour, "hour"))
        .or_else(|| rate(asked, level, level.taken_day, asked.limits.share_per_day, "day"))
}

/// How many of so many nodes may be out of service at once.
pub fn nodes_at_once(limits: &GuardLimits, total: u32) -> u32 {
    limits.nodes_at_once.min(share_of(limits.share_at_once, total))
}

fn at_once(asked: &GuardCheck<'_>, node: &str, level: &OutageCount<'_>) -> Option<GuardDecision> {
    let OutageCount { of, total, out, .. } = level;
    let limit = nodes_at_once(asked.limits, *total);
    if out.len() < limit as usize {
        return None;
    }
    // The pages count the target, too, where it is out already.
    let itself = asked.proposal.facts.nodes_out.iter().any(|name| name == node);
    let itself = if itself { format!(" ({node} itself not counted)") } else { String::new() };
    let names = || some_of(out.iter().copied());
    let already = match out.len() {
        0 => {
            return asked.hold(
                ReasonCode::BlastRadius,
                limits::HOLD_RECHECK,
                format!("no node of {total}{of} may be taken out of service: the limit is {limit} at a time{itself}"),
            );
        }
        1 => format!("{} is already out of service", names()),
        n => format!("{n} nodes are already out of service ({})", names()),
    };
    let text = format!("{already}, and only {limit} of {total} nodes{of} may be out at a time{itself}");
    asked.hold(ReasonCode::BlastRadius, limits::HOLD_RECHECK, text)
}

/// The last node in service stays, however generous the limits are.
fn last_one(asked: &GuardCheck<'_>, node: &str, level: &OutageCount<'_>) -> Option<GuardDecision> {
    let OutageCount { of, total, out, .. } = level;
    let others = total.saturating_sub(1) as usize;
    if out.len() < others {
        return None;
    }
    if others == 0 {
        // A fleet of one is another guard's.
        if of.is_empty() {
            return None;
        }
        let text = format!("node {node} is the only one{of}: taking it out would leave none in service");
        return asked.deny(ReasonCode::BlastRadius, text);
    }
    let text =
        format!("node {node} is the last of {total}{of} in service; already out: {}", some_of(out.iter().copied()));
    asked.hold(ReasonCode::BlastRadius, limits::HOLD_RECHECK, text)
}

fn rate(
    asked: &GuardCheck<'_>,
    level: &OutageCount<'_>,
    taken: u32,
    share: f64,
    window: &str,
) -> Option<GuardDecision> {
    let OutageCount { of, total, .. } = level;
    let limit = share_of(share, *total);
    if taken < limit {
        return None;
    }
    let percent = share * 100.0;
    let nodes = if taken == 1 { "node" } else { "nodes" };
    let window = if window == "hour" { "an hour" } else { "a day" };
    let text = format!(
        "Nightshift took {taken} {nodes}{of} out of service within {window}; the limit is {limit} of {total} ({percent:.0} %)"
    );
    asked.hold(ReasonCode::BlastRadius, limits::HOLD_RECHECK_BUDGET, text)
}

/// A share of the fleet in whole nodes, at least one; none at all where the share is zero or no number.
pub fn share_of(share: f64, total: u32) -> u32 {
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
