//! `k8s::evict`: asks one pod to leave, through the eviction API, and waits until it is gone.
//!
//! Invariant: the pod is known by its uid; one that is gone, or whose name another pod bears, has been evicted.

use super::answer::{Settled, done, failed, foresee, patient, poll, settle, spoken, waited};
use super::{Action, Performed, args, rights};
use crate::model::{ActionSpec, Call, Effect, FailureKind, Outcome, ParamType, Reach, Span, Step, Subject, Takes};
use crate::world::{EvictAnswer, World, WorldError};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) struct K8sEvict;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::evict",
    doc: "Evicts one pod and waits until it is gone, patient with disruption budgets.",
    params: &[args::POD],
    options: &[args::optional("within", ParamType::Duration, "how long it may take (10m)")],
    returns: "#{changed, uid, waited}",
    effect: Effect::Witnessed,
    reach: Reach::Pod,
    disruptive: true,
    permissions: rights::EVICT,
    undo: None,
    deadline: Span::seconds(60),
};

#[async_trait::async_trait]
impl Action for K8sEvict {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    fn target(&self, call: &Call) -> Subject {
        args::pod_target(call)
    }

    fn takes(&self, call: &Call) -> Takes {
        args::takes_pod(call)
    }

    async fn witness(&self, world: &World, call: &Call) -> Result<Value, WorldError> {
        witness(world, call).await
    }

    async fn perform(&self, world: &World, step: &Step) -> Performed {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &Call) -> Outcome {
        foresee(
            async {
                let witness = witness(world, call).await?;
                Ok(json!({ "changed": true, "uid": witness["uid"], "waited": "0s" }))
            }
            .await,
        )
    }
}

/// The pod's uid, which both ways of removing a pod compare with.
pub(super) async fn witness(world: &World, call: &Call) -> Result<Value, WorldError> {
    let (namespace, name) = args::pair(call, "pod").map_err(|failure| WorldError::Invalid(failure.message))?;
    let pod = world.kube(None)?.pod(namespace, name).await?;
    Ok(json!({ "uid": pod.uid }))
}

pub(super) async fn perform(world: &World, step: &Step) -> Settled<Performed> {
    let (namespace, name) = args::pair(&step.call, "pod")?;
    let within = args::span(&step.call, "within", Span::minutes(10))?;
    let spent = waited(world, step);
    let kube = world.kube(None)?;
    let Some(uid) = step.carry["uid"].as_str() else {
        // Without a witness a lost answer could cost a second pod, so take one first and come back with it.
        let carry = witness(world, &step.call).await?;
        return Ok(Performed::Again { after: Duration::ZERO, why: "the pod's uid is noted".to_owned(), carry });
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
        return Ok(Performed::Done(failed(FailureKind::Timeout, what)));
    }
    let why = if pod.terminating {
        "it is ending".to_owned()
    } else {
        match kube.evict(namespace, name, uid, None).await.map_err(silent)? {
            EvictAnswer::Accepted => "it was asked to leave".to_owned(),
            EvictAnswer::Gone => return Ok(gone()),
            EvictAnswer::Blocked { why } => format!("blocked by a disruption budget: {why}"),
            EvictAnswer::Misconfigured { why } => format!("A PERSON MUST MEND a disruption budget: {why}"),
        }
    };
    Ok(poll(spent, why, carry))
}
