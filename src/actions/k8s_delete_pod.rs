//! `k8s::delete_pod`: deletes one pod, regardless of disruption budgets.
//!
//! Invariant: the pod is known by its uid; one that is gone, or whose name another pod bears, has been deleted.

use super::answer::{ActionResult, done};
use super::declare::*;
use super::on_pod::{OnPod, witness};
use super::{PerformResult, args, rights};
use crate::model::{ActionCall, Step};
use crate::world::{KubeClient, Pod, World, WorldError};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) struct K8sDeletePod;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::delete_pod",
    doc: "Deletes one pod, ignoring disruption budgets and without waiting; prefer `k8s::evict`.",
    params: &[args::POD],
    options: &[],
    returns: "#{changed, uid}",
    effect: EffectClass::Witnessed,
    reach: ImpactScope::Pod,
    disruptive: true,
    target: TargetKind::Pod,
    takes: CapacityKind::Pod("taking one away"),
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "delete pod {target}{details}", done: Some("deleted pod {target}{details}") },
    permissions: rights::DELETE_POD,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl OnPod for K8sDeletePod {
    fn declares(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn work(&self, world: &World, step: &Step) -> ActionResult<PerformResult> {
        perform(world, step).await
    }

    async fn foresee(&self, _: &World, _: &KubeClient, _: &ActionCall, pod: &Pod) -> ActionResult<Value> {
        Ok(json!({ "changed": true, "uid": pod.uid }))
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let (namespace, name) = args::pair(&step.call, "pod")?;
    let Some(uid) = step.carry["uid"].as_str() else {
        // Without a witness a lost answer could cost a second pod, so take one first and come back with it.
        let carry = witness(world, &step.call).await?;
        return Ok(PerformResult::Again { after: Duration::ZERO, why: "the pod's uid is noted".to_owned(), carry });
    };
    let kube = world.kube(None)?;
    if step.attempt > 1 {
        // An attempt whose answer was lost may have arrived: a pod that is ending already is not deleted again.
        match kube.pod(namespace, name).await {
            Ok(pod) if pod.uid == uid && !pod.terminating => {}
            Ok(_) | Err(WorldError::NotFound(_)) => return Ok(done(json!({ "changed": true, "uid": uid }))),
            Err(error) => return Err(error.into()),
        }
    }
    match kube.delete_pod(namespace, name, uid).await {
        Ok(()) | Err(WorldError::NotFound(_)) => {}
        // Nearly always another pod bears the name; but look, since "deleted" must be true.
        Err(WorldError::Conflict(why)) => match kube.pod(namespace, name).await {
            Ok(pod) if pod.uid == uid => return Ok(PerformResult::Retry { why, after: None }),
            Ok(_) | Err(WorldError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    }
    Ok(done(json!({ "changed": true, "uid": uid })))
}
