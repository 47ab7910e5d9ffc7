//! Protected subjects: objects that the site, the world or common sense protects from every runbook.
//!
//! Invariant: protection holds for undo too; hands off means hands off.

use crate::limits;
use crate::model::{GuardDecision, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    if !asked.acts() {
        return None;
    }
    let target = &asked.proposal.target;
    let listed = &asked.limits.protected;
    let hit = |list: &[String], name: &Option<String>| name.as_ref().filter(|name| list.contains(name)).cloned();
    if let Some(node) = hit(&listed.nodes, &target.node) {
        let text =
            format!("node {node} is protected: it is listed under `guards.protected.nodes` in the configuration");
        return asked.deny(ReasonCode::Protected, text);
    }
    if let Some(namespace) = hit(&listed.namespaces, &target.namespace) {
        let text = format!(
            "namespace {namespace} is protected: it is listed under `guards.protected.namespaces` in the configuration"
        );
        return asked.deny(ReasonCode::Protected, text);
    }
    if let Some(why) = &asked.proposal.facts.unread {
        let text = format!("whether {target} may be touched could not be read: {why}");
        return asked.hold(ReasonCode::TargetUnavailable, limits::HOLD_RECHECK, text);
    }
    let why = asked.proposal.facts.protected.as_ref()?;
    asked.deny(ReasonCode::Protected, format!("{target} is protected: {why}"))
}
