//! `gpu::recovery_action`: what the driver itself says a GPU needs.
//!
//! Invariant: reads only; the node's agent says it, or nobody does.

use super::answer::{Settled, done, foresee, settle};
use super::{Action, Performed, args, on_node, rights};
use crate::model::{ActionSpec, Call, Effect, Outcome, ParamType, Reach, Span, Step, Subject};
use crate::world::World;
use serde_json::Value;

pub(super) struct GpuRecoveryAction;

static SPEC: ActionSpec = ActionSpec {
    name: "gpu::recovery_action",
    doc: "Asks the node's agent what the driver says that a GPU needs.",
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

#[async_trait::async_trait]
impl Action for GpuRecoveryAction {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    fn target(&self, call: &Call) -> Subject {
        args::gpu_target(call)
    }

    async fn perform(&self, world: &World, step: &Step) -> Performed {
        settle(read(world, &step.call).await.map(done))
    }

    async fn predict(&self, world: &World, call: &Call) -> Outcome {
        foresee(read(world, call).await)
    }
}

async fn read(world: &World, call: &Call) -> Settled<Value> {
    on_node::read(world, call).await
}
