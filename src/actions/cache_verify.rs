//! `cache::verify`: whether a model's files on a node are intact.
//!
//! Invariant: reads only; hashing releases the memory that it has filled.

use super::answer::{done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, on_node, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::World;

pub(super) struct CacheVerify;

static SPEC: ActionSpec = ActionSpec {
    name: "cache::verify",
    doc: "Checks a model's files through the node's agent: headers and sizes, and with `hash` every byte against \
          its SHA-256 where one is available.",
    params: &[args::NODE, args::MODEL_PATH],
    options: &[
        args::optional("hash", ParamType::Bool, "compare every byte (false)"),
        args::optional("within", ParamType::Duration, "how long hashing may take (30m)"),
    ],
    returns: "#{path, files, bytes, sound, hashed, flaws: [#{file, what}], remarks}",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "check model weights on {target}{details}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for CacheVerify {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        if !args::flag(&step.call, "hash") {
            return settle(on_node::read(world, &step.call).await.map(done));
        }
        match args::span(&step.call, "within", crate::limits::CACHE_WITHIN) {
            Ok(within) => settle(on_node::perform(world, step, within).await),
            Err(failure) => failure.into(),
        }
    }

    /// Hashing goes on without us.
    async fn stop(&self, world: &World, step: &Step) -> Option<PerformResult> {
        args::flag(&step.call, "hash").then(|| settle(on_node::stop(world, step, crate::limits::CACHE_WITHIN)))
    }

    /// Headers and sizes only: a plan should not read a terabyte.
    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        let mut call = call.clone();
        call.args.remove("hash");
        foresee(on_node::read(world, &call).await)
    }
}
