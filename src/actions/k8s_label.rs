//! `k8s::label`: sets one label of a node.
//!
//! Invariant: the value before is in the outcome, so that undo can restore it.

use super::answer::{foresee, settle};
use super::declare::*;
use super::metadata::{self, MetadataKind};
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::{World, WorldError};
use serde_json::Value;

pub(super) struct K8sLabel;

static SPEC: ActionSpec = ActionSpec {
    name: "k8s::label",
    doc: "Sets a label of a node. Keys of Kubernetes itself (`*.kubernetes.io/…`) are refused.",
    params: &[
        args::NODE,
        args::required("key", ParamType::String, "the key, as `domain/name`"),
        args::required("value", ParamType::String, "at most 63 letters, digits, `-`, `_` and `.`"),
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
    phrases: ActionPhrases { todo: "label {target}{details}", done: Some("labeled {target}{details}") },
    permissions: rights::PATCH_NODE,
    undo: Some("k8s::label"),
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for K8sLabel {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        metadata::witness(MetadataKind::Labels, world, call).await
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(metadata::perform(MetadataKind::Labels, world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(metadata::predict(MetadataKind::Labels, world, call).await)
    }

    fn undo(&self, step: &Step) -> Option<ActionCall> {
        metadata::undo(step)
    }
}
