//! `cache::warm`: models' files into a node's memory, so that the next server there starts warm.
//!
//! Invariant: what is in memory is not read again, so the step may be performed any number of times.

use super::answer::{Settled, failed, foresee, settle, waited};
use super::{Action, Performed, args, on_node, rights};
use crate::limits;
use crate::model::{ActionSpec, Call, Effect, FailureKind, Outcome, ParamType, Reach, Span, Step, Subject};
use crate::world::World;
use serde_json::json;

pub(super) struct CacheWarm;

static SPEC: ActionSpec = ActionSpec {
    name: "cache::warm",
    doc: "Reads models' files into a node's memory through its agent, and counts them there afterwards. Refused where a \
          file is not whole, or memory does not suffice.",
    params: &[
        args::required("models", ParamType::Any, "a model's folder on the node, or a list of them, or of #{path}"),
        args::NODE,
    ],
    options: &[
        args::optional("within", ParamType::Duration, "how long it may take (30m)"),
        args::optional("mib_per_second", ParamType::Int, "read no faster (as the node's settings say)"),
    ],
    returns: "#{changed, resident: 0.0 to 1.0, bytes, read_bytes, seconds, models: [#{path, resident_before, charged_to, …}]}",
    effect: Effect::Converge,
    reach: Reach::None,
    disruptive: false,
    permissions: rights::NONE,
    undo: None,
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for CacheWarm {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    fn target(&self, call: &Call) -> Subject {
        args::node_target(call)
    }

    async fn perform(&self, world: &World, step: &Step) -> Performed {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &Call) -> Outcome {
        foresee(on_node::reachable(world, call).map(|()| json!({ "changed": true, "resident": 1.0 })))
    }
}

async fn perform(world: &World, step: &Step) -> Settled<Performed> {
    let within = args::span(&step.call, "within", limits::CACHE_WITHIN)?;
    // Warming is a kindness to the next server: nobody waits for an agent that is not there.
    if waited(world, step) >= limits::CACHE_AGENT_WAIT
        && let Err(error) = world.agents.standing(args::text(&step.call, "node")?)
    {
        return Ok(Performed::Done(failed(FailureKind::Unavailable, error.to_string())));
    }
    on_node::perform(world, step, within).await
}
