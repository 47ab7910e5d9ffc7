//! `k8s::annotate`: sets one annotation of a node.
//!
//! Invariant: the value before is in the outcome, so that undo can restore it.

use super::answer::{foresee, settle};
use super::declare::*;
use super::metadata::{self, MetadataKind};
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::{World, WorldError};
use serde_json::Value;

pub(super) struct K8sAnnotate;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::annotate",
    doc: "Sets an annotation of a node. Keys of Kubernetes itself (`*.kubernetes.io/…`) are refused.",
    params: &[
        args::NODE,
        args::required("key", ParamType::String, "the key, as `domain/name`"),
        args::required("value", ParamType::String, "any text up to 4 KiB"),
    ],
    options: &[args::optional("if_value", ParamType::String, "do it only while the key has this value")],
    returns: "#{changed, before}; before is () if there was none",
    effect: EffectClass::Converge,
    reach: ImpactScope::Node,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "annotate {target}{details}", done: Some("annotated {target}{details}") },
    permissions: rights::PATCH_NODE,
    undo: Some("k8s::annotate"),
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for K8sAnnotate {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        metadata::witness(MetadataKind::Annotations, world, call).await
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(metadata::perform(MetadataKind::Annotations, world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(metadata::predict(MetadataKind::Annotations, world, call).await)
    }

    fn undo(&self, step: &Step) -> Option<ActionCall> {
        metadata::undo(step)
    }
}
