//! `docker::containers`: the containers of this machine that serve models.
//!
//! Invariant: only containers with our label are named.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, rights};
use crate::model::{ActionCall, Outcome, Step};
use crate::world::World;
use serde_json::{Value, json};

pub(super) struct DockerContainers;

static SPEC: ActionSpec = ActionSpec {
    name: "docker::containers",
    doc: "Lists the containers of this machine's Docker engine that have the label `nightshift.dev/model`, by name.",
    params: &[],
    options: &[args::optional("model", ParamType::Model, "only those that serve this model")],
    returns: "a list of #{name, id, image, model, state, health, started_at, labels}",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Nothing,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "list the containers of {target}", done: None },
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for DockerContainers {
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
    let wanted = call.text("model");
    let containers = world.docker()?.containers().await?;
    let shown =
        containers.iter().filter(|container| wanted.is_empty() || container.model() == wanted).map(|container| {
            let mut value = json!(container);
            value["model"] = json!(container.model());
            value
        });
    Ok(shown.collect())
}
