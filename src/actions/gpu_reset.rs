//! `gpu::reset`: the agent of a node resets one of its GPUs.
//!
//! Invariant: the agent recognises the step by its key and its precondition (boot and the driver's advice before), so
//! that after a crash on either side no reset is repeated.

use super::answer::{foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, gpu_recovery_action, on_node, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::{World, WorldError};
use serde_json::{Value, json};

pub(super) struct GpuReset;

static SPEC: ActionSpec = ActionSpec {
    name: "gpu::reset",
    doc: "Resets one GPU through the node's agent. Refused while a process holds it, and more often than once in ten \
          minutes on one node: drain first.",
    params: &[args::NODE, args::required("gpu", ParamType::Gpu, "index, UUID or PCI address")],
    options: &[],
    returns: "#{changed}",
    effect: EffectClass::Witnessed,
    reach: ImpactScope::Node,
    disruptive: true,
    target: TargetKind::Gpu,
    takes: CapacityKind::Gpu,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "reset {target}{details}", done: Some("reset {target}{details}") },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for GpuReset {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        on_node::witness(world, call, gpu_recovery_action::NAME, "recovery").await
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(on_node::perform(world, step, Span::minutes(15)).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(on_node::reachable(world, call).map(|()| json!({ "changed": true })))
    }
}
