//! `mig::rebalance`: another MIG layout on a node, by the route that the node allows.
//!
//! The routes exclude each other: where a mig-manager owns the node, its label is the only way; where none does, the
//! agent changes the layout through NVML; where a DRA driver hands out the GPUs, nothing is repartitioned from here.
//!
//! Invariant: the node is cordoned by us before anything changes, and a failure restores the old layout.

mod direct;
mod operator;

use super::answer::{ActionResult, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, mig_plan, rights};
use crate::model::{ActionCall, CapacityLoss, FailureKind, Outcome, Step, StepFailure, Time};
use crate::world::{CordonState, KubeClient, Node, Pod, World, WorldError, cordon};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) struct MigRebalance;

static SPEC: ActionSpec = ActionSpec {
    name: "mig::rebalance",
    doc: "Changes the MIG layout of a node that Nightshift cordoned. With `config`, through the GPU operator's label (drain its GPU \
          pods first: all slices of a changed GPU restart). With `demand`, through the node's agent, on nodes without a \
          mig-manager: pods in the way are evicted, and only the instances in the way are touched. Where a DRA driver owns \
          the GPUs it is refused. On failure the old layout is restored.",
    params: &[args::NODE],
    options: &[
        args::optional("config", ParamType::String, "a name of the mig-manager's configuration: all-1g.10gb"),
        mig_plan::DEMAND,
        mig_plan::MOST_MOVES,
        mig_plan::WARM_UP,
        args::optional(
            "expect",
            ParamType::Any,
            "resources the node must offer afterwards: #{ \"nvidia.com/mig-1g.10gb\": 7 }",
        ),
        args::optional("within", ParamType::Duration, "how long it may take (20m)"),
        args::optional("layout", ParamType::Any, "layouts to put back, as an undo gives them"),
    ],
    returns: "#{changed, route, before, after, moved}",
    effect: EffectClass::Converge,
    reach: ImpactScope::Node,
    disruptive: true,
    target: TargetKind::Node,
    takes: CapacityKind::Node("taking one away"),
    scheduling: SchedulingEffect::Unchanged,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases {
        todo: "change the MIG layout of {target}{details}",
        done: Some("changed the MIG layout of {target}{details}"),
    },
    permissions: rights::MIG,
    undo: Some("mig::rebalance"),
    deadline: Span::seconds(120),
};

pub(super) const CONFIG: &str = "nvidia.com/mig.config";
pub(super) const STATE: &str = "nvidia.com/mig.config.state";
const PAUSED: &str = "paused-for-mig-change";

/// Where it stands, carried from pass to pass.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct RebalanceProgress {
    /// The label before, read before the first attempt; empty: there was none.
    before: String,
    /// The present phase: see the routes. Empty: nothing yet.
    phase: String,
    /// Since when the layout was requested from the mig-manager.
    since: Option<Time>,
    /// The mig-manager was seen at work since then.
    busy: bool,
    /// Why the old layout is being put back.
    failure: String,
    /// The direct route's frozen plan.
    changes: Vec<direct::GpuLayoutChange>,
    moving: Vec<direct::MovingPod>,
}

/// The runbook's arguments.
struct RebalanceOptions<'a> {
    node: &'a str,
    config: Option<&'a str>,
    within: Span,
    expect: BTreeMap<String, u32>,
}

#[async_trait::async_trait]
impl Action for MigRebalance {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    /// The agent alone does it where there is no cluster.
    fn needs_cluster(&self) -> bool {
        false
    }

    fn takes(&self, call: &ActionCall) -> CapacityLoss {
        // The operator's route evicts no pod, and fails where a pod is left.
        if call.text("config").is_empty() { args::takes_of_node(call, true) } else { CapacityLoss::Nothing }
    }

    /// The label before, so that a patch whose answer was lost is known as ours.
    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        if world.clusters.is_empty() {
            return Ok(json!(RebalanceProgress::default()));
        }
        let node = world.kube(None)?.node(call.text("node")).await?;
        let before = node.labels.get(CONFIG).cloned().unwrap_or_default();
        Ok(json!(RebalanceProgress { before, ..RebalanceProgress::default() }))
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(predict(world, call).await)
    }

    fn undo(&self, step: &Step) -> Option<ActionCall> {
        let Some(Outcome::Ok(value)) = &step.outcome else { return None };
        if value["changed"] != json!(true) {
            return None;
        }
        let node = ("node", json!(step.call.text("node")));
        let within = ("within", step.call.args.get("within").cloned().unwrap_or_default());
        if value["route"] == json!("operator") {
            return Some(ActionCall::new("mig::rebalance", [node, ("config", value["before"].clone()), within]));
        }
        let layout = serde_json::from_value::<Vec<direct::GpuLayoutChange>>(value["diffs"].clone()).ok()?;
        let back: Vec<Value> =
            layout.iter().map(|one| json!({ "gpu": one.gpu, "before": one.after, "after": one.before })).collect();
        Some(ActionCall::new("mig::rebalance", [node, ("layout", json!(back)), within]))
    }
}

