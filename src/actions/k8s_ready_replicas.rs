//! `k8s::ready_replicas`: how many pods of a workload are ready.
//!
//! Invariant: reads only.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::World;
use serde_json::{Value, json};

pub(super) struct K8sReadyReplicas;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::ready_replicas",
    doc: "How many pods of a workload are ready now.",
    params: &[args::WORKLOAD],
    options: &[],
    returns: "a number",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Workload,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "count the ready replicas of {target}", done: None },
    permissions: rights::READ_WORKLOAD,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for K8sReadyReplicas {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(read(world, &step.call).await.map(done))
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(read(world, call).await)
    }
}

async fn read(world: &World, call: &ActionCall) -> ActionResult<Value> {
    let (namespace, name) = args::pair(call, "workload")?;
    Ok(json!(world.kube(None)?.workload(namespace, name).await?.ready))
}
