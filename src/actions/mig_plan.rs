//! `mig::plan`: the cheapest steps that make room for MIG slices on a node, without taking any.
//!
//! Invariant: reads only; the plan names the objects that it may not touch.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, on_node, rights};
use crate::limits;
use crate::model::{ActionCall, Outcome, Step, StepFailure};
use crate::world::{MigAround, MigInventory, MigPlan, MigWish, World, mig_demand, mig_node, mig_plan, mig_waiting};
use serde_json::{Value, json};

pub(super) struct MigPlanning;

pub(super) const DEMAND: crate::model::ParamSpec = args::optional(
    "demand",
    ParamType::Any,
    "requested instances: #{ \"1g.10gb\": 2 }, or `pending`: those that pods wait for",
);
pub(super) const MOST_MOVES: crate::model::ParamSpec =
    args::optional("most_moves", ParamType::Int, "pods that may be moved (1)");
pub(super) const WARM_UP: crate::model::ParamSpec =
    args::optional("warm_up", ParamType::Duration, "from the start of a pod that moves to its first answer (60s)");

static SPEC: ActionSpec = ActionSpec {
    name: "mig::plan",
    doc: "Plans room for MIG slices on a node: the cheapest ordered steps, each with its conditions before and after. \
          Unhealthy GPUs and pods that may not move are left alone, and a request without room is refused with the reason. A pod that moves costs \
          its time, weighed by its priority, and twice as much if its disruption budget lets no other go.",
    params: &[
        args::NODE,
        args::required(
            "demand",
            ParamType::Any,
            "requested instances: #{ \"1g.10gb\": 2 }, or `pending`: those that pods wait for",
        ),
    ],
    options: &[MOST_MOVES, WARM_UP],
    returns: "#{steps, moves, diffs, cost: #{unserved, moving, changes}, refused, exact}",
    effect: EffectClass::Read,
    reach: ImpactScope::None,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases { todo: "{call}", done: None },
    permissions: rights::PLAN_MIG,
    undo: None,
    deadline: Span::seconds(60),
};

#[async_trait::async_trait]
impl Action for MigPlanning {
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
    Ok(json!(plan(world, call).await?))
}

/// Reads the node and plans. Shared with `mig::rebalance`.
pub(super) async fn plan(world: &World, call: &ActionCall) -> ActionResult<MigPlan> {
    let node = args::text(call, "node")?;
    let mut wish = wish(call)?;
    let asked = ActionCall::new("mig::inventory", [("node", json!(node))]);
    let said = on_node::read(world, &asked).await?;
    let inventory: MigInventory = serde_json::from_value(said)
        .map_err(|error| args::invalid(format!("the agent of {node} sent an invalid answer: {error}")))?;
    // Without a cluster only processes can hold an instance.
    let around = match world.clusters.is_empty() {
        true => None,
        false => {
            let kube = world.kube(None)?;
            if waits(call) {
                let node = mig_node(&kube.node(node).await?, &world.identity);
                wish.demand = mig_waiting(&inventory, &node, &kube.waiting_for_mig().await?);
            }
            Some(MigAround { pods: kube.pods_on(node).await?, budgets: kube.budgets().await? })
        }
    };
    let plan = mig_plan(&inventory, around.as_ref(), &wish);
    Ok(plan.map_err(|error| args::invalid(format!("no plan for {node}: {error}")))?)
}

/// Whether the demand is that of the waiting pods: then as much of it is served as has room.
pub(super) fn waits(call: &ActionCall) -> bool {
    call.args.get("demand").is_some_and(|demand| demand == "pending")
}

fn wish(call: &ActionCall) -> Result<MigWish, StepFailure> {
    let demand = match waits(call) {
        true => Default::default(),
        false => mig_demand(call.args.get("demand").unwrap_or(&Value::Null)).map_err(args::invalid)?,
    };
    let moves = call.args.get("most_moves").filter(|given| !given.is_null());
    let most_moves = match moves {
        None => limits::MIG_MOVES,
        Some(given) => given
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| *count <= limits::MIG_MOVES_MAX)
            .ok_or_else(|| {
                args::invalid(format!("`most_moves` must be a number from 0 to {}", limits::MIG_MOVES_MAX))
            })?,
    };
    Ok(MigWish { demand, most_moves, warm_up: args::span(call, "warm_up", Span::seconds(60))? })
}
