//! The serving floor: no step takes the last ready replica of a set, or goes below the number that it may not go below.
//!
//! Invariant: a replica counts as staying only if it is ready, and neither this step, another run nor the end of its
//! node takes it; a replica that could not be read does not count.

use super::some_of;
use crate::limits;
use crate::model::{GuardDecision, ReasonCode, RunId};
use crate::policy::admit::{AffectedReplicas, GuardCheck, ReadyReplica};

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    if !asked.acts() || asked.undoes() {
        return None;
    }
    if let Some(why) = &asked.proposal.facts.serving_unread {
        let text = format!(
            "{} takes replicas away, and how many would be left to serve could not be read: {why}",
            asked.proposal.call.action
        );
        return asked.hold(ReasonCode::ServingFloor, limits::HOLD_RECHECK, text);
    }
    asked.proposal.facts.serving.iter().find_map(|serving| below(asked, serving))
}

fn below(asked: &GuardCheck<'_>, serving: &AffectedReplicas) -> Option<GuardDecision> {
    // Who takes none that serves makes nothing worse.
    if serving.taken() == 0 {
        return None;
    }
    let others = serving.ready.iter().filter(|replica| !serving.takes.contains(&replica.pod));
    let (goes, stays): (Vec<&ReadyReplica>, Vec<&ReadyReplica>) =
        others.partition(|replica| goes(asked, serving, replica));
    let unnamed = asked.levels.replicas_taken.iter().filter(|taken| taken.set == serving.set && taken.pod.is_empty());
    let unnamed: u32 = unnamed.map(|taken| taken.count).sum();
    let left = (stays.len() as u32).saturating_sub(unnamed).saturating_sub(serving.takes_any);
    if left >= serving.floor {
        return None;
    }
    let AffectedReplicas { set, floor, floor_from, ready, .. } = serving;
    let replicas =
        if ready.len() == 1 { "1 ready replica".to_owned() } else { format!("{} ready replicas", ready.len()) };
    let mut text = format!("{set} has {replicas}");
    let node = asked.proposal.target.node.as_deref().filter(|_| !serving.takes.is_empty());
    if let Some(node) = node {
        text.push_str(&format!(", {} of them on {node}", serving.taken()));
    }
    if !goes.is_empty() {
        let mut where_from: Vec<&str> = goes.iter().map(|replica| replica.node.as_str()).collect();
        where_from.dedup();
        let do_not = if goes.len() == 1 { "1 does not" } else { "others do not" };
        let places = some_of(where_from.into_iter());
        text.push_str(&format!(", {do_not} count (taken by others, or on a node that is out: {places})"));
    }
    if unnamed > 0 {
        text.push_str(&format!(", {unnamed} are being taken by another run"));
    }
    let doing = asked.proposal.doing;
    text.push_str(&format!("; {doing} leaves {left}; the floor is {floor} ({floor_from})"));
    asked.hold(ReasonCode::ServingFloor, limits::HOLD_RECHECK, text)
}

/// Whether a replica that the step leaves alone is about to go all the same.
fn goes(asked: &GuardCheck<'_>, serving: &AffectedReplicas, replica: &ReadyReplica) -> bool {
    let levels = asked.levels;
    if levels.replicas_taken.iter().any(|taken| taken.set == serving.set && taken.pod == replica.pod) {
        return true;
    }
    if replica.node.is_empty() {
        return false;
    }
    // A younger run that has taken nothing from this set waits for us as we would for it, so one of the two must go first.
    let younger = |(node, run): &&(String, RunId)| *node == replica.node && *run > asked.proposal.run;
    if levels.holders.iter().any(|holder| younger(&holder)) {
        return false;
    }
    asked.proposal.facts.nodes_out.contains(&replica.node) || levels.nodes_held.contains(&replica.node)
}
