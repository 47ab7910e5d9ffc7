//! `inference::models_on`: which models a node serves, by the labels of the pods that hold its GPUs.
//!
//! Invariant: reads only; a pod without a model's name is listed under its workload's, never left out.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::{Pod, World};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) struct InferenceModelsOn;

/// Labels that name a model, the first that a pod bears.
const LABELS: [&str; 4] = ["model", "serving.kserve.io/inferenceservice", "app.kubernetes.io/instance", "app"];

static SPEC: ActionSpec = ActionSpec {
    name: "inference::models_on",
    doc: "Lists the models that a node serves: pods that hold its GPUs, by their label `model`, KServe's, or their app's.",
    params: &[args::NODE],
    options: &[args::optional("label", ParamType::String, "the label that names the model (those above)")],
    returns: "a list of #{model, pods, ready}; ready counts the pods that are",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "list the models on {target}", done: None },
    permissions: rights::READ_PODS,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for InferenceModelsOn {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(read(world, &step.call).await.map(done))
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(read(world, call).await)
    }
}

async fn read(world: &World, call: &ActionCall) -> ActionResult<Value> {
    let pods = world.kube(None)?.pods_on(args::text(call, "node")?).await?;
    let given = Some(call.text("label")).filter(|label| !label.is_empty());
    let is_daemon = |pod: &Pod| pod.owner.as_ref().is_some_and(|(kind, _)| kind == "DaemonSet");
    let ended = |pod: &Pod| pod.phase == "Succeeded" || pod.phase == "Failed";
    let mut models: BTreeMap<String, (Vec<String>, u32)> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.gpus > 0 && !is_daemon(pod) && !ended(pod)) {
        let (names, ready) = models.entry(model(pod, given)).or_default();
        names.push(format!("{}/{}", pod.namespace, pod.name));
        *ready += u32::from(pod.ready);
    }
    let list = models.into_iter().map(|(model, (pods, ready))| json!({ "model": model, "pods": pods, "ready": ready }));
    Ok(list.collect())
}

fn model(pod: &Pod, given: Option<&str>) -> String {
    let labels = given.map_or_else(|| LABELS.to_vec(), |label| vec![label]);
    let named = labels.into_iter().find_map(|label| pod.labels.get(label)).filter(|model| !model.is_empty());
    named.or(pod.owner.as_ref().map(|(_, name)| name)).unwrap_or(&pod.name).clone()
}
