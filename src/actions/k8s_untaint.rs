//! `k8s::untaint`: removes the taints of one key from a node.
//!
//! Invariant: removed taints are in the outcome as they were, and the other taints are sent back exactly as they came.

use super::answer::{ActionResult, done, foresee, settle};
use super::declare::*;
use super::{Action, PerformResult, args, k8s_taint, keys, rights};
use crate::model::{ActionCall, Outcome, Step, StepFailure};
use crate::world::{Node, World, WorldError};
use serde_json::{Value, json};

pub(super) struct K8sUntaint;

pub(super) const NAME: &str = "k8s::untaint";

static SPEC: ActionSpec = ActionSpec {
    name: NAME,
    doc: "Removes the taints of one key from a node, of one effect or of all. Does nothing if there is none.",
    params: &[args::NODE, args::required("key", ParamType::String, "the key, as `domain/name`")],
    options: &[
        args::optional("effect", ParamType::String, "only the taint of this effect"),
        args::optional("if_value", ParamType::String, "only a taint with this value"),
    ],
    returns: "#{changed, before}; before lists the taints that were removed",
    effect: EffectClass::Converge,
    reach: ImpactScope::Node,
    disruptive: false,
    target: TargetKind::Node,
    takes: CapacityKind::Nothing,
    scheduling: SchedulingEffect::Return,
    approval: ApprovalNeed::ByMode,
    phrases: ActionPhrases {
        todo: "remove a taint from {target}{details}",
        done: Some("removed a taint from {target}{details}"),
    },
    permissions: rights::PATCH_NODE,
    undo: Some(k8s_taint::NAME),
    deadline: Span::seconds(45),
};

#[async_trait::async_trait]
impl Action for K8sUntaint {
    fn spec(&self) -> &'static ActionSpec {
        &SPEC
    }

    async fn witness(&self, world: &World, call: &ActionCall) -> Result<Value, WorldError> {
        let node = world.kube(None)?.node(call.text("node")).await?;
        Ok(json!({ "before": split(&node, call).0 }))
    }

    async fn perform(&self, world: &World, step: &Step) -> PerformResult {
        settle(perform(world, step).await)
    }

    async fn predict(&self, world: &World, call: &ActionCall) -> Outcome {
        foresee(
            async {
                check(call)?;
                let node = world.kube(None)?.node(args::text(call, "node")?).await?;
                let (gone, _) = split(&node, call);
                Ok(json!({ "changed": !gone.is_empty(), "before": gone }))
            }
            .await,
        )
    }

    fn undo(&self, step: &Step) -> Option<ActionCall> {
        let before = super::changed_from(step)?;
        let arg = |name: &str| step.call.args.get(name).cloned().unwrap_or_default();
        Some(ActionCall::new(
            k8s_taint::NAME,
            [("node", arg("node")), ("key", arg("key")), ("restore", before.clone())],
        ))
    }
}

async fn perform(world: &World, step: &Step) -> ActionResult<PerformResult> {
    let kube = world.kube(None)?;
    check(&step.call)?;
    let name = args::text(&step.call, "node")?;
    let node = kube.node(name).await?;
    let (gone, stay) = split(&node, &step.call);
    if gone.is_empty() {
        let before = step.carry.get("before").and_then(Value::as_array).cloned().unwrap_or_default();
        return Ok(done(json!({ "changed": !before.is_empty(), "before": before })));
    }
    kube.patch_node(name, json!({ "spec": { "taints": stay } }), Some(&node.resource_version)).await?;
    Ok(done(json!({ "changed": true, "before": gone })))
}

fn check(call: &ActionCall) -> Result<(), StepFailure> {
    keys::check_key(args::text(call, "key")?)?;
    args::choice(call, "effect", &super::k8s_taint::EFFECTS).map(drop)
}

/// The taints that the call means, and the others.
fn split(node: &Node, call: &ActionCall) -> (Vec<Value>, Vec<Value>) {
    let is = |taint: &Value, name: &str, wanted: &str| taint[name].as_str().unwrap_or_default() == wanted;
    let given = |name: &str| call.args.get(name).and_then(Value::as_str);
    node.taints_sent.iter().cloned().partition(|taint| {
        is(taint, "key", call.text("key"))
            && given("effect").is_none_or(|effect| is(taint, "effect", effect))
            && given("if_value").is_none_or(|value| is(taint, "value", value))
    })
}
