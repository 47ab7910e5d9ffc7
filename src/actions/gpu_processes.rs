//! `gpu::processes`: who holds the GPUs of a node.
//!
//! Invariant: reads only, and only from the node's agent.

use super::declare::*;
use super::on_node::AgentReadAction;
use super::{args, rights};

pub(super) static GPU_PROCESSES: AgentReadAction = AgentReadAction { spec: &SPEC };

static SPEC: ActionSpec = ActionSpec {
    name: "gpu::processes",
    doc: "Lists the processes that use a node's GPUs, from its agent.",
    params: &[
        args::NODE,
        args::optional("gpu", ParamType::Gpu, "index, UUID or PCI address; left out: all of the node"),
    ],
    options: &[],
    returns: "a list of #{gpu, pid, name, memory_mib}",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Gpu,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "list the processes on {target}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};
