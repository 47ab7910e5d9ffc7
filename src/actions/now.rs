//! `now`: the time.
//!
//! Invariant: the time of the step, journaled: a replay reads the same.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::World;
use serde_json::{Value, json};

pub(super) struct Now;

static SPEC: ActionSpec = ActionSpec {
    name: "now",
    doc: "The time, as RFC 3339 text in UTC.",
    params: &[],
    options: &[],
    returns: "a text such as `2026-03-29T01:30:00Z`",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "read the time", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for Now {
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

async fn read(world: &World, _call: &ActionCall) -> ActionResult<Value> {
    Ok(json!(world.clock.now().to_string()))
}
