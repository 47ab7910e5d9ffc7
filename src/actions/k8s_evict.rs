//! `k8s::evict`: evicts one pod through the eviction API, and waits until it is gone.
//!
//! Invariant: the pod is known by its uid; one that is gone, or whose name another pod bears, has been evicted.

use super::answer::{ActionResult, done, failed, patient, poll, spoken, waited};
use super::declare::*;
use super::on_pod::{OnPod, witness};
use super::{PerformResult, args, rights};
use crate::model::{ActionCall, FailureKind, Step};
use crate::world::{EvictAnswer, KubeClient, Pod, World, WorldError};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) struct K8sEvict;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::evict",
    doc: "Evicts one pod and waits until it is gone, patient with disruption budgets.",
    params: &[args::POD],
    options: &[args::optional("within", ParamType::Duration, "how long it may take (10m)")],
    returns: "#{changed, uid, waited}",
    effect: EffectClass::Witnessed,
    reach: ImpactScope::Pod,
    disruptive: true,
    target: TargetKind::Pod,
    takes: CapacityKind::Pod("taking one away"),
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "evict {target}{details}", done: Some("evicted {target}{details}") },
    permissions: rights::EVICT,
    undo: None,
    deadline: Span::seconds(60),
};

#[async_trait::async_trait]
impl OnPod for K8sEvict {
    fn declares(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn work(&self, world: &World, step: &Step) -> ActionResult<PerformResult> {
        perform(world, step).await
    }

    async fn foresee(&self, _: &World, _: &KubeClient, _: &ActionCall, pod: &Pod) -> ActionResult<Value> {
        Ok(json!({ "changed": true, "uid": pod.uid, "waited": "0s" }))
    }
}

pub(super) async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let (namespace, name) = args::pair(&step.call, "pod")?;
    let within = args::span(&step.call, "within", Span::minutes(10))?;
    let spent = waited(world, step);
    let kube = world.kube(None)?;
    let Some(uid) = step.carry["uid"].as_str() else {
        // Without a witness a lost answer could cost a second pod, so take one first and come back with it.
        let carry = witness(world, &step.call).await?;
        return Ok(PerformResult::Again { after: Duration::ZERO, why: "the pod's uid is noted".to_owned(), carry });
    };
    let carry = step.carry.clone();
    let gone = || done(json!({ "changed": true, "uid": uid, "waited": spoken(spent).to_string() }));
    let silent = |error: WorldError| patient(error, spent, within, carry.clone());

    let pod = match kube.pod(namespace, name).await {
        Ok(pod) if pod.uid == uid => pod,
        Ok(_) | Err(WorldError::NotFound(_)) => return Ok(gone()),
        Err(error) => return Err(silent(error)),
    };
    if spent >= within.0 {
        let state = if pod.terminating { "is still ending" } else { "is still there" };
        let what = format!("pod {namespace}/{name} {state} after {}", spoken(spent));
        return Ok(PerformResult::Done(failed(FailureKind::Timeout, what)));
    }
    let why = if pod.terminating {
        "it is ending".to_owned()
    } else {
        match kube.evict(namespace, name, uid, None).await.map_err(silent)? {
            EvictAnswer::Accepted => "its eviction was accepted".to_owned(),
            EvictAnswer::Gone => return Ok(gone()),
            EvictAnswer::Blocked { why } => format!("blocked by a disruption budget: {why}"),
            EvictAnswer::Misconfigured { why } => format!("AN OPERATOR MUST FIX a disruption budget: {why}"),
        }
    };
    Ok(poll(spent, why, carry))
}
