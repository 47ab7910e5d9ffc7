//! `prom::value`: the value of one series.
//!
//! Invariant: a number or a failure; no data is never zero.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, FailureKind, Outcome, Step, StepFailure};
use crate::world::World;
use serde_json::{Value, json};

pub(super) struct PromValue;

static SPEC: ActionSpec = ActionSpec {
    name: "prom::value",
    doc: "Reads one number from Prometheus. Throws `not_found` if there is no data (or NaN), `invalid` if there are several series.",
    params: &[args::required("query", ParamType::String, "PromQL that gives one series or a scalar")],
    options: &[],
    returns: "a float",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "{call}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for PromValue {
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
    let samples = super::prom_query::ask(world, call).await?;
    let query = call.text("query");
    match samples.as_slice() {
        [one] if one.value.is_finite() => Ok(json!(one.value)),
        [one] if one.value.is_nan() => {
            Err(StepFailure::new(FailureKind::NotFound, format!("`{query}` is NaN, so it has no value")).into())
        }
        [one] => Err(args::invalid(format!("`{query}` is {}, which is no number to compare with", one.value)).into()),
        [] => Err(StepFailure::new(FailureKind::NotFound, format!("`{query}` has no data, which is not zero")).into()),
        many => Err(args::invalid(format!(
            "`{query}` has {} series, and one is wanted: aggregate it with `sum`, `max` or the like",
            many.len()
        ))
        .into()),
    }
}
