//! `gpu::health`: how the GPUs of a node are.
//!
//! Invariant: reads only, and only from the node's agent.

use super::on_node::Question;
use super::{args, rights};
use crate::model::{ActionSpec, Effect, ParamType, Reach, Span};

pub(super) static GPU_HEALTH: Question = Question { spec: &SPEC, about: args::gpu_target };

static SPEC: ActionSpec = ActionSpec {
    name: "gpu::health",
    doc: "Reads the health of a node's GPUs (NVML) from its agent.",
    params: &[
        args::NODE,
        args::optional("gpu", ParamType::Gpu, "index, UUID or PCI address; left out: all of the node"),
    ],
    options: &[],
    returns: "#{driver, gpus: [#{index, uuid, pci, name, ok, complaints}]}, and further NVML values of each",
    effect: Effect::Read,
    reach: Reach::None,
    disruptive: false,
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};
