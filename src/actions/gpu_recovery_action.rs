//! `gpu::recovery_action`: the driver's own advice for a GPU.
//!
//! Invariant: reads only, and only from the node's agent.

use super::on_node::Question;
use super::{args, rights};
use crate::model::{ActionSpec, Effect, ParamType, Reach, Span};

pub(super) static GPU_RECOVERY_ACTION: Question = Question { spec: &SPEC, about: args::gpu_target };

static SPEC: ActionSpec = ActionSpec {
    name: "gpu::recovery_action",
    doc: "Reads the recovery action that the driver requests for a GPU, from the node's agent.",
    params: &[args::NODE, args::required("gpu", ParamType::Gpu, "index, UUID or PCI address")],
    options: &[],
    returns: "`none`, `gpu-reset`, `node-reboot`, `drain-p2p` or `drain-and-reset`",
    effect: Effect::Read,
    reach: Reach::None,
    disruptive: false,
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};
