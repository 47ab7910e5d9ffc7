//! `gpu::sharing`: how a node's GPUs are shared out in time, by the device plugin's own label.
//!
//! Invariant: the label is set only where the plugin has configurations by name, and the old one comes back on undo.

use super::answer::{foresee, settle};
use super::declare::*;
use super::metadata::{self, MetadataKind};
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::{World, WorldError};
use serde_json::{Value, json};

pub(super) struct GpuSharing;

const LABEL: &str = "nvidia.com/device-plugin.config";

static SPEC: ActionSpec = ActionSpec {
    name: "gpu::sharing",
    doc: "Chooses a time-slicing profile for a node: a name of the device plugin's configuration, as its label \
          nvidia.com/device-plugin.config. The plugin restarts; running pods continue.",
    params: &[
        args::NODE,
        args::required("profile", ParamType::String, "a name of the plugin's configuration; `` for its default"),
    ],
    options: &[],
    returns: "#{changed, before}",
    effect: EffectClass::Converge,
    reach: ImpactScope::Node,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases {
        todo: "change the sharing of {target}{details}",
        done: Some("changed the sharing of {target}{details}"),
    },
    permissions: rights::PATCH_NODE,
    undo: Some("gpu::sharing"),
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for GpuSharing {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        metadata::witness(MetadataKind::Labels, world, &labelling(call)).await
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        let step = Step { call: labelling(&step.call), ..step.clone() };
        settle(metadata::perform(MetadataKind::Labels, world, &step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(metadata::predict(MetadataKind::Labels, world, &labelling(call)).await)
    }

    fn undo(&self, step: &Step) -> Option<ActionCall> {
        let before = super::changed_from(step)?.as_str().unwrap_or_default();
        Some(ActionCall::new("gpu::sharing", [("node", json!(step.call.text("node"))), ("profile", json!(before))]))
    }
}

/// The same as a label; an empty profile takes it away.
fn labelling(call: &ActionCall) -> ActionCall {
    let value = Some(call.text("profile")).filter(|profile| !profile.is_empty());
    ActionCall::new(&call.action, [("node", json!(call.text("node"))), ("key", json!(LABEL)), ("value", json!(value))])
}
