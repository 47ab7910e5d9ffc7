//! `k8s::uncordon`: gives a node back, if we were the ones who took it.
//!
//! Invariant: only a cordon that bears our mark is lifted, in one conditional patch that also removes the mark.

use super::answer::{Settled, done, foresee, settle};
use super::declare::*;
use super::{Action, Performed, args, rights};
use crate::model::{Call, Failure, FailureKind, Outcome, Step};
use crate::world::{CORDONED_BY, Cordon, Node, World, WorldError, cordon};
use serde_json::{Value, json};

pub(super) struct K8sUncordon;

pub(super) const NAME: &str = "k8s::uncordon";

static SPEC: ActionSpec = ActionSpec {
    name: NAME,
    doc: "Uncordons a node that Nightshift cordoned, in this run or an earlier one. Fails with `conflict` if another user or tool cordoned it.",
    params: &[args::NODE],
    options: &[],
    returns: "#{changed, before: #{unschedulable}}; changed is false if the node was open already",
    effect: Effect::Converge,
    reach: Reach::Node,
    disruptive: false,
    target: TargetKind::Node,
    takes: Capacity::Nothing,
    scheduling: Scheduling::Uncordon,
    approval: ApprovalNeed::ByMode,
    phrases: Phrases { todo: "uncordon {target}{details}", done: Some("uncordoned {target}{details}") },
    permissions: rights::PATCH_NODE,
    undo: None,
    deadline: Span::seconds(45),
};

/// The necessary change of a node.
enum Need {
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

    async fn witness(&self, world: &World, call: &Call) -> Result<Value, WorldError> {
        let node = world.kube(None)?.node(call.text("node")).await?;
        let ours = matches!(cordon(&node, &world.identity), Cordon::Ours { .. });
        Ok(json!({ "unschedulable": node.unschedulable, "ours": ours, "version": node.resource_version }))
    }

    async fn perform(&self, world: &World, step: &Step) -> Performed {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &Call) -> Outcome {
        foresee(
            async {
                let node = world.kube(None)?.node(args::text(call, "node")?).await?;
                let need = need(&node, world)?;
                Ok(report(matches!(need, Need::Both), node.unschedulable))
            }
            .await,
        )
    }
}

async fn perform(world: &World, step: &Step) -> Settled<Performed> {
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
        Need::Nothing => {
            let was_cordoned = step.carry["unschedulable"] == json!(true);
            Ok(done(report(was_cordoned, was_cordoned)))
        }
        Need::Mark => {
            kube.patch_node(name, json!({ "metadata": mark }), Some(&node.resource_version)).await?;
            Ok(done(report(false, false)))
        }
        Need::Both => {
            let patch = json!({ "metadata": mark, "spec": { "unschedulable": null } });
            kube.patch_node(name, patch, Some(&node.resource_version)).await?;
            Ok(done(report(true, true)))
        }
    }
}

fn need(node: &Node, world: &World) -> Result<Need, Failure> {
    match cordon(node, &world.identity) {
        Cordon::Open if mark_is_ours(node, world) => Ok(Need::Mark),
        Cordon::Open => Ok(Need::Nothing),
        Cordon::Ours { .. } => Ok(Need::Both),
        Cordon::Foreign { who } => Err(Failure::new(
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
