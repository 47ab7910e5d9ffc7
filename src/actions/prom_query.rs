//! `prom::query`: an instant query of Prometheus.
//!
//! Invariant: no data is an empty list, and a value that is no number is a text.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, Outcome, Step, StepFailure};
use crate::world::{PromSample, World};
use serde_json::{Value, json};

pub(super) struct PromQuery;

static SPEC: ActionSpec = ActionSpec {
    name: "prom::query",
    doc: "Runs an instant query in Prometheus.",
    params: &[args::required("query", ParamType::String, "PromQL")],
    options: &[],
    returns: "[#{labels, value}]; value is a float, or the text `NaN`, `+Inf` or `-Inf`",
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
impl Action for PromQuery {
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
    let samples = ask(world, call).await?;
    Ok(samples.iter().map(|sample| json!({ "labels": sample.labels, "value": number(sample.value) })).collect())
}

/// Prometheus' answer to the call's `query`.
pub(super) async fn ask(world: &World, call: &ActionCall) -> ActionResult<Vec<PromSample>> {
    let query = args::text(call, "query")?;
    let client = world.prometheus.as_ref().ok_or_else(no_prometheus)?;
    Ok(client.query(query).await?)
}

fn no_prometheus() -> StepFailure {
    args::invalid("no Prometheus is configured; add `prometheus: { url: … }` to the configuration")
}

/// JSON has no word for these three, and none of them may turn into null or zero.
fn number(value: f64) -> Value {
    if value.is_nan() {
        json!("NaN")
    } else if value.is_infinite() {
        json!(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        json!(value)
    }
}
