//! `k8s::pods_on`: the pods of a node.
//!
//! Invariant: all of them or a failure, never a part.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::World;
use serde_json::{Value, json};

pub(super) struct K8sPodsOn;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::pods_on",
    doc: "Lists the pods on a node, of every namespace, in order of their names.",
    params: &[args::NODE],
    options: &[],
    returns: "[#{pod, namespace, name, phase, ready, terminating, owner, daemon, gpus}]; pod is `namespace/name`, owner is `Kind/name` or empty, daemon: a DaemonSet or the kubelet itself puts it there",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "list the pods on {target}", done: None },
    permissions: rights::READ_PODS,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for K8sPodsOn {
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
    let mut pods = world.kube(None)?.pods_on(args::text(call, "node")?).await?;
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let list = pods.iter().map(|pod| {
        json!({
            "pod": format!("{}/{}", pod.namespace, pod.name),
            "namespace": pod.namespace,
            "name": pod.name,
            "phase": pod.phase,
            "ready": pod.ready,
            "terminating": pod.terminating,
            "owner": pod.owner.as_ref().map(|(kind, name)| format!("{kind}/{name}")).unwrap_or_default(),
            "daemon": pod.mirror || pod.owner.as_ref().is_some_and(|(kind, _)| kind == "DaemonSet"),
            "gpus": pod.gpus,
        })
    });
    Ok(list.collect())
}
