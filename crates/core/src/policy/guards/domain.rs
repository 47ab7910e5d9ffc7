//! Failure domains: nodes of one rack or NVLink domain fail together, and so do the replicas of one set.
//!
//! Invariant: while a run disturbs one member, no other run begins to disturb another one.

use crate::limits;
use crate::model::{GuardDecision, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    if !asked.acts() || asked.undoes() || asked.gives_back() {
        return None;
    }
    shared_by_nodes(asked).or_else(|| shared_by_replicas(asked))
}

fn shared_by_nodes(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    // A run that holds the node already was let in before; held now, two runs could wait for each other for ever.
    if asked.levels.is_holder || !(asked.proposal.disruptive || asked.schedules()) {
        return None;
    }
    let node = asked.proposal.target.node.as_deref()?;
    let groups = asked.proposal.facts.groups.iter().filter(|group| asked.limits.domains.contains(&group.label));
    for group in groups {
        let held = asked.levels.holders.iter().find(|(held, _)| held != node && group.members.contains(held));
        if let Some((other, run)) = held {
            let text = format!(
                "{run} works on {other}, which shares {}={} with {node}: one disruptive run per failure domain at a time",
                group.label, group.value
            );
            return asked.hold(ReasonCode::DomainBusy, limits::HOLD_RECHECK, text);
        }
    }
    None
}

fn shared_by_replicas(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    let ours = asked.proposal.facts.serving.iter().filter(|serving| serving.taken() > 0);
    for serving in ours {
        let mut theirs = asked.levels.replicas_taken.iter().filter(|taken| taken.is_open);
        if let Some(taken) = theirs.find(|taken| taken.set == serving.set) {
            let which = if taken.pod.is_empty() { "replicas".to_owned() } else { format!("replica {}", taken.pod) };
            let text = format!(
                "{} is taking {which} of {} away: one disruptive run per set of replicas at a time",
                taken.run, taken.set
            );
            return asked.hold(ReasonCode::DomainBusy, limits::HOLD_RECHECK, text);
        }
    }
    None
}
