//! `k8s::spare_node`: another node with free GPUs.
//!
//! Invariant: a node is spare only if its pods were counted just now.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::limits;
use crate::model::{ActionCall, Outcome, Step};
use crate::world::{KubeClient, Node, World, WorldError};
use futures::StreamExt;
use serde_json::{Value, json};

pub(super) struct K8sSpareNode;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::spare_node",
    doc: "Returns another ready, schedulable node of the same GPU product, the one with the most free GPUs; \"\" if there is none.",
    params: &[args::NODE],
    options: &[],
    returns: "the name, or an empty text",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "look for a spare node for {target}", done: None },
    permissions: rights::FIND_SPARE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for K8sSpareNode {
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
    let kube = world.kube(None)?;
    let name = args::text(call, "node")?;
    let (own, nodes) = tokio::join!(kube.node(name), kube.nodes());
    let own = own?;
    let mut candidates: Vec<Node> = nodes?.into_iter().filter(|node| may_serve(node, &own)).collect();
    // The emptiest nodes are unknown without counting, so take the largest, then by name: the same each time.
    candidates.sort_by(|a, b| b.gpus_allocatable.cmp(&a.gpus_allocatable).then_with(|| a.name.cmp(&b.name)));
    for batch in candidates.chunks(limits::SPARE_CANDIDATES) {
        let counts: Vec<_> = batch.iter().map(|node| free_gpus(kube, node)).collect();
        let free: Vec<_> = futures::stream::iter(counts).buffered(limits::KUBE_AT_ONCE).collect().await;
        let free = free.into_iter().collect::<Result<Vec<_>, _>>()?;
        // The first of equals, so that asking twice gives one answer.
        let best = free.into_iter().filter(|(free, _)| *free > 0).rev().max_by_key(|(free, _)| *free);
        if let Some((_, name)) = best {
            return Ok(json!(name));
        }
    }
    Ok(json!(""))
}

async fn free_gpus<'a>(kube: &KubeClient, node: &'a Node) -> Result<(u32, &'a str), WorldError> {
    let pods = kube.pods_on(&node.name).await?;
    let finished = |phase: &str| phase == "Succeeded" || phase == "Failed";
    let held: u32 = pods.iter().filter(|pod| !finished(&pod.phase)).map(|pod| pod.gpus).sum();
    Ok((node.gpus_allocatable.saturating_sub(held), &node.name))
}

fn may_serve(node: &Node, own: &Node) -> bool {
    const PRODUCT: &str = "nvidia.com/gpu.product";
    // GPU nodes commonly bear this taint, and GPU pods tolerate it.
    let closed = |(key, _, effect): &(String, String, String)| key != "nvidia.com/gpu" && effect != "PreferNoSchedule";
    node.name != own.name
        && node.ready
        && !node.unschedulable
        && node.gpus_allocatable > 0
        && !node.taints.iter().any(closed)
        && own.labels.get(PRODUCT).is_none_or(|product| node.labels.get(PRODUCT) == Some(product))
}
