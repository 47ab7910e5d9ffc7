//! `k8s::node`: the present state of a node.
//!
//! Invariant: reads only.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::{CORDONED_BY, World};
use serde_json::{Value, json};

pub(super) struct K8sNode;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::node",
    doc: "Reads a node.",
    params: &[args::NODE],
    options: &[],
    returns: "#{name, ready, unschedulable, cordoned_by, gpus, gpus_allocatable, boot_id, labels, taints: [#{key, value, effect}]}",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "read the state of {target}", done: None },
    permissions: rights::READ_NODE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for K8sNode {
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
    let node = world.kube(None)?.node(args::text(call, "node")?).await?;
    let taints: Vec<Value> = node
        .taints
        .iter()
        .map(|(key, value, effect)| json!({ "key": key, "value": value, "effect": effect }))
        .collect();
    Ok(json!({
        "name": node.name,
        "ready": node.ready,
        "unschedulable": node.unschedulable,
        "cordoned_by": node.annotations.get(CORDONED_BY).map_or("", String::as_str),
        "gpus": node.gpus,
        "gpus_allocatable": node.gpus_allocatable,
        "boot_id": node.boot_id,
        "labels": node.labels,
        "taints": taints,
    }))
}
