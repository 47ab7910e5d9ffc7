//! `cache::warm`: models' files into a node's memory, so that the next server there starts warm. By the node's agent, or by a
//! Job where no agent serves it.
//!
//! Invariant: the way is chosen before anything is begun on it, and a step that has chosen keeps to it.

mod job;

use super::answer::{ActionResult, failed, foresee, settle, waited};
use super::declare::*;
use super::{Action, PerformResult, args, on_node, rights};
use crate::limits;
use crate::model::{ActionCall, FailureKind, Outcome, Step};
use crate::telemetry::{Ended, Metrics, Via};
use crate::world::World;
use serde_json::{Value, json};
use std::time::Duration;

pub(super) struct CacheWarm;

static SPEC: ActionSpec = ActionSpec {
    name: "cache::warm",
    doc: "Reads models' files into a node's memory, through its agent or by a Job, and counts them there afterwards. \
          Refused where a file is not whole, or memory does not suffice.",
    params: &[
        args::required("models", ParamType::Any, "a model's folder on the node, or a list of them, or of #{path}"),
        args::NODE,
    ],
    options: &[
        args::optional("within", ParamType::Duration, "how long it may take (30m)"),
        args::optional(
            "mib_per_second",
            ParamType::Int,
            "upper bound on the reading rate (default: the node's setting)",
        ),
        args::optional(
            "via",
            ParamType::String,
            "`agent`, `job`, or left out: the agent, and a Job where none serves the node and `cache_job` is configured",
        ),
    ],
    returns: "#{changed, resident: 0.0 to 1.0, bytes, read_bytes, seconds, models: [#{path, resident_before, charged_to, …}]}",
    effect: EffectClass::Keyed,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases {
        todo: "warm model weights on {target}{details}",
        done: Some("warmed model weights on {target}{details}"),
    },
    permissions: rights::WARM,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for CacheWarm {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn stop(&self, world: &World, step: &Step) -> Option<PerformResult> {
        Some(settle(stop(world, step).await))
    }

    fn measure(&self, metrics: &Metrics, step: &Step, outcome: &Outcome) {
        let via = if step.carry["route"] == "job" { Via::Job } else { Via::Agent };
        let (ended, value) = match outcome {
            Outcome::Ok(value) => (Ended::Ok, value),
            Outcome::Failed(_) => (Ended::Failed, &Value::Null),
        };
        let seconds = value["seconds"].as_f64().unwrap_or(0.0);
        let read = value["read_bytes"].as_u64().unwrap_or(0);
        metrics.warmed(via, ended, seconds, read, value["resident"].as_f64());
    }

    fn bytes_read(&self, progress: &Value) -> Option<(u64, u64)> {
        let bytes = |name: &str| progress[name].as_u64().unwrap_or(0);
        Some((bytes("bytes"), bytes("done_bytes")))
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        let possible = match choose(world, call, &Value::Null, limits::CACHE_JOB_AFTER) {
            Ok(WarmMethod::Agent) => on_node::reachable(world, call),
            Ok(WarmMethod::Job) => job::settings(world).map(drop),
            Err(early) => Err(early),
        };
        foresee(possible.map(|()| json!({ "changed": true, "resident": 1.0 })))
    }
}

enum WarmMethod {
    Agent,
    Job,
}

/// An agent that is only being restarted is waited for a moment.
fn choose(world: &World, call: &ActionCall, carry: &Value, waited: Duration) -> ActionResult<WarmMethod> {
    let asked = args::choice(call, "via", &["either", "agent", "job"])?;
    if asked == "job" || carry["route"] == "job" {
        return Ok(WarmMethod::Job);
    }
    let may = world.kube(None).is_ok_and(|kube| kube.cache_job().is_some());
    let served = world.agents.is_here(args::text(call, "node")?);
    let job = asked != "agent" && may && !served && waited >= limits::CACHE_JOB_AFTER;
    Ok(if job { WarmMethod::Job } else { WarmMethod::Agent })
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let within = args::span(&step.call, "within", limits::CACHE_WITHIN)?;
    let gone = waited(world, step);
    if matches!(choose(world, &step.call, &step.carry, gone)?, WarmMethod::Job) {
        if step.carry["route"] == "job" {
            return job::perform(world, step, within).await;
        }
        // Written down before a Job is made, so that a step found open after a crash looks for it.
        let why = "it will be done by a Job".to_owned();
        return Ok(PerformResult::Again { after: Duration::ZERO, why, carry: json!({ "route": "job" }) });
    }
    // Warming is a kindness to the next server: the run does not wait for an agent that is not there.
    if gone >= limits::CACHE_AGENT_WAIT
        && let Err(error) = world.agents.standing(args::text(&step.call, "node")?)
    {
        return Ok(PerformResult::Done(failed(FailureKind::Unavailable, error.to_string())));
    }
    on_node::perform(world, step, within).await
}

/// The reader goes on without us, so it is notified.
async fn stop(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let within = args::span(&step.call, "within", limits::CACHE_WITHIN)?;
    if step.carry["route"] == "job" {
        return job::stop(world, step, within).await;
    }
    on_node::stop(world, step, within)
}
