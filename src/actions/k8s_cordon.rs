//! `k8s::cordon`: no new pods on a node, and a mark that the cordon is ours.
//!
//! Invariant: cordon and mark are one conditional patch, and a cordon that is not ours is never touched.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, k8s_uncordon, rights};
use crate::model::{ActionCall, FailureKind, Outcome, Step, StepFailure};
use crate::world::{CORDONED_BY, CordonState, Node, World, WorldError, cordon, cordon_mark};
use serde_json::{Value, json};

pub(super) struct K8sCordon;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::cordon",
    doc: "Cordons a node: no new pods; running ones stay. Fails with `conflict` if another user or tool cordoned it.",
    params: &[args::NODE, args::required("why", ParamType::String, "reason, shown on the node")],
    options: &[],
    returns: "#{changed, before: #{unschedulable}}; changed is false if it was ours already",
    effect: EffectClass::Converge,
    reach: ImpactScope::Node,
    disruptive: true,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Cordon,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "cordon {target}{details}", done: Some("cordoned {target}{details}") },
    permissions: rights::PATCH_NODE,
    undo: Some(k8s_uncordon::NAME),
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for K8sCordon {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    /// Whether the node was open before, so that an attempt whose answer was lost still knows that it changed it.
    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        let node = world.kube(None)?.node(call.text("node")).await?;
        Ok(json!({ "unschedulable": node.unschedulable, "version": node.resource_version }))
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(
            async {
                let node = world.kube(None)?.node(args::text(call, "node")?).await?;
                let changed = !ours(&node, world)?;
                Ok(report(changed, node.unschedulable))
            }
            .await,
        )
    }

    fn undo(&self, step: &Step) -> Option<ActionCall> {
        super::changed(step).then(|| ActionCall::new(k8s_uncordon::NAME, [("node", json!(step.call.text("node")))]))
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let kube = world.kube(None)?;
    let name = args::text(&step.call, "node")?;
    let was_open = step.carry["unschedulable"] == json!(false);
    let mark = cordon_mark(&world.identity, &step.run.to_string(), args::text(&step.call, "why")?);
    let patch = json!({ "metadata": { "annotations": { CORDONED_BY: mark } }, "spec": { "unschedulable": true } });
    // The witness has just seen it open, at this version: no need to look again before the first attempt.
    if let (1, true, Some(version)) = (step.attempt, was_open, step.carry["version"].as_str()) {
        match kube.patch_node(name, patch.clone(), Some(version)).await {
            Ok(_) => return Ok(done(report(true, false))),
            // Another writer came in between, a controller most likely: look again at once.
            Err(WorldError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let node = kube.node(name).await?;
    if ours(&node, world)? {
        // Ours already: by an attempt of this step whose answer was lost, or by an earlier step.
        return Ok(done(report(was_open, !was_open)));
    }
    kube.patch_node(name, patch, Some(&node.resource_version)).await?;
    Ok(done(report(true, false)))
}

/// Whether the cordon is there and ours; another user's is a failure.
fn ours(node: &Node, world: &World) -> Result<bool, StepFailure> {
    match cordon(node, &world.identity) {
        CordonState::Open => Ok(false),
        CordonState::Ours { .. } => Ok(true),
        CordonState::Foreign { who } => Err(StepFailure::new(
            FailureKind::Conflict,
            format!("node {} was cordoned by {who}; Nightshift does not take over the cordon", node.name),
        )),
    }
}

fn report(changed: bool, unschedulable_before: bool) -> Value {
    json!({ "changed": changed, "before": { "unschedulable": unschedulable_before } })
}
