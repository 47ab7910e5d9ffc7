//! `cache::status`: how much of a model's files is in a node's memory.
//!
//! Invariant: reads headers and the kernel's counts only; nothing is brought into memory.

use super::answer::{done, foresee, settle};
use super::{Action, Performed, args, on_node, rights};
use crate::model::{ActionSpec, Call, Effect, Outcome, Reach, Span, Step, Subject};
use crate::world::World;

pub(super) struct CacheStatus;

static SPEC: ActionSpec = ActionSpec {
    name: "cache::status",
    doc: "Asks the node's agent how much of a model's files is in memory, and whether headers and sizes fit.",
    params: &[args::NODE, args::MODEL_PATH],
    options: &[],
    returns: "#{path, files, bytes, resident: 0.0 to 1.0, sound, flaws: [#{file, what}], missing: [#{file, bytes, resident}], …}",
    effect: Effect::Read,
    reach: Reach::None,
    disruptive: false,
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for CacheStatus {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    fn target(&self, call: &Call) -> Subject {
        args::node_target(call)
    }

    async fn perform(&self, world: &World, step: &Step) -> Performed {
        settle(on_node::read(world, &step.call).await.map(done))
    }

    async fn predict(&self, world: &World, call: &Call) -> Outcome {
        foresee(on_node::read(world, call).await)
    }
}
