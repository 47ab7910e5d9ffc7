//! `inference::restart`: one server of a model starts anew, while another one serves.
//!
//! Invariant: the pod is identified by its uid and removed by eviction, once enough independent signals, read fresh,
//! agree; the last ready one of its set stays, unless the runbook allows it.

use super::answer::ActionResult;
use super::declare::*;
use super::engines::{self, SignalQuery};
use super::on_pod::OnPod;
use super::{PerformResult, args, k8s_evict, rights};
use crate::model::{ActionCall, FailureKind, Step, StepFailure};
use crate::world::{KubeClient, Pod, SignalGroup, TRAFFIC_TAKEN_BY, World, WorldError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) struct InferenceRestart;

static SPEC: ActionSpec = ActionSpec {
    name: "inference::restart",
    doc: "Restarts one inference pod by evicting it; its set starts another. Refused when no other pod of the set is ready, \
          because none would serve; and refused unless at least `signals` independent signals, read fresh, call for it: no step \
          while requests wait, not ready (for its endpoint or the kubelet), late first tokens, a full KV cache, no \
          answer to a request of one token (`ask`), and each query of `also`. One signal alone is not reliable: a busy engine \
          answers its health check late, and a hung one answers at once.",
    params: &[args::POD],
    options: &[
        args::optional("within", ParamType::Duration, "how long it may take to leave (10m)"),
        args::optional("even_if_alone", ParamType::Bool, "also when no other pod of its set is ready (false)"),
        args::optional("signals", ParamType::Int, "how many independent signals must agree, at least 1 (2)"),
        engines::WINDOW,
        engines::ALSO,
        engines::ASK,
    ],
    returns: "#{changed, uid, waited}",
    effect: EffectClass::Witnessed,
    reach: ImpactScope::Pod,
    disruptive: true,
    target: TargetKind::Pod,
    takes: CapacityKind::Pod("taking one away"),
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "restart {target}{details}", done: Some("restarted {target}{details}") },
    permissions: rights::RESTART_POD,
    undo: None,
    deadline: Span::seconds(60),
};

#[async_trait::async_trait]
impl OnPod for InferenceRestart {
    fn declares(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn work(&self, world: &World, step: &Step) -> ActionResult<PerformResult> {
        perform(world, step).await
    }

    async fn foresee(&self, world: &World, kube: &KubeClient, call: &ActionCall, pod: &Pod) -> ActionResult<Value> {
        wanted(call)?;
        question(world, call, pod)?;
        refuse_alone(kube, call, pod).await?;
        Ok(json!({ "changed": true, "uid": pod.uid, "waited": "0s" }))
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let is_sure = step.carry["sure"] == json!(true);
    if let (Some(uid), false) = (step.carry["uid"].as_str(), is_sure) {
        let (namespace, name) = args::pair(&step.call, "pod")?;
        let kube = world.kube(None)?;
        match kube.pod(namespace, name).await {
            Ok(pod) if pod.uid == uid && !pod.terminating => {
                refuse_alone(kube, &step.call, &pod).await?;
                return make_sure(world, step, &pod).await;
            }
            // It is leaving already, or has left: an attempt of this step whose answer was lost.
            Ok(_) | Err(WorldError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    k8s_evict::perform(world, step).await
}

/// Two looks at its engine, then a count: enough signals let it go on, fewer are a refusal.
async fn make_sure(world: &World, step: &Step, pod: &Pod) -> ActionResult<PerformResult> {
    let wanted = wanted(&step.call)?;
    let question = question(world, &step.call, pod)?;
    let first = engines::first_looks(step);
    if first.is_none() && !question.points.is_empty() {
        let first = engines::carried(&question.points, question.look(world).await);
        let carry = json!({ "uid": pod.uid, "first": first });
        let why = format!("reads its engine again in {}", question.window);
        return Ok(PerformResult::Again { after: question.window.0, why, carry });
    }
    let mut found = question.judge(world, &first.unwrap_or_default()).await;
    if !pod.ready {
        found.add(SignalGroup::Readiness, "the kubelet calls the pod not ready".to_owned());
    }
    if found.count < wanted {
        let what = format!(
            "{}/{} is not restarted: {} of {wanted} independent signals agree. {}",
            pod.namespace,
            pod.name,
            found.count,
            found.words()
        );
        return Err(StepFailure::new(FailureKind::Refused, what).into());
    }
    let why = format!("{} independent signals agree: {}", found.count, found.agree.join("; "));
    Ok(PerformResult::Again { after: Duration::ZERO, why, carry: json!({ "uid": pod.uid, "sure": true }) })
}

fn question(world: &World, call: &ActionCall, pod: &Pod) -> ActionResult<SignalQuery> {
    let points: Vec<_> = engines::of_pod(world, pod)?.into_iter().collect();
    Ok(SignalQuery::of(call, points, &format!("{}/{}", pod.namespace, pod.name))?)
}

fn wanted(call: &ActionCall) -> Result<usize, StepFailure> {
    const MOST: i64 = 8;
    match call.args.get("signals") {
        None | Some(Value::Null) => Ok(2),
        Some(given) => {
            let number = given.as_i64().filter(|number| (1..=MOST).contains(number));
            let number = number.and_then(|number| usize::try_from(number).ok());
            number.ok_or_else(|| args::invalid(format!("{}: `signals` must be from 1 to {MOST}", call.action)))
        }
    }
}

pub(super) async fn refuse_alone(kube: &KubeClient, call: &ActionCall, pod: &Pod) -> ActionResult<()> {
    let refused = |why: String| Err(StepFailure::new(FailureKind::Refused, why).into());
    let Some((kind, owner)) = &pod.owner else {
        return refused(format!("no controller would start {}/{} again", pod.namespace, pod.name));
    };
    if args::flag(call, "even_if_alone") {
        return Ok(());
    }
    let all = kube.pods(&pod.namespace, &BTreeMap::new()).await?;
    let serves = |other: &&Pod| {
        let is_here = other.ready && !other.terminating && !other.marks.contains_key(TRAFFIC_TAKEN_BY);
        other.owner == pod.owner && other.uid != pod.uid && is_here
    };
    if all.iter().any(|other| serves(&other)) {
        return Ok(());
    }
    refused(format!(
        "{}/{} is the last one that serves: no other pod of {kind} {owner} is ready (even_if_alone)",
        pod.namespace, pod.name
    ))
}
