//! The only node of a site: on one machine only its GPUs can be out of service, and the machine itself only where the
//! site allows it.
//!
//! Invariant: checked before approval is requested, so that no approver approves a step that is denied afterwards.

use crate::model::{GuardDecision, ReasonCode};
use crate::policy::admit::GuardCheck;

pub(super) fn check(asked: &GuardCheck<'_>) -> Option<GuardDecision> {
    let proposal = asked.proposal;
    let spared = asked.reads() || asked.undoes() || !proposal.disruptive || asked.limits.only_node;
    if spared || proposal.facts.nodes_total != Some(1) || proposal.target.gpu.is_some() {
        return None;
    }
    let node = proposal.target.node.as_deref()?;
    let text = format!(
        "node {node} is the only GPU node: taking it out would leave none in service; on a site with one machine \
         set `guards: {{ only_node: true }}` in the configuration, or act on one of its GPUs or containers"
    );
    asked.deny(ReasonCode::BlastRadius, text)
}
