//! `inference::return_traffic`: gives a pod its traffic back, if we were the ones who took it.
//!
//! Invariant: only a label that bears our mark is set back, in one conditional patch that also removes the mark.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::traffic::{self, DrainedTraffic};
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, FailureKind, Outcome, Step, StepFailure};
use crate::world::{Pod, World, WorldError};
use serde_json::{Value, json};

pub(super) struct InferenceReturnTraffic;

pub(super) const NAME: &str = "inference::return_traffic";

static SPEC: ActionSpec = ActionSpec {
    name: NAME,
    doc: "Returns the traffic that `inference::drain_traffic` removed from a pod. Fails with `conflict` if another user or tool removed \
          it; does nothing if the pod is gone.",
    params: &[args::POD],
    options: &[],
    returns: "#{changed}; changed is false if it had its traffic, or is gone",
    effect: EffectClass::Converge,
    reach: ImpactScope::Pod,
    disruptive: false,
    target: TargetKind::Pod,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases {
        todo: "return traffic to {target}{details}",
        done: Some("returned traffic to {target}{details}"),
    },
    permissions: rights::RETURN_TRAFFIC,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for InferenceReturnTraffic {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        let (namespace, name) = args::pair(call, "pod").map_err(|failure| WorldError::Invalid(failure.message))?;
        let pod = world.kube(None)?.pod(namespace, name).await?;
        Ok(json!({ "ours": matches!(traffic::taken(&pod, &world.identity), DrainedTraffic::Ours { .. }) }))
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(
            async {
                let found = look(world, call).await?;
                let changed = found.is_some_and(|(pod, label, before)| traffic::back(&pod, &label, &before).1);
                Ok(json!({ "changed": changed }))
            }
            .await,
        )
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let Some((pod, label, before)) = look(world, &step.call).await? else {
        // An attempt whose answer was lost has given it back, or there was nothing to give.
        return Ok(done(json!({ "changed": step.carry["ours"] == json!(true) })));
    };
    let (patch, changed) = traffic::back(&pod, &label, &before);
    world.kube(None)?.patch_pod(&pod.namespace, &pod.name, patch, &pod.resource_version).await?;
    Ok(done(json!({ "changed": changed })))
}

/// The pod, the label and its value before, if its traffic is ours to give back.
async fn look(world: &World, call: &ActionCall) -> ActionResult<Option<(Pod, String, String)>> {
    let (namespace, name) = args::pair(call, "pod")?;
    let pod = match world.kube(None)?.pod(namespace, name).await {
        Ok(pod) => pod,
        Err(WorldError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match traffic::taken(&pod, &world.identity) {
        DrainedTraffic::No => Ok(None),
        DrainedTraffic::Ours { label, before } => Ok(Some((pod, label, before))),
        DrainedTraffic::Theirs(who) => {
            let what = format!("the traffic of {namespace}/{name} was removed by {who}; only they may return it");
            Err(StepFailure::new(FailureKind::Conflict, what).into())
        }
    }
}
