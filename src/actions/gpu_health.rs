//! `gpu::health`: how the GPUs of a node are.
//!
//! Invariant: reads only; the node's agent says it, or nobody does.

use super::answer::{Settled, done, foresee, settle};
use super::{Action, Performed, args, on_node, rights};
use crate::model::{ActionSpec, Call, Effect, Outcome, ParamType, Reach, Span, Step, Subject};
use crate::world::World;
use serde_json::Value;

pub(super) struct GpuHealth;

static SPEC: ActionSpec = ActionSpec {
    name: "gpu::health",
    doc: "Asks the node's agent how its GPUs are, as NVML says.",
    params: &[
        args::NODE,
        args::optional("gpu", ParamType::Gpu, "index, UUID or PCI address; left out: all of the node"),
    ],
    options: &[],
    returns: "#{driver, gpus: [#{index, uuid, pci, name, ok, complaints}]}, and what else NVML knows of each",
    effect: Effect::Read,
    reach: Reach::None,
    disruptive: false,
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for GpuHealth {
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
