//! `k8s::uncordon`: gives a node back, if we were the ones who took it.
//!
//! Invariant: only a cordon that bears our mark is lifted, in one conditional patch that also removes the mark.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, FailureKind, Outcome, Step, StepFailure};
use crate::world::{CORDONED_BY, CordonState, Node, World, WorldError, cordon};
use serde_json::{Value, json};

pub(super) struct K8sUncordon;

pub(super) const NAME: &str = "k8s::uncordon";

static SPEC: ActionSpec = ActionSpec {
    name: NAME,
    doc: "Uncordons a node that Nightshift cordoned, in this run or an earlier one. Fails with `conflict` if another user or tool cordoned it.",
    params: &[args::NODE],
    options: &[],
    returns: "#{changed, before: #{unschedulable}}; changed is false if the node was open already",
    effect: EffectClass::Converge,
    reach: ImpactScope::Node,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Uncordon,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "uncordon {target}{details}", done: Some("uncordoned {target}{details}") },
    permissions: rights::PATCH_NODE,
    undo: None,
    deadline: Span::seconds(45),
};

/// The necessary change of a node.
enum UncordonChange {
    Nothing,
    /// A human has uncordoned it, but our mark is still there.
    Mark,
    Both,
}

#[async_trait::async_trait]
impl Action for K8sUncordon {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        let node = world.kube(None)?.node(call.text("node")).await?;
        let ours = matches!(cordon(&node, &world.identity), CordonState::Ours { .. });
        Ok(json!({ "unschedulable": node.unschedulable, "ours": ours, "version": node.resource_version }))
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(
            async {
                let node = world.kube(None)?.node(args::text(call, "node")?).await?;
                let need = need(&node, world)?;
                Ok(report(matches!(need, UncordonChange::Both), node.unschedulable))
            }
            .await,
        )
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let kube = world.kube(None)?;
    let name = args::text(&step.call, "node")?;
    // A null removes the key in a merge patch.
    let mark = json!({ "annotations": { CORDONED_BY: null } });
    // The witness has just seen our cordon, at this version: no need to look again before the first attempt.
    if let (1, Some(true), Some(version)) = (step.attempt, step.carry["ours"].as_bool(), step.carry["version"].as_str())
    {
        let patch = json!({ "metadata": mark, "spec": { "unschedulable": null } });
        match kube.patch_node(name, patch, Some(version)).await {
            Ok(_) => return Ok(done(report(true, true))),
            // Another writer came in between, a controller most likely: look again at once.
            Err(WorldError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let node = kube.node(name).await?;
    match need(&node, world)? {
        UncordonChange::Nothing => {
            let was_cordoned = step.carry["unschedulable"] == json!(true);
            Ok(done(report(was_cordoned, was_cordoned)))
        }
        UncordonChange::Mark => {
            kube.patch_node(name, json!({ "metadata": mark }), Some(&node.resource_version)).await?;
            Ok(done(report(false, false)))
        }
        UncordonChange::Both => {
            let patch = json!({ "metadata": mark, "spec": { "unschedulable": null } });
            kube.patch_node(name, patch, Some(&node.resource_version)).await?;
            Ok(done(report(true, true)))
        }
    }
}

fn need(node: &Node, world: &World) -> Result<UncordonChange, StepFailure> {
    match cordon(node, &world.identity) {
        CordonState::Open if mark_is_ours(node, world) => Ok(UncordonChange::Mark),
        CordonState::Open => Ok(UncordonChange::Nothing),
        CordonState::Ours { .. } => Ok(UncordonChange::Both),
        CordonState::Foreign { who } => Err(StepFailure::new(
            FailureKind::Conflict,
            format!("node {} was cordoned by {who}; only they may uncordon it", node.name),
        )),
    }
}

fn mark_is_ours(node: &Node, world: &World) -> bool {
    node.annotations.get(CORDONED_BY).is_some_and(|mark| mark.split(' ').next() == Some(world.identity.as_str()))
}

fn report(changed: bool, unschedulable_before: bool) -> Value {
    json!({ "changed": changed, "before": { "unschedulable": unschedulable_before } })
}