fn orders(call: &ActionCall) -> Result<RebalanceOptions<'_>, StepFailure> {
    let config = call.args.get("config").and_then(Value::as_str);
    let given = |name: &str| call.args.get(name).is_some_and(|value| !value.is_null());
    let ways = [config.is_some(), given("demand"), given("layout")].into_iter().filter(|way| *way).count();
    if ways != 1 {
        return Err(args::invalid("mig::rebalance: give one of `config` (GPU operator) and `demand` (the agent)"));
    }
    if let Some(config) = config {
        super::keys::check_label_value(config)?;
    }
    let expect = match call.args.get("expect").filter(|value| !value.is_null()) {
        None => BTreeMap::new(),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| args::invalid("`expect` must be a map such as #{ \"nvidia.com/mig-1g.10gb\": 7 }"))?,
    };
    Ok(RebalanceOptions {
        node: args::text(call, "node")?,
        config,
        within: args::span(call, "within", Span::minutes(20))?,
        expect,
    })
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let orders = orders(&step.call)?;
    let progress: RebalanceProgress = serde_json::from_value(step.carry.clone()).unwrap_or_default();
    if world.clusters.is_empty() {
        return direct::perform(world, None, step, &orders, progress).await;
    }
    let kube = world.kube(None)?;
    let node = kube.node(orders.node).await?;
    if progress.phase.is_empty() {
        refuse(world, kube, &node, &orders).await?;
    }
    match orders.config {
        Some(config) => operator::perform(world, kube, &node, step, &orders, config, progress).await,
        None => direct::perform(world, Some((kube, &node)), step, &orders, progress).await,
    }
}

/// Whatever forbids to begin.
async fn refuse(world: &World, kube: &KubeClient, node: &Node, orders: &RebalanceOptions<'_>) -> ActionResult<()> {
    let name = orders.node;
    let refused = |why: String| Err(StepFailure::new(FailureKind::Refused, why).into());
    let drivers = kube.dra_drivers(name).await?;
    if drivers.contains("gpu.nvidia.com") {
        return refused(format!(
            "the DRA driver gpu.nvidia.com hands out the GPUs of {name}: it partitions them itself for each claim. Taint the \
             device or evict the claim's pod, and it places the claim again"
        ));
    }
    let owned = node.labels.contains_key(CONFIG) || node.labels.contains_key(STATE);
    match (orders.config, owned) {
        (None, true) => {
            return refused(format!(
                "a mig-manager owns {name} (label {CONFIG}): the two would fight. Give `config`, the name of a layout in its \
                 configuration"
            ));
        }
        (Some(_), false) => {
            return refused(format!(
                "{name} has no label {CONFIG}: no mig-manager manages it, so a new value would have no effect"
            ));
        }
        _ => {}
    }
    match cordon(node, &world.identity) {
        CordonState::Ours { .. } => Ok(()),
        CordonState::Open => {
            let why = format!(
                "node {name} is not cordoned: cordon it first, so that no pod is scheduled there during the change"
            );
            Err(StepFailure::new(FailureKind::Conflict, why).into())
        }
        CordonState::Foreign { who } => {
            let why = format!("node {name} was cordoned by {who}; Nightshift does not work there");
            Err(StepFailure::new(FailureKind::Conflict, why).into())
        }
    }
}

async fn predict(world: &World, call: &ActionCall) -> ActionResult<Value> {
    let orders = orders(call)?;
    if let (Some(config), false) = (orders.config, world.clusters.is_empty()) {
        // The cordon is a step before this one, so a plan does not find it yet.
        let node = world.kube(None)?.node(orders.node).await?;
        let before = node.labels.get(CONFIG).cloned().unwrap_or_default();
        return Ok(json!({ "changed": before != config, "route": "operator", "before": before, "after": config }));
    }
    if call.args.get("layout").is_some() {
        return Ok(json!({ "changed": true, "route": "direct" }));
    }
    let plan = mig_plan::plan(world, call).await?;
    let changed = !plan.diffs.iter().all(|diff| diff.before == diff.after);
    Ok(
        json!({ "changed": changed, "route": "direct", "diffs": plan.diffs, "moved": plan.moves, "refused": plan.refused }),
    )
}

/// Pods that hold GPUs or slices and would be cut off.
fn holders(pods: &[Pod]) -> Vec<String> {
    let is_daemon = |pod: &Pod| pod.owner.as_ref().is_some_and(|(kind, _)| kind == "DaemonSet");
    let ended = |pod: &Pod| pod.phase == "Succeeded" || pod.phase == "Failed";
    let held = pods.iter().filter(|pod| pod.gpus > 0 && !is_daemon(pod) && !pod.mirror && !ended(pod));
    held.map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect()
}

/// The profiles of `expect` that the node does not offer yet.
async fn missing(kube: &KubeClient, orders: &RebalanceOptions<'_>) -> Result<Vec<String>, WorldError> {
    if orders.expect.is_empty() {
        return Ok(Vec::new());
    }
    let offered = kube.devices(orders.node).await?;
    let count = |name: &str| offered.get(name).copied().unwrap_or(0);
    let short = orders.expect.iter().filter(|(name, wanted)| count(name) != **wanted);
    Ok(short.map(|(name, wanted)| format!("{name} is {}, not {wanted}", count(name))).collect())
}

/// Clients of the GPU that a mig-manager left paused.
fn paused(node: &Node) -> Vec<&str> {
    let is_paused = |(name, value): &(&String, &String)| name.starts_with("nvidia.com/gpu.deploy.") && *value == PAUSED;
    node.labels.iter().filter(is_paused).map(|(name, _)| name.as_str()).collect()
}
