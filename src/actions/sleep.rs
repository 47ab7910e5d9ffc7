//! `sleep`: lets time pass, holding nothing.
//!
//! Invariant: it ends at or after its time by the world's clock, however often the program restarts meanwhile.

use super::answer::{ActionResult, done, foresee, settle, spoken, waited};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::World;
use serde_json::Value;

pub(super) struct Sleep;

static SPEC: ActionSpec = ActionSpec {
    name: "sleep",
    doc: "Waits. Costs nothing, survives restarts; at most 7d.",
    params: &[args::required("duration", ParamType::Duration, "how long, as in `10m`")],
    options: &[],
    returns: "()",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "wait {duration}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(10),
};

#[async_trait::async_trait]
impl Action for Sleep {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step))
    }

    async fn predict(&self, _world: &World, call: &ActionCall) -> Outcome {
        foresee(duration(call).map(|_| Value::Null))
    }
}

fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let duration = duration(&step.call)?;
    let left = duration.0.saturating_sub(waited(world, step));
    if left.is_zero() {
        return Ok(done(Value::Null));
    }
    Ok(PerformResult::Again {
        after: left,
        why: format!("a pause of {duration}, {} left", spoken(left)),
        carry: Value::Null,
    })
}

fn duration(call: &ActionCall) -> ActionResult<Span> {
    args::text(call, "duration")?;
    Ok(args::span(call, "duration", Span::default())?)
}
