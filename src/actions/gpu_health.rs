//! `gpu::health`: how the GPUs of a node are.
//!
//! Invariant: reads only, and only from the node's agent.

use super::declare::*;
use super::on_node::AgentReadAction;
use super::{args, rights};

pub(super) static GPU_HEALTH: AgentReadAction = AgentReadAction { spec: &SPEC };

static SPEC: ActionSpec = ActionSpec {
    name: "gpu::health",
    doc: "Reads the health of a node's GPUs (NVML) from its agent.",
    params: &[
        args::NODE,
        args::optional("gpu", ParamType::Gpu, "index, UUID or PCI address; left out: all of the node"),
    ],
    options: &[],
    returns: "#{driver, gpus: [#{index, uuid, pci, name, ok, complaints}]}, and further NVML values of each",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Gpu,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "read the health of {target}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};
