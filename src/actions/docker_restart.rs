//! `docker::restart`: ends a container of this machine and starts it again.
//!
//! Invariant: the precondition is its last start time; once that has changed it has been restarted, by whatever cause,
//! and is not restarted again.

use super::answer::{ActionResult, done, failed, foresee, poll, settle, waited};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::limits;
use crate::model::{ActionCall, FailureKind, Outcome, Step, StepFailure};
use crate::world::{DockerContainer, World, WorldError};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) struct DockerRestart;

static SPEC: ActionSpec = ActionSpec {
    name: "docker::restart",
    doc: "Restarts one container of this machine's Docker engine that has the label `nightshift.dev/model`. Its \
          processes get SIGTERM, and SIGKILL after `grace`.",
    params: &[args::CONTAINER],
    options: &[args::optional("grace", ParamType::Duration, "time to end before SIGKILL (10s, at most 1m)")],
    returns: "#{changed, id, before, started_at}",
    effect: EffectClass::Witnessed,
    reach: ImpactScope::Pod,
    disruptive: true,
    target: TargetKind::Container,
    takes: CapacityKind::Container("restarting it"),
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases {
        todo: "restart container {target}{details}",
        done: Some("restarted container {target}{details}"),
    },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(90),
};

#[async_trait::async_trait]
impl Action for DockerRestart {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        Ok(witness_of(&world.docker()?.container(call.text("container")).await?))
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(
            async {
                grace(call)?;
                let container = ours(world, args::text(call, "container")?).await?;
                Ok(json!({ "changed": true, "id": container.id, "before": container.started_at }))
            }
            .await,
        )
    }
}

fn witness_of(container: &DockerContainer) -> Value {
    json!({ "id": container.id, "before": container.started_at })
}

fn grace(call: &ActionCall) -> Result<Duration, StepFailure> {
    let grace = args::span(call, "grace", Span::seconds(10))?;
    if grace.0 > limits::CONTAINER_GRACE {
        let most = Span(limits::CONTAINER_GRACE);
        return Err(args::invalid(format!("{}: `grace` is {grace}, but may be {most} at most", call.action)));
    }
    Ok(grace.0)
}

/// The container, if we may touch it.
async fn ours(world: &World, name: &str) -> ActionResult<DockerContainer> {
    let container = world.docker()?.container(name).await?;
    match container.protected() {
        None => Ok(container),
        Some(why) => Err(PerformResult::Done(failed(FailureKind::Refused, why))),
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let name = args::text(&step.call, "container")?;
    let grace = grace(&step.call)?;
    let now = ours(world, name).await?;
    let (Some(id), Some(before)) = (step.carry["id"].as_str(), step.carry["before"].as_str()) else {
        // Without a witness a lost answer could cost a second restart, so take one first and come back with it.
        let why = "when the container was started is noted".to_owned();
        return Ok(PerformResult::Again { after: Duration::ZERO, why, carry: witness_of(&now) });
    };
    let answer = |now: &DockerContainer| {
        let value = json!({ "changed": true, "id": now.id, "before": before, "started_at": now.started_at });
        Ok(done(value))
    };
    if now.id != id || now.started_at != before {
        return answer(&now);
    }
    // An earlier request may still be at work: until the container has ended, its start is the old one.
    let busy = grace + limits::CONTAINER_RESTART_SLACK;
    let gone = waited(world, step);
    if step.attempt > 1 && gone < busy {
        return Ok(poll(gone, format!("an earlier restart of {name} may be under way"), step.carry.clone()));
    }
    match world.docker()?.restart(id, grace).await {
        Ok(()) => answer(&world.docker()?.container(id).await?),
        // Nothing was sent, so nothing is under way.
        Err(error @ WorldError::Unreached(_)) => Err(error.into()),
        Err(error) if error.is_transient() => Ok(PerformResult::Retry { why: error.to_string(), after: Some(busy) }),
        Err(error) => Err(error.into()),
    }
}
