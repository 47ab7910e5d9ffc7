//! `inference::health`: the present readings of a workload's engines, and the number of independent signals of trouble.
//!
//! Invariant: reads only, twice, some seconds apart; an engine that does not answer is part of the answer.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::engines::{self, SignalQuery, SignalSummary};
use super::{Action, PerformResult, args, rights};
use crate::limits;
use crate::model::{ActionCall, Outcome, Step};
use crate::world::World;
use serde_json::{Value, json};

pub(super) struct InferenceHealth;

static SPEC: ActionSpec = ActionSpec {
    name: "inference::health",
    doc: "Reads the readiness and metrics of a workload's vLLM, TGI or Triton engines twice, and counts independent signals for a \
          restart: no step while requests wait, not ready, late first tokens, a full KV cache, no answer \
          to a request of one token (`ask`), and each query of `also`.",
    params: &[args::WORKLOAD],
    options: &[engines::WINDOW, engines::ALSO, engines::ASK],
    returns: "#{signals, agree, against, engines}; engines lists #{engine, endpoint, pod, ready, readable, running, waiting, cache, \
              signals}",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Workload,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "read the health of {target}", done: None },
    permissions: rights::LOOK_AT_ENGINES,
    undo: None,
    deadline: Span::seconds(60),
};

#[async_trait::async_trait]
impl Action for InferenceHealth {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    /// As it is performed, with less time between the looks.
    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(
            async {
                let question = ask(world, call).await?;
                let looks = question.look(world).await;
                if !question.points.is_empty() {
                    // Time passes at the engine, whatever a simulated clock shows.
                    tokio::time::sleep(question.window.0.min(limits::ENGINE_FORESIGHT)).await;
                }
                let names = question.points.iter().map(|point| point.endpoint.clone());
                let first: Vec<_> = names.zip(looks).collect();
                Ok(report(&question.judge(world, &first).await))
            }
            .await,
        )
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let question = ask(world, &step.call).await?;
    let first = engines::first_looks(step);
    if first.is_none() && !question.points.is_empty() {
        let carry = json!({ "first": engines::carried(&question.points, question.look(world).await) });
        let why = format!("reads again in {}", question.window);
        return Ok(PerformResult::Again { after: question.window.0, why, carry });
    }
    Ok(done(report(&question.judge(world, &first.unwrap_or_default()).await)))
}

async fn ask(world: &World, call: &ActionCall) -> ActionResult<SignalQuery> {
    let (namespace, name) = args::pair(call, "workload")?;
    let points = engines::of_workload(world, world.kube(None)?, namespace, name).await?;
    Ok(SignalQuery::of(call, points, &format!("{namespace}/{name}"))?)
}

fn report(found: &SignalSummary) -> Value {
    json!({ "signals": found.count, "agree": found.agree, "against": found.against, "engines": found.engines })
}
