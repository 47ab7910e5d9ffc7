//! `inference::drain_traffic`: no new requests for one engine, and a wait until those it has are answered.
//!
//! Invariant: one conditional patch takes the pod out of its Services and marks it as ours; a pod whose engine cannot
//! be read is not taken, since its end of traffic would be unknown.

use super::answer::{ActionResult, done, spoken, waited};
use super::declare::*;
use super::on_pod::OnPod;
use super::traffic::{self, DrainedTraffic};
use super::{PerformResult, args, engines, inference_restart, inference_return_traffic, rights};
use crate::limits;
use crate::model::{ActionCall, FailureKind, Step, StepFailure};
use crate::world::{EnginePoint, KubeClient, Pod, World, WorldError};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) struct InferenceDrainTraffic;

static SPEC: ActionSpec = ActionSpec {
    name: "inference::drain_traffic",
    doc: "Takes an inference pod out of its Services, by a label that they select and its controller does not, and waits until no \
          request runs or waits. When the time is up it returns `drained: false` and the traffic stays away. Refused when \
          no other pod of the set is ready.",
    params: &[args::POD],
    options: &[
        args::optional("within", ParamType::Duration, "time for its requests to end (10m)"),
        args::optional("label", ParamType::String, "the label to remove (nightshift.dev/traffic)"),
        args::optional("except", ParamType::Any, "names of Services that carry no requests, such as one for metrics"),
        args::optional("even_if_alone", ParamType::Bool, "also when no other pod of its set is ready (false)"),
    ],
    returns: "#{changed, before, drained, running, waiting, waited, why}; why is empty if it is drained",
    effect: EffectClass::Converge,
    reach: ImpactScope::Pod,
    disruptive: true,
    target: TargetKind::Pod,
    takes: CapacityKind::Pod("taking one away"),
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases {
        todo: "take traffic off {target}{details}",
        done: Some("took traffic off {target}{details}"),
    },
    permissions: rights::DRAIN_TRAFFIC,
    undo: Some(inference_return_traffic::NAME),
    deadline: Span::seconds(60),
};

