//! `inference::restart`: one server of a model starts anew, while another one serves.
//!
//! Invariant: the pod is known by its uid and is asked to leave by eviction; the last ready one of its set stays, unless
//! the runbook says otherwise.

use super::answer::{Settled, foresee, settle};
use super::{Action, Performed, args, k8s_evict, rights};
use crate::model::{
    ActionSpec, Call, Effect, Failure, FailureKind, Outcome, ParamType, Reach, Span, Step, Subject, Takes,
};
use crate::world::{Kube, Pod, World, WorldError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) struct InferenceRestart;

static SPEC: ActionSpec = ActionSpec {
    name: "inference::restart",
    doc: "Restarts one inference pod by evicting it; its set starts another. Refused when no other pod of the set is ready, \
          since then nobody would answer. Look at more than one signal before: a busy engine answers its health late, and a \
          wedged one at once.",
    params: &[args::POD],
    options: &[
        args::optional("within", ParamType::Duration, "how long it may take to leave (10m)"),
        args::optional("even_if_alone", ParamType::Bool, "also when no other pod of its set is ready (false)"),
    ],
    returns: "#{changed, uid, waited}",
    effect: Effect::Witnessed,
    reach: Reach::Pod,
    disruptive: true,
    permissions: rights::RESTART_POD,
    undo: None,
    deadline: Span::seconds(60),
};

#[async_trait::async_trait]
impl Action for InferenceRestart {
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
        k8s_evict::witness(world, call).await
    }

    async fn perform(&self, world: &World, step: &Step) -> Performed {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &Call) -> Outcome {
        foresee(
            async {
                let (namespace, name) = args::pair(call, "pod")?;
                let kube = world.kube(None)?;
                let pod = kube.pod(namespace, name).await?;
                refuse_alone(kube, call, &pod).await?;
                Ok(json!({ "changed": true, "uid": pod.uid, "waited": "0s" }))
            }
            .await,
        )
    }
}

async fn perform(world: &World, step: &Step) -> Settled<Performed> {
    let is_looked_at = step.carry["others"] == json!(true);
    if let (Some(uid), false) = (step.carry["uid"].as_str(), is_looked_at) {
        let (namespace, name) = args::pair(&step.call, "pod")?;
        let kube = world.kube(None)?;
        match kube.pod(namespace, name).await {
            Ok(pod) if pod.uid == uid && !pod.terminating => {
                refuse_alone(kube, &step.call, &pod).await?;
                let carry = json!({ "uid": uid, "others": true });
                let why = "another pod of its set is ready".to_owned();
                return Ok(Performed::Again { after: Duration::ZERO, why, carry });
            }
            // It is leaving already, or has left: an attempt of this step whose answer was lost.
            Ok(_) | Err(WorldError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    k8s_evict::perform(world, step).await
}

async fn refuse_alone(kube: &Kube, call: &Call, pod: &Pod) -> Settled<()> {
    let refused = |why: String| Err(Failure::new(FailureKind::Refused, why).into());
    let Some((kind, owner)) = &pod.owner else {
        return refused(format!("nothing would start {}/{} again", pod.namespace, pod.name));
    };
    if args::flag(call, "even_if_alone") {
        return Ok(());
    }
    let all = kube.pods(&pod.namespace, &BTreeMap::new()).await?;
    let serves = |other: &&Pod| other.owner == pod.owner && other.uid != pod.uid && other.ready && !other.terminating;
    if all.iter().any(|other| serves(&other)) {
        return Ok(());
    }
    refused(format!(
        "{}/{} is the last one that serves: no other pod of {kind} {owner} is ready (even_if_alone)",
        pod.namespace, pod.name
    ))
}
