//! `gpu::recovery_action`: the driver's own advice for a GPU.
//!
//! Invariant: reads only, and only from the node's agent.

use super::declare::*;
use super::on_node::AgentReadAction;
use super::{args, rights};

pub(super) static GPU_RECOVERY_ACTION: AgentReadAction = AgentReadAction { spec: &SPEC };

pub(super) const NAME: &str = "gpu::recovery_action";

static SPEC: ActionSpec = ActionSpec {
    name: NAME,
    doc: "Reads the recovery action that the driver requests for a GPU, from the node's agent.",
    params: &[args::NODE, args::required("gpu", ParamType::Gpu, "index, UUID or PCI address")],
    options: &[],
    returns: "`none`, `gpu-reset`, `node-reboot`, `drain-p2p` or `drain-and-reset`",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Gpu,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "read the recovery action of {target}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};
