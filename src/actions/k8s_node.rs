//! `k8s::node`: the present state of a node.
//!
//! Invariant: reads only.

use super::answer::{Settled, done, foresee, settle};
use super::declare::*;
use super::{Action, Performed, args, rights};
use crate::model::{Call, Outcome, Step};
use crate::world::{CORDONED_BY, World};
use serde_json::{Value, json};

pub(super) struct K8sNode;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::node",
    doc: "Reads a node.",
    params: &[args::NODE],
    options: &[],
    returns: "#{name, ready, unschedulable, cordoned_by, gpus, gpus_allocatable, boot_id, labels, taints: [#{key, value, effect}]}",
    effect: Effect::Read,
    reach: Reach::None,
    disruptive: false,
    target: TargetKind::Node,
    takes: Capacity::Nothing,
    scheduling: Scheduling::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: Phrases { todo: "read the state of {target}", done: None },
    permissions: rights::READ_NODE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for K8sNode {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> Performed {
        settle(read(world, &step.call).await.map(done))
    }

    async fn predict(&self, world: &World, call: &Call) -> Outcome {
        foresee(read(world, call).await)
    }
}

async fn read(world: &World, call: &Call) -> Settled<Value> {
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
