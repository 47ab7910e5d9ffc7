//! `k8s::scale`: sets the number of replicas of a workload.
//!
//! Invariant: the number before is in the outcome, and nothing is scaled to zero by accident.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::{World, WorldError};
use serde_json::{Value, json};

pub(super) struct K8sScale;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::scale",
    doc: "Sets the number of replicas of a workload; does not wait for them.",
    params: &[args::WORKLOAD, args::required("replicas", ParamType::Int, "how many")],
    options: &[args::optional("allow_zero", ParamType::Bool, "zero is meant (false)")],
    returns: "#{changed, before}; before is the previous desired number",
    effect: EffectClass::Converge,
    reach: ImpactScope::Workload,
    disruptive: true,
    target: TargetKind::Workload,
    takes: CapacityKind::Replicas("the smaller scale"),
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "scale {target}{details}", done: Some("scaled {target}{details}") },
    permissions: rights::SCALE,
    undo: Some("k8s::scale"),
    deadline: Span::seconds(60),
};

#[async_trait::async_trait]
impl Action for K8sScale {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        let (namespace, name) = args::pair(call, "workload").map_err(|failure| WorldError::Invalid(failure.message))?;
        let workload = world.kube(None)?.workload(namespace, name).await?;
        Ok(json!({ "before": workload.replicas }))
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(
            async {
                let (namespace, name) = args::pair(call, "workload")?;
                let wanted = args::replicas(call)?;
                let now = world.kube(None)?.workload(namespace, name).await?.replicas;
                Ok(json!({ "changed": now != wanted, "before": now }))
            }
            .await,
        )
    }

    fn undo(&self, step: &Step) -> Option<ActionCall> {
        let before = super::changed_from(step)?;
        let workload = json!(step.call.text("workload"));
        // It may have been zero before, and then zero is meant.
        Some(ActionCall::new(
            &step.call.action,
            [("workload", workload), ("replicas", before.clone()), ("allow_zero", json!(true))],
        ))
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let (namespace, name) = args::pair(&step.call, "workload")?;
    let wanted = args::replicas(&step.call)?;
    let kube = world.kube(None)?;
    let now = kube.workload(namespace, name).await?.replicas;
    let before = step.carry["before"].as_u64().unwrap_or(u64::from(now));
    if now != wanted {
        kube.scale(namespace, name, wanted).await?;
    }
    let changed = before != u64::from(wanted);
    Ok(done(json!({ "changed": changed, "before": before })))
}