#[async_trait::async_trait]
impl OnPod for InferenceDrainTraffic {
    fn declares(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn work(&self, world: &World, step: &Step) -> ActionResult<PerformResult> {
        perform(world, step).await
    }

    /// Whether it had its traffic before, so that an attempt whose answer was lost still counts as the one that changed
    /// it.
    fn noted(&self, world: &World, pod: &Pod) -> Value {
        let is_taken = !matches!(traffic::taken(pod, &world.identity), DrainedTraffic::No);
        json!({ "uid": pod.uid, "taken": is_taken })
    }

    async fn foresee(&self, world: &World, kube: &KubeClient, call: &ActionCall, pod: &Pod) -> ActionResult<Value> {
        let (before, changed) = match traffic::taken(pod, &world.identity) {
            DrainedTraffic::Ours { before, .. } => (before, false),
            DrainedTraffic::Theirs(who) => return Err(theirs(pod, &who).into()),
            DrainedTraffic::No => (may(world, kube, call, pod).await?.0, true),
        };
        let calm = json!({ "drained": true, "running": 0, "waiting": 0, "waited": "0s", "why": "" });
        let Value::Object(mut value) = calm else { return Ok(calm) };
        value.insert("changed".to_owned(), json!(changed));
        value.insert("before".to_owned(), json!(before));
        Ok(Value::Object(value))
    }

    fn back(&self, step: &Step) -> Option<ActionCall> {
        super::changed(step)
            .then(|| ActionCall::new(inference_return_traffic::NAME, [("pod", json!(step.call.text("pod")))]))
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let (namespace, name) = args::pair(&step.call, "pod")?;
    let within = args::span(&step.call, "within", Span::minutes(10))?;
    let kube = world.kube(None)?;
    let pod = match kube.pod(namespace, name).await {
        Ok(pod) => pod,
        // It is gone, and its requests with it; its successor has its traffic by its own labels.
        Err(WorldError::NotFound(_)) if step.carry["out"] == json!(true) => {
            return Ok(done(report(step, true, 0.0, 0.0, Duration::ZERO, "")));
        }
        Err(error) => return Err(error.into()),
    };
    if step.carry["out"] == json!(true) {
        return wait(world, step, &pod, within).await;
    }
    let (before, changed) = match traffic::taken(&pod, &world.identity) {
        // Ours already: by an attempt of this step whose answer was lost, or by an earlier step.
        DrainedTraffic::Ours { before, .. } => (before, step.carry["taken"] == json!(false)),
        DrainedTraffic::Theirs(who) => return Err(theirs(&pod, &who).into()),
        DrainedTraffic::No => {
            let (before, _) = may(world, kube, &step.call, &pod).await?;
            let label = traffic::label(&step.call)?;
            let patch = traffic::away(world, &step.run.to_string(), label, &before);
            kube.patch_pod(namespace, name, patch, &pod.resource_version).await?;
            (before, true)
        }
    };
    let carry = json!({ "uid": pod.uid, "out": true, "before": before, "changed": changed, "calm": 0 });
    let why = "it gets no new requests".to_owned();
    Ok(PerformResult::Again { after: limits::POLL_FIRST, why, carry })
}

/// Whether it may be taken out, and the engine at which it is checked; the label's present value.
async fn may(world: &World, kube: &KubeClient, call: &ActionCall, pod: &Pod) -> ActionResult<(String, EnginePoint)> {
    if pod.terminating {
        let what = format!("{}/{} is ending already, and its Services have let go of it", pod.namespace, pod.name);
        return Err(StepFailure::new(FailureKind::Conflict, what).into());
    }
    let point = engine(world, pod)?;
    let before = traffic::may_take(kube, call, pod, traffic::label(call)?).await?;
    inference_restart::refuse_alone(kube, call, pod).await?;
    Ok((before, point))
}

fn engine(world: &World, pod: &Pod) -> ActionResult<EnginePoint> {
    engines::of_pod(world, pod)?.ok_or_else(|| {
        let what = format!(
            "no inference engine of {}/{} is configured, so the end of its requests cannot be seen: give it the label \
             nightshift.dev/probe, or name it under `probe.targets`",
            pod.namespace, pod.name
        );
        StepFailure::new(FailureKind::NotFound, what).into()
    })
}

async fn wait(world: &World, step: &Step, pod: &Pod, within: Span) -> ActionResult<PerformResult> {
    let spent = waited(world, step);
    if step.carry["uid"].as_str() != Some(&pod.uid) || pod.terminating {
        return Ok(done(report(step, true, 0.0, 0.0, spent, "")));
    }
    let point = engine(world, pod)?;
    let look = world.look_at(&point, world.engine_manner(&point).within).await;
    let (running, waiting, why) = match &look.page {
        Ok(reading) => {
            let (running, waiting) = (reading.running(), reading.waiting());
            (running, waiting, format!("{running} requests run and {waiting} wait"))
        }
        Err((_, why)) => (-1.0, -1.0, format!("its page cannot be read: {why}")),
    };
    let is_empty = look.page.is_ok() && running + waiting <= 0.0;
    let calm = if is_empty { step.carry["calm"].as_u64().unwrap_or(0) + 1 } else { 0 };
    if calm >= limits::ENGINE_DRAIN_LOOKS {
        return Ok(done(report(step, true, running, waiting, spent, "")));
    }
    if spent >= within.0 {
        let why = format!("after {}: {why}", spoken(spent));
        return Ok(done(report(step, false, running, waiting, spent, &why)));
    }
    let mut carry = step.carry.clone();
    carry["calm"] = json!(calm);
    Ok(PerformResult::Again { after: limits::ENGINE_DRAIN_EVERY, why, carry })
}

/// Counts below zero are not known.
fn report(step: &Step, drained: bool, running: f64, waiting: f64, spent: Duration, why: &str) -> Value {
    let known = |count: f64| (count >= 0.0).then_some(count);
    json!({
        "changed": step.carry["changed"],
        "before": step.carry["before"],
        "drained": drained,
        "running": known(running),
        "waiting": known(waiting),
        "waited": spoken(spent).to_string(),
        "why": why,
    })
}

fn theirs(pod: &Pod, who: &str) -> StepFailure {
    let what = format!("the traffic of {}/{} was removed by {who}", pod.namespace, pod.name);
    StepFailure::new(FailureKind::Conflict, what)
}
