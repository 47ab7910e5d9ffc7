//! `now`: the time.
//!
//! Invariant: the time of the step, journaled: a replay reads the same.

use super::answer::{Settled, done, foresee, settle};
use super::declare::*;
use super::{Action, Performed, rights};
use crate::model::{Call, Outcome, Step};
use crate::world::World;
use serde_json::{Value, json};

pub(super) struct Now;

static SPEC: ActionSpec = ActionSpec {
    name: "now",
    doc: "The time, as RFC 3339 text in UTC.",
    params: &[],
    options: &[],
    returns: "a text such as `2026-03-29T01:30:00Z`",
    effect: Effect::Read,
    reach: Reach::None,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: Capacity::Nothing,
    scheduling: Scheduling::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: Phrases { todo: "read the time", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for Now {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> Performed {
        settle(read(world, &step.call).await.map(done))
    }

    async fn predict(&self, world: &World, call: &Call) -> Outcome {
        foresee(read(world, call).await)
    }
}

async fn read(world: &World, _call: &Call) -> Settled<Value> {
    Ok(json!(world.clock.now().to_string()))
}
