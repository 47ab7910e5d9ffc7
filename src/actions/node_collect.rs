//! `node::collect`: diagnostics for an engineer or the vendor, gathered on the node before they are lost.
//!
//! Invariant: the bundle stays on the node; the answer has its place and its hash.

use super::answer::{foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, on_node, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::World;
use serde_json::json;

pub(super) struct NodeCollect;

static SPEC: ActionSpec = ActionSpec {
    name: "node::collect",
    doc: "Gathers a bundle on the node: NVIDIA's bug report where that tool is installed, the last kernel log lines, \
          and GPU health. Collect it before a reset or reboot: both erase that state.",
    params: &[args::NODE],
    options: &[],
    returns: "#{folder, files: [#{name, bytes, sha256}], missing: [texts]}",
    effect: EffectClass::Keyed,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases {
        todo: "collect diagnostics from {target}{details}",
        done: Some("collected diagnostics from {target}{details}"),
    },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for NodeCollect {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(on_node::perform(world, step, Span::minutes(20)).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(on_node::reachable(world, call).map(|()| json!({ "folder": "", "files": [], "missing": [] })))
    }
}
