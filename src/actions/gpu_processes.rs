//! `gpu::processes`: who holds the GPUs of a node.
//!
//! Invariant: reads only, and only from the node's agent.

use super::declare::*;
use super::on_node::Question;
use super::{args, rights};

pub(super) static GPU_PROCESSES: Question = Question { spec: &SPEC };

static SPEC: ActionSpec = ActionSpec {
    name: "gpu::processes",
    doc: "Lists the processes that use a node's GPUs, from its agent.",
    params: &[
        args::NODE,
        args::optional("gpu", ParamType::Gpu, "index, UUID or PCI address; left out: all of the node"),
    ],
    options: &[],
    returns: "a list of #{gpu, pid, name, memory_mib}",
    effect: Effect::Read,
    reach: Reach::None,
    disruptive: false,
    target: TargetKind::Gpu,
    takes: Capacity::Nothing,
    scheduling: Scheduling::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: Phrases { todo: "list the processes on {target}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};
