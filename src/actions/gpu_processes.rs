//! `gpu::processes`: who holds the GPUs of a node.
//!
//! Invariant: reads only, and only from the node's agent.

use super::on_node::Question;
use super::{args, rights};
use crate::model::{ActionSpec, Effect, ParamType, Reach, Span};

pub(super) static GPU_PROCESSES: Question = Question { spec: &SPEC, about: args::gpu_target };

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
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};
