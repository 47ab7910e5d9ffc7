//! `k8s::rollout_restart`: new pods for a Deployment or StatefulSet, one after another, and waits until they are ready.
//!
//! Invariant: a restart bears the step's key, so however often the step is performed, the pods are replaced once.

use super::answer::{ActionResult, done, failed, foresee, patient, poll, settle, spoken, waited};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, FailureKind, Outcome, Step};
use crate::world::{Workload, World};
use serde_json::json;

pub(super) struct K8sRolloutRestart;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::rollout_restart",
    doc: "Restarts the pods of a workload by its own rollout strategy, and waits until the rollout is over.",
    params: &[args::WORKLOAD],
    options: &[args::optional("within", ParamType::Duration, "how long it may take (30m)")],
    returns: "#{changed, replicas, waited}",
    effect: EffectClass::Converge,
    reach: ImpactScope::Workload,
    disruptive: true,
    target: TargetKind::Workload,
    takes: CapacityKind::Rollout("the rollout"),
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "restart {target}{details}", done: Some("restarted {target}{details}") },
    permissions: rights::PATCH_WORKLOAD,
    undo: None,
    deadline: Span::seconds(60),
};

const RESTARTED_BY: &str = "nightshift.dev/restarted-by";

#[async_trait::async_trait]
impl Action for K8sRolloutRestart {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(
            async {
                let (namespace, name) = args::pair(call, "workload")?;
                let workload = world.kube(None)?.workload(namespace, name).await?;
                Ok(json!({ "changed": true, "replicas": workload.replicas, "waited": "0s" }))
            }
            .await,
        )
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let (namespace, name) = args::pair(&step.call, "workload")?;
    let within = args::span(&step.call, "within", Span::minutes(30))?;
    let kube = world.kube(None)?;
    let spent = waited(world, step);
    let asked_before = step.carry["restarted"] == json!(true);
    let silent = |error| patient(error, spent, within, step.carry.clone());

    let mut workload = kube.workload(namespace, name).await.map_err(silent)?;
    let carry = json!({ "restarted": true });
    // The mark outlives a lost answer, what is carried outlives another user's restart.
    if !asked_before && workload.annotations.get(RESTARTED_BY) != Some(&step.key()) {
        let marks = json!({ RESTARTED_BY: step.key(), "kubectl.kubernetes.io/restartedAt": step.begun_at });
        let patch = json!({
            "metadata": { "annotations": { RESTARTED_BY: step.key() } },
            "spec": { "template": { "metadata": { "annotations": marks } } },
        });
        let version = workload.resource_version.clone();
        workload = kube.patch_workload(namespace, name, patch, Some(&version)).await?;
    }
    match missing(&workload) {
        None => Ok(done(json!({
            "changed": true, "replicas": workload.replicas, "waited": spoken(spent).to_string(),
        }))),
        Some(why) if spent >= within.0 => {
            let what = format!("the rollout of {namespace}/{name} is not over after {}: {why}", spoken(spent));
            Ok(PerformResult::Done(failed(FailureKind::Timeout, what)))
        }
        Some(why) => Ok(poll(spent, why, carry)),
    }
}

/// The part of a rollout that is still missing, as `kubectl rollout status` judges it.
fn missing(workload: &Workload) -> Option<String> {
    let Workload { replicas, total, available, updated, .. } = *workload;
    if workload.observed_generation < workload.generation {
        Some("the change is not yet seen by its controller".to_owned())
    } else if updated < replicas {
        Some(format!("{updated} of {replicas} pods are new"))
    } else if total > updated {
        Some(format!("{} old pods are ending", total - updated))
    } else if available < updated {
        Some(format!("{available} of {updated} new pods are available"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_over_when_every_pod_is_new_and_available() {
        let check = |seen: i64, updated: u32, total: u32, available: u32| {
            missing(&Workload {
                kind: "Deployment".to_owned(),
                namespace: "prod".to_owned(),
                name: "llm".to_owned(),
                resource_version: "1".to_owned(),
                annotations: [].into(),
                replicas: 3,
                total,
                ready: available,
                available,
                updated,
                generation: 2,
                observed_generation: seen,
                selector: [].into(),
                may_lack: 1,
            })
            .unwrap_or_default()
        };
        assert_eq!(check(1, 3, 3, 3), "the change is not yet seen by its controller");
        assert_eq!(check(2, 1, 3, 3), "1 of 3 pods are new");
        assert_eq!(check(2, 3, 4, 3), "1 old pods are ending");
        assert_eq!(check(2, 3, 3, 2), "2 of 3 new pods are available");
        assert_eq!(check(2, 3, 3, 3), "");
    }
}
